"""Outcomes set beside the best: mean over seeds, intervals over users, paired differences."""

from collections.abc import Sequence
from dataclasses import dataclass
from importlib.metadata import version
from typing import Any

import msgspec
import numpy as np
import numpy.typing as npt
import torch

from lsan.comparison.entries import Policy
from lsan.comparison.outcomes import Costs, Outcome
from lsan.config import SplitConfig, recipe_to
from lsan.data.dataset import Dataset
from lsan.evaluation.metrics import accuracy
from lsan.evaluation.significance import bootstrap_interval, paired_bootstrap
from lsan.experiment import Part

FloatArray = npt.NDArray[np.float64]

POLICIES: tuple[Policy, ...] = ("unseen items", "all items")

#: The metric that says which model is the best.
DECIDER = "nDCG@10"


@dataclass(frozen=True, kw_only=True)
class Difference:
    """How much better a model is than the best one, on the same cases."""

    mean: float
    """Mean over cases; below 0 where it is worse."""
    low: float
    """Lower end of its 95% bootstrap interval over users."""
    high: float
    """Upper end."""
    share: float
    """Share of the resamples in which it is the better one; equal counts half."""


@dataclass(frozen=True, kw_only=True)
class SeedFigure:
    """A mean over cases, each of which counts by its mean over seeds."""

    mean: float
    """The mean."""
    low: float
    """Lower end of its 95% bootstrap interval over users."""
    high: float
    """Upper end."""
    deviation: float | None
    """Standard deviation over seeds (n - 1); None with fewer than two."""
    difference: Difference
    """From the best model; 0 for that one itself."""


@dataclass(frozen=True, kw_only=True)
class Row:
    """One model, its seeds taken together."""

    name: str
    """Of the model."""
    seeds: tuple[int, ...]
    """Seeds that it was trained with; none for a baseline."""
    accuracy: dict[Policy, dict[str, SeedFigure]]
    """HR, nDCG and MRR at 5, 10 and 20, by name ("nDCG@10")."""
    costs: Costs
    """Means over seeds."""
    figures: list[dict[str, Any]]
    """The reports of the seeds, with coverage and popularity bias."""
    recipe: dict[str, Any] | None
    """What it was trained by, the seed left out; None for a baseline."""


@dataclass(frozen=True, kw_only=True)
class Comparison:
    """All models that are done."""

    dataset: str
    """Name of the dataset."""
    content_hash: str
    """Of the dataset."""
    part: Part
    """Which held-out events."""
    split: SplitConfig
    """How they were held out."""
    policy: Policy
    """The recipes' policy, which says who is the best."""
    cases: int
    """Held-out events."""
    users: int
    """Users who have one."""
    rows: tuple[Row, ...]
    """The best first."""

    def to_json(self) -> dict[str, Any]:
        """All of it, and the versions that made it."""
        content: dict[str, Any] = msgspec.to_builtins(self)
        return {"lsan": version("lsan"), "torch": torch.__version__, **content}


def compare(outcomes: Sequence[Outcome], dataset: Dataset, part: Part) -> Comparison:
    """Set outcomes beside each other; at least one, all on the same cases."""
    users, entry = outcomes[0].users, outcomes[0].entry
    models: dict[str, list[Outcome]] = {}
    for outcome in outcomes:
        if not np.array_equal(outcome.users, users):
            raise ValueError(f"{outcome.entry.label} was evaluated on other cases than {entry.label}")
        models.setdefault(outcome.entry.name, []).append(outcome)

    def figure(outcome: Outcome) -> float:
        return float(accuracy(outcome.ranks[entry.policy])[DECIDER].mean())

    order = sorted(models, key=lambda name: -np.mean([figure(run) for run in models[name]]))
    best = np.mean([_by_case(run) for run in models[order[0]]], axis=0)
    return Comparison(
        dataset=dataset.path.resolve().name,
        content_hash=dataset.content_hash,
        part=part,
        split=entry.recipe.split,
        policy=entry.policy,
        cases=len(users),
        users=len(np.unique(users)),
        rows=tuple(_row(name, models[name], best, users) for name in order),
    )


def _by_case(outcome: Outcome) -> FloatArray:
    """Every metric under both policies. Shape [cases, policies x metrics]."""
    columns = [column for policy in POLICIES for column in accuracy(outcome.ranks[policy]).values()]
    return np.stack(columns, axis=1)


def _row(name: str, runs: list[Outcome], best: FloatArray, users: npt.NDArray[np.int64]) -> Row:
    by_case = [_by_case(run) for run in runs]
    values = np.mean(by_case, axis=0)
    seed_means = np.stack([case.mean(axis=0) for case in by_case])
    low, high = bootstrap_interval(values, users)
    difference = paired_bootstrap(values, best, users)

    def seed_figure(column: int) -> SeedFigure:
        return SeedFigure(
            mean=float(values[:, column].mean()),
            low=float(low[column]),
            high=float(high[column]),
            deviation=float(seed_means[:, column].std(ddof=1)) if len(runs) > 1 else None,
            difference=Difference(
                mean=float(difference.mean[column]),
                low=float(difference.low[column]),
                high=float(difference.high[column]),
                share=float(difference.share[column]),
            ),
        )

    names = list(accuracy(np.ones(1)))
    entry, costs = runs[0].entry, [run.costs for run in runs]
    recipe = recipe_to(entry.recipe)
    del recipe["seed"]
    return Row(
        name=name,
        seeds=() if entry.baseline else tuple(run.entry.recipe.seed for run in runs),
        accuracy={
            policy: {metric: seed_figure(p * len(names) + m) for m, metric in enumerate(names)}
            for p, policy in enumerate(POLICIES)
        },
        costs=Costs(
            parameters=costs[0].parameters,
            bytes=costs[0].bytes,
            training_seconds=float(np.mean([cost.training_seconds for cost in costs])),
            recommendation_microseconds=float(np.mean([cost.recommendation_microseconds for cost in costs])),
        ),
        figures=[run.figures for run in runs],
        recipe=None if entry.baseline else recipe,
    )
