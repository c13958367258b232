"""Recommendations from a bundle: raw ids in, titles and scores out, with NumPy alone."""

import pickle
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from lsan.compression.new_items import remove_items
from lsan.config import ModelConfig, TwinTransformerConfig
from lsan.errors import ConfigError
from lsan.export.bundle import make_bundle
from lsan.recommender import Recommender as Trained
from lsan.runs import Run, load_run
from lsan.runtime import Filter, Recommender
from small_networks import ITEMS, NETWORKS, name_of, run_of

AT = 1_750_000_000.0


@pytest.fixture(scope="module")
def run(small_run: Path) -> Run:
    return load_run(small_run, device=torch.device("cpu"))


@pytest.fixture(scope="module", params=["numpy", "whichever"])
def recommender(run: Run, request: pytest.FixtureRequest) -> Recommender:
    return Recommender(make_bundle(run).content, native=False if request.param == "numpy" else None)


def ids_of(answer: Sequence[Any]) -> list[Any]:
    return [item.id for item in answer]


def test_it_answers_as_the_run_does(run: Run, recommender: Recommender) -> None:
    trained, ids = Trained(run), list(run.catalogue.ids)
    for history in (ids[:1], ids[5:9], ids[:30], [], ["nothing", ids[3]]):
        for exclude in (None, False):
            theirs = trained.recommend(history, 7, at=AT, exclude_seen=exclude)
            ours = recommender.recommend(history, 7, at=AT, exclude_seen=exclude)
            assert ids_of(ours) == ids_of(theirs)
            assert [item.title for item in ours] == [item.title for item in theirs]
            assert [item.category for item in ours] == [item.category for item in theirs]
            assert np.allclose([item.score for item in ours], [item.score for item in theirs], atol=1e-4)
            assert (ours.unknown_ids, ours.by_popularity) == (theirs.unknown_ids, theirs.by_popularity)


def test_times_are_read(run: Run, recommender: Recommender) -> None:
    ids = list(run.catalogue.ids)
    times = [AT + 3600 * 7 * n for n in range(4)]
    theirs = Trained(run).recommend(ids[:4], 5, times=times)
    ours = recommender.recommend(ids[:4], 5, times=times)
    assert ids_of(ours) == ids_of(theirs)
    with pytest.raises(ConfigError, match="3 times"):
        recommender.recommend(ids[:4], times=times[:3])
    with pytest.raises(ConfigError, match="not a time"):
        recommender.recommend(ids[:4], at=AT * 1000)


def test_many_at_once(run: Run, recommender: Recommender) -> None:
    ids = list(run.catalogue.ids)
    histories = [ids[:n] for n in (3, 0, 1, 20, 2)]
    many = recommender.recommend_many(histories, 6, at=AT, threads=2)
    for history, answer in zip(histories, many, strict=True):
        assert ids_of(answer) == ids_of(recommender.recommend(history, 6, at=AT))
    assert len(recommender.recommend_many([ids[:20]], 1000)[0]) == len(ids) - 20
    assert recommender.recommend_many([]) == []


def test_filters(recommender: Recommender) -> None:
    vocabulary = recommender.vocabulary
    ids, history = list(vocabulary.ids), list(vocabulary.ids)[:2]
    every = ids_of(recommender.recommend(history, 1000))
    some = every[3:9]
    assert ids_of(recommender.recommend(history, 3, filter=Filter(allow=some))) == some[:3]
    assert ids_of(recommender.recommend(history, 5, filter=Filter(forbid=every[:4]))) == every[4:9]
    category = vocabulary.category_name(vocabulary.index_of(every[0]))
    assert category is not None
    only = recommender.recommend(history, 1000, filter=Filter(allow_categories=[category]))
    rest = recommender.recommend(history, 1000, filter=Filter(forbid_categories=[category]))
    assert {item.category for item in only} == {category}
    assert category not in {item.category for item in rest}
    assert sorted(ids_of(only) + ids_of(rest)) == sorted(every)
    assert len(recommender.recommend(history, 5, filter=Filter(allow=["nothing"]))) == 0
    assert len(ids) == len(every) + 2
    with pytest.raises(ConfigError, match="not a string"):
        recommender.recommend(history, filter=Filter(allow="abc"))


def test_a_session(recommender: Recommender) -> None:
    ids = list(recommender.vocabulary.ids)
    session = recommender.session()
    assert session.recommend(3).by_popularity
    for number, item in enumerate([*ids[:20], "nothing", ids[4]]):
        assert session.append(item, AT + 5000 * number) == (item != "nothing")
    times = [AT + 5000 * number for number in range(22)]
    whole = recommender.recommend([*ids[:20], "nothing", ids[4]], 5, times=times)
    found = session.recommend(5)
    assert ids_of(found) == ids_of(whole)
    assert found.unknown_ids == ("nothing",)


def test_similar_items(recommender: Recommender) -> None:
    ids = list(recommender.vocabulary.ids)
    similar = recommender.similar(ids[7], 4)
    assert len(similar) == 4
    assert ids[7] not in ids_of(similar)
    cosines = [item.similarity for item in similar]
    assert cosines == sorted(cosines, reverse=True)
    assert all(-1.0001 <= cosine <= 1.0001 for cosine in cosines)
    with pytest.raises(ConfigError, match="not in the model"):
        recommender.similar("nothing")


@pytest.mark.parametrize(
    "config",
    [one for one in NETWORKS if isinstance(one.encoder, TwinTransformerConfig) and not one.context],
    ids=name_of,
)
def test_items_are_similar_as_encoders_read_them(config: ModelConfig) -> None:
    """By the cosines of their vectors, whatever matrix stands behind the table."""
    run = run_of(config)
    items = torch.arange(1, ITEMS + 1)
    with torch.no_grad():
        vectors = run.network.table(items[None], None)[0]
    cosines = torch.nn.functional.cosine_similarity(vectors[:1], vectors[1:])
    found = Recommender(make_bundle(run).content).similar(run.catalogue.ids[0], ITEMS)
    similarity = {item.id: item.similarity for item in found}
    expected = dict(zip(run.catalogue.ids[1:], cosines.tolist(), strict=True))
    assert similarity == pytest.approx(expected, abs=2e-3)


def test_an_explanation_leaves_events_out(recommender: Recommender) -> None:
    ids = list(recommender.vocabulary.ids)
    history, item = ids[3:8], ids[20]

    def margin(history: list[Any]) -> float:
        indices = np.array(recommender.vocabulary.indices_of(history), dtype=np.int32)
        scores = recommender.engine.scores(indices, np.full(len(history), int(AT * 1000)), int(AT * 1000))
        return float(scores[recommender.vocabulary.index_of(item) - 1] - scores.astype(np.float64).mean())

    explanation = recommender.explain(history, item, at=AT)
    assert ids_of(explanation) == history
    for place, event in enumerate(explanation):
        less = history[:place] + history[place + 1 :]
        assert event.contribution == pytest.approx(margin(history) - margin(less), abs=1e-4)


def test_removed_items_are_neither_read_nor_recommended(small_run: Path) -> None:
    run = load_run(small_run, device=torch.device("cpu"))
    ids = list(run.catalogue.ids)
    remove_items(run, ids[2:4])
    recommender = Recommender(make_bundle(run).content)
    answer = recommender.recommend(ids[:4], 1000, at=AT)
    assert not set(ids[2:4]) & set(ids_of(answer))
    assert answer.unknown_ids == tuple(ids[2:4])
    assert ids_of(answer) == ids_of(Trained(run).recommend(ids[:4], 1000, at=AT))
    assert not set(ids[2:4]) & set(ids_of(recommender.similar(ids[0], 1000)))


def test_more_than_there_are(recommender: Recommender) -> None:
    ids = list(recommender.vocabulary.ids)
    assert len(recommender.recommend(ids[:2], 10**12)) == len(ids) - 2
    assert [len(answer) for answer in recommender.recommend_many([ids[:2], []], 10**12)] == [len(ids) - 2, len(ids)]


def test_answers_are_sequences_that_can_be_sent(recommender: Recommender) -> None:
    answer = recommender.recommend(list(recommender.vocabulary.ids)[:3], 6)
    again = pickle.loads(pickle.dumps(answer))
    assert again == answer
    assert again.ids == answer.ids == ids_of(answer)
    assert answer[1:3] == answer.items[1:3]
    assert answer[-1] == answer.items[5]
    assert answer != answer.items
    assert "Recommendation(" in repr(answer)


def test_bad_questions(recommender: Recommender) -> None:
    with pytest.raises(ConfigError, match="k must be"):
        recommender.recommend([], 0)
    with pytest.raises(ConfigError, match="not a string"):
        recommender.recommend("abc")
    with pytest.raises(ConfigError, match="k must be"):
        recommender.session().recommend(0)


def test_a_fresh_process_needs_numpy_alone(run: Run, tmp_path: Path) -> None:
    path = tmp_path / "model.lsan"
    path.write_bytes(make_bundle(run).content)
    first = run.catalogue.ids[0]
    program = (
        "import sys; from lsan.runtime import Recommender; "
        f"print(len(Recommender.load({str(path)!r}).recommend([{first!r}]))); "
        "foreign = {name.partition('.')[0] for name in sys.modules} & "
        "{'torch', 'polars', 'msgspec', 'safetensors', 'rich', 'faiss', 'matplotlib', 'jaxtyping'}; "
        "assert not foreign, foreign"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=60, check=False)
    assert (done.returncode, done.stdout) == (0, "10\n"), done.stderr
