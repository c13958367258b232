"""What compression did: bytes by part, accuracy before and after, and where the chosen plan lies among those tried."""

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from lsan.compression.search import Tried
from lsan.evaluation.metrics import accuracy
from lsan.evaluation.report import PolicyReport
from lsan.evaluation.significance import paired_bootstrap
from lsan.files import write_atomically
from lsan.pictures import Point, accuracy_picture

#: The figures that are reported.
METRICS = ("nDCG@10", "HR@10")


@dataclass(frozen=True, kw_only=True)
class Change:
    """One part's figures before and after, with 95% bootstrap intervals over users."""

    part: str
    """validation or test."""
    before: dict[str, tuple[float, float, float]]
    """Mean and interval of each metric of the (first) teacher."""
    after: dict[str, tuple[float, float, float]]
    """Those of the compressed model."""
    difference: dict[str, tuple[float, float, float]]
    """After minus before, the same users resampled."""

    def share(self, metric: str) -> float:
        """Share of a metric that is kept; 1 where there was none."""
        before = self.before[metric][0]
        return self.after[metric][0] / before if before > 0 else 1.0


def change(part: str, before: PolicyReport, after: PolicyReport, users: np.ndarray) -> Change:
    """Compare two reports on the same cases."""
    one, other = (np.stack([accuracy(report.ranks)[name] for name in METRICS], axis=1) for report in (after, before))
    paired = paired_bootstrap(one, other, users)
    figures = [
        {name: (figure.mean, figure.low, figure.high) for name, figure in report.accuracy.items() if name in METRICS}
        for report in (before, after)
    ]
    return Change(
        part=part,
        before=figures[0],
        after=figures[1],
        difference={
            name: (float(paired.mean[i]), float(paired.low[i]), float(paired.high[i])) for i, name in enumerate(METRICS)
        },
    )


def write_report(
    folder: Path, teachers: Sequence[Path], size: int, tried: Sequence[Tried], changes: Sequence[Change]
) -> None:
    """Write compression.json and accuracy-bytes.png; `size` is the first teacher's, the first of `tried` the chosen
    one."""
    chosen = tried[0]
    content: dict[str, Any] = {
        "teachers": [str(teacher.resolve()) for teacher in teachers],
        "bytes": {"before": size, "after": chosen.size, "parts": chosen.parts},
        "chosen": chosen.plan.name,
        "accuracy": {one.part: {**asdict(one), "kept": one.share("nDCG@10")} for one in changes},
        "tried": [
            {"plan": one.plan.name, "bytes": one.size, "validation nDCG@10": one.figure} for one in tried
        ],
    }  # fmt: skip
    write_atomically(folder / "compression.json", (json.dumps(content, indent=1) + "\n").encode())
    validation = next(one for one in changes if one.part == "validation")
    (before, low, high), (after, least, most) = validation.before["nDCG@10"], validation.after["nDCG@10"]
    points = [
        Point(name="before", x=size, y=before, low=low, high=high),
        Point(name=f"{chosen.plan.name} (chosen)", x=chosen.size, y=after, low=least, high=most),
        *(Point(name=one.plan.name, x=one.size, y=one.figure, low=one.figure, high=one.figure) for one in tried[1:]),
    ]
    accuracy_picture(
        points,
        "bytes of the exported file without ids, titles, categories",
        "validation nDCG@10",
        folder / "accuracy-bytes.png",
    )
