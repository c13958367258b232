"""The service that `lsan serve` is compared with: SASRec in PyTorch behind FastAPI, as one would write it in an afternoon.

    LSAN_BUNDLE=FILE uvicorn torch_service:app --workers 2 --no-access-log

Width 64, two blocks, two heads, the 50 latest events, dense scores, items of the history left out. Ids and titles are
the bundle's; the weights are random, which takes as long. One torch thread for each worker.
"""

import os

import torch
from fastapi import FastAPI
from pydantic import BaseModel
from torch import Tensor, nn

from lsan.runtime import Recommender

WIDTH, BLOCKS, HEADS, HISTORY = 64, 2, 2, 50

torch.set_num_threads(1)
torch.manual_seed(0)


class SasRec(nn.Module):
    """Causal self-attention over the history; scores are products with the items' vectors."""

    def __init__(self, items: int) -> None:
        super().__init__()
        self.items = nn.Embedding(items + 1, WIDTH, padding_idx=0)
        self.positions = nn.Embedding(HISTORY, WIDTH)
        layer = nn.TransformerEncoderLayer(
            WIDTH, HEADS, dim_feedforward=WIDTH, dropout=0.2, batch_first=True, norm_first=True
        )
        self.encoder = nn.TransformerEncoder(layer, BLOCKS, norm=nn.LayerNorm(WIDTH), enable_nested_tensor=False)
        self.register_buffer("mask", nn.Transformer.generate_square_subsequent_mask(HISTORY))
        self.mask: Tensor

    def forward(self, history: Tensor) -> Tensor:
        """Scores of all items (column 0 is padding) after histories [B, T] without padding."""
        length = history.shape[1]
        x = self.items(history) * WIDTH**0.5 + self.positions.weight[:length]
        x = self.encoder(x, mask=self.mask[:length, :length], is_causal=True)
        scores: Tensor = x[:, -1] @ self.items.weight.T
        return scores


vocabulary = Recommender.load(os.environ["LSAN_BUNDLE"]).vocabulary
index_of = {raw: index for index, raw in enumerate(vocabulary.ids, start=1)}
titles = ["", *(vocabulary.title_of(index) for index in index_of.values())]
model = SasRec(len(vocabulary)).eval()
app = FastAPI()


class Question(BaseModel):
    """A history."""

    history: list[int | str]
    k: int = 10


class Item(BaseModel):
    """A recommended item."""

    id: int | str
    title: str
    score: float


class Answer(BaseModel):
    """The best items."""

    items: list[Item]


@app.post("/v1/recommend")
def recommend(question: Question) -> Answer:
    """The k best items after a history."""
    known = [index_of[raw] for raw in question.history if raw in index_of]
    with torch.inference_mode():
        history = torch.tensor([known[-HISTORY:]])
        scores = model(history)[0]
        scores[0] = -torch.inf
        scores[torch.tensor(known)] = -torch.inf
        best = scores.topk(question.k)
    return Answer(
        items=[
            Item(id=vocabulary.ids[index - 1], title=titles[index], score=score)
            for score, index in zip(best.values.tolist(), best.indices.tolist(), strict=True)
        ]
    )
