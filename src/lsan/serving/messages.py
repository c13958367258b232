"""What is asked and answered, as pydantic reads it and the OpenAPI document shows it."""

from datetime import datetime
from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field, GetCoreSchemaHandler
from pydantic_core import CoreSchema, core_schema

from lsan.runtime import Filter

#: Most events of a history and ids of a filter, most items of an answer, most histories of a batch.
HISTORY, BEST, BATCH = 5000, 1000, 1000

#: Most characters of an id, and of a query.
LONGEST_ID, LONGEST_QUERY = 1000, 1000


class _IdSchema:
    """Text, or a whole number of 64 bits. What is neither is one error, not one for each kind."""

    @staticmethod
    def __get_pydantic_core_schema__(_source: object, _handler: GetCoreSchemaHandler) -> CoreSchema:
        return core_schema.union_schema(
            [
                core_schema.int_schema(strict=True, ge=-(2**63), le=2**63 - 1),
                core_schema.str_schema(strict=True, max_length=LONGEST_ID),
            ],
            mode="left_to_right",
            custom_error_type="item_id",
            custom_error_message=f"an item id: text of at most {LONGEST_ID} characters, or a whole number of 64 bits",
        )


class _TimeSchema:
    """Seconds since 1970 UTC, or ISO 8601 text."""

    @staticmethod
    def __get_pydantic_core_schema__(_source: object, _handler: GetCoreSchemaHandler) -> CoreSchema:
        return core_schema.union_schema(
            [
                core_schema.float_schema(strict=True, ge=0, lt=7_258_118_400, allow_inf_nan=False),
                core_schema.datetime_schema(strict=True),
            ],
            mode="left_to_right",
            custom_error_type="time",
            custom_error_message="seconds since 1970 UTC, before the year 2200, or ISO 8601 text",
        )


Id = Annotated[int | str, _IdSchema]
Time = Annotated[float | datetime, _TimeSchema]
Ids = Annotated[list[Id], Field(max_length=HISTORY)]
Times = Annotated[list[Time | None], Field(max_length=HISTORY)]
Categories = Annotated[list[str], Field(max_length=HISTORY)]
Best = Annotated[int, Field(ge=1, le=BEST, description="how many items")]


class _Asked(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True)


class FilterBody(_Asked):
    """What may be recommended. An item has to pass all that is given; ids and categories that the model does not know
    allow and forbid nothing."""

    allow: Ids | None = Field(None, description="only these ids")
    forbid: Ids = Field([], description="not these ids")
    allow_categories: Categories | None = Field(None, description="only items of these categories")
    forbid_categories: Categories = Field([], description="no items of these categories")

    def for_recommender(self) -> Filter:
        """As the recommender reads it."""
        return Filter(
            allow=self.allow,
            forbid=self.forbid,
            allow_categories=self.allow_categories,
            forbid_categories=self.forbid_categories,
        )


class _Options(_Asked):
    at: Time | None = Field(None, description="when the recommendation is asked for; null: at the last event")
    k: Best = 10
    exclude_seen: bool | None = Field(None, description="leave out the items of the history; null follows the model")
    filter: FilterBody | None = None


class Question(_Options):
    """A history, and what is wanted after it."""

    history: Ids = Field(description="raw item ids, oldest first", examples=[["SKU-0421", "SKU-0017"]])
    times: Times | None = Field(None, description="when each event happened, null where unknown")


class BatchQuestion(_Options):
    """Several histories, and what is wanted after each."""

    histories: list[Ids] = Field(description="raw item ids, oldest first", max_length=BATCH)
    times: Annotated[list[Times], Field(max_length=BATCH)] | None = Field(
        None, description="when each event happened, null where unknown"
    )


class ItemsQuestion(_Asked):
    """A search."""

    model_config = ConfigDict(extra="forbid", strict=False)  # the address is text

    query: str = Field("", max_length=LONGEST_QUERY, description="beginnings of words of the title; or the id")
    k: Best = 10


class SimilarQuestion(_Asked):
    """An item, and how many are wanted."""

    model_config = ConfigDict(extra="forbid", strict=False)

    item: str = Field(max_length=LONGEST_ID, description="raw id")
    k: Best = 10


class Item(BaseModel):
    """An item."""

    id: int | str = Field(description="as the log had it")
    title: str = Field(description="the id where the item has none")
    category: str | None = Field(description="null where unknown")


class ScoredItem(Item):
    """A recommended item."""

    score: float = Field(description="larger is better, comparable within one answer")


class SimilarItem(Item):
    """An item that is like another."""

    similarity: float = Field(description="cosine of the items' vectors, -1 to 1")


class Recommended(BaseModel):
    """The answer to one history."""

    items: list[ScoredItem] = Field(description="best first; fewer than k where there are no more")
    unknown_ids: list[int | str] = Field(description="ids of the history that the model does not know; skipped")
    by_popularity: bool = Field(description="no id was known, so these are the most popular items")


class Answer(Recommended):
    """The answer to one history, and by which model."""

    model: str = Field(description="version of the model: the beginning of its file's SHA-256")


class BatchAnswer(BaseModel):
    """The answers, in the order of the histories."""

    answers: list[Recommended]
    model: str = Field(description="version of the model")


class ItemsAnswer(BaseModel):
    """Items that were found, best first."""

    items: list[Item]
    model: str = Field(description="version of the model")


class SimilarAnswer(BaseModel):
    """Similar items, most similar first."""

    items: list[SimilarItem]
    model: str = Field(description="version of the model")


class Ready(BaseModel):
    """What is being served."""

    model: str = Field(description="version of the model")
    items: int = Field(description="in the model")
    history: int = Field(description="events of a history that the model reads, the latest")
    timed: bool = Field(description="whether it reads times")
    engine: str = Field(description="what computes")


class Alive(BaseModel):
    """The process answers."""

    status: str
