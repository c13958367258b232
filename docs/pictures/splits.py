"""Draws leave-one-out.png and temporal.png: one log, split both ways. Run: python docs/pictures/splits.py"""

from pathlib import Path

import matplotlib as mpl

mpl.use("Agg")

import matplotlib.pyplot as plt
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Circle

#: User -> their events in order: (time, item).
LOG = {
    "Ada": [(0.6, "A"), (1.7, "B"), (2.8, "C"), (4.2, "D"), (5.0, "B")],
    "Bo": [(1.2, "C"), (3.4, "E"), (6.5, "A"), (8.25, "D"), (9.4, "F")],
    "Cleo": [(2.2, "B"), (4.5, "F"), (5.5, "C"), (7.35, "H"), (8.9, "E")],
    "Dan": [(3.0, "A"), (7.0, "G")],
    "Eve": [(6.8, "E"), (8.3, "C"), (9.3, "H")],
}
VALIDATION_FROM, TEST_FROM = 6.0, 7.8

TRAINING, VALIDATION, TEST = "#3b6fb6", "#e08a1e", "#2f9e6e"
INK, FAINT = "#222222", "#9aa0a6"
RADIUS = 0.24


def frame(height: float) -> tuple[Figure, Axes]:
    """An empty drawing with one line a user, time to the right."""
    figure, axes = plt.subplots(figsize=(8, height), layout="constrained")
    axes.set_aspect("equal")
    axes.axis("off")
    axes.set_xlim(-1.3, 10.5)
    for row, name in enumerate(LOG):
        axes.plot([0, 10], [-row, -row], color="#dfe3e8", linewidth=1.5, zorder=0)
        axes.text(-0.25, -row, name, ha="right", va="center", fontsize=12, color=INK)
    bottom = -len(LOG) + 0.2
    axes.annotate(
        "",
        xy=(10.2, bottom),
        xytext=(0, bottom),
        arrowprops={"arrowstyle": "-|>", "color": FAINT, "linewidth": 1.2},
    )
    axes.text(0, bottom - 0.12, "time", ha="left", va="top", fontsize=11, color=FAINT)
    return figure, axes


def event(axes: Axes, time: float, row: float, item: str, colour: str, *, unknown: bool = False) -> None:
    """A disc with the item's letter; an outline where the item is unknown to the model."""
    face, line = ("white", (0, (2, 1.2))) if unknown else (colour, "solid")
    disc = Circle((time, row), RADIUS, facecolor=face, edgecolor=colour, linewidth=1.8, linestyle=line)
    axes.add_patch(disc)
    axes.text(
        time, row - 0.015, item, ha="center", va="center_baseline", fontsize=11, fontweight="bold",
        color=colour if unknown else "white",
    )  # fmt: skip


def note(axes: Axes, x: float, row: float, text: str, *, background: str, align: str) -> None:
    """A remark on a user's line."""
    box = {"facecolor": background, "edgecolor": "none", "pad": 2.5}
    axes.text(x, row, text, ha=align, va="center", fontsize=10, style="italic", color=INK, bbox=box)


def legend(axes: Axes, entries: list[tuple[str, str, bool]]) -> None:
    """Discs and their meaning under the drawing."""
    bottom = -len(LOG) - 0.75
    positions = [0.24, 2.6, 5.3, 7.35]
    for x, (text, colour, unknown) in zip(positions, entries, strict=False):
        event(axes, x, bottom, "", colour, unknown=unknown)
        axes.text(x + 0.36, bottom, text, ha="left", va="center", fontsize=11, color=INK)
    axes.set_ylim(bottom - 0.4, 1.1)


def leave_one_out() -> Figure:
    """Last event of each user = test, last but one = validation."""
    figure, axes = frame(4.4)
    for row, events in enumerate(LOG.values()):
        held_out = {len(events) - 2: VALIDATION, len(events) - 1: TEST} if len(events) >= 3 else {}
        for position, (time, item) in enumerate(events):
            event(axes, time, -row, item, held_out.get(position, TRAINING))
    note(axes, 7.4, -3, "fewer than three events:\ntrains only", background="white", align="left")
    last = LOG["Ada"][-1][0]
    axes.plot([0.6 - RADIUS, 4.2 + RADIUS], [0.45, 0.45], color=INK, linewidth=1.2)
    axes.annotate(
        "", xy=(last, 0.28), xytext=(4.2 + RADIUS, 0.45),
        arrowprops={"arrowstyle": "-|>", "color": INK, "linewidth": 1.2, "connectionstyle": "arc3,rad=-0.25"},
    )  # fmt: skip
    axes.text(2.4, 0.58, "history of Ada's test case: A B C D", ha="center", fontsize=10, color=INK)
    axes.text(last + 0.38, 0.3, "the answer", ha="left", fontsize=10, color=INK)
    legend(axes, [("training", TRAINING, False), ("validation", VALIDATION, False), ("test", TEST, False)])
    return figure


def temporal() -> Figure:
    """One cut-off for everybody."""
    figure, axes = frame(4.7)
    top, bottom = 0.62, -len(LOG) + 0.2
    for cut_off in (VALIDATION_FROM, TEST_FROM):
        axes.plot([cut_off] * 2, [bottom, top], color=INK, linewidth=1.4, linestyle=(0, (4, 2)), zorder=0)
    for left, right, text, colour in (
        (0, VALIDATION_FROM, "training", TRAINING),
        (VALIDATION_FROM, TEST_FROM, "validation", VALIDATION),
        (TEST_FROM, 10.2, "test", TEST),
    ):
        axes.fill_between([left, right], bottom, top, color=colour, alpha=0.09, linewidth=0, zorder=-1)
        axes.text((left + right) / 2, top + 0.12, text, ha="center", fontsize=12, fontweight="bold", color=colour)
    trained = {item for events in LOG.values() for time, item in events if time < VALIDATION_FROM}
    for row, events in enumerate(LOG.values()):
        for time, item in events:
            part = TRAINING if time < VALIDATION_FROM else VALIDATION if time < TEST_FROM else TEST
            event(axes, time, -row, item, part, unknown=item not in trained)
    note(axes, 5.75, -4, "Eve is new: her first history is empty", background="#eef2f8", align="right")
    legend(
        axes,
        [("training", TRAINING, False), ("validation", VALIDATION, False), ("test", TEST, False),
         ("new item: never ranked", INK, True)],
    )  # fmt: skip
    return figure


if __name__ == "__main__":
    folder = Path(__file__).parent
    for name, figure in (("leave-one-out", leave_one_out()), ("temporal", temporal())):
        figure.savefig(folder / f"{name}.png", dpi=130, metadata={"Software": None})
