"""A seeded log of the built-in simulated shop, whose next-item distribution is known exactly.

docs/simulator.md describes the process. Letters in shapes are those of `lsan.data.shop`.
"""

from dataclasses import dataclass
from functools import cached_property

import numpy as np
import polars as pl

from lsan.data.shop import Bools, Floats, Ints, Shop, ShopConfig, build_shop, stream

__all__ = [
    "Shop",
    "ShopConfig",
    "ShopperState",
    "Simulation",
    "next_item_probabilities",
    "oracle_probabilities",
    "project_probabilities",
    "simulate_shop",
]

#: 2024-01-01 00:00 UTC, a Monday, in seconds since 1970.
FIRST_SECOND = 1_704_067_200
HOUR, DAY, WEEK = 3_600, 86_400, 604_800
#: Sessions a shopper has at least, events a session has at most, and seconds between two events of a session.
LEAST_SESSIONS, MOST_EVENTS, PAUSE = 3, 8, (20, 300)
#: How busy Monday .. Sunday are.
WEEKDAY_VISITS = np.array([1.0, 0.9, 0.9, 1.0, 1.2, 1.5, 1.4])
#: Hours of the day around which shoppers habitually visit.
VISIT_HOURS = np.array([8.0, 13.0, 20.0])
#: Rows computed at once; small enough for the processor's cache.
CHUNK = 64


@dataclass(frozen=True, kw_only=True)
class ShopperState:
    """Everything that the next event depends on, for n shoppers who are about to choose."""

    user: Ints
    """[n]"""
    timestamp: Ints
    """When the choice is made, seconds since 1970 UTC. [n]"""
    project: Ints
    """The session's project, -1 when the session begins with this event. [n]"""
    slot: Ints
    """Place in the project's list that was reached last, -1 for none yet. [n]"""
    style: Ints
    """Style of the session's first item, -1 when the session begins with this event. [n]"""
    owned: Bools
    """Items the shopper has already; they are never chosen again. [n, V]"""


@dataclass(frozen=True, kw_only=True)
class Simulation:
    """A log with its truth. The events of user u are offsets[u] .. offsets[u + 1] - 1, oldest first."""

    shop: Shop
    """The shop and its shoppers."""
    offsets: Ints
    """[U + 1]"""
    user: Ints
    """[E]"""
    item: Ints
    """[E]"""
    timestamp: Ints
    """Seconds since 1970 UTC; strictly increasing within a user. [E]"""
    project: Ints
    """Before the event, as in `ShopperState`. [E]"""
    slot: Ints
    """Before the event. [E]"""
    style: Ints
    """Before the event. [E]"""

    @property
    def items(self) -> pl.DataFrame:
        """Columns item (raw id), title, category; row i belongs to item number i."""
        return self.shop.items

    @cached_property
    def interactions(self) -> pl.DataFrame:
        """The shop's log in order of time: columns user, item (raw ids) and timestamp (seconds)."""
        order = np.lexsort((self.user, self.timestamp))
        return pl.DataFrame(
            {
                "user": [f"shopper-{user:04d}" for user in (1 + self.user[order]).tolist()],
                "item": self.items["item"].gather(self.item[order]),
                "timestamp": self.timestamp[order],
            }
        )

    def states(self, events: Ints) -> ShopperState:
        """The true states just before these events (indices into the arrays of this class)."""
        owned = np.zeros((len(events), self.shop.config.items), dtype=np.bool_)
        for row, event in enumerate(events):
            owned[row, self.item[self.offsets[self.user[event]] : event]] = True
        return ShopperState(
            user=self.user[events],
            timestamp=self.timestamp[events],
            project=self.project[events],
            slot=self.slot[events],
            style=self.style[events],
            owned=owned,
        )


def simulate_shop(config: ShopConfig) -> Simulation:
    """Build the shop and let its shoppers shop. Every item is drawn from `next_item_probabilities`."""
    shop = build_shop(config)
    offsets, timestamp, begins = _draw_visits(config)
    dice = stream(config.seed, "choices").random((len(timestamp), 2))
    user = np.repeat(np.arange(config.users), np.diff(offsets))
    item, project, slot, style = np.full((4, len(timestamp)), -1)
    owned = np.zeros((config.users, config.items), dtype=np.bool_)
    for step in range(int(np.diff(offsets).max())):
        active = offsets[:-1][np.diff(offsets) > step] + step
        for event in np.split(active, range(CHUNK, len(active), CHUNK)):
            state = ShopperState(
                user=user[event],
                timestamp=timestamp[event],
                project=project[event],
                slot=slot[event],
                style=style[event],
                owned=owned[user[event]],
            )
            item[event] = _draw(next_item_probabilities(shop, state), dice[event, 0])
            owned[user[event], item[event]] = True
            reached = _advance(shop, state, item[event], dice[event, 1])
            stays = ~begins[event + 1]
            for latent, value in zip((project, slot, style), reached, strict=True):
                latent[event[stays] + 1] = value[stays]
    return Simulation(
        shop=shop,
        offsets=offsets,
        user=user,
        item=item,
        timestamp=timestamp,
        project=project,
        slot=slot,
        style=style,
    )


def next_item_probabilities(shop: Shop, state: ShopperState) -> Floats:
    """The exact distribution of the next item given the true state. [n, V], rows sum to 1.

    Shoppers who have everything that they could choose choose as if they had nothing.
    """
    style = shop.style_taste[state.user]
    style += shop.config.style_loyalty * (state.style[:, None] == np.arange(style.shape[1]))
    weight = shop.appeal[_week(state.timestamp)]
    weight *= style[:, shop.style_of_rank, None]
    weight *= (_kind_probabilities(shop, state) / weight.sum(axis=1))[:, None, :]
    wanted = weight.reshape(len(weight), -1)[:, : shop.config.items]
    probabilities = np.where(state.owned, 0, wanted)
    sated = ~probabilities.any(axis=1)
    probabilities[sated] = wanted[sated]
    probabilities /= probabilities.sum(axis=1, keepdims=True)
    return probabilities


def oracle_probabilities(simulation: Simulation, users: Ints) -> Floats:
    """The true distribution of these users' last events, given all that was latent before. [len(users), V]

    It knows more than any history tells (tastes, project, time of the event): no ranking can do better.
    """
    last = simulation.offsets[np.asarray(users) + 1] - 1
    return next_item_probabilities(simulation.shop, simulation.states(last))


def project_probabilities(shop: Shop, user: Ints, timestamp: Ints) -> Floats:
    """Distribution of the project of a session that begins at this time. [n, P], rows sum to 1."""
    weight = shop.affinity[user] * shop.trend[_week(timestamp)]
    weight *= shop.season[(timestamp - FIRST_SECOND) % WEEK // HOUR]
    weight /= weight.sum(axis=1, keepdims=True)
    return weight


def _kind_probabilities(shop: Shop, state: ShopperState) -> Floats:
    """Distribution of the next kind, before owned items are left out. [n, K]"""
    planned = shop.follow[state.project, state.slot + 1]
    new = np.flatnonzero(state.project < 0)
    planned[new] = _starting(shop, project_probabilities(shop, state.user[new], state.timestamp[new]))
    return (1 - shop.config.browse) * planned + shop.config.browse * _browsing(shop, state.user)


def _starting(shop: Shop, projects: Floats) -> Floats:
    """Distribution of the first kind [n, K] under these distributions of the project [n, P].

    A product with `follow[:, 0]`; this sum over its few entries has the same rounding on every machine.
    """
    project, kind, probability = shop.starts
    cell = np.arange(len(projects))[:, None] * shop.kinds + kind
    weights = projects[:, project] * probability
    total = np.bincount(cell.ravel(), weights=weights.ravel(), minlength=len(projects) * shop.kinds)
    return np.asarray(total, dtype=np.float64).reshape(-1, shop.kinds)


def _browsing(shop: Shop, user: Ints) -> Floats:
    """Distribution over kinds of a shopper who follows taste alone. [n, K]"""
    by_kind = shop.taste[user] / np.bincount(shop.category_of_kind)
    return by_kind[:, shop.category_of_kind]


def _advance(shop: Shop, state: ShopperState, item: Ints, dice: Floats) -> tuple[Ints, Ints, Ints]:
    """Project, slot and style after `item` was chosen. [n] each.

    When a session begins, the item comes first and the project is drawn from its posterior given the item.
    The pair is distributed as if project, then item were drawn anew until the shopper does not own the item.
    """
    kind, project = item % shop.kinds, state.project.copy()
    new = np.flatnonzero(project < 0)
    likelihood = (1 - shop.config.browse) * shop.follow[:, 0, kind[new]].T
    likelihood += shop.config.browse * _browsing(shop, state.user[new])[np.arange(len(new)), kind[new], None]
    prior = project_probabilities(shop, state.user[new], state.timestamp[new])
    project[new] = _draw(prior * likelihood, dice[new])
    slot = shop.slot_of_kind[project, kind]
    style = np.where(state.style < 0, shop.style_of_rank[item // shop.kinds], state.style)
    return project, np.where(slot < 0, state.slot, slot), style


def _draw(weights: Floats, dice: Floats) -> Ints:
    """One column a row, with probability proportional to its weight; `dice` is uniform on [0, 1). [n]"""
    cumulative = np.cumsum(weights, axis=1)
    return np.asarray(np.argmax(cumulative > dice[:, None] * cumulative[:, -1:], axis=1), dtype=np.int64)


def _draw_visits(config: ShopConfig) -> tuple[Ints, Ints, Bools]:
    """When everybody shops: offsets [U + 1], timestamps [E], and which events begin a session [E + 1].

    The entry after the last event is True. A shopper has at most one session a day; it ends before midnight.
    """
    random = stream(config.seed, "visits")
    user, day = _draw_days(config, random)
    habit = random.choice(VISIT_HOURS, config.users) + random.normal(0, 1, config.users)
    usual = habit[user] + random.normal(0, 1.5, len(user))
    hour = np.where(random.random(len(user)) < 0.7, usual, random.uniform(6, 23, len(user)))
    start = FIRST_SECOND + DAY * day + (HOUR * np.clip(hour, 5, 23)).astype(np.int64)
    events = np.minimum(random.geometric(1 - config.go_on, len(user)), MOST_EVENTS)
    ends = np.cumsum(events)
    first = ends - events
    elapsed = np.cumsum(random.integers(PAUSE[0], PAUSE[1] + 1, ends[-1]))
    begins = np.zeros(ends[-1] + 1, dtype=np.bool_)
    begins[[*first, -1]] = True
    offsets = np.concatenate([[0], ends[np.searchsorted(user, np.arange(config.users), side="right") - 1]])
    return offsets, np.repeat(start - elapsed[first], events) + elapsed, begins


def _draw_days(config: ShopConfig, random: np.random.Generator) -> tuple[Ints, Ints]:
    """User and day of every session, in that order, drawn by `WEEKDAY_VISITS` without replacement."""
    joined = (0.6 * config.days * random.random(config.users)).astype(np.int64)
    mean_sessions = config.mean_events * (1 - config.go_on) / (1 - config.go_on**MOST_EVENTS)
    activity = random.gamma(3, 1 / 3, config.users)
    sessions = LEAST_SESSIONS + random.poisson(max(0.0, mean_sessions - LEAST_SESSIONS) * activity)
    days = np.arange(config.days)
    wish = np.log(WEEKDAY_VISITS[days % 7]) + random.gumbel(size=(config.users, config.days))
    wish[days < joined[:, None]] = -np.inf
    chosen = np.zeros(wish.shape, dtype=np.bool_)
    kept = days < np.minimum(sessions, config.days - joined)[:, None]
    np.put_along_axis(chosen, np.argsort(-wish, axis=1, kind="stable"), kept, axis=1)
    user, day = np.nonzero(chosen)
    return user, day


def _week(timestamp: Ints) -> Ints:
    return (timestamp - FIRST_SECOND) // WEEK
