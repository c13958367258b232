"""What can be chosen of an ONNX model."""

from typing import Literal, get_args

#: `top-k`: from a history to the best items. `tables`: to the products with the rows of the item table, whose sums by
#: code are the scores.
Answer = Literal["top-k", "tables"]
ANSWERS: tuple[Answer, ...] = get_args(Answer)

#: `float32` keeps every number of the bundle as it is. `float16`: what is float32 there is stored in float16. `int8`:
#: matrices of floats become whole numbers of 8 bits with a scale for each row. All compute in float32.
Precision = Literal["float32", "float16", "int8"]
PRECISIONS: tuple[Precision, ...] = get_args(Precision)

#: How far scores may be from the network's, as a share of the largest absolute score after a history.
TOLERANCES: dict[Precision, float] = {"float32": 1e-4, "float16": 5e-3, "int8": 5e-2}

#: A `top-k` model scores every item at every call: none of more items is made.
MOST_ITEMS = 100_000
