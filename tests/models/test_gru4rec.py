"""GRU4Rec against the recurrence, one event at a time."""

import torch

from lsan.config import Gru4RecConfig, ModelConfig
from lsan.models.encoders.gru4rec import Gru4Rec
from lsan.models.histories import Histories


@torch.no_grad()
def test_equals_the_recurrence_from_the_first_event_on() -> None:
    torch.manual_seed(0)
    encoder = Gru4Rec(ModelConfig(width=6), Gru4RecConfig()).eval()
    lengths = [1, 4, 3, 0]
    items = torch.tensor([[0] * (4 - length) + [1] * length for length in lengths])
    x = torch.randn(4, 4, 6) * items[..., None]
    output = encoder(x, Histories.of_items(items), last_only=False)
    weight = {name.removesuffix("_l0"): value for name, value in encoder.gru.named_parameters()}
    for row, length in enumerate(lengths):
        state = torch.zeros(6)
        for event in range(4 - length, 4):
            given = weight["weight_ih"] @ x[row, event] + weight["bias_ih"]
            kept = weight["weight_hh"] @ state + weight["bias_hh"]
            (r, z, n), (kept_r, kept_z, kept_n) = given.chunk(3), kept.chunk(3)
            reset, update = (r + kept_r).sigmoid(), (z + kept_z).sigmoid()
            state = (1 - update) * (n + reset * kept_n).tanh() + update * state
            torch.testing.assert_close(output[row, event], encoder.out(state))
