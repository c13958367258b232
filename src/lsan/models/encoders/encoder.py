"""What every encoder is."""

from abc import ABC, abstractmethod

from jaxtyping import Float
from torch import Tensor, nn

from lsan.models.histories import Histories


class Encoder(nn.Module, ABC):
    """Turns the item vectors of a history into the vectors that items are ranked with.

    Left padding changes nothing. In the causal regime no position sees a later one.
    """

    output_width: int
    """Numbers in an output vector, which the output table must be as wide as."""

    @abstractmethod
    def forward(
        self, x: Float[Tensor, "batch time width"], histories: Histories, *, last_only: bool
    ) -> Float[Tensor, "batch out output_width"]:
        """`x` are the vectors of `histories.items`, 0 at padding; at most the history length of the recipe. The output
        after every event (out = time), or with `last_only` after the last one alone (out = 1). At padding it is
        arbitrary but finite."""
