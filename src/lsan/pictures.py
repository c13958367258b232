"""Pictures of results, as PNG."""

import io
import itertools
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lsan.files import write_atomically

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure


def learning_curve(history: Sequence[dict[str, float]], path: Path) -> None:
    """Training loss and validation nDCG@10 by epoch, with the selected epoch marked."""
    from matplotlib.backends.backend_agg import (
        FigureCanvasAgg,  # 0.3 s to import, so only when a picture is drawn
    )
    from matplotlib.figure import Figure
    from matplotlib.ticker import MaxNLocator

    epochs = [record["epoch"] for record in history]
    ndcg = [record["validation nDCG@10"] for record in history]
    best = max(range(len(ndcg)), key=ndcg.__getitem__)
    figure = Figure(figsize=(7, 4), dpi=120, layout="constrained")
    FigureCanvasAgg(figure)
    left = figure.add_subplot()
    right = left.twinx()
    left.plot(epochs, ndcg, color="#1f5fa8", marker="o", markersize=3, label="validation nDCG@10")
    right.plot(epochs, [record["loss"] for record in history], color="#c2571a", linestyle="--", label="training loss")
    left.plot(epochs[best], ndcg[best], marker="o", markersize=9, fillstyle="none", color="#1f5fa8")
    left.set_title(f"selected: epoch {epochs[best]:.0f}, validation nDCG@10 {ndcg[best]:.4f}", loc="left", fontsize=10)
    left.set_xlabel("epoch")
    left.set_ylabel("validation nDCG@10", color="#1f5fa8")
    right.set_ylabel("training loss (cross-entropy, nats)", color="#c2571a")
    left.xaxis.set_major_locator(MaxNLocator(integer=True))
    left.set_ylim(bottom=0)
    left.grid(alpha=0.3)
    left.spines["top"].set_visible(False)
    right.spines["top"].set_visible(False)
    _write(figure, path)


def trials_picture(
    figures: Sequence[float],
    finished: Sequence[bool],
    values: Mapping[str, Sequence[float]],
    choices: Mapping[str, Sequence[str]],
    logarithmic: Collection[str],
    path: Path,
) -> None:
    """The figure of each trial of a search: in order, and against each thing that was varied.

    Args:
        figures: the best validation nDCG@10 of each trial; below 0 where there is none.
        finished: whether it ran to its end.
        values: by name, what each trial had: a number, or which of the choices (0, 1, ...).
        choices: by name, what the choices are called.
        logarithmic: names whose axis is logarithmic.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure
    from matplotlib.ticker import LogLocator, MaxNLocator, NullLocator

    shown = [trial for trial, figure in enumerate(figures) if figure >= 0]
    best = max((trial for trial in shown if finished[trial]), key=figures.__getitem__)
    columns = min(4, 1 + len(values))
    rows = -(-(1 + len(values)) // columns)
    picture = Figure(figsize=(3.2 * columns, 0.4 + 2.8 * rows), dpi=120, layout="constrained")
    FigureCanvasAgg(picture)
    panels = picture.subplots(rows, columns, sharey=True, squeeze=False).ravel()
    everything: dict[str, Sequence[float]] = {"trial": range(len(figures)), **values}
    for panel, (name, places) in zip(panels, everything.items(), strict=False):
        for ended, fill in ((True, "#1f5fa8"), (False, "none")):
            trials = [trial for trial in shown if finished[trial] == ended]
            x, y = [places[trial] for trial in trials], [figures[trial] for trial in trials]
            panel.scatter(x, y, s=22, facecolors=fill, edgecolors="#1f5fa8")
        panel.scatter([places[best]], [figures[best]], s=110, facecolors="none", edgecolors="#c2571a", linewidths=1.5)
        panel.set_xlabel(name)
        panel.grid(alpha=0.3)
        if name in choices:
            panel.set_xticks(range(len(choices[name])), choices[name])
            panel.set_xlim(-0.5, len(choices[name]) - 0.5)
        elif name in logarithmic:
            panel.set_xscale("log")
            panel.xaxis.set_major_locator(LogLocator(subs=(1.0, 2.0, 5.0), numticks=6))
            panel.xaxis.set_major_formatter("{x:g}")
            panel.xaxis.set_minor_locator(NullLocator())
        else:
            panel.xaxis.set_major_locator(MaxNLocator(5, integer=all(isinstance(place, int) for place in places)))
    for panel in panels[len(everything) :]:
        panel.set_visible(False)
    for panel in panels[::columns]:
        panel.set_ylabel("validation nDCG@10")
    picture.suptitle(f"best: trial {best}, validation nDCG@10 {figures[best]:.4f} (hollow: stopped early)", fontsize=10)
    _write(picture, path)


#: Of series in a picture.
_MARKERS = "os^vDPX*<>"


@dataclass(frozen=True, kw_only=True)
class Point:
    """A model in a picture of accuracy against what models take."""

    name: str
    """Written beside it."""
    x: float | None
    """What it takes; None where that means nothing for it: it becomes a horizontal line."""
    y: float
    """Its accuracy."""
    low: float
    """Lower end of the interval."""
    high: float
    """Upper end."""
    series: str = ""
    """What the legend says of it and of those that a line joins it to; empty: it stands alone, its name beside it."""


def accuracy_picture(points: Sequence[Point], quantity: str, metric: str, path: Path) -> None:
    """Accuracy with its interval against what the models take; logarithmic where that spans a factor of ten. At least
    one point has an x."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure
    from matplotlib.ticker import EngFormatter

    placed = [(point.x, point) for point in points if point.x is not None]
    figure = Figure(figsize=(7, 4.5), dpi=120, layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.add_subplot()
    least, most = min(x for x, _ in placed), max(x for x, _ in placed)
    if least > 0 and most >= 10 * least:
        axes.set_xscale("log")
    else:
        axes.xaxis.set_major_formatter(EngFormatter())
    for x, point in placed:
        if not point.series:
            _draw_group(axes, [(x, point)], fmt="o", color="#1f5fa8")
    names = sorted({point.series for _, point in placed if point.series})
    for name, marker in zip(names, itertools.cycle(_MARKERS), strict=False):
        _draw_group(axes, [(x, point) for x, point in placed if point.series == name], fmt=f"{marker}-", label=name)
    for point in points:
        if point.x is None:
            axes.axhline(point.y, color="#7a7a7a", linestyle="--", linewidth=0.8)
            axes.annotate(
                point.name, (0, point.y), xycoords=("axes fraction", "data"), xytext=(4, 3),
                textcoords="offset points", fontsize=8, color="#7a7a7a",
            )  # fmt: skip
    axes.margins(x=0.15)
    axes.set_xlabel(quantity)
    axes.set_ylabel(metric)
    axes.set_ylim(bottom=0)
    axes.grid(alpha=0.3)
    axes.spines[["top", "right"]].set_visible(False)
    if names:
        axes.legend(loc="lower right", fontsize=8, frameon=False)
    figure.draw_without_rendering()  # fixes the scales
    _label(axes, {point.name: (x, point.y) for x, point in placed if not point.series})
    _write(figure, path)


def _draw_group(axes: "Axes", group: Sequence[tuple[float, Point]], **style: Any) -> None:
    """Points with their intervals, from left to right."""
    group = sorted(group, key=lambda placed: placed[0])
    y = [point.y for _, point in group]
    interval = [[point.y - point.low for _, point in group], [point.high - point.y for _, point in group]]
    axes.errorbar(
        [x for x, _ in group], y, yerr=interval, markersize=5, capsize=3, linewidth=1, elinewidth=1.5, **style
    )


def _label(axes: "Axes", places: Mapping[str, tuple[float, float]]) -> None:
    """Write each name beside its place, on the first side where it covers no place and no other name and stays inside
    the axes."""
    points = [axes.transData.transform(place) for place in places.values()]
    taken: list[Any] = []
    frame = axes.get_window_extent()
    for name, place in places.items():
        for x, y in [(side * 7, y) for y in (4, -11, 14, -21) for side in (1, -1)]:
            side = "left" if x > 0 else "right"
            text = axes.annotate(name, place, xytext=(x, y), textcoords="offset points", fontsize=8, ha=side)
            box = text.get_window_extent()
            inside = frame.x0 <= box.x0 and box.x1 <= frame.x1
            if inside and not any(box.contains(*point) for point in points) and not box.count_overlaps(taken):
                break
            text.remove()
        else:
            text = axes.annotate(name, place, xytext=(7, 4), textcoords="offset points", fontsize=8)
        taken.append(text.get_window_extent())


def _write(figure: "Figure", path: Path) -> None:
    content = io.BytesIO()
    figure.savefig(content, format="png", metadata={"Software": None})
    write_atomically(path, content.getvalue())
