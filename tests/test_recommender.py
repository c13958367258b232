"""The Python API: raw ids in, titles and scores out, also in a process that has never seen the data."""

import json
import math
import shutil
import subprocess
import sys
from dataclasses import replace
from datetime import UTC, datetime, timedelta, timezone
from pathlib import Path

import msgspec
import polars as pl
import pytest
import torch

import lsan
from lsan.config import ModelConfig, Recipe, SplitConfig, TimeConfig, TrainingConfig
from lsan.data.dataset import Dataset
from lsan.errors import ConfigError, DataError
from lsan.experiment import Observer
from lsan.presets import load_preset
from lsan.recommender import Recommender
from lsan.runs import Run, load_run

CPU = torch.device("cpu")
RECIPE = Recipe(
    model=ModelConfig(regime="causal", width=8, history=5),
    training=TrainingConfig(epochs=1, batch_size=8, learning_rate=1e-2),
)


def log(days: bool = False) -> pl.DataFrame:
    """Sixteen users walk round ten items (integer ids), an event an hour or a day."""
    rows = [(user, 500 + (user + step) % 10, step * (24 if days else 1)) for user in range(16) for step in range(7)]
    users, items, hours = zip(*rows, strict=True)
    return pl.DataFrame({"user": users, "item": items, "timestamp": [1_700_006_400 + 3600 * hour for hour in hours]})


@pytest.fixture(scope="module")
def fitted() -> Recommender:
    items = pl.DataFrame({"item": list(range(500, 509)), "title": [f"Thing {n}" for n in range(9)]})
    return Recommender.fit(log(), RECIPE, items=items, device="cpu")


@pytest.fixture(scope="module")
def shop(small_run: Path) -> Recommender:
    """A model that reads hours and categories."""
    return Recommender.load(small_run, device="cpu")


def ids(answer: lsan.Recommendations) -> list[object]:
    return [item.id for item in answer]


def test_fit_a_frame_and_recommend(fitted: Recommender) -> None:
    answer = fitted.recommend([500, 501], 3)
    assert len(answer) == len(answer.items) == 3
    assert answer[0] == answer.items[0]
    assert {type(item.id) for item in answer} == {int}
    assert all(item.title == f"Thing {int(item.id) - 500}" for item in answer if item.id != 509)
    assert not set(ids(answer)) & {500, 501}
    assert (answer.unknown_ids, answer.by_popularity) == ((), False)
    # ids come as text from command lines and JSON
    assert fitted.recommend(["500", 501], 3) == answer


def test_an_item_without_a_title_shows_its_id(fitted: Recommender) -> None:
    titles = {item.id: item.title for item in fitted.recommend([], 10)}
    assert titles[509] == "509"
    assert all(item.category is None for item in fitted.recommend([], 10))


def test_fit_leaves_no_files_behind(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    Recommender.fit(log(), RECIPE, device="cpu")
    assert list(tmp_path.iterdir()) == []


def test_fit_reads_a_file_and_pandas(tmp_path: Path, fitted: Recommender) -> None:
    log().write_csv(tmp_path / "log.csv")
    for source in (tmp_path / "log.csv", log().to_pandas()):
        again = Recommender.fit(source, RECIPE, device="cpu")
        assert ids(again.recommend([500, 501])) == ids(fitted.recommend([500, 501]))


def test_fit_without_a_recipe_takes_the_preset_of_this_name(monkeypatch: pytest.MonkeyPatch) -> None:
    recipes = list[Recipe]()

    def start(dataset: Dataset, recipe: Recipe, *_: object, **__: object) -> None:
        recipes.append(recipe)
        raise InterruptedError

    monkeypatch.setattr("lsan.recommender.start_run", start)
    with pytest.raises(InterruptedError):
        Recommender.fit(log(), device="cpu")
    assert recipes == [load_preset("lsan")]


def test_fit_needs_something_to_hold_out() -> None:
    with pytest.raises(DataError, match="three events"):
        Recommender.fit(pl.DataFrame({"user": [1, 1, 2], "item": [1, 2, 1]}), RECIPE, device="cpu")


def test_observers_are_told() -> None:
    steps, epochs = list[tuple[int, int, int]](), list[dict[str, float]]()
    observer = Observer(step=lambda *place: steps.append(place), epoch=epochs.append)
    Recommender.fit(log(), RECIPE, device="cpu", observer=observer)
    assert steps == [(0, 1, 2), (0, 2, 2)]
    assert [record["epoch"] for record in epochs] == [1]


def test_no_known_item_falls_back_to_popularity(shop: Recommender) -> None:
    popularity = shop.run.network.popularity.tolist()
    for history in ([], ["no such item"], [3, 4]):
        answer = shop.recommend(history, 60)
        assert answer.by_popularity
        assert answer.unknown_ids == tuple(history)
        counts = [popularity[shop.run.catalogue.index_of(item.id) - 1] for item in answer]
        assert counts == sorted(popularity, reverse=True)
        assert [item.score for item in answer] == pytest.approx([math.log(count + 1) for count in counts])


def test_the_recipe_decides_about_seen_items(shop: Recommender) -> None:
    history = [shop.run.catalogue.ids[n] for n in (0, 5, 9)]
    everything = ids(shop.recommend(history, 99, exclude_seen=False))
    unseen = ids(shop.recommend(history, 99, exclude_seen=True))
    assert len(everything) == 60
    assert unseen == [raw for raw in everything if raw not in history]
    assert ids(shop.recommend(history, 99)) == unseen
    header = replace(shop.run.header, recipe=msgspec.structs.replace(shop.run.header.recipe, exclude_seen=False))
    other = Recommender(Run(header=header, catalogue=shop.run.catalogue, network=shop.run.network))
    assert ids(other.recommend(history, 99)) == everything


def test_nothing_is_left_when_all_was_seen(fitted: Recommender) -> None:
    assert len(fitted.recommend(list(range(500, 510)))) == 0
    assert len(fitted.recommend(list(range(500, 510)), exclude_seen=False)) == 10


MORNING, EVENING = datetime(2026, 11, 21, 8, 30, tzinfo=UTC), datetime(2026, 11, 21, 20, 30, tzinfo=UTC)


def test_the_hour_matters_to_a_model_that_reads_it(shop: Recommender) -> None:
    assert shop.run.header.timed
    history = list(shop.run.catalogue.ids[:3])
    morning = shop.recommend(history, at=MORNING)
    assert morning != shop.recommend(history, at=EVENING)
    assert morning != shop.recommend(history)
    # one moment in other words
    assert morning == shop.recommend(history, at=MORNING.timestamp())
    assert morning == shop.recommend(history, at=MORNING.replace(tzinfo=None))  # UTC where it has no zone
    assert morning == shop.recommend(history, at=MORNING.astimezone(timezone(timedelta(hours=-5))))
    assert morning == shop.recommend(history, times=[MORNING] * 3)
    assert morning == shop.recommend(history, at=MORNING + timedelta(days=400, minutes=29))  # only the hour counts
    assert morning != shop.recommend(history, times=[MORNING, MORNING, EVENING])


@pytest.fixture(scope="module")
def timed() -> Recommender:
    """A model that reads gaps, and when the recommendation is asked for."""
    recipe = msgspec.structs.replace(RECIPE, model=msgspec.structs.replace(RECIPE.model, time=TimeConfig()))
    return Recommender.fit(log(), recipe, device="cpu")


#: Hours that the model has met in training: it knows gaps of one hour, and 01:00 to 06:00 of that Wednesday.
ONE, TWO, THREE, FOUR = (datetime(2023, 11, 15, hour, tzinfo=UTC) for hour in (1, 2, 3, 4))


def test_the_time_of_asking_is_that_of_the_last_event_unless_given(timed: Recommender) -> None:
    history, times = [500, 501, 502], [ONE, TWO, THREE]
    answer = timed.recommend(history, 7, times=times)
    assert answer == timed.recommend(history, 7, times=times, at=THREE)
    later = timed.recommend(history, 7, times=times, at=FOUR)
    assert later != answer
    many = timed.recommend_many([history, history], 7, times=[times, [ONE] * 3], at=FOUR)
    assert ids(many[0]) == ids(later)
    assert ids(many[1]) == ids(timed.recommend(history, 7, times=[ONE] * 3, at=FOUR))
    # the last event counts even if the model does not know its item
    assert timed.recommend([*history, "?"], 7, times=[*times, FOUR]).items == later.items


def test_without_times_the_events_are_taken_to_have_happened_at_the_time_of_asking(timed: Recommender) -> None:
    history = [500, 501, 502]
    answer = timed.recommend(history, 7, at=TWO)
    assert answer == timed.recommend(history, 7, times=[TWO] * 3)
    assert answer != timed.recommend(history, 7, times=[None] * 3, at=TWO)
    assert answer != timed.recommend(history, 7)


def test_the_time_of_asking_means_nothing_to_a_context(shop: Recommender) -> None:
    """It reads the hours of the events alone."""
    history = list(shop.run.catalogue.ids[:3])
    answer = shop.recommend(history, times=[MORNING] * 3)
    assert answer == shop.recommend(history, times=[MORNING] * 3, at=EVENING)
    assert answer != shop.recommend(history, times=[EVENING] * 3, at=MORNING)


def test_times_of_unknown_items_go_with_them(shop: Recommender) -> None:
    first, second = shop.run.catalogue.ids[:2]
    answer = shop.recommend([first, "?", second], times=[MORNING, EVENING, MORNING])
    assert answer.items == shop.recommend([first, second], times=[MORNING, MORNING]).items


def test_the_hour_means_nothing_to_a_model_of_days() -> None:
    recommender = Recommender.fit(log(days=True), RECIPE, device="cpu")
    assert not recommender.run.header.timed
    assert recommender.recommend([500, 501], at=MORNING) == recommender.recommend([500, 501], at=EVENING)
    assert recommender.recommend([500], times=[MORNING]) == recommender.recommend([500])


def test_a_log_without_times() -> None:
    recommender = Recommender.fit(log().drop("timestamp"), RECIPE, device="cpu")
    assert not recommender.run.header.timed
    assert len(recommender.recommend([500], 4)) == 4


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        ({"k": 0}, "k must be at least 1, got 0"),
        ({"k": -3}, "got -3"),
        ({"times": [0.0]}, "1 times for a history of 2"),
        ({"times": [0.0, 1.0], "at": -1.0}, "not a time"),
        ({"times": [0.0, 1e11]}, "not a time"),
        ({"at": float("nan")}, "not a time"),
        ({"at": float("inf")}, "not a time"),
    ],
)
def test_misuse(shop: Recommender, arguments: dict[str, object], says: str) -> None:
    with pytest.raises(ConfigError, match=says):
        shop.recommend(list(shop.run.catalogue.ids[:2]), **arguments)  # type: ignore[arg-type]


def test_many(shop: Recommender) -> None:
    assert shop.recommend_many([]) == []
    histories = [list(shop.run.catalogue.ids[n : n + 4]) for n in range(6)]
    many = shop.recommend_many(histories, 5, batch_size=4, at=MORNING)
    assert [ids(answer) for answer in many] == [ids(shop.recommend(history, 5, at=MORNING)) for history in histories]


def test_misuse_of_many(shop: Recommender) -> None:
    with pytest.raises(ConfigError, match="not a string"):
        shop.recommend("SKU")
    with pytest.raises(ConfigError, match="1 histories, but 2"):
        shop.recommend_many([["a"], ["b"]], times=[[0.0]])


def test_a_time_may_be_unknown(shop: Recommender) -> None:
    history = list(shop.run.catalogue.ids[:2])
    assert shop.recommend(history, times=[None, None]) == shop.recommend(history)
    assert shop.recommend(history, times=[None, MORNING]) != shop.recommend(history)


def test_items_after_the_cut_off_are_unknown_to_the_model() -> None:
    """As in evaluation: a temporal split leaves them out of histories and answers."""
    start = 1_700_006_400
    events = [(user, item, start + 3600 * (8 * user + item)) for user in range(10) for item in range(8)]
    events += [(user, 8, start + 10**6 + user) for user in range(10)]  # the last of all, and so the test cases
    users, items, times = zip(*events, strict=True)
    frame = pl.DataFrame({"user": users, "item": items, "timestamp": times})
    recipe = msgspec.structs.replace(RECIPE, split=SplitConfig(method="temporal"))
    recommender = Recommender.fit(frame, recipe, device="cpu")
    answer = recommender.recommend([0, 8, 1], 99, exclude_seen=False)
    assert answer.unknown_ids == (8,)
    assert sorted(int(item.id) for item in answer) == list(range(8))
    assert answer.items == recommender.recommend([0, 1], 99, exclude_seen=False).items
    assert recommender.recommend([8]).by_popularity


def test_recommending_does_not_disturb_the_model(shop: Recommender) -> None:
    history = list(shop.run.catalogue.ids[:3])
    assert shop.recommend(history) == shop.recommend(history)
    assert not shop.run.network.training


def test_saved_and_loaded_in_a_process_that_never_saw_the_data(
    small_shop: Dataset, small_run: Path, shop: Recommender, tmp_path: Path
) -> None:
    moved = tmp_path / "elsewhere" / "model"
    Recommender.load(small_run).save(moved)
    content = json.loads((moved / "run.json").read_text())
    content["dataset"]["path"] = str(tmp_path / "deleted")
    (moved / "run.json").write_text(json.dumps(content))
    history = list(shop.run.catalogue.ids[3:9])
    program = f"""
import json, lsan
answer = lsan.load({str(moved)!r}, device="cpu").recommend({history!r}, k=7, at=1e9)
print(json.dumps([[item.id, item.title, item.score] for item in answer]))
"""
    (tmp_path / "cwd").mkdir()
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, timeout=100, check=False, cwd=tmp_path / "cwd"
    )
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout) == [[item.id, item.title, item.score] for item in shop.recommend(history, 7, at=1e9)]


def test_saving_twice_overwrites_nothing(shop: Recommender, tmp_path: Path) -> None:
    shop.save(tmp_path / "model")
    with pytest.raises(DataError, match="already exists"):
        shop.save(tmp_path / "model")
    assert load_run(tmp_path / "model", device=CPU).header == shop.run.header
    shutil.rmtree(tmp_path / "model")


def test_a_missing_device_is_named(small_run: Path) -> None:
    if torch.cuda.is_available():
        pytest.skip("there is a CUDA device here")
    with pytest.raises(ConfigError, match="--device cpu"):
        lsan.load(small_run, device="cuda")
