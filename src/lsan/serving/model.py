"""The model that is being served, and its answers as JSON."""

import hashlib
import json
from collections.abc import Mapping, Sequence
from functools import lru_cache, partial
from typing import Any

from lsan.answers import Recommendations
from lsan.runtime import Recommender
from lsan.runtime.vocabulary import Vocabulary
from lsan.serving.pages import Page, make_pages


class Model:
    """A bundle that is whole and answers as it should, with all that is computed once for it. Nothing of it changes: a
    new file makes a new one. May be shared between threads."""

    def __init__(self, content: bytes, *, where: str) -> None:
        """From a bundle's bytes; `where` names them in errors.

        Raises:
            BundleError: when these are not a bundle that this lsan can use, or it answers otherwise than it should.
        """
        self.recommender = Recommender(content, where=where)
        self.recommender.verify()
        self.version = version_of(content)
        """The beginning of the SHA-256 of the file."""
        self.bytes = len(content)
        """Of the file."""
        self.pages: Mapping[str, Page] = make_pages(content)
        """Files of the page by their paths."""
        self._piece = lru_cache(2**16)(partial(_piece, self.recommender.vocabulary))

    def answer(self, answer: Recommendations) -> bytes:
        """The JSON of `messages.Answer`."""
        return f'{{{self._entries(answer)},"model":"{self.version}"}}'.encode()

    def batch_answer(self, answers: Sequence[Recommendations]) -> bytes:
        """The JSON of `messages.BatchAnswer`."""
        every = ",".join([f"{{{self._entries(answer)}}}" for answer in answers])
        return f'{{"answers":[{every}],"model":"{self.version}"}}'.encode()

    def items_answer(self, items: Sequence[Mapping[str, Any]]) -> bytes:
        """The JSON of `messages.ItemsAnswer` and `messages.SimilarAnswer`."""
        return to_json({"items": items, "model": self.version})

    def _entries(self, answer: Recommendations) -> str:
        piece = self._piece
        items = ",".join(
            [f"{piece(index)}{score!r}}}" for index, score in zip(answer.indices, answer.scores, strict=True)]
        )
        unknown = json.dumps(answer.unknown_ids, ensure_ascii=False) if answer.unknown_ids else "[]"
        popular = "true" if answer.by_popularity else "false"
        return f'"items":[{items}],"unknown_ids":{unknown},"by_popularity":{popular}'


def _piece(vocabulary: Vocabulary, index: int) -> str:
    """The JSON of an item up to its score, which follows."""
    raw, title, category = vocabulary.describe(index)
    item = {"id": raw, "title": title, "category": category}
    return f'{json.dumps(item, ensure_ascii=False, separators=(",", ":"))[:-1]},"score":'


def version_of(content: bytes) -> str:
    """The version of a bundle of these bytes."""
    return hashlib.sha256(content).hexdigest()[:16]


def to_json(entries: Mapping[str, Any]) -> bytes:
    """As UTF-8."""
    return json.dumps(entries, ensure_ascii=False, separators=(",", ":")).encode()
