"""What this machine can do at best: matrix products of the loss's shapes, and a copy; train_speed.py starts it.

    python benchmarks/peers/roofline.py --items 12101 --width 64 --threads 2

Prints one line of JSON: operations a second (a multiplication and an addition are two) in float32 and bfloat16, bytes
read and written a second.
"""

import argparse
import json
import time
from collections.abc import Callable

import torch

DTYPES = (torch.float32, torch.bfloat16)
#: Target positions that a product takes at once.
POSITIONS = 256
#: Side of the square product, large enough to hide every fixed cost.
SIDE = 2048
#: Bytes of the copy: far more than a cache holds.
COPY = 1 << 29


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    for name in ("items", "width", "threads"):
        parser.add_argument(f"--{name}", type=int, required=True)
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    source, destination = torch.ones(COPY, dtype=torch.uint8), torch.zeros(COPY, dtype=torch.uint8)
    copy = 2 * COPY / best_seconds(lambda: destination.copy_(source))
    products = {str(dtype).removeprefix("torch."): rates(arguments.items, arguments.width, dtype) for dtype in DTYPES}
    print(json.dumps({"flops_per_second": products, "copy_bytes_per_second": round(copy)}), flush=True)


def rates(items: int, width: int, dtype: torch.dtype) -> dict[str, int]:
    """Operations a second of the three products of the loss, of all three in a row, and of a square product."""
    table, hidden = torch.randn(items, width, dtype=dtype), torch.randn(width, POSITIONS, dtype=dtype)
    logits, square = torch.randn(items, POSITIONS, dtype=dtype), torch.randn(SIDE, SIDE, dtype=dtype)
    pairs = {
        "logits [V, D] x [D, N]": (table, hidden),
        "gradient of hidden [N, V] x [V, D]": (logits.T, table),
        "gradient of table [V, N] x [N, D]": (logits, hidden.T),
    }
    seconds = {name: product_seconds(*pair) for name, pair in pairs.items()}
    operations = 2 * items * width * POSITIONS
    return {
        **{name: round(operations / taken) for name, taken in seconds.items()},
        "loss": round(len(pairs) * operations / sum(seconds.values())),
        f"square of {SIDE}": round(2 * SIDE**3 / product_seconds(square, square)),
    }


def product_seconds(left: torch.Tensor, right: torch.Tensor) -> float:
    """Seconds of a product into memory that is there already."""
    out = torch.mm(left, right)
    return best_seconds(lambda: torch.mm(left, right, out=out))


def best_seconds(work: Callable[[], object], *, trials: int = 5, at_least: float = 0.1) -> float:
    """Seconds of one call, in the best of some trials that each last long enough to be timed well."""
    work()
    best = float("inf")
    for _ in range(trials):
        calls, started = 0, time.perf_counter()
        while (passed := time.perf_counter() - started) < at_least:
            work()
            calls += 1
        best = min(best, passed / calls)
    return best


if __name__ == "__main__":
    main()
