"""FPMC's score by hand."""

from collections.abc import Callable
from pathlib import Path

import torch

from lsan.config import FpmcConfig, ModelConfig, Recipe, TrainingConfig
from lsan.data.dataset import Dataset
from lsan.experiment import Observer, start_run
from lsan.models.encoders.fpmc import Fpmc
from lsan.models.histories import Histories
from lsan.runs import load_run


@torch.no_grad()
def test_score_by_hand() -> None:
    encoder = Fpmc(ModelConfig(width=2, encoder=FpmcConfig(), untied_output=True), users=2).eval()
    encoder.users.weight.copy_(torch.tensor([[1.0, 2.0], [3.0, 4.0]]))
    items = torch.tensor([[1, 2], [1, 2], [0, 1]])
    histories = Histories(items=items, times=-items, asked=-items[:, 0], users=torch.tensor([1, 0, 2]))
    factors = torch.tensor([[0.0, 0.0], [5.0, 6.0], [7.0, 8.0]])  # of padding, items 1 and 2 as the last one
    output = encoder(factors[items], histories, last_only=False)
    assert output[0].tolist() == [[1, 2, 5, 6], [1, 2, 7, 8]]
    assert output[1].tolist() == [[0, 0, 5, 6], [0, 0, 7, 8]]
    last = encoder(factors[items], histories, last_only=True)[:, 0]
    table = torch.tensor([[1.0, 0.0, 0.0, -1.0]])  # <v^UI, (1, 0)> + <v^LI, (0, -1)>
    assert (last @ table.T).flatten().tolist() == [1 - 8, 0 - 8, 3 - 6]


def test_users_who_teach_nothing_are_like_those_who_are_not_there(
    make_dataset: Callable[..., Dataset], tmp_path: Path
) -> None:
    dataset = make_dataset([[1, 2, 3, 4, 5], [3, 2, 1], [2, 3, 4, 5]])  # the second trains with one event
    recipe = Recipe(
        model=ModelConfig(width=4, encoder=FpmcConfig(), untied_output=True), training=TrainingConfig(epochs=2)
    )
    start_run(dataset, recipe, tmp_path / "run", device=torch.device("cpu"), observer=Observer())
    encoder = load_run(tmp_path / "run", device=torch.device("cpu")).network.encoder
    assert isinstance(encoder, Fpmc)
    assert encoder.users.weight.any(1).tolist() == [True, False, True]
