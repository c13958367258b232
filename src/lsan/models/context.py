"""Temporal context of each event: category of the event before, category of the event, hour of the day."""

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

#: Hour slots are 1..24 (00:00-00:59 UTC is 1); 0 stands for padding and for data without times of day.
HOUR_SLOTS = 24


class TemporalContext(nn.Module):
    """r_i of the paper (section 3.2; equation 2 of docs/model.md): the vector of (category i-1, category i, hour i).

    The paper gives each distinct tuple its own vector and leaves open what a new tuple gets. Here r_i is the sum of
    three small tables, so every tuple has a vector. The tables start at zero: a category or hour that training never
    met adds nothing. Category 0 is padding (before the first event), C + 1 is "unknown".
    """

    category_of_item: Tensor

    def __init__(self, category_of_item: Int[Tensor, " items_and_padding"], width: int) -> None:
        """`category_of_item` holds 0 for items (and padding) without a category, else 1..C."""
        super().__init__()
        categories = int(category_of_item.max())
        known = torch.where(category_of_item == 0, categories + 1, category_of_item)
        known[0] = 0
        self.register_buffer("category_of_item", known.to(torch.int32))
        self.previous_category = nn.Parameter(torch.zeros(categories + 2, width))
        self.category = nn.Parameter(torch.zeros(categories + 2, width))
        self.hour = nn.Parameter(torch.zeros(HOUR_SLOTS + 1, width))

    def forward(
        self, items: Int[Tensor, "batch time"], hours: Int[Tensor, "batch time"]
    ) -> Float[Tensor, "batch time width"]:
        category = self.category_of_item[items]
        previous = torch.cat([torch.zeros_like(category[:, :1]), category[:, :-1]], dim=1)
        return (
            nn.functional.embedding(previous, self.previous_category)
            + nn.functional.embedding(category, self.category)
            + nn.functional.embedding(hours, self.hour)
        )
