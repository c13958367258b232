"""Items that came after training: a code or vector from what they are like, without training; and items that go."""

import dataclasses
import math
import re
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence

import torch
from jaxtyping import Bool
from torch import Tensor

from lsan.answers import RawId
from lsan.data.catalogue import Catalogue
from lsan.errors import DataError
from lsan.models.item_tables.coded import CodedTable
from lsan.models.item_tables.full import FullTable
from lsan.runs import Run, new_network

#: An item's company counts against what its title and category say as so many neighbours do.
_PRIOR = 2.0

#: Items of the most similar titles that are averaged.
_LIKE = 10

_WORD = re.compile(r"\w+")


def add_items(run: Run, new: Catalogue, company: Mapping[RawId, Mapping[RawId, float]] | None = None) -> Run:
    """The run with more items, after those it has. Scores of the items that it had do not change (written in whole
    numbers they may where item vectors have fewer than 16 of them, which share a scale).

    A new item is expected where the items of the most similar titles are (shared words, rare ones counting more), or
    else those of its category, or else all; and drawn from there towards the items that it was seen with. In a coded
    table it then takes the nearest free code, in a full one that vector, and the bias of items like it. Items that the
    run has but never met in training (with a temporal split) are new in all but their place.

    Args:
        new: ids, titles and categories of the new items.
        company: by the id of a new item, how often it was near to which known ids, where that is known.

    Raises:
        DataError: when an id is there already, or is of another type than those that are there, or two are the same, or
            items of this model have neither codes nor vectors of their own, or there are too few codes.
    """
    network, catalogue = run.network, run.catalogue
    if network.untied is not None or not isinstance(network.table, CodedTable | FullTable):
        raise DataError("only models whose items have codes or vectors of their own take new items")
    met, places = trained_items(run), catalogue.indices_of(new.ids)
    if again := [raw for raw, index in zip(new.ids, places, strict=True) if index and met[index - 1]]:
        raise DataError(f"{len(again)} of the new items are in the model already, such as {again[0]!r}")
    if len(set(new.ids)) < len(new.ids):
        raise DataError(f"of the {len(new.ids)} new items some have the same id")
    if {type(raw) for raw in new.ids} != {type(raw) for raw in catalogue.ids}:
        raise DataError(
            f"ids of this model are such as {catalogue.ids[0]!r}, those of new items such as {new.ids[0]!r}"
        )
    fresh = [row for row, index in enumerate(places) if not index]
    whole = Catalogue(
        ids=[*catalogue.ids, *(new.ids[row] for row in fresh)],
        titles=[*catalogue.titles, *(new.titles[row] for row in fresh)],
        categories=[
            *catalogue.categories,
            *(new.categories[row] if new.categories[row] in catalogue.category_names else None for row in fresh),
        ],
    )
    near = Neighbours(catalogue, met.tolist())
    weights = [
        near.of(title, category, (company or {}).get(raw, {}))
        for raw, title, category in zip(new.ids, new.titles, new.categories, strict=True)
    ]
    rows = torch.tensor([*range(len(catalogue)), *(len(catalogue) + row for row in fresh)])  # where all new ones follow
    for row, index in enumerate(places):
        if index:
            rows[index - 1] = len(catalogue) + row
    try:
        with torch.no_grad():
            extended = network.table.extended(weights)
    except ValueError as error:
        raise DataError(f"the model takes no more items: {error}") from error
    state = dict(network.state_dict()) | {f"table.{name}": tensor[rows] for name, tensor in extended.items()}
    state["popularity"] = torch.cat([network.popularity, network.popularity.new_zeros(len(fresh))])
    state["offered"] = torch.cat([network.offered, network.offered.new_zeros(len(fresh))]) | (rows >= len(catalogue))
    header = dataclasses.replace(run.header, dataset={**run.header.dataset, "items": len(whole)})
    none = torch.zeros(len(whole), dtype=torch.int64)
    larger = new_network(header.recipe, whole, none, none, header.dataset["users"])
    if larger.context is not None:
        state["context.category_of_item"] = larger.context.category_of_item
    larger.load_state_dict(state)
    return Run(header=header, catalogue=whole, network=larger.eval())


def remove_items(run: Run, ids: Sequence[RawId]) -> None:
    """From now on these items are neither read nor recommended. The others keep their places and scores.

    Raises:
        DataError: when there is no such item, or none would be left.
    """
    indices = run.catalogue.indices_of(ids)
    if unknown := [raw for raw, index in zip(ids, indices, strict=True) if not index]:
        raise DataError(f"{len(unknown)} ids are not in the model, such as {unknown[0]!r}")
    left = run.network.offered.clone()
    left[torch.tensor(indices) - 1] = False
    if not left.any():
        raise DataError("that would leave no item to recommend")
    run.network.offered.copy_(left)


def trained_items(run: Run) -> Bool[Tensor, " items"]:
    """False for the items 1..V that the run has but that training never met, with a temporal split: they have no
    vectors of their own. There, removed items without a known popularity look the same (docs/compress.md)."""
    network = run.network
    if run.header.recipe.split.method != "temporal":
        return torch.ones_like(network.offered)
    return network.offered | (network.popularity > 0)


def return_items(run: Run, ids: Sequence[RawId]) -> int:
    """Items that were removed are read and recommended again, where they were; how many of these ids that concerns."""
    removed = run.network.offered.logical_not() & trained_items(run)
    asked = torch.zeros_like(removed)
    asked[[index - 1 for index in run.catalogue.indices_of(ids) if index]] = True
    run.network.offered |= removed & asked
    return int((removed & asked).sum())


class Neighbours:
    """Finds the items that a new one is like, among those that have been trained."""

    def __init__(self, catalogue: Catalogue, trained: Sequence[bool]) -> None:
        self._catalogue = catalogue
        self._trained = {index: 1.0 for index, it_is in enumerate(trained, start=1) if it_is}
        self._with_word: dict[str, list[int]] = defaultdict(list)
        self._with_category: dict[str, list[int]] = defaultdict(list)
        self._words = [0]
        for index, (title, category) in enumerate(zip(catalogue.titles, catalogue.categories, strict=True), start=1):
            words = _words(title)
            self._words.append(len(words))
            if index not in self._trained:
                continue
            for word in words:
                self._with_word[word].append(index)
            if category is not None:
                self._with_category[category].append(index)

    def of(self, title: str | None, category: str | None, company: Mapping[RawId, float]) -> dict[int, float]:
        """Weights of item indices, with a sum of 1."""
        like = self._similar(title) or dict.fromkeys(self._with_category.get(category or "", []), 1.0)
        weights = _shares(like or self._trained)
        near = {
            index: weight
            for raw, weight in company.items()
            if (index := self._catalogue.index_of(raw)) in self._trained
        }
        if not near:
            return weights
        share = sum(near.values()) / (sum(near.values()) + _PRIOR)
        mixed = Counter({index: (1 - share) * weight for index, weight in weights.items()})
        mixed.update({index: share * weight for index, weight in _shares(near).items()})
        return dict(mixed)

    def _similar(self, title: str | None) -> dict[int, float]:
        """The items whose titles share the most with this one: `log(V / items with the word)`, summed over shared
        words, over the root of the number of the other title's words."""
        found: dict[int, float] = defaultdict(float)
        for word in _words(title):
            items = self._with_word.get(word, [])
            for index in items:
                found[index] += math.log(len(self._catalogue) / len(items)) / math.sqrt(self._words[index])
        best = sorted(found.items(), key=lambda pair: (-pair[1], pair[0]))[:_LIKE]
        return {index: score for index, score in best if score > 0}


def _words(title: str | None) -> set[str]:
    return set() if title is None else set(_WORD.findall(title.casefold()))


def _shares(weights: Mapping[int, float]) -> dict[int, float]:
    total = sum(weights.values())
    return {index: weight / total for index, weight in weights.items()}
