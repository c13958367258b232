"""What `lsan serve` is compared with: SASRec in PyTorch behind FastAPI, as one would write it in an afternoon.

    LSAN_BUNDLE=FILE uvicorn torch_service:app --workers 2 --no-access-log

Width 64, two blocks, two heads, the 50 latest events, no padding, PyTorch's own attention, dense scores, items of the
history left out. Ids and titles are the bundle's; weights are random, which takes as long. One thread for each worker.
"""

import os

import torch
from fastapi import FastAPI
from pydantic import BaseModel
from torch import Tensor, nn
from torch.nn import functional as F

from lsan.runtime import Recommender

WIDTH, BLOCKS, HEADS, HISTORY = 64, 2, 2, 50

torch.set_num_threads(1)
torch.manual_seed(0)


class Block(nn.Module):
    """Causal attention and two dense layers, each on normed input and beside a shortcut."""

    def __init__(self) -> None:
        super().__init__()
        self.attention_norm, self.dense_norm = nn.LayerNorm(WIDTH), nn.LayerNorm(WIDTH)
        self.projection, self.output = nn.Linear(WIDTH, 3 * WIDTH), nn.Linear(WIDTH, WIDTH)
        self.dense = nn.Sequential(nn.Linear(WIDTH, WIDTH), nn.ReLU(), nn.Linear(WIDTH, WIDTH))

    def forward(self, x: Tensor) -> Tensor:
        """[1, T, width] to the same."""
        length = x.shape[1]
        parts = self.projection(self.attention_norm(x)).view(1, length, 3, HEADS, WIDTH // HEADS)
        query, key, value = parts.permute(2, 0, 3, 1, 4)
        attended = F.scaled_dot_product_attention(query, key, value, is_causal=True)
        x = x + self.output(attended.transpose(1, 2).reshape(1, length, WIDTH))
        y: Tensor = x + self.dense(self.dense_norm(x))
        return y


class SasRec(nn.Module):
    """Scores are products with the items' vectors."""

    def __init__(self, items: int) -> None:
        super().__init__()
        self.items = nn.Embedding(items + 1, WIDTH, padding_idx=0)
        self.positions = nn.Embedding(HISTORY, WIDTH)
        self.encoder = nn.Sequential(*(Block() for _ in range(BLOCKS)), nn.LayerNorm(WIDTH))

    def forward(self, history: Tensor) -> Tensor:
        """Scores of all items, entry 0 is padding, after a history [T]."""
        x = self.items(history) * WIDTH**0.5 + self.positions.weight[: len(history)]
        scores: Tensor = self.items.weight @ self.encoder(x[None])[0, -1]
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
        scores = model(torch.tensor(known[-HISTORY:]))
        scores[0] = -torch.inf
        scores[torch.tensor(known)] = -torch.inf
        best = scores.topk(question.k)
    return Answer(
        items=[
            Item(id=vocabulary.ids[index - 1], title=titles[index], score=score)
            for score, index in zip(best.values.tolist(), best.indices.tolist(), strict=True)
        ]
    )
