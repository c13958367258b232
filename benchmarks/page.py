"""The page in headless Chromium: milliseconds to the first recommendation, bytes by part, microseconds of each.

    python benchmarks/page.py --bundle beauty=FILE [--bundle ml-1m=FILE] [--loads 25] [--questions 500]

Each load is cold: a new browser profile, the standard library's file server on loopback, nothing cached. A history of
`EVENTS` random items lies in the profile already, so that the first recommendation is the model's; the time is from the
begin of the navigation until the frame that shows the recommendations is painted, as the page marks it. Bytes are
counted by the server, from the first request until the page is kept for use without a network.

Questions are random histories of `LENGTH` events, raw ids in, ten items with titles out, timed one by one in the page.
For these the server says with headers that the page is alone in its process, because browsers then give clocks of 5
microseconds instead of 100.

Writes benchmarks/results/page.json.
"""

import argparse
import json
import sys
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
from playwright.sync_api import Browser, expect

from lsan.files import write_atomically
from lsan.page.site import site_files, write_site
from lsan.runtime import Recommender
from provenance import ROOT, provenance

sys.path.insert(0, str(ROOT / "tests"))

from browsers import FileServer, chromium

OUT = ROOT / "benchmarks" / "results" / "page.json"
EVENTS, LENGTH, WARM = 5, 50, 50
ALONE = {"Cross-Origin-Opener-Policy": "same-origin", "Cross-Origin-Embedder-Policy": "require-corp"}

ASK = """async ([histories, warm]) => {
  const { load } = await import(new URL("lsan.js", location).href);
  const model = await load("model.lsan", { wasm: "lsan.wasm" });
  for (const history of histories.slice(0, warm)) model.recommend(history, { k: 10 });
  return histories.map((history) => {
    const begun = performance.now();
    model.recommend(history, { k: 10 });
    return 1000 * (performance.now() - begun);
  });
}"""


def main() -> None:
    """Measure each bundle, and write the result file."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--bundle", action="append", required=True, metavar="NAME=FILE")
    parser.add_argument("--loads", type=int, default=25)
    parser.add_argument("--questions", type=int, default=500)
    arguments = parser.parse_args()
    result: dict[str, Any] = {"what": __doc__.splitlines()[0] if __doc__ else ""}
    with chromium() as browser:
        result["browser"] = f"{browser.browser_type.name} {browser.version}"
        for text in arguments.bundle:
            name, _, file = text.partition("=")
            result[name] = measure(browser, Path(file).read_bytes(), arguments.loads, arguments.questions)
            print(json.dumps({name: result[name]}), flush=True)
    result["made"] = provenance()
    write_atomically(OUT, (json.dumps(result, indent=1) + "\n").encode())


def measure(browser: Browser, content: bytes, loads: int, questions: int) -> dict[str, Any]:
    """One bundle's page."""
    files = site_files(content)
    ids = list(Recommender(content).vocabulary.ids)
    random = np.random.default_rng(0)
    with tempfile.TemporaryDirectory(prefix="lsan-benchmark-") as folder:
        write_site(Path(folder), files)
        server = FileServer(Path(folder))
        try:
            first = [load(browser, server, random.choice(ids, EVENTS).tolist()) for _ in range(loads)]
            server.headers = ALONE
            page = browser.new_page()
            page.goto(server.url)
            histories = [random.choice(ids, LENGTH).tolist() for _ in range(questions)]
            asked = page.evaluate(ASK, [histories, WARM])
            page.context.close()
        finally:
            server.stop()
    parts = {"model.lsan": len(content), "lsan.wasm": len(files["lsan.wasm"]), "lsan.js": len(files["lsan.js"])}
    parts["the page's own files"] = sum(map(len, files.values())) - sum(parts.values())
    return {
        "items": len(ids),
        "milliseconds to the first recommendation": summary([time for time, _ in first]),
        "bytes by part": parts,
        "bytes sent by the server, worker included": int(np.median([sent for _, sent in first])),
        "microseconds of a recommendation": summary(asked),
    }


def load(browser: Browser, server: FileServer, history: list[Any]) -> tuple[float, int]:
    """Milliseconds of a cold load, and bytes that the server sent."""
    context = browser.new_context()
    server.sent = 0
    context.add_init_script(f"localStorage['lsan history {server.url}'] = {json.dumps(json.dumps(history))}")
    page = context.new_page()
    page.goto(server.url)
    expect(page.locator("#time-hint")).to_contain_text("median of")
    expect(page.locator("#offline")).to_have_text("ready")
    expect(page.get_by_role("heading", name="Recommended next")).to_be_visible()
    milliseconds = page.evaluate("performance.getEntriesByName('recommended')[0].startTime")
    context.close()
    return milliseconds, server.sent


def summary(values: list[float]) -> dict[str, float]:
    """Median, 99th percentile, and how many."""
    return {"median": float(np.median(values)), "p99": float(np.quantile(values, 0.99)), "count": len(values)}


if __name__ == "__main__":
    main()
