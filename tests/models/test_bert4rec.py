"""BERT4Rec against BERT of Hugging Face's transformers on the same weights (benchmarks/parity.py).

RecTools' BERT4Rec is another network: pre-norm blocks, no LayerNorm of the input and no output layer.
"""

from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor

from lsan.config import Bert4RecConfig, ContextConfig, ModelConfig
from lsan.models.encoders.bert4rec import Bert4Rec
from lsan.models.histories import Histories
from lsan.models.network import Network

CONFIG = ModelConfig(regime="cloze", history=5, width=8, encoder=Bert4RecConfig(heads=2, blocks=2))


@pytest.fixture(scope="module")
def golden() -> dict[str, Tensor]:
    return load_file(Path(__file__).parent / "golden" / "transformers.safetensors")


@pytest.fixture(scope="module")
def table(golden: dict[str, Tensor]) -> Tensor:
    """Vectors of items 1..V, zero for padding."""
    vectors = golden["bert.embeddings.word_embeddings.weight"].clone()
    vectors[0] = 0
    return vectors[:-1]


@pytest.fixture(scope="module")
def encoder(golden: dict[str, Tensor]) -> Bert4Rec:
    """With BERT's weights. Its token type, of which there is one, is part of the positions here."""
    embeddings, layer = "bert.embeddings", "bert.encoder.layer"
    state = {
        "mask": golden[f"{embeddings}.word_embeddings.weight"][-1],
        "positions.weight": golden[f"{embeddings}.position_embeddings.weight"]
        + golden[f"{embeddings}.token_type_embeddings.weight"],
    }
    for kind in ("weight", "bias"):
        state[f"norm.{kind}"] = golden[f"{embeddings}.LayerNorm.{kind}"]
        state[f"transform.{kind}"] = golden[f"cls.predictions.transform.dense.{kind}"]
        for block in range(2):
            there = f"{layer}.{block}"
            projections = [golden[f"{there}.attention.self.{part}.{kind}"] for part in ("query", "key", "value")]
            state |= {
                f"blocks.{block}.attention.qkv.{kind}": torch.cat(projections),
                f"blocks.{block}.out.{kind}": golden[f"{there}.attention.output.dense.{kind}"],
                f"blocks.{block}.norm.{kind}": golden[f"{there}.attention.output.LayerNorm.{kind}"],
                f"blocks.{block}.feed_forward.inner.{kind}": golden[f"{there}.intermediate.dense.{kind}"],
                f"blocks.{block}.feed_forward.out.{kind}": golden[f"{there}.output.dense.{kind}"],
                f"blocks.{block}.feed_forward.norm.{kind}": golden[f"{there}.output.LayerNorm.{kind}"],
            }
    assert isinstance(CONFIG.encoder, Bert4RecConfig)
    encoder = Bert4Rec(CONFIG, CONFIG.encoder).eval()
    encoder.load_state_dict(state)
    return encoder


@torch.no_grad()
def test_predictions_equal_bert(golden: dict[str, Tensor], table: Tensor, encoder: Bert4Rec) -> None:
    """A mask after the history: the oldest event of a full one makes room."""
    items = golden["histories"]
    last = encoder(table[items], Histories.of_items(items), last_only=True)
    torch.testing.assert_close(last[:, 0], golden["asked.hidden"][:, -1], rtol=1e-5, atol=1e-5)
    scores = last[:, 0] @ table[1:].T + golden["cls.predictions.bias"][1:-1]
    torch.testing.assert_close(scores, golden["asked.scores"][:, -1], rtol=1e-5, atol=1e-5)
    shorter = items[:2, 1:]  # where it need not
    torch.testing.assert_close(encoder(table[shorter], Histories.of_items(shorter), last_only=True), last[:2])


@torch.no_grad()
def test_cloze_equals_bert(golden: dict[str, Tensor], table: Tensor, encoder: Bert4Rec) -> None:
    histories = Histories.of_items(golden["histories"])
    masked = torch.tensor([False, False, True, False, True]).expand_as(histories.items) & histories.present
    hidden = encoder.cloze(table[histories.items], histories, masked)
    chosen = histories.present
    torch.testing.assert_close(hidden[chosen], golden["masked.hidden"][chosen], rtol=1e-5, atol=1e-5)
    scores = hidden @ table[1:].T + golden["cls.predictions.bias"][1:-1]
    torch.testing.assert_close(scores[chosen], golden["masked.scores"][chosen], rtol=1e-5, atol=1e-5)


@torch.no_grad()
def test_what_is_masked_does_not_matter(table: Tensor, encoder: Bert4Rec) -> None:
    masked = torch.tensor([[False, True, False, False, True]])
    one, other = (
        encoder.cloze(table[items], Histories.of_items(items), masked)
        for items in (torch.tensor([[1, 2, 3, 4, 5]]), torch.tensor([[1, 9, 3, 4, 8]]))
    )
    assert torch.equal(one, other)


@torch.no_grad()
def test_no_context_tells_of_a_masked_item() -> None:
    config = ModelConfig(
        regime="cloze", history=5, width=8, encoder=Bert4RecConfig(heads=2, blocks=2), context=ContextConfig()
    )
    torch.manual_seed(0)
    network = Network(
        config, torch.tensor([0, 1, 2, 3, 4]), torch.ones(4, dtype=torch.int64), torch.arange(4), 1
    ).eval()
    for parameter in network.parameters():
        parameter.add_(0.5 * torch.randn(parameter.shape))
    items = torch.tensor([[1, 2, 3]])
    masked = torch.tensor([[False, True, False]])
    found = [network.cloze(Histories.of_items(items), masked)]
    items = torch.tensor([[1, 4, 3]])
    found.append(network.cloze(Histories.of_items(items), masked))
    assert torch.equal(*found)
    assert not torch.equal(found[0], network.cloze(Histories.of_items(torch.tensor([[1, 4, 2]])), masked))
