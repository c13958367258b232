"""The simulated shop before anybody shops: catalogue, projects, seasons, trends, tastes.

docs/simulator.md describes the process. Letters in shapes: U users, V items, K kinds of product, N most items
of a kind, C categories, S styles, P projects, R kinds in a project's list, W weeks, E events, n rows of a
state. Items, users and kinds are numbered from 0 here; item i is of kind i % K and has the rank i // K in it.
"""

import zlib
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import numpy.typing as npt
import polars as pl

from lsan.data.shop_words import AISLES, STYLES
from lsan.errors import ConfigError

Ints = npt.NDArray[np.int64]
Floats = npt.NDArray[np.float64]
Bools = npt.NDArray[np.bool_]

KINDS_PER_AISLE = 20
#: A project lists this many kinds of its main category and of its second one.
MAIN_KINDS, SECOND_KINDS = 5, 3
#: The second category of a project is less than this many aisles after its main one.
NEAR = 4
#: Probability that a project goes on 1, 2 or 3 places further along its list.
STEP = (0.6, 0.27, 0.13)
#: Projects a kind.
PROJECTS_PER_KIND = 0.4
#: Correlation of a log popularity with that of the week before.
WEEKLY_CORRELATION = 0.9


@dataclass(frozen=True, kw_only=True)
class ShopConfig:
    """Everything that decides a simulation; equal configurations give equal logs."""

    users: int = 5_000
    """Shoppers, at least 1."""
    items: int = 2_000
    """Items of the catalogue, 40 to 8,000."""
    mean_events: float = 26.0
    """About the mean events a shopper, at least 12."""
    days: int = 182
    """Length of the log, at least 28."""
    seed: int = 0
    """Seed of every random stream, not negative."""
    go_on: float = 0.75
    """Probability that a session goes on after an event."""
    browse: float = 0.12
    """Probability that an event follows the shopper's taste alone and not the project."""
    taste_concentration: float = 0.15
    """Dirichlet parameter of tastes over categories: small = few favourites."""
    style_concentration: float = 0.4
    """Dirichlet parameter of tastes over styles: small = one favourite."""
    style_loyalty: float = 0.4
    """Weight, beside the shopper's own style taste (sum 1), of the style that began the session."""
    hour_strength: float = 2.0
    """Log weight that a project gains at its hour of the day, and loses twelve hours from it."""
    weekday_strength: float = 0.6
    """Log weight that a project gains on its weekday, and loses half a week from it."""
    trend_strength: float = 0.8
    """Standard deviation of the weekly random walks of log popularity."""
    launched_later: float = 0.2
    """Share of items that come into the shop only after its first day."""

    def __post_init__(self) -> None:
        least = {"users": 1, "items": 40, "mean_events": 12, "days": 28, "seed": 0, "style_loyalty": 0}
        least |= {"hour_strength": 0, "weekday_strength": 0, "trend_strength": 0}
        for name, bound in least.items():
            if not getattr(self, name) >= bound:
                raise ConfigError(f"shop: {name} is {getattr(self, name)}, expected at least {bound}")
        most = len(AISLES) * KINDS_PER_AISLE * sum(len(words) for words in STYLES.values())
        if self.items > most:
            raise ConfigError(f"shop: items is {self.items}, expected at most {most}")
        for name in ("go_on", "browse", "launched_later"):
            if not 0 <= getattr(self, name) < 1:
                raise ConfigError(f"shop: {name} is {getattr(self, name)}, expected 0 <= {name} < 1")
        for name in ("taste_concentration", "style_concentration"):
            if not getattr(self, name) > 0:
                raise ConfigError(f"shop: {name} is {getattr(self, name)}, expected more than 0")

    @property
    def weeks(self) -> int:
        """Weeks that the log touches."""
        return -(-self.days // 7)


@dataclass(frozen=True, kw_only=True)
class Shop:
    """The truth that does not change from event to event."""

    config: ShopConfig
    """What it was built from."""
    items: pl.DataFrame
    """Columns item, title, category; row i belongs to item number i. [V]"""
    style_of_rank: Ints
    """Style of the items of this rank. [N]"""
    appeal: Floats
    """Weight of an item among those of its kind; 0 before its launch and where there is no item. [W, N, K]"""
    category_of_kind: Ints
    """[K]"""
    slot_of_kind: Ints
    """Place of a kind in a project's list, -1 where it is not in it. [P, K]"""
    follow: Floats
    """Distribution of the next kind: [p, 0] as project p starts, [p, j + 1] after place j. [P, R + 1, K]"""
    season: Floats
    """Popularity of a project by hour of the week, Monday 00:00 first. [168, P]"""
    trend: Floats
    """Popularity of a project by week. [W, P]"""
    taste: Floats
    """Each shopper's distribution over categories. [U, C]"""
    style_taste: Floats
    """Each shopper's distribution over styles. [U, S]"""
    affinity: Floats
    """Each shopper's weight for each project. [U, P]"""

    @property
    def kinds(self) -> int:
        """K."""
        return len(self.category_of_kind)

    @cached_property
    def starts(self) -> tuple[Ints, Ints, Floats]:
        """Every project with every kind that it can start with, and the probability. [pairs] each."""
        project, kind = np.nonzero(self.follow[:, 0])
        return project, kind, self.follow[project, 0, kind]


def build_shop(config: ShopConfig) -> Shop:
    """Draw everything that holds before the first visit."""
    kinds = min(len(AISLES) * KINDS_PER_AISLE, -(-config.items // len(STYLES)))
    categories = min(len(AISLES), max(2, kinds // 8))
    category_of_kind = np.arange(kinds) % categories
    lists, main, second = _draw_projects(category_of_kind, stream(config.seed, "projects"))
    random = stream(config.seed, "shoppers")
    taste = random.dirichlet(np.full(categories, config.taste_concentration), config.users)
    style_taste = random.dirichlet(np.full(len(STYLES), config.style_concentration), config.users)
    appeal = _draw_appeal(config, kinds)
    return Shop(
        config=config,
        items=_name_items(config, category_of_kind),
        style_of_rank=np.arange(appeal.shape[1]) % len(STYLES),
        appeal=appeal,
        category_of_kind=category_of_kind,
        slot_of_kind=_slots(lists, kinds),
        follow=_transitions(lists, kinds),
        season=_draw_seasons(config, main),
        trend=_draw_popularity(config, len(lists), stream(config.seed, "trends")),
        taste=taste,
        style_taste=style_taste,
        affinity=0.02 + 0.6 * taste[:, main] + 0.4 * taste[:, second],
    )


def stream(seed: int, name: str) -> np.random.Generator:
    """The random stream of that name, independent of all other streams of the seed."""
    return np.random.default_rng(np.random.SeedSequence(seed, spawn_key=(zlib.crc32(name.encode()),)))


def _draw_projects(category_of_kind: Ints, random: np.random.Generator) -> tuple[Ints, Ints, Ints]:
    """Lists of kinds [P, R] in the order of use, main and second category [P]. Rare kinds come first."""
    categories = int(category_of_kind.max()) + 1
    main = np.arange(max(categories, round(PROJECTS_PER_KIND * len(category_of_kind)))) % categories
    second = (main + random.integers(1, min(NEAR, categories), len(main))) % categories
    used = np.zeros(len(category_of_kind))
    lists = []
    for pair in zip(main, second, strict=True):
        chosen: list[int] = []
        for category, count in zip(pair, (MAIN_KINDS, SECOND_KINDS), strict=True):
            choices = random.permutation(np.flatnonzero(category_of_kind == category))
            chosen += choices[np.argsort(used[choices], kind="stable")][:count].tolist()
        used[chosen] += 1
        lists.append(random.permutation(chosen))
    return np.stack(lists), main, second


def _slots(lists: Ints, kinds: int) -> Ints:
    """`Shop.slot_of_kind` [P, K] of the lists [P, R]."""
    slots = np.full((len(lists), kinds), -1)
    np.put_along_axis(slots, lists, np.arange(lists.shape[1])[None, :], axis=1)
    return slots


def _transitions(lists: Ints, kinds: int) -> Floats:
    """`Shop.follow` [P, R + 1, K] of the lists [P, R], which go round."""
    projects, places = lists.shape
    follow = np.zeros((projects, places + 1, kinds))
    for ahead, probability in enumerate(STEP):
        for row in range(places + 1):
            follow[np.arange(projects), row, lists[:, (row + ahead) % places]] += probability
    return follow


def _draw_seasons(config: ShopConfig, main: Ints) -> Floats:
    """`Shop.season` [168, P]: a project has its hour and weekday near those of its main category."""
    random = stream(config.seed, "seasons")
    peak_hour = np.array([aisle.peak_hour for aisle in AISLES])[main] + random.normal(0, 3, len(main))
    peak_weekday = np.array([aisle.peak_weekday for aisle in AISLES])[main] + random.normal(0, 1, len(main))
    weekday, hour = np.divmod(np.arange(168)[:, None], 24)
    log_season = config.hour_strength * np.cos(2 * np.pi * (hour - peak_hour) / 24)
    return np.exp(log_season + config.weekday_strength * np.cos(2 * np.pi * (weekday - peak_weekday) / 7))


def _draw_popularity(config: ShopConfig, columns: int, random: np.random.Generator) -> Floats:
    """Log-normal popularities: a constant part and a stationary weekly walk. [W, columns]"""
    walk = random.normal(0, config.trend_strength, (config.weeks, columns))
    for week in range(1, config.weeks):
        walk[week] = WEEKLY_CORRELATION * walk[week - 1] + np.sqrt(1 - WEEKLY_CORRELATION**2) * walk[week]
    return np.exp(walk + random.normal(0, 0.6, columns))


def _draw_appeal(config: ShopConfig, kinds: int) -> Floats:
    """`Shop.appeal` [W, N, K]. The first item of each kind is there from the first day."""
    random = stream(config.seed, "launches")
    appeal = _draw_popularity(config, config.items, random)
    later = (random.random(config.items) < config.launched_later) & (np.arange(config.items) >= kinds)
    launch = np.where(later, random.integers(1, max(2, 3 * config.weeks // 4), config.items), 0)
    age = np.arange(config.weeks)[:, None] - launch
    novelty = np.where(later, 1 + 2 * np.exp(-np.maximum(age, 0) / 4), 1)
    grid = np.zeros((config.weeks, -(-config.items // kinds) * kinds))
    grid[:, : config.items] = np.where(age >= 0, appeal * novelty, 0)
    return grid.reshape(config.weeks, -1, kinds)


def _name_items(config: ShopConfig, category_of_kind: Ints) -> pl.DataFrame:
    """`Shop.items`. Stock numbers are shuffled: they tell nothing."""
    random = stream(config.seed, "names")
    kinds, categories = len(category_of_kind), int(category_of_kind.max()) + 1
    numbers = 1 + random.permutation(config.items)
    first_word = random.integers(0, 4, kinds).tolist()
    nouns = [[noun.strip() for noun in aisle.nouns.split(",")] for aisle in AISLES]
    words = list(STYLES.values())
    titles = []
    for item in range(config.items):
        rank, kind = divmod(item, kinds)
        adjectives = words[rank % len(words)]
        adjective = adjectives[(first_word[kind] + rank // len(words)) % len(adjectives)]
        titles.append(f"{adjective} {nouns[kind % categories][kind // categories]}")
    names = [AISLES[category_of_kind[item % kinds]].name for item in range(config.items)]
    ids = [f"SKU-{number:04d}" for number in numbers.tolist()]
    return pl.DataFrame({"item": ids, "title": titles, "category": names})
