"""BSARec against its equations: a Fourier transform over the whole window, attention in loops."""

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from lsan.config import BsaRecConfig, ModelConfig
from lsan.models.encoders.bsarec import BsaRec, BsaRecBlock, low_pass
from lsan.models.histories import Histories

WIDTH, HEADS, HISTORY, CUTOFF, ALPHA = 6, 2, 7, 3, 0.7
HEAD = WIDTH // HEADS


@pytest.mark.parametrize(("history", "cutoff"), [(7, 3), (8, 3), (50, 5), (1, 1), (6, 9)])
def test_low_pass_is_a_projection_on_the_lowest_frequencies(history: int, cutoff: int) -> None:
    matrix = low_pass(history, cutoff)
    torch.testing.assert_close(matrix @ matrix, matrix, rtol=1e-5, atol=1e-6)
    torch.testing.assert_close(matrix.T, matrix)
    kept = min(cutoff // 2 + 1, history // 2 + 1)
    rank = min(2 * kept - 1, history)  # one for frequency 0, a cosine and a sine for each other
    assert matrix.trace().item() == pytest.approx(rank, abs=1e-4)


def filtered(block: BsaRecBlock, x: Tensor) -> Tensor:
    """Of the events of one history [time, D], zeros before them."""
    window = torch.zeros(HISTORY, WIDTH)
    window[-len(x) :] = x
    spectrum = torch.fft.rfft(window, dim=0, norm="ortho")
    spectrum[CUTOFF // 2 + 1 :] = 0
    low = torch.fft.irfft(spectrum, n=HISTORY, dim=0, norm="ortho")
    mixed: Tensor = low + block.filter.beta**2 * (window - low)
    return mixed[-len(x) :]


def attended(block: BsaRecBlock, x: Tensor) -> Tensor:
    query, key, value = (x @ block.attention.qkv.weight.T + block.attention.qkv.bias).split(WIDTH, dim=-1)
    out = torch.zeros(len(x), WIDTH)
    for h in range(HEADS):
        part = slice(h * HEAD, (h + 1) * HEAD)
        for i in range(len(x)):
            weights = torch.stack([query[i, part] @ key[j, part] / HEAD**0.5 for j in range(i + 1)]).softmax(0)
            out[i, part] = weights @ value[: i + 1, part]
    return out @ block.out.weight.T + block.out.bias


def encode(encoder: BsaRec, x: Tensor) -> Tensor:
    """One history [time, D]."""
    x = encoder.norm(x + encoder.positions.weight[-len(x) :])
    for block in encoder.blocks:
        assert isinstance(block, BsaRecBlock)
        y = ALPHA * block.filter_norm(x + filtered(block, x))
        y = y + (1 - ALPHA) * block.attention_norm(x + attended(block, x))
        layer = block.feed_forward
        inner = F.gelu(y @ layer.inner.weight.T + layer.inner.bias)
        x = layer.norm(y + inner @ layer.out.weight.T + layer.out.bias)
    return x


@torch.no_grad()
def test_equals_fourier_transform_and_loops() -> None:
    torch.manual_seed(0)
    config = ModelConfig(
        regime="prefix",
        history=HISTORY,
        width=WIDTH,
        encoder=BsaRecConfig(heads=HEADS, blocks=2, cutoff=CUTOFF, alpha=ALPHA),
    )
    assert isinstance(config.encoder, BsaRecConfig)
    encoder = BsaRec(config, config.encoder).eval()
    for parameter in encoder.parameters():
        nn.init.normal_(parameter, std=0.5)
    lengths = [1, 4, 6]
    items = torch.tensor([[0] * (6 - length) + [1] * length for length in lengths])
    x = torch.randn(3, 6, WIDTH) * items[..., None]
    output = encoder(x, Histories.of_items(items), last_only=False)
    for row, length in enumerate(lengths):
        torch.testing.assert_close(output[row, -length:], encode(encoder, x[row, -length:]), rtol=1e-4, atol=1e-5)
