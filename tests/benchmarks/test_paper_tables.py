"""The paper's tables beside ours."""

import sys
from pathlib import Path
from typing import Any

import numpy as np

sys.path.insert(0, str(Path(__file__).parents[2] / "benchmarks"))

from lsan.comparison.entries import Entry
from lsan.comparison.outcomes import Costs, Outcome
from lsan.config import BsaRecConfig, ComposedTableConfig
from lsan.presets import load_preset
from paper_tables import CHANGES, TABLE_3, TABLE_4, differences, entry_of, learnt_codes, table_3, table_4


def row(figure: float) -> dict[str, Any]:
    by_name = {"nDCG@20": {"mean": figure, "low": figure - 0.01, "high": figure + 0.01}}
    accuracy = {"unseen items": by_name, "all items": by_name}
    return {"seeds": [0, 1], "costs": {"bytes": 100}, "accuracy": accuracy}


def test_models_differ_from_the_preset_in_what_they_name() -> None:
    preset, recipes = load_preset("paper"), {name: entry_of("beauty", name, 1).recipe for name in CHANGES}
    assert recipes["co-occurrence-2"].model == preset.model
    assert {(recipe.seed, recipe.training.epochs) for recipe in recipes.values()} == {(1, 11)}
    assert len({repr(recipe.model) for recipe in recipes.values()}) == len(CHANGES) - 4  # "shuffled" is other data
    table = recipes["index-5"].model.table
    assert isinstance(table, ComposedTableConfig)
    assert (table.radices, table.digits_of) == ((5,), "index")
    encoder = recipes["bsarec-filter-alone"].model.encoder
    assert isinstance(encoder, BsaRecConfig)
    assert encoder.alpha == 1


def test_what_is_not_there_yet_is_none() -> None:
    rows = {"co-occurrence-2": row(0.05), "index-3": row(0.04), "no-context": row(0.03)}
    first, second, third, *_ = table_3(TABLE_3["beauty"], rows)
    assert first == {
        "rate": 1, "full table": None, "first vectors from co-occurrence": None, "paper's SASRec": 0.0372
    }  # fmt: skip
    ours = {"seeds": 2, "bytes": 100, "unseen items": [0.05, 0.04, 0.06], "all items": [0.05, 0.04, 0.06]}
    assert second == {"rate": 2, "paper": 0.0515, "co-occurrence": ours, "shuffled": None, "index": None}
    assert third["index"]["unseen items"][0] == 0.04
    ablation = {line["model"]: line for line in table_4(TABLE_4["beauty"], rows, {"no-context": [-0.02, -0.03, -0.01]})}
    assert ablation["LSAN"] == {"model": "LSAN", "paper": 0.051, "ours": ours, "less LSAN": None}
    assert ablation["without dynamic composition"]["ours"]["unseen items"][0] == 0.03
    assert ablation["BSARec's encoder, filter alone"] == {
        "model": "BSARec's encoder, filter alone", "paper": None, "ours": None, "less LSAN": None
    }  # fmt: skip
    assert ablation["without dynamic composition"]["less LSAN"] == [-0.02, -0.03, -0.01]


def test_differences_are_of_means_over_seeds_on_the_same_cases() -> None:
    def outcome(model: str, rank: float) -> Outcome:
        entry = Entry(name=model, recipe=load_preset("paper"), baseline=False)
        costs = Costs(parameters=1, bytes=1, training_seconds=1, recommendation_microseconds=1)
        ranks = np.full(40, rank)
        return Outcome(
            entry=entry, costs=costs, figures={}, users=np.arange(40), ranks={"unseen items": ranks, "all items": ranks}
        )

    outcomes = [outcome("whole", 1.0), outcome("part", 3.0), outcome("part", 7.0)]  # nDCG 1, 1/2, 1/3
    assert differences(outcomes, "whole") == {"part": [-0.5833, -0.5833, -0.5833]}
    assert differences(outcomes[1:], "whole") == {}


def test_learnt_codes_beside_the_dense_model() -> None:
    def model(name: str, size: int, figure: float) -> dict[str, Any]:
        accuracy = {"unseen items": {"nDCG@10": {"mean": figure, "low": figure - 0.01, "high": figure + 0.01}}}
        return {"name": name, "seeds": [0, 1], "costs": {"bytes": size}, "accuracy": accuracy}

    before, small = learnt_codes([model("small", 20, 0.045), model("before", 100, 0.05)])
    assert (before["model"], before["times smaller"], before["kept"]) == ("before", 1.0, 1.0)
    assert (small["model"], small["times smaller"], small["kept"]) == ("small", 5.0, 0.9)
    assert small["unseen items"] == [0.045, 0.035, 0.055]
    assert learnt_codes([]) == []
