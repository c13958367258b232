"""Writes the golden files of the parity tests: outputs of independent implementations with small random weights.

    python benchmarks/parity.py rectools       # needs: pip install "rectools[torch]==0.19.0" safetensors
    python benchmarks/parity.py transformers   # needs: pip install torch transformers

Each runs in an environment of its own, so this file imports nothing of lsan. tests/models/golden/NAME.safetensors holds
the weights under the names that they have there, the histories (left-padded item numbers), and the outputs.
"""

import sys
from importlib.metadata import version
from pathlib import Path

import torch
from safetensors.torch import save_file
from torch import Tensor, nn

GOLDEN = Path(__file__).resolve().parent.parent / "tests" / "models" / "golden"
WIDTH, HEADS, BLOCKS, HISTORY, ITEMS = 8, 2, 2, 5, 11
HISTORIES = torch.tensor([[0, 0, 0, 0, 4], [0, 0, 7, 7, 2], [5, 2, 8, 10, 6], [11, 1, 9, 3, 1]])


def rectools() -> dict[str, Tensor]:
    """SASRec with scaled item vectors and a padding mask, neither of which is RecTools' default."""
    from rectools.models.nn.item_net import (
        IdEmbeddingsItemNet,
        SumOfEmbeddingsConstructor,
    )
    from rectools.models.nn.transformers.net_blocks import (
        LearnableInversePositionalEncoding,
    )
    from rectools.models.nn.transformers.sasrec import SASRecTransformerLayers
    from rectools.models.nn.transformers.similarity import DistanceSimilarityModule
    from rectools.models.nn.transformers.torch_backbone import (
        TransformerTorchBackbone,
    )

    items = IdEmbeddingsItemNet(WIDTH, ITEMS + 1, 0.0)
    model = TransformerTorchBackbone(
        n_heads=HEADS,
        dropout_rate=0.0,
        item_model=SumOfEmbeddingsConstructor(ITEMS + 1, [items]),
        pos_encoding_layer=LearnableInversePositionalEncoding(True, HISTORY, WIDTH, use_scale_factor=True),
        transformer_layers=SASRecTransformerLayers(BLOCKS, WIDTH, HEADS, 0.0),
        similarity_module=DistanceSimilarityModule(),
        use_causal_attn=True,
        use_key_padding_mask=True,
    )
    weights = randomised(model)
    items.ids_emb.weight[0] = 0
    batch = {"x": HISTORIES}
    return weights | {
        "hidden": model.encode_sessions(batch, model.item_model.get_all_embeddings()),
        "scores": model(batch)[:, -1, 1:],
    }


def transformers() -> dict[str, Tensor]:
    """BERT over items 1..V and [MASK] = V + 1, without the LayerNorm of its prediction head; the mask as the last event
    of each history, and in the middle."""
    from transformers import BertConfig, BertForMaskedLM

    mask = ITEMS + 1
    config = BertConfig(
        vocab_size=mask + 1,
        hidden_size=WIDTH,
        num_hidden_layers=BLOCKS,
        num_attention_heads=HEADS,
        intermediate_size=4 * WIDTH,
        hidden_act="gelu",
        max_position_embeddings=HISTORY,
        type_vocab_size=1,
        layer_norm_eps=1e-5,
    )
    model = BertForMaskedLM(config).eval()
    head = model.cls.predictions.transform
    head.LayerNorm = nn.Identity()
    weights = randomised(model)
    asked = torch.cat([HISTORIES[:, 1:], torch.full((len(HISTORIES), 1), mask)], dim=1)
    masked = HISTORIES.clone()
    masked[:, [2, 4]] = mask
    outputs = {}
    for name, items, present in (("asked", asked, asked > 0), ("masked", masked, HISTORIES > 0)):
        hidden = model.bert(input_ids=items, attention_mask=present.long()).last_hidden_state
        outputs[f"{name}.hidden"] = head(hidden)
        outputs[f"{name}.scores"] = model(input_ids=items, attention_mask=present.long()).logits[..., 1:mask]
    return weights | outputs


def randomised(model: nn.Module) -> dict[str, Tensor]:
    """The parameters of a model, after each was changed at random."""
    model.eval()
    for parameter in model.parameters():
        parameter.add_(0.3 * torch.randn(parameter.shape))
    return dict(model.named_parameters())


def main() -> None:
    """Write the file that is named on the command line."""
    makers = {"rectools": rectools, "transformers": transformers}
    name = sys.argv[1] if len(sys.argv) == 2 else ""
    if name not in makers:
        sys.exit(f"usage: python benchmarks/parity.py {{{','.join(makers)}}}")
    torch.manual_seed(0)
    with torch.no_grad():
        tensors = {key: tensor.contiguous() for key, tensor in makers[name]().items()}
    path = GOLDEN / f"{name}.safetensors"
    path.parent.mkdir(exist_ok=True)
    save_file({**tensors, "histories": HISTORIES}, path, {part: version(part) for part in (name, "torch")})
    print(f"{path}: {path.stat().st_size} bytes")


if __name__ == "__main__":
    main()
