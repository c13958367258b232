"""What every export says of itself."""

from pathlib import Path

import numpy as np
import torch

from lsan.experiment import evaluate, load_for_evaluation
from lsan.export.export import Exported


def assert_measured(exported: Exported, folder: Path) -> None:
    """It was compared on all test cases, where it ranks as the run does, and timed."""
    cpu = torch.device("cpu")
    run, dataset, split = load_for_evaluation(folder, None, device=cpu)
    expected = evaluate(run.network, dataset, split, run.header, "test", device=cpu)
    assert exported.report is not None
    assert np.array_equal(exported.report.unseen_items.ranks, expected.unseen_items.ranks)
    assert exported.agreement is not None
    assert exported.agreement.histories == len(split.test)
    assert max(exported.difference, exported.agreement.difference) < 1e-5
    assert exported.latency is not None
    assert 0 < exported.latency[0] <= exported.latency[1]
