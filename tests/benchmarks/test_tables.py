"""The page of results says what the files say."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[2] / "benchmarks"))

from paper_tables import TABLE_3, TABLE_4, table_3, table_4
from tables import RESULTS, page, paper_tables

FIGURE = {"mean": 0.05, "low": 0.04, "high": 0.06}
ROW = {
    "seeds": [0, 1],
    "costs": {"bytes": 100},
    "accuracy": {"unseen items": {"nDCG@20": FIGURE}, "all items": {"nDCG@20": {**FIGURE, "mean": 0.045}}},
}


def test_the_page_is_of_the_files_beside_it() -> None:
    there = (RESULTS / "README.md").read_text(encoding="utf-8")
    assert there == page(RESULTS), "run `python benchmarks/tables.py`"
    assert "| bsarec | 0.1054 [0.1016, 0.1091] |" in there


def test_a_folder_without_results_has_no_tables(tmp_path: Path) -> None:
    assert "##" not in page(tmp_path)


def test_the_papers_figures_stand_beside_ours() -> None:
    rows = {"co-occurrence-2": ROW, "index-5": ROW}
    content = {
        "table 3, nDCG@20": table_3(TABLE_3["beauty"], rows),
        "table 4, nDCG@20": table_4(TABLE_4["beauty"], rows, {"no-context": [-0.002, -0.003, -0.001]}),
    }
    lines = list(paper_tables(content))
    ours = "0.0500 [0.0400, 0.0600] (0.0450), 2 seeds"
    assert "| 1 (paper: SASRec) | 0.0372 | - | - | - |" in lines
    assert f"| 2 | 0.0515 | {ours} | - | - |" in lines
    assert f"| 5 | 0.0178 | - | - | {ours} |" in lines
    assert f"| LSAN | 0.051 | {ours} | - |" in lines
    assert "| without dynamic composition | 0.038 | - | -0.0020 [-0.0030, -0.0010] |" in lines
    assert "| BSARec's encoder instead | - | - | - |" in lines
