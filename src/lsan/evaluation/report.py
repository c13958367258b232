"""The figures of one evaluation, with bootstrap intervals, under both policies for items already seen."""

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from lsan.evaluation.metrics import CUT_OFFS, accuracy
from lsan.evaluation.ranking import Ranking, Rankings
from lsan.evaluation.significance import bootstrap_interval

IntArray = npt.NDArray[np.int64]
FloatArray = npt.NDArray[np.float64]


@dataclass(frozen=True, kw_only=True)
class Figure:
    """A mean over cases."""

    mean: float
    """The mean."""
    low: float
    """Lower end of its 95% bootstrap interval over users."""
    high: float
    """Upper end."""


@dataclass(frozen=True, kw_only=True)
class PolicyReport:
    """One policy for items that the user had already seen."""

    accuracy: dict[str, Figure]
    """HR, nDCG, MRR at 5, 10 and 20, by name ("nDCG@10")."""
    coverage: dict[int, float]
    """Share of the catalogue that is in at least one user's first k, by k."""
    popularity_bias: dict[int, float]
    """Mean training events of the items in the first k, over that of the held-out items; 1 means as popular as what
    users chose, more means a pull to the popular. NaN (null in JSON) when nothing is listed, or no held-out item was
    trained on. By k."""
    ranks: FloatArray
    """Rank of each case's answer. Shape [cases]."""


@dataclass(frozen=True, kw_only=True)
class Report:
    """Both policies over the same cases."""

    users: IntArray
    """User of each case. Shape [cases]."""
    answers: IntArray
    """Held-out item of each case. Shape [cases]."""
    all_items: PolicyReport
    """Every item ranked."""
    unseen_items: PolicyReport
    """Items of the user's own history left out."""

    def to_json(self) -> dict[str, Any]:
        """Figures only, without the ranks."""
        return {
            "cases": len(self.answers),
            **{
                name: {
                    **{metric: [figure.mean, figure.low, figure.high] for metric, figure in policy.accuracy.items()},
                    **{f"coverage@{k}": value for k, value in policy.coverage.items()},
                    **{
                        f"popularity bias@{k}": None if math.isnan(value) else value
                        for k, value in policy.popularity_bias.items()
                    },
                }
                for name, policy in (("unseen items", self.unseen_items), ("all items", self.all_items))
            },
        }


def make_report(rankings: Rankings, *, users: IntArray, answers: IntArray, popularity: IntArray) -> Report:
    """`popularity[v]` counts the training events of item v. Shape [V + 1]."""

    def policy(ranking: Ranking) -> PolicyReport:
        assert ranking.lists is not None
        by_name = accuracy(ranking.ranks)
        low, high = bootstrap_interval(np.stack(list(by_name.values()), axis=1), users)
        chosen = popularity[answers].mean()
        coverage, bias = {}, {}
        for k in CUT_OFFS:
            listed = ranking.lists[:, :k]
            listed = listed[listed > 0]
            coverage[k] = len(np.unique(listed)) / (len(popularity) - 1)
            bias[k] = float(popularity[listed].mean() / chosen) if len(listed) > 0 and chosen > 0 else math.nan
        return PolicyReport(
            accuracy={
                name: Figure(mean=float(values.mean()), low=float(low[i]), high=float(high[i]))
                for i, (name, values) in enumerate(by_name.items())
            },
            coverage=coverage,
            popularity_bias=bias,
            ranks=ranking.ranks,
        )

    return Report(
        users=users,
        answers=answers,
        all_items=policy(rankings.all_items),
        unseen_items=policy(rankings.unseen_items),
    )
