"""The page in a real browser: what people do with it, without a network, on a phone, by keyboard alone."""

import dataclasses
import os
import re
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Literal

import numpy as np
import pytest
import torch
from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import Browser, BrowserContext, ConsoleMessage, Page, expect

from browsers import FileServer, chromium
from lsan.export.bundle import make_bundle
from lsan.page.site import site_files, write_site
from lsan.runs import load_run
from lsan.runtime import Recommender
from needs import need_command

PICTURES = Path(__file__).resolve().parents[2] / "build" / "screenshots"

#: Where the page is on its server: deep in it, with another page beside it.
PLACE, BESIDE = "shops/one/", "shops/two/"

HOSTILE = {
    1: '<img src="x" onerror="window.hacked = 1">',
    2: "</script><script>window.hacked = 2</script>",
    3: "\u202eright to left, overridden",
    4: "עברית عربي: ימין לשמאל",
    5: "endless" * 300,
    6: "two\nlines\tand a tab, {{curly}} $title ${title} %s",
    7: " \u0000 \ufeff ",
    8: "👩‍👩‍👧 emoji, Z͑ͫ̓ͪ̂ͫ̽͏̴̙̤̞͉͚̯̞̠͍A̴̵̜̰͔ͫ͗͢L̠ͨͧͩ͘G̴̻͈͍͔̹̑͗̎̅͛́Ǫ̵̹̻̝̳͂̌̌͘!",
}

#: When all of this happens: the page asks for what is recommended now.
NOW = 1_763_737_200.0

#: Calls of lsan.js as the page's own module has it.
ASK = """async ([histories, k]) => {
  const { load } = await import(new URL("lsan.js", location).href);
  const model = await load("model.lsan", { wasm: "lsan.wasm" });
  return histories.map((history) => model.recommend(history, { k }).items.map(({ id, score }) => [id, score]));
}"""


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    need_command("chromium", "chromium")
    with chromium() as found:
        yield found


@pytest.fixture(scope="module")
def bundle_of(small_run: Path) -> Callable[..., bytes]:
    """The small shop's bundle, with other titles for some items (by index), and with some items taken out."""

    def make(titles: dict[int, str], *, without: Sequence[int] = ()) -> bytes:
        run = load_run(small_run, device=torch.device("cpu"))
        changed = [titles.get(index, title) for index, title in enumerate(run.catalogue.titles, start=1)]
        run.network.offered[[index - 1 for index in without]] = False
        catalogue = dataclasses.replace(run.catalogue, titles=changed)
        return make_bundle(dataclasses.replace(run, catalogue=catalogue)).content

    return make


@pytest.fixture(scope="module")
def content(bundle_of: Callable[..., bytes]) -> bytes:
    return bundle_of({1: "Café crème brûlée", 2: "Smörgåsbord"})


@pytest.fixture(scope="module")
def shop(content: bytes) -> Recommender:
    return Recommender(content)


@pytest.fixture
def folder(content: bytes, tmp_path: Path) -> Path:
    """What the server has; the page is in `PLACE`."""
    write_site(tmp_path / PLACE, site_files(content))
    return tmp_path


@pytest.fixture
def server(folder: Path) -> Iterator[FileServer]:
    server = FileServer(folder)
    yield server
    server.stop()


@pytest.fixture
def context(browser: Browser, server: FileServer) -> Iterator[BrowserContext]:
    """A fresh profile. Fails the test where a page had an error, a violation of its policy, or asked elsewhere."""
    context = browser.new_context(reduced_motion="reduce", viewport={"width": 1280, "height": 900})
    context.add_init_script(f"Date.now = () => {1000 * NOW}")
    wrong: list[str] = []
    asked: list[str] = []
    context.on("console", lambda message: wrong.append(message.text) if complains(message) else None)
    context.on("weberror", lambda error: wrong.append(str(error.error)))
    context.on("request", lambda request: asked.append(request.url))
    yield context
    context.close()
    assert not wrong
    assert asked
    assert all(address.startswith(server.url) for address in asked), asked


def complains(message: ConsoleMessage) -> bool:
    return message.type in ("error", "warning")


@pytest.fixture
def page(context: BrowserContext, server: FileServer) -> Page:
    return opened(context.new_page(), server.url + PLACE)


def opened(page: Page, address: str) -> Page:
    page.goto(address)
    expect(page.locator("#next li:visible")).to_have_count(10)
    return page


def kept(page: Page) -> None:
    """Wait until the page can do without a network."""
    expect(page.locator("#offline")).to_have_text("ready")


def explained(page: Page) -> None:
    """Wait until it says why."""
    expect(page.locator("#next")).to_have_attribute("aria-busy", "false")


def titles(page: Page, which: str) -> list[str]:
    return page.locator(f"#{which} li:visible .title").all_inner_texts()


def choose(page: Page, query: str) -> str:
    """Search and click what is found first."""
    page.get_by_role("combobox").fill(query)
    first = page.get_by_role("option").first
    title = first.locator(".title").inner_text()
    first.click()
    return title


def replace(place: Path, files: dict[str, bytes]) -> None:
    """Another version. Its files are a while younger, since the server compares times of whole seconds."""
    write_site(place, files)
    for name in files:
        later = (place / name).stat().st_mtime + 10
        os.utime(place / name, (later, later))


def until(page: Page, done: Callable[[], bool]) -> None:
    """Wait for what no element shows."""
    for _ in range(500):
        if done():
            return
        page.wait_for_timeout(10)
    raise AssertionError("it did not happen within 5 seconds")


def picture(page: Page, name: str) -> None:
    """A screenshot to look at, which git ignores."""
    PICTURES.mkdir(parents=True, exist_ok=True)
    page.screenshot(path=PICTURES / f"{name}.png", full_page=True)


def title_at(shop: Recommender, index: int) -> str:
    return shop.vocabulary.title_of(index)


def test_search_build_and_recommend_by_mouse(page: Page, shop: Recommender) -> None:
    expect(page.get_by_role("heading", name="Popular")).to_be_visible()
    assert titles(page, "next") == [item.title for item in shop.recommend([], 10)]
    assert page.locator("#history li").count() == 0

    assert choose(page, "CREME bru") == "Café crème brûlée"
    expect(page.get_by_role("heading", name="Recommended next")).to_be_visible()
    assert choose(page, "smorg") == "Smörgåsbord"
    assert titles(page, "history") == ["Café crème brûlée", "Smörgåsbord"]
    ids = ids_of(shop, titles(page, "history"))
    expected = shop.recommend(ids, 10, at=NOW)
    assert titles(page, "next") == [item.title for item in expected]
    figures = [float(text) for text in page.locator("#next .number").all_inner_texts()]
    assert np.allclose(figures, [item.score for item in expected], atol=0.006)
    widths = page.locator("#next .bar").evaluate_all("bars => bars.map(b => b.offsetWidth / b.parentNode.offsetWidth)")
    assert np.allclose(widths, np.exp(np.array(figures) - figures[0]), atol=0.02)

    clicked = titles(page, "next")[3]
    page.locator("#next button").nth(3).click()
    assert titles(page, "history")[-1] == clicked
    assert clicked not in titles(page, "next")
    expect(page.get_by_role("status")).to_have_text(f"Added {clicked}")

    page.get_by_role("button", name="Remove Smörgåsbord").click()
    assert titles(page, "history") == ["Café crème brûlée", clicked]
    page.get_by_role("button", name="Clear").click()
    assert titles(page, "history") == []
    expect(page.get_by_role("heading", name="Popular")).to_be_visible()
    page.get_by_role("button", name="Surprise me").click()
    expect(page.locator("#history li")).to_have_count(3)
    expect(page.get_by_role("heading", name="Recommended next")).to_be_visible()


def ids_of(shop: Recommender, wanted: Sequence[str]) -> list[int | str]:
    every = {title_at(shop, index): shop.vocabulary.ids[index - 1] for index in range(1, len(shop.vocabulary) + 1)}
    return [every[title] for title in wanted]


def test_because_of_names_what_explain_names(page: Page, shop: Recommender) -> None:
    for query in ("creme", "smorg", title_at(shop, 9)):
        choose(page, query)
    explained(page)
    reasons = page.locator("#next .because")
    history, shown = ids_of(shop, titles(page, "history")), ids_of(shop, titles(page, "next"))
    for item, reason in zip(shown, reasons.all_inner_texts(), strict=True):
        gains = {one.title: one.contribution for one in shop.explain(history, item, at=NOW)}
        best = max(gains, key=lambda title: gains[title])
        assert reason.startswith(f"because of {best}") if gains[best] > 0 else reason == "", (reason, gains)


def test_reorder_keeps_the_focus_and_matters(page: Page) -> None:
    names = [choose(page, query) for query in ("creme", "smorg")]
    picked = titles(page, "next")[0]
    page.locator("#next button").first.click()
    before = page.locator("#next .number").all_inner_texts()
    page.get_by_role("button", name=f"Move {picked} up").click()
    assert titles(page, "history") == [names[0], picked, names[1]]
    expect(page.get_by_role("button", name=f"Move {picked} up")).to_be_focused()
    assert page.locator("#next .number").all_inner_texts() != before
    page.keyboard.press("Enter")
    assert titles(page, "history") == [picked, *names]
    expect(page.get_by_role("button", name=f"Move {picked} up")).to_be_disabled()
    expect(page.get_by_role("button", name=f"Move {picked} down")).to_be_focused()
    expect(page.get_by_role("status")).to_have_text(f"{picked} is now number 1 of 3")


def test_keyboard_alone(page: Page) -> None:
    press = page.keyboard.press
    press("Tab")
    field = page.get_by_role("combobox")
    expect(field).to_be_focused()
    assert field.get_attribute("aria-expanded") == "false"
    press("ArrowDown")  # without a query: the most popular
    options = page.get_by_role("option")
    expect(options).to_have_count(8)
    assert field.get_attribute("aria-expanded") == "true"
    first, second = options.nth(0), options.nth(1)
    chosen = second.locator(".title").inner_text()
    assert field.get_attribute("aria-activedescendant") == first.get_attribute("id")
    press("ArrowUp")  # around
    assert field.get_attribute("aria-activedescendant") == options.last.get_attribute("id")
    press("ArrowDown")
    press("ArrowDown")
    assert [option.get_attribute("aria-selected") for option in options.all()[:3]] == ["false", "true", "false"]
    press("Enter")
    assert titles(page, "history") == [chosen]
    expect(field).to_be_focused()
    expect(field).to_have_value("")
    expect(page.get_by_role("listbox")).to_be_hidden()

    page.keyboard.type("creme")
    expect(options).to_have_count(1)
    press("Escape")
    expect(page.get_by_role("listbox")).to_be_hidden()
    expect(field).to_have_value("creme")
    press("Escape")
    expect(field).to_have_value("")
    page.keyboard.type("no such thing")
    expect(page.get_by_text("Nothing found for “no such thing”").first).to_be_visible()
    press("Enter")
    assert titles(page, "history") == [chosen]
    press("Escape")
    page.keyboard.type("smorg")
    press("Enter")
    assert titles(page, "history") == [chosen, "Smörgåsbord"]

    press("Tab")  # the tools of the first item, of which "up" is disabled
    expect(page.get_by_role("button", name=f"Move {chosen} down")).to_be_focused()
    press("Alt+ArrowDown")
    assert titles(page, "history") == ["Smörgåsbord", chosen]
    press("Alt+ArrowUp")
    assert titles(page, "history") == [chosen, "Smörgåsbord"]
    press("Delete")
    assert titles(page, "history") == ["Smörgåsbord"]
    expect(page.get_by_role("button", name="Remove Smörgåsbord")).to_be_focused()
    press("Tab")
    expect(page.get_by_role("button", name="Clear")).to_be_focused()
    press("Tab")
    added = titles(page, "next")[0]
    expect(page.get_by_role("button", name=f"Add {added}")).to_be_focused()
    outline = "getComputedStyle(document.activeElement, '::after').outlineStyle"
    assert page.evaluate(outline) == "solid"
    press("Enter")
    assert titles(page, "history") == ["Smörgåsbord", added]
    for _ in range(2):
        page.get_by_role("button", name="Remove").first.focus()
        press("Enter")
    expect(page.get_by_role("button", name="Surprise me")).to_be_focused()


def test_what_it_cost(page: Page, server: FileServer, content: bytes, folder: Path) -> None:
    kept(page)
    assert server.sent <= len(content) + 100_000  # all that the first visit loads, the worker's included
    expect(page.locator("#time")).to_have_text(re.compile(r"^\d+\sµs$"))
    choose(page, "creme")
    expect(page.locator("#time-hint")).to_contain_text("median of")
    (all_of_it,) = figures(page, "bytes")
    model, rest = figures(page, "bytes-hint")
    whole = sum(file.stat().st_size for file in (folder / PLACE).iterdir() if file.name != "sw.js")
    assert -1 <= all_of_it - whole / 1000 < 5  # headers count too
    assert abs(model - len(content) / 1000) <= 1
    assert abs(model + rest - all_of_it) <= 1
    page.reload()
    expect(page.locator("#bytes")).to_have_text(re.compile(r"^0\skB$"))
    expect(page.locator("#bytes-hint")).to_contain_text("were here already")


def figures(page: Page, where: str) -> list[int]:
    return [int(number) for number in re.findall(r"\d+", page.locator(f"#{where}").inner_text())]


def test_without_a_network(page: Page, context: BrowserContext, server: FileServer) -> None:
    kept(page)
    choose(page, "creme")
    shown = titles(page, "next")
    server.stop()
    context.set_offline(True)
    page.reload()
    expect(page.locator("#next li:visible")).to_have_count(10)
    assert titles(page, "history") == ["Café crème brûlée"]
    assert titles(page, "next") == shown
    choose(page, "smorg")
    assert titles(page, "history")[-1] == "Smörgåsbord"
    kept(page)
    again = opened(context.new_page(), server.url + PLACE + "index.html?from=home#there")
    assert titles(again, "history") == ["Café crème brûlée", "Smörgåsbord"]


def test_a_new_version_takes_over_at_the_next_load(
    page: Page, folder: Path, bundle_of: Callable[..., bytes], context: BrowserContext
) -> None:
    kept(page)
    for query in ("creme", "smorg"):
        choose(page, query)
    caches = page.evaluate("caches.keys()")
    assert len(caches) == 1
    replace(folder / PLACE, site_files(bundle_of({1: "Crème caramel"}, without=[2]), title="The second"))
    page.reload()  # finds the new version, and still is the old one, all of it
    assert page.title() == "What comes next"
    assert titles(page, "history") == ["Café crème brûlée", "Smörgåsbord"]
    expect(page.get_by_text("A newer version is here")).to_be_visible()
    page.get_by_role("button", name="Show it").click()
    expect(page.get_by_role("heading", level=1)).to_have_text("The second")
    expect(page.locator("#history li")).to_have_count(1)  # the model knows the other item no more
    assert titles(page, "history") == ["Crème caramel"]
    expect(page.get_by_text("A newer version is here")).to_be_hidden()
    (left,) = page.evaluate("caches.keys()")
    assert left not in caches


def test_a_half_copied_version_does_not_replace_a_whole_one(page: Page, folder: Path, server: FileServer) -> None:
    kept(page)
    files = site_files((folder / PLACE / "model.lsan").read_bytes(), title="The second")
    replace(folder / PLACE, {"sw.js": files["sw.js"]})  # and none of the others
    workers = "navigator.serviceWorker.getRegistration().then(r => [r.installing, r.waiting].filter(Boolean).length)"
    for _ in range(2):
        server.paths.clear()
        page.reload()
        assert page.title() == "What comes next"
        until(page, lambda: f"/{PLACE}style.css" in server.paths and page.evaluate(workers) == 0)
    replace(folder / PLACE, files)
    page.reload()
    expect(page.get_by_text("A newer version is here")).to_be_visible()
    page.reload()
    assert page.title() == "The second"


def test_pages_of_one_origin_leave_each_other_alone(
    page: Page, folder: Path, content: bytes, context: BrowserContext, server: FileServer
) -> None:
    kept(page)
    choose(page, "creme")
    write_site(folder / BESIDE, site_files(content, title="Beside"))
    beside = opened(context.new_page(), server.url + BESIDE)
    kept(beside)
    assert titles(beside, "history") == []
    assert len(page.evaluate("caches.keys()")) == 2
    server.stop()
    page.reload()
    assert titles(page, "history") == ["Café crème brûlée"]


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_nothing_is_wrong_for_axe(page: Page, scheme: Literal["light", "dark"]) -> None:
    page.emulate_media(color_scheme=scheme)
    ground = page.evaluate("getComputedStyle(document.documentElement).backgroundColor")
    assert ground == {"light": "rgb(245, 246, 244)", "dark": "rgb(16, 20, 19)"}[scheme]

    def check(state: str) -> None:
        picture(page, f"{state}-{scheme}")
        found = Axe().run(page).response
        assert [(rule["id"], rule["nodes"][0]["html"]) for rule in found["violations"]] == [], state

    if scheme == "light":
        check("empty")
    for query in ("creme", "smorg"):
        choose(page, query)
    explained(page)
    page.get_by_role("combobox").press("ArrowDown")
    check("searching")
    page.keyboard.press("Escape")
    page.set_viewport_size({"width": 360, "height": 740})
    check("phone")


def test_on_a_phone_nothing_is_wider_than_the_screen(browser: Browser, server: FileServer, shop: Recommender) -> None:
    context = browser.new_context(viewport={"width": 360, "height": 740}, has_touch=True, is_mobile=True)
    page = opened(context.new_page(), server.url + PLACE)

    def fits() -> bool:
        return bool(page.evaluate("document.documentElement.scrollWidth <= 360 && innerWidth === 360"))

    assert fits()
    page.get_by_role("combobox").tap()
    page.get_by_role("combobox").fill("s")
    expect(page.get_by_role("option").first).to_be_visible()
    assert fits()
    page.get_by_role("option").first.tap()
    page.locator("#next button").nth(2).tap()
    expect(page.locator("#history li")).to_have_count(2)
    assert fits()
    box = page.get_by_role("button", name="Remove").first.bounding_box()
    assert box is not None
    assert min(box["width"], box["height"]) >= 24  # WCAG 2.2, target size
    picture(page, "phone-touched")
    context.close()


def test_hostile_titles_are_only_text(
    page: Page, folder: Path, bundle_of: Callable[..., bytes], context: BrowserContext, server: FileServer
) -> None:
    hostile = bundle_of(HOSTILE)
    shop = Recommender(hostile)
    write_site(folder / BESIDE, site_files(hostile, title='<i onclick="x">Title</i> & "quotes"'))
    page.add_init_script(
        f"localStorage['lsan history {server.url}{BESIDE}'] = JSON.stringify({list(shop.vocabulary.ids)})"
    )
    page.set_viewport_size({"width": 360, "height": 740})
    page.goto(server.url + BESIDE)
    expect(page.locator("#history li")).to_have_count(60)
    shown = page.locator("#history .title").all_text_contents()
    for index in range(1, 61):
        assert title_at(shop, index) in shown
    for index in (1, 2, 5):
        page.get_by_role("combobox").fill(title_at(shop, index)[:50])
        expect(page.get_by_role("option").first).to_be_visible()
    expect(page.get_by_role("heading", level=1)).to_have_text('<i onclick="x">Title</i> & "quotes"')
    assert page.evaluate("window.hacked") is None
    assert page.evaluate("document.documentElement.scrollWidth") == 360
    picture(page, "hostile")


@pytest.mark.parametrize("damage", ["cut", "empty", "other", "wasm", "gone"])
def test_a_damaged_site_says_so(browser: Browser, server: FileServer, folder: Path, damage: str) -> None:
    place = folder / PLACE
    model = place / "model.lsan"
    if damage == "gone":
        model.unlink()
    elif damage == "wasm":
        (place / "lsan.wasm").write_bytes(b"no program")
    else:
        model.write_bytes({"cut": model.read_bytes()[:9000], "empty": b"", "other": b"<!doctype html>" * 99}[damage])
    context = browser.new_context()
    page = context.new_page()
    page.goto(server.url + PLACE)
    alert = page.get_by_role("alert")
    expect(alert).to_contain_text("The model cannot be used")
    expect(alert).to_contain_text("make them again with lsan page")
    expect(page.locator("#columns")).to_be_hidden()
    expect(page.locator("#offline")).to_have_text("no")  # what is damaged is not kept
    picture(page, f"damaged-{damage}")
    context.close()


def test_without_scripts_a_server_or_a_module_the_page_says_what_to_do(
    browser: Browser, server: FileServer, folder: Path
) -> None:
    context = browser.new_context()
    from_file = context.new_page()
    from_file.goto((folder / PLACE / "index.html").as_uri())
    bare = browser.new_context(java_script_enabled=False)
    without = bare.new_page()
    without.goto(server.url + PLACE)
    (folder / PLACE / "lsan.js").unlink()
    without_module = context.new_page()
    without_module.goto(server.url + PLACE)
    for page in (from_file, without, without_module):
        notice = page.get_by_text("This page has not started")
        notice.wait_for(state="visible")
        assert "python3 -m http.server" in page.inner_text("#notice")
    picture(from_file, "from-a-file")
    context.close()
    bare.close()


def test_the_policy_stops_what_it_should(browser: Browser, server: FileServer) -> None:
    """The other tests would see a violation: here are some."""
    context = browser.new_context()
    page = context.new_page()
    page.add_init_script(
        "window.stopped = []; addEventListener('securitypolicyviolation', e => stopped.push(e.effectiveDirective))"
    )
    opened(page, server.url + PLACE)
    assert page.evaluate("stopped") == []
    page.evaluate(
        """() => {
        const add = (tag, changes) => document.body.append(Object.assign(document.createElement(tag), changes));
        add("script", { textContent: "window.ran = true" });
        add("img", { src: "http://127.0.0.1:9/pixel" });
        add("div", {}); document.body.lastChild.setAttribute("style", "color: red");
        fetch("http://127.0.0.1:9/history").catch(() => {});
        navigator.sendBeacon("http://127.0.0.1:9/beacon", "x");
        }"""
    )
    page.wait_for_timeout(200)
    assert sorted(page.evaluate("stopped")) == [
        "connect-src", "connect-src", "img-src", "script-src-elem", "style-src-attr"
    ]  # fmt: skip
    assert page.evaluate("window.ran") is None
    context.close()


def test_scores_are_pythons_on_200_histories(page: Page, shop: Recommender) -> None:
    random = np.random.default_rng(0)
    ids = list(shop.vocabulary.ids)
    histories = [random.choice(ids, size=int(random.integers(0, 30))).tolist() for _ in range(200)]
    answers = page.evaluate(ASK, [histories, 10])
    assert len({len(history) for history in histories}) > 20
    for history, answer in zip(histories, answers, strict=True):
        expected = shop.recommend(history, 10)
        assert [item for item, _ in answer] == [item.id for item in expected]
        assert np.allclose([score for _, score in answer], [item.score for item in expected], rtol=1e-5, atol=1e-5)
