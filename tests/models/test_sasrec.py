"""SASRec against RecTools' on the same weights (benchmarks/parity.py).

There positions are counted backwards from the latest event, and the LayerNorm at the end has an epsilon of 1e-8.
"""

from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor

from lsan.config import ModelConfig, Regime, SasRecConfig
from lsan.models.encoders import make_encoder
from lsan.models.encoders.sasrec import SasRec
from lsan.models.histories import Histories

NAMES = {
    "output_norm": "last_layernorm",
    "blocks": "transformer_blocks",
    "query_norm": "q_layer_norm",
    "attention.qkv.": "multi_head_attn.in_proj_",
    "out.": "multi_head_attn.out_proj.",
    "feed_forward_norm": "ff_layer_norm",
    "feed_forward.0": "feed_forward.ff_linear_1",
    "feed_forward.3": "feed_forward.ff_linear_2",
}


@pytest.fixture(scope="module")
def golden() -> dict[str, Tensor]:
    return load_file(Path(__file__).parent / "golden" / "rectools.safetensors")


@pytest.mark.parametrize("regime", ["prefix", "causal"])
@torch.no_grad()
def test_equals_rectools(golden: dict[str, Tensor], regime: Regime) -> None:
    config = ModelConfig(regime=regime, history=5, width=8, encoder=SasRecConfig(heads=2, blocks=2))
    encoder = make_encoder(config, 0).eval()
    state = {"positions.weight": golden["pos_encoding_layer.pos_emb.weight"].flip(0)}
    for name in encoder.state_dict().keys() - state.keys():
        there = name
        for mine, theirs in NAMES.items():
            there = there.replace(mine, theirs)
        state[name] = golden[f"transformer_layers.{there}"]
    encoder.load_state_dict(state)
    table = golden["item_model.item_net_blocks.0.ids_emb.weight"]
    items, hidden = golden["histories"], golden["hidden"]
    if regime == "causal":  # where places agree in full histories only
        items, hidden = items[2:], hidden[2:]
    histories = Histories.of_items(items)
    output = encoder(table[items], histories, last_only=False)
    torch.testing.assert_close(output[histories.present], hidden[histories.present], rtol=1e-5, atol=1e-5)
    last = encoder(table[items], histories, last_only=True)
    torch.testing.assert_close(last[:, 0] @ table[1:].T, golden["scores"][-len(items) :], rtol=1e-5, atol=1e-5)


@torch.no_grad()
def test_post_norm_is_blocks_after_a_norm() -> None:
    torch.manual_seed(0)
    config = ModelConfig(history=5, width=8, encoder=SasRecConfig(norm="post", feed_forward=4))
    encoder = make_encoder(config, 0).eval()
    assert isinstance(encoder, SasRec)
    x, histories = torch.randn(2, 5, 8), Histories.of_items(torch.ones(2, 5, dtype=torch.int64))
    expected = torch.nn.functional.layer_norm(x + encoder.positions.weight, (8,))
    mask = torch.ones(5, 5, dtype=torch.bool).tril().expand(2, 1, 5, 5)
    for block in encoder.blocks:
        expected = block(expected, mask, last_only=False)
    torch.testing.assert_close(encoder(x, histories, last_only=False), expected)
