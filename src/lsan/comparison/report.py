"""A comparison as files: JSON, a Markdown page, two pictures."""

import json
from collections.abc import Iterable, Sequence
from pathlib import Path

from lsan.comparison.rows import DECIDER, Comparison, Row
from lsan.files import write_atomically
from lsan.pictures import Point, accuracy_picture

COLUMNS = (
    "model", "HR@10", "nDCG@10", "seeds", "parameters", "bytes", "train s", "recommend µs",
    "nDCG@10 against the best", "better in",
)  # fmt: skip


def table_rows(comparison: Comparison) -> list[tuple[str, ...]]:
    """The texts of each row under `COLUMNS`, the best model first."""
    return [_texts(row, comparison, best=number == 0) for number, row in enumerate(comparison.rows)]


def _texts(row: Row, comparison: Comparison, *, best: bool) -> tuple[str, ...]:
    accuracy, costs = row.accuracy[comparison.policy], row.costs
    difference = accuracy[DECIDER].difference
    return (
        row.name,
        *(
            f"{figure.mean:.4f} [{figure.low:.4f}, {figure.high:.4f}]"
            for figure in (accuracy["HR@10"], accuracy["nDCG@10"])
        ),
        str(len(row.seeds)) if row.seeds else "-",
        "-" if costs.parameters is None else f"{costs.parameters:,}",
        "-" if costs.bytes is None else f"{costs.bytes:,}",
        f"{costs.training_seconds:,.1f}",
        f"{costs.recommendation_microseconds:,.0f}",
        "the best" if best else f"{difference.mean:+.4f} [{difference.low:+.4f}, {difference.high:+.4f}]",
        "" if best else f"{difference.share:.1%}",
    )


def cases_text(comparison: Comparison) -> str:
    """What was ranked for whom, a sentence."""
    ranked = {
        "unseen items": "all items but those of the user's own history are ranked",
        "all items": "all items are ranked, those of the user's own history too",
    }[comparison.policy]
    return (
        f"{comparison.cases:,} {comparison.part} cases of {comparison.users:,} users of {comparison.dataset}, "
        f"{comparison.split.method} split; {ranked}."
    )


def explanation(comparison: Comparison) -> str:
    """What the table shows, in one sentence a line."""
    return (
        f"{cases_text(comparison)}\n"
        "Accuracy: mean over seeds, [95% bootstrap interval over users]; against the best: difference on the "
        "same cases, and the share of resamples in which the model is the better one.\n"
        "bytes: model.safetensors. recommend: one history to its 10 best items, one CPU thread, median."
    )


def write_comparison(comparison: Comparison, folder: Path) -> None:
    """Write comparison.json, comparison.md, accuracy-bytes.png and accuracy-seconds.png. A picture that would have no
    point in it is left out.

    Raises:
        DataError: when the folder cannot be written to.
    """
    content = json.dumps(comparison.to_json(), indent=1, ensure_ascii=False) + "\n"
    write_atomically(folder / "comparison.json", content.encode())
    pictures = []
    for name, quantity, attribute in (
        ("accuracy-bytes.png", "bytes of model.safetensors", "bytes"),
        ("accuracy-seconds.png", "seconds to train", "training_seconds"),
    ):
        points = [_point(row, comparison, getattr(row.costs, attribute)) for row in comparison.rows]
        (folder / name).unlink(missing_ok=True)  # one of an earlier comparison
        if any(point.x is not None for point in points):
            accuracy_picture(points, quantity, DECIDER, folder / name)
            pictures.append(f"![{DECIDER} against {quantity}]({name})")
    lines = [
        f"# {comparison.dataset}: {len(comparison.rows)} models",
        "",
        explanation(comparison).replace("\n", "\n\n"),
        "",
        *markdown_table(COLUMNS, table_rows(comparison)),
        *(line for picture in pictures for line in ("", picture)),
    ]
    write_atomically(folder / "comparison.md", ("\n".join(lines) + "\n").encode())


def _point(row: Row, comparison: Comparison, x: float | None) -> Point:
    figure = row.accuracy[comparison.policy][DECIDER]
    return Point(name=row.name, x=x, y=figure.mean, low=figure.low, high=figure.high)


def markdown_table(header: Sequence[str], rows: Iterable[Sequence[str]]) -> list[str]:
    """The lines of a table; all but the first column are aligned to the right."""
    rule = ["---", *["---:"] * (len(header) - 1)]
    return [f"| {' | '.join(cell.replace('|', '&#124;') for cell in cells)} |" for cells in (header, rule, *rows)]
