"""From a trained run to a small one: the steps, that they resume, and what is promised of sizes."""

import itertools
import json
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from lsan.cli import main
from lsan.compression.compress import Compression, Plan
from lsan.compression.search import MARGIN, Candidate, candidates, choose_for_loss, choose_for_size
from lsan.compression.sizes import shipped_bytes
from lsan.config import (
    CodedTableConfig,
    CrossEntropyConfig,
    ModelConfig,
    Recipe,
    TrainingConfig,
    TwinTransformerConfig,
    recipe_from,
    recipe_to,
)
from lsan.data.dataset import Dataset
from lsan.errors import ConfigError, DataError
from lsan.experiment import Observer, load_for_evaluation, start_run
from lsan.export.bundle import shipped_parts
from lsan.models.histories import Histories
from lsan.models.item_tables.coded import CodedTable
from lsan.models.network import Network
from lsan.recommender import Recommender
from lsan.runs import MODEL, RunHeader, load_run
from lsan.training.losses import full_cross_entropy

CPU = torch.device("cpu")
PLAN = Plan(width=8, tables=4, rows=16, weights=4)


def recipe_of(regime: str = "prefix") -> Recipe:
    return Recipe(
        model=ModelConfig(regime=regime, width=16, history=12, encoder=TwinTransformerConfig()),  # type: ignore[arg-type]
        training=TrainingConfig(batch_size=64, learning_rate=1e-2, epochs=2),
    )


MakeDataset = Callable[..., Dataset]


@pytest.fixture(scope="module")
def corner_shop(make_dataset: MakeDataset) -> Dataset:
    """Twenty-four users who go round 60 items."""
    random = np.random.default_rng(0)
    lengths, firsts = random.integers(5, 10, 24), random.integers(0, 60, 24)
    walks = [
        ((first + np.arange(length) * 7 + random.integers(0, 3, length)) % 60 + 1).tolist()
        for length, first in zip(lengths, firsts, strict=True)
    ]
    return make_dataset(walks, items=60)


@pytest.fixture(scope="module")
def teachers(corner_shop: Dataset, tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    folder = tmp_path_factory.mktemp("teachers")
    for seed in (0, 1):
        start_run(corner_shop, recipe_of().with_seed(seed), folder / str(seed), device=CPU, observer=Observer())
    return [folder / "0", folder / "1"]


def compression_of(teachers: list[Path], folder: Path, observer: Observer | None = None) -> Compression:
    run, dataset, _ = load_for_evaluation(teachers[0], None, device=CPU)
    others = [load_run(teacher, device=CPU) for teacher in teachers[1:]]
    return Compression(
        teachers=[run, *others], dataset=dataset, folder=folder, device=CPU, observer=observer or Observer()
    )


def test_a_compressed_run_is_small_and_recommends(teachers: list[Path], tmp_path: Path) -> None:
    folder = compression_of(teachers, tmp_path).run(PLAN)
    planned = sum(shipped_bytes(PLAN.recipe(recipe_of()), 60).values())
    assert sum(shipped_parts(load_run(folder, device=CPU)).values()) == pytest.approx(planned, abs=400)
    assert (folder / MODEL).stat().st_size < (teachers[0] / MODEL).stat().st_size / 2
    recommender = Recommender.load(folder)
    history = recommender.run.catalogue.ids[:3]
    answer = recommender.recommend(history, 5)
    assert len(answer) == 5
    assert not {item.id for item in answer} & set(history)
    assert [item.score for item in answer] == sorted((item.score for item in answer), reverse=True)
    assert recommender.recommend([], 5).by_popularity


def test_a_teacher_with_narrow_item_vectors(corner_shop: Dataset, tmp_path: Path) -> None:
    recipe = recipe_of()
    recipe = msgspec.structs.replace(recipe, model=msgspec.structs.replace(recipe.model, item_width=8))
    start_run(corner_shop, recipe, tmp_path / "teacher", device=CPU, observer=Observer())
    compression = compression_of([tmp_path / "teacher"], tmp_path / "out")
    vectors, hidden = compression.scoring()
    known = candidates(recipe, 60, vectors, hidden, compression.popularity())
    assert {one.plan.width for one in known} <= {1, 2, 4, 8}
    best = max(known, key=lambda one: one.size)
    student = load_run(compression.student(best.plan), device=CPU)
    assert student.header.recipe.model.item_width is None
    with pytest.raises(ConfigError, match="a student of width 16 is wider than its teacher's item vectors, 8"):
        compression.student(Plan(width=16))


def test_a_plan_in_32_bits_is_not_rounded(teachers: list[Path], tmp_path: Path) -> None:
    compression = compression_of(teachers, tmp_path)
    plan = Plan(width=8, tables=4, rows=16, weights=None)
    assert (plan.name, replace(plan, codes="none").name) == ("d8-product-4x16", "d8-full")
    assert load_run(compression.run(plan), device=CPU).header.recipe.model.quantisation is None
    assert compression.student(plan).name == "student-8"
    assert compression.student(PLAN).name == "student-8-int4"


def test_what_another_recipe_made_is_not_used(teachers: list[Path], tmp_path: Path) -> None:
    compression = compression_of(teachers, tmp_path)
    folder = compression.student(PLAN)
    content = json.loads((folder / "run.json").read_text())
    content["recipe"]["training"]["learning_rate"] = 0.5
    (folder / "run.json").write_text(json.dumps(content))
    with pytest.raises(DataError, match="was trained by another recipe: delete it"):
        compression.run(PLAN)


def test_every_item_has_a_code_of_its_own(teachers: list[Path], tmp_path: Path) -> None:
    network = load_run(compression_of(teachers, tmp_path).run(PLAN), device=CPU).network
    assert isinstance(network.table, CodedTable)
    assert len(network.table.codes.unique(dim=0)) == 60


class Interruption(Exception):  # noqa: N818 - not an error
    pass


def test_what_has_learnt_before_stays_where_no_epoch_is_better(
    corner_shop: Dataset, teachers: list[Path], tmp_path: Path
) -> None:
    training = msgspec.structs.replace(recipe_of().training, learning_rate=0.5, epochs=2)
    start_run(
        corner_shop, msgspec.structs.replace(recipe_of(), training=training), tmp_path / "on",
        network=load_run(teachers[0], device=CPU).network, goes_on=True, device=CPU, observer=Observer(),
    )  # fmt: skip
    before, after = load_run(teachers[0], device=CPU), load_run(tmp_path / "on", device=CPU)
    assert (after.header.progress["epochs"], after.header.progress["best_epoch"]) == (2, 0)
    assert after.header.progress["validation nDCG@10"] == before.header.progress["validation nDCG@10"]
    for name, tensor in before.network.state_dict().items():
        assert torch.equal(tensor, after.network.state_dict()[name]), name


@pytest.mark.parametrize("after", [1, 4, 49, 51, 55])
def test_an_interrupted_compression_goes_on_to_the_same_model(teachers: list[Path], tmp_path: Path, after: int) -> None:
    whole = compression_of(teachers, tmp_path / "whole").run(PLAN)
    steps = 0

    def step(*_: int) -> None:
        nonlocal steps
        steps += 1
        if steps == after:
            raise Interruption

    with pytest.raises(Interruption):
        compression_of(teachers, tmp_path / "parts", Observer(step=step)).run(PLAN)
    again = compression_of(teachers, tmp_path / "parts").run(PLAN)
    assert (again / MODEL).read_bytes() == (whole / MODEL).read_bytes()


def test_students_of_a_width_and_teaching_are_shared(teachers: list[Path], tmp_path: Path) -> None:
    begun: list[str] = []
    observer = Observer(
        begin=lambda header, folder: begun.append(folder.name), teaching=lambda *_: begun.append("asked")
    )
    compression = compression_of(teachers, tmp_path, observer)
    compression.run(PLAN)
    compression.run(Plan(width=8, tables=2, rows=16, codes="additive"))
    compression.run(PLAN)
    assert list(dict.fromkeys(begun)) == [
        "asked", "student-8-int4", "d8-product-4x16-int4", "d8-additive-2x16-int4",
    ]  # fmt: skip
    assert begun.count("student-8-int4") == 1


def test_causal_teachers_teach_too(corner_shop: Dataset, tmp_path: Path) -> None:
    start_run(corner_shop, recipe_of("causal"), tmp_path / "teacher", device=CPU, observer=Observer())
    compression = compression_of([tmp_path / "teacher"], tmp_path / "out")
    teaching = compression.teaching(compression.recipe)
    network = compression.teachers[0].network
    run, dataset, split = load_for_evaluation(tmp_path / "teacher", None, device=CPU)
    user = int(np.argmax(split.train_stop - split.train_start))
    start, stop = int(split.train_start[user]), int(split.train_stop[user])
    for event in range(max(start + 1, stop - 12), stop):
        first = max(start, stop - 1 - 12)
        items = torch.from_numpy(dataset.items[first:event].astype(np.int64))
        with torch.inference_mode():
            scores = network.scores(Histories.of_items(items[None]))[0]
        found, shares = teaching.of(np.array([event]))
        best = scores.topk(found.shape[1])
        assert found[0, 0] == best.indices[0] + 1
        torch.testing.assert_close(shares[0], best.values.softmax(0), rtol=5e-3, atol=2e-3)
    run.network.eval()
    assert compression.run(PLAN).exists()


@pytest.fixture(scope="module")
def known(teachers: list[Path], tmp_path_factory: pytest.TempPathFactory) -> list[Candidate]:
    compression = compression_of(teachers, tmp_path_factory.mktemp("plans"))
    return candidates(recipe_of(), 60, *compression.scoring(), compression.popularity())


def test_no_plan_is_beaten_in_both(known: list[Candidate]) -> None:
    assert len(known) > 1
    for smaller, larger in itertools.pairwise(known):
        assert smaller.size < larger.size
        assert smaller.loss > larger.loss


def test_a_block_less_costs_more_where_histories_are_long(teachers: list[Path], tmp_path: Path) -> None:
    compression, recipe = compression_of(teachers, tmp_path), recipe_of()
    long = msgspec.structs.replace(recipe, model=msgspec.structs.replace(recipe.model, history=200))
    scoring, popularity = compression.scoring(), compression.popularity()
    losses = [{c.plan: c.loss for c in candidates(r, 60, *scoring, popularity)} for r in (recipe, long)]
    shared = [plan for plan in losses[0] if plan in losses[1]]
    assert any(plan.blocks == 1 for plan in losses[0])
    for plan in shared:
        assert (losses[1][plan] > losses[0][plan]) == (plan.blocks == 1), plan.name


def test_the_best_of_the_fitting_plans_is_chosen(teachers: list[Path], known: list[Candidate], tmp_path: Path) -> None:
    compression, told = compression_of(teachers, tmp_path), list[Any]()
    target = known[len(known) // 2].size + MARGIN
    tried = choose_for_size(compression, known, target, 2, told.append)
    assert {one.plan.name for one in tried} == {one.plan.name for one in told}
    assert all(one.size <= target for one in tried)
    assert tried[0].figure == max(one.figure for one in tried)
    for one in tried:
        assert RunHeader.read(one.folder).progress["validation nDCG@10"] == one.figure
    with pytest.raises(ConfigError, match="no plan takes 100 bytes or less: the smallest takes"):
        choose_for_size(compression, known, 100, 2, told.append)


def test_the_smallest_that_keeps_enough_is_chosen(teachers: list[Path], known: list[Candidate], tmp_path: Path) -> None:
    compression = compression_of(teachers, tmp_path)
    for figure, all_keep in ((1e-6, True), (10.0, False)):
        tried = choose_for_loss(compression, known, figure, 0.05, 3, lambda one: None)
        expected = min(tried, key=lambda one: one.size) if all_keep else max(tried, key=lambda one: one.figure)
        assert tried[0].plan == expected.plan


class Largest(TorchDispatchMode):
    """The most numbers that a tensor had."""

    most = 0

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        result = func(*args, **(kwargs or {}))
        for tensor in result if isinstance(result, tuple | list) else [result]:
            if isinstance(tensor, torch.Tensor):
                self.most = max(self.most, tensor.numel())
        return result


@pytest.mark.parametrize("codes", ["product", "additive"])
def test_nothing_has_a_number_for_each_item_and_coordinate(codes: Any) -> None:
    """Neither the model, nor its loss and gradients, nor a recommendation: only the codes and one score an item."""
    items, width = 20_000, 64
    config = ModelConfig(width=width, table=CodedTableConfig(codes=codes, tables=4, rows=256), regime="causal")
    none = torch.zeros(items, dtype=torch.int64)
    network = Network(config, torch.zeros(items + 1, dtype=torch.int64), none, none, 1)
    assert isinstance(network.table, CodedTable)
    network.table.codes.random_(0, 256)
    assert all(tensor.numel() <= 4 * items for tensor in network.state_dict().values())
    histories = Histories.of_items(torch.randint(1, items, (2, 5)))
    with Largest() as largest:  # type: ignore[no-untyped-call]
        hidden = network.hidden(histories).flatten(0, 1)
        loss = full_cross_entropy(hidden, network.output(), torch.randint(1, items, (10,)))
        loss.backward()
        network.scores(histories)
    assert largest.most < items * width / 3


def test_the_command(teachers: list[Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "out"
    arguments = ["compress", *map(str, teachers), "--out", str(out), "--target-size", "17kB", "--tries", "1"]
    assert main(arguments) == 0
    printed = capsys.readouterr().out
    report = json.loads((out / "compression.json").read_text())
    chosen = out / report["chosen"]
    assert report["bytes"]["after"] == sum(shipped_parts(load_run(chosen, device=CPU)).values()) <= 17_000
    assert sum(report["bytes"]["parts"].values()) == report["bytes"]["after"]
    assert f"{report['bytes']['after']:,} bytes" in printed
    assert f"the compressed run is {chosen}" in printed
    assert main(["evaluate", str(chosen)]) == 0
    test = json.loads((chosen / "test.json").read_text())
    assert report["accuracy"]["test"]["after"]["nDCG@10"][0] == pytest.approx(test["unseen items"]["nDCG@10"][0])
    assert (out / "accuracy-bytes.png").read_bytes().startswith(b"\x89PNG")
    capsys.readouterr()
    assert main(arguments) == 0  # everything is there: nothing is trained again
    assert "training" not in capsys.readouterr().out


@pytest.mark.parametrize(
    ("flags", "says"),
    [
        (["--target-size", "9 apples"], "'9 apples' is not a size: expected a number and kB, MB, KiB or MiB"),
        (["--max-loss", "0"], "'0' is not a share between 0 and 1"),
        (["--max-loss", "120%"], "'120%' is not a share between 0 and 1"),
        (["--target-size", "9kB", "--max-loss", "1%"], "not allowed with argument"),
        (["--target-size", "9kB", "--tries", "0"], "--tries 0: expected a whole number of at least 1"),
        (["--target-size", "9" * 400], "is no size of a model"),
        (["--target-size", "10"], "no plan takes 10 bytes or less"),
        ([], "one of the arguments --target-size --max-loss is required"),
    ],
)
def test_bad_flags(
    teachers: list[Path], tmp_path: Path, flags: list[str], says: str, capsys: pytest.CaptureFixture[str]
) -> None:
    try:
        status = main(["compress", str(teachers[0]), "--out", str(tmp_path / "out"), *flags])
    except SystemExit as exit:
        status = int(str(exit.code))
    assert status == 2
    assert says in capsys.readouterr().err


def test_only_runs_with_vectors_of_their_own_are_compressed(
    small_run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["compress", str(small_run), "--out", str(tmp_path / "out"), "--target-size", "9kB"]) == 2
    assert "compression begins with a run whose items have vectors of their own" in capsys.readouterr().err


def test_teachers_must_go_together(
    teachers: list[Path], corner_shop: Dataset, make_dataset: MakeDataset, tmp_path: Path
) -> None:
    one = compression_of(teachers[:1], tmp_path / "out")
    one.teaching(one.recipe)
    assert len(compression_of(teachers[:1], tmp_path / "out").teaching(one.recipe).items) == corner_shop.events
    refusal = "is a compression of other runs, or by another version of lsan: choose another folder"
    with pytest.raises(DataError, match=refusal):
        compression_of(teachers, tmp_path / "out").teaching(one.recipe)
    said = tmp_path / "out" / "teaching" / "teachers.json"
    said.write_text(json.dumps(json.loads(said.read_text()) | {"top": 64}))
    with pytest.raises(DataError, match=refusal):
        compression_of(teachers[:1], tmp_path / "out").teaching(one.recipe)
    with pytest.raises(ConfigError, match="a run has 60 items, its dataset 61: compress it as it was before"):
        replace(one, dataset=make_dataset([[1, 2, 3]], items=61))
    start_run(corner_shop, recipe_of("causal"), tmp_path / "causal", device=CPU, observer=Observer())
    with pytest.raises(ConfigError, match="need the same regime: causal is not prefix"):
        compression_of([teachers[0], tmp_path / "causal"], tmp_path / "other")


def test_what_other_teachers_taught_is_not_used(teachers: list[Path], tmp_path: Path) -> None:
    compression_of(teachers[:1], tmp_path).run(PLAN)
    with pytest.raises(DataError, match="is a compression of other runs"):
        compression_of(teachers, tmp_path).run(PLAN)


def test_a_run_that_stopped_before_it_began_begins_again(teachers: list[Path], tmp_path: Path) -> None:
    whole = compression_of(teachers, tmp_path / "whole").run(PLAN)
    compression = compression_of(teachers, tmp_path / "parts")
    shutil.copytree(tmp_path / "whole" / "teaching", tmp_path / "parts" / "teaching")
    student = shutil.copytree(tmp_path / "whole" / "student-8-int4", tmp_path / "parts" / "student-8-int4")
    for run in (student, shutil.copytree(whole, tmp_path / "parts" / PLAN.name)):
        header = json.loads((run / "run.json").read_text())
        header["progress"] = {"finished": False}
        (run / "run.json").write_text(json.dumps(header))
        (run / MODEL).unlink()
    assert (compression.run(PLAN) / MODEL).read_bytes() == (whole / MODEL).read_bytes()


def test_teachers_with_a_temperature_teach_at_it(corner_shop: Dataset, tmp_path: Path) -> None:
    recipe = recipe_of()
    warm = msgspec.structs.replace(recipe.training, loss=CrossEntropyConfig(temperature=4.0))
    recipe = msgspec.structs.replace(recipe, training=warm)
    start_run(corner_shop, recipe, tmp_path / "teacher", device=CPU, observer=Observer())
    compression = compression_of([tmp_path / "teacher"], tmp_path / "out")
    run, dataset, split = load_for_evaluation(tmp_path / "teacher", None, device=CPU)
    event = int(split.train_start[0]) + 1
    items, shares = compression.teaching(compression.recipe).of(np.array([event]))
    history = torch.from_numpy(dataset.items[event - 1 : event].astype(np.int64))[None]
    with torch.inference_mode():
        expected = (run.network.scores(Histories.of_items(history))[0] / 4).softmax(0)[items[0] - 1]
    torch.testing.assert_close(shares[0], expected / expected.sum(), rtol=5e-3, atol=1e-3)
    assert PLAN.recipe(recipe).training.loss == CrossEntropyConfig()


def test_an_unfinished_teacher_is_refused(
    teachers: list[Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = shutil.copytree(teachers[0], tmp_path / "run")
    header = json.loads((run / "run.json").read_text())
    header["progress"] = {"finished": False}
    (run / "run.json").write_text(json.dumps(header))
    assert main(["compress", str(run), "--out", str(tmp_path / "out"), "--target-size", "13kB"]) == 2
    assert f"{run} is not finished: go on with `lsan train --resume {run}`" in capsys.readouterr().err


def test_distillation_goes_with_no_label_smoothing() -> None:
    content = recipe_to(recipe_of())
    content["training"] |= {"distillation": {}, "loss": {"kind": "cross-entropy", "label_smoothing": 0.1}}
    with pytest.raises(ConfigError, match="distillation smooths labels by itself: leave label_smoothing out"):
        recipe_from(content, where="here")


def test_a_recipe_with_distillation_is_not_for_train(corner_shop: Dataset, tmp_path: Path) -> None:
    recipe = PLAN.student(recipe_of())
    with pytest.raises(ConfigError, match="is for students, which `lsan compress` trains"):
        start_run(corner_shop, recipe, tmp_path / "run", device=CPU, observer=Observer())
    assert not (tmp_path / "run").exists()


def test_a_student_is_trained_once_where_its_teacher_was_trained_with_r_drop() -> None:
    teacher = recipe_of()
    with_r_drop = msgspec.structs.replace(teacher, training=msgspec.structs.replace(teacher.training, r_drop=1.0))
    assert PLAN.recipe(with_r_drop) == PLAN.recipe(teacher)
