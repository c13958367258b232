"""Takes page-light.png, page-dark.png and page-phone.png, of the page of the simulated shop. After `lsan demo`, run:
python docs/pictures/page_pictures.py demo/page"""

import io
import sys
from pathlib import Path

from PIL import Image
from playwright.sync_api import Browser, Page, expect

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "tests"))

from browsers import FileServer, chromium

#: Searched one after the other; the first item found is added to the history.
QUERIES = ("table runner", "candle", "cotton yarn")
#: Width, height, whether dark, and what is being typed.
PICTURES = {"light": (1280, 900, False, ""), "dark": (1280, 900, True, "garden"), "phone": (360, 760, False, "")}


def main() -> None:
    """Take all pictures."""
    server = FileServer(Path(sys.argv[1]))
    try:
        with chromium() as browser:
            for name, (width, height, dark, typed) in PICTURES.items():
                content = picture(browser, server.url, width, height, dark=dark, typed=typed)
                image = Image.open(io.BytesIO(content)).convert("RGB").quantize(128)
                image.save(Path(__file__).with_name(f"page-{name}.png"), optimize=True)
    finally:
        server.stop()


def picture(browser: Browser, address: str, width: int, height: int, *, dark: bool, typed: str) -> bytes:
    """A PNG of the page with a history."""
    page = browser.new_page(
        viewport={"width": width, "height": height},
        color_scheme="dark" if dark else "light",
        reduced_motion="reduce",
    )
    page.goto(address)
    field = page.get_by_role("combobox")
    for query in QUERIES:
        field.fill(query)
        field.press("Enter")
    field.fill(typed)
    settle(page)
    content = page.screenshot(full_page=True)
    page.context.close()
    return content


def settle(page: Page) -> None:
    """Wait for all that comes after the recommendations."""
    page.mouse.move(0, 0)
    expect(page.locator("#time-hint")).to_contain_text("median of")
    expect(page.locator("#offline")).to_have_text("ready")
    expect(page.locator("#next")).to_have_attribute("aria-busy", "false")


if __name__ == "__main__":
    main()
