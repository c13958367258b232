"""Pictures of results, as PNG."""

import io
from collections.abc import Sequence
from pathlib import Path

from lsan.files import write_atomically


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
    content = io.BytesIO()
    figure.savefig(content, format="png", metadata={"Software": None})
    write_atomically(path, content.getvalue())
