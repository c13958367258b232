"""The tables of benchmarks/results/, written out for reading: benchmarks/results/README.md.

    python benchmarks/tables.py

Run it after every change of accuracy-*.json, frontier-*.json or paper-tables-*.json; a test compares.
"""

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import msgspec

from lsan.comparison.report import COLUMNS, cases_text, markdown_table, table_rows
from lsan.comparison.rows import Comparison
from lsan.files import write_atomically
from provenance import ROOT

RESULTS = ROOT / "benchmarks" / "results"

INTRODUCTION = """
Made by `python benchmarks/tables.py` from the files beside it, which have all metrics under both policies, and for each
run its recipe, commit, versions and machine. Every item is ranked; of items with equal scores half count as ahead. What
was chosen was chosen on validation. A name without a suffix is a preset, or `recipes/DATASET/NAME.toml` where there is
one.

Accuracy: mean over seeds, [95% bootstrap interval over users]; against the best: difference on the same cases, and the
share of resamples in which the model is the better one. Bytes are those of `model.safetensors`; in tables of accuracy
against bytes, those of the exported file without ids, titles and categories. Seconds to train and microseconds to
recommend (one history to its 10 best items in PyTorch, median) are of one CPU thread, on machines that differ and
mostly beside other work: look at `made` before comparing them.
"""


def main() -> None:
    """Write the page."""
    path = RESULTS / "README.md"
    write_atomically(path, page(RESULTS).encode())
    print(f"written {path.relative_to(ROOT)}")


def page(folder: Path) -> str:
    """All tables of the result files in a folder."""
    lines = ["# Results", "", *INTRODUCTION.strip().splitlines()]
    for kind, (title, section) in SECTIONS.items():
        for path in sorted(folder.glob(f"{kind}-*.json")):
            lines += ["", f"## {title}: {path.stem.removeprefix(f'{kind}-')}", ""]
            lines += section(json.loads(path.read_bytes()))
            picture = path.with_suffix(".png")
            if picture.exists():
                lines += ["", f"![{title}]({picture.name})"]
    return "\n".join(lines) + "\n"


def models(content: dict[str, Any]) -> Iterator[str]:
    """A comparison's rows."""
    rows = [{**row, "figures": []} for row in content["rows"]]
    comparison = msgspec.convert({**content, "rows": rows}, Comparison)
    yield cases_text(comparison)
    yield ""
    yield from markdown_table(COLUMNS, table_rows(comparison))


def paper_tables(content: dict[str, Any]) -> Iterator[str]:
    """The paper's figures and ours."""
    yield "nDCG@20, the user's own items left out (in brackets: ranked too), mean over seeds [95% interval over users]."
    yield "What learnt codes keep at how many times fewer bytes is in the table of accuracy against bytes."
    yield ""
    full, *compressed = content["table 3, nDCG@20"]
    sasrec = full["paper's SASRec"]
    warm = _figure(full["first vectors from co-occurrence"])
    rows = [["1 (paper: SASRec)", f"{sasrec:.4f}", _figure(full["full table"]), "-", "-"]]
    rows.append(["1, first vectors from co-occurrence", "-", warm, "-", "-"])
    for row in compressed:
        ours = [_figure(row[digits_of]) for digits_of in ("co-occurrence", "shuffled", "index")]
        rows.append([str(row["rate"]), f"{row['paper']:.4f}", *ours])
    header = ["rows divided by", "paper", "ours, digits of training co-occurrence", "of a shuffled index"]
    yield from markdown_table([*header, "of the file's index, which leaks"], rows)
    yield ""
    rows = []
    for row in content["table 4, nDCG@20"]:
        paper = "-" if row["paper"] is None else f"{row['paper']:.3f}"
        rows.append([row["model"], paper, _figure(row["ours"]), _difference(row["less LSAN"])])
    yield from markdown_table(["model", "paper", "ours", "less that of LSAN"], rows)


def _difference(difference: list[float] | None) -> str:
    if difference is None:
        return "-"
    mean, low, high = difference
    return f"{mean:+.4f} [{low:+.4f}, {high:+.4f}]"


def _figure(figure: dict[str, Any] | None) -> str:
    if figure is None:
        return "-"
    (mean, low, high), (also, *_) = figure["unseen items"], figure["all items"]
    seeds = f"{figure['seeds']} seed{'' if figure['seeds'] == 1 else 's'}"
    return f"{mean:.4f} [{low:.4f}, {high:.4f}] ({also:.4f}), {seeds}"


#: Title and lines of the files whose names begin so.
SECTIONS: dict[str, tuple[str, Callable[[dict[str, Any]], Iterator[str]]]] = {
    "accuracy": ("Accuracy", models),
    "frontier": ("Accuracy against bytes", models),
    "paper-tables": ("Tables 3 and 4 of the paper", paper_tables),
}


if __name__ == "__main__":
    main()
