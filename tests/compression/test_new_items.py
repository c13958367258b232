"""Items that came after training: where they are expected, and that nothing else changes."""

import json
from pathlib import Path
from typing import Literal

import pytest
import torch

from lsan.cli import main
from lsan.compression.new_items import Neighbours, add_items, remove_items, return_items
from lsan.config import (
    CodedTableConfig,
    ComposedTableConfig,
    ContextConfig,
    FullTableConfig,
    ModelConfig,
    QuantisationConfig,
    Recipe,
    SasRecConfig,
    SplitConfig,
    TableConfig,
)
from lsan.data.catalogue import Catalogue
from lsan.errors import DataError
from lsan.models.histories import Histories
from lsan.models.item_tables.coded import CodedTable
from lsan.recommender import Recommender
from lsan.runs import MODEL, Run, RunHeader, load_run, new_network, write_run

CPU = torch.device("cpu")
TITLES = ["red pen", "blue pen", "green pen", "oak table", "pine table", None]
CATEGORIES = ["writing", "writing", "writing", "furniture", "furniture", None]
CATALOGUE = Catalogue(ids=[1, 2, 3, 4, 5, 6], titles=TITLES, categories=CATEGORIES)
NEW = Catalogue(
    ids=[11, 12, 13], titles=["black pen", "sofa", None], categories=["writing", "furniture", "never heard of"]
)
TABLES: list[TableConfig] = [
    FullTableConfig(),
    CodedTableConfig(tables=4, rows=16),
    CodedTableConfig(codes="additive", tables=3, rows=16),
]
HISTORIES = Histories.of_items(torch.tensor([[0, 1, 2], [4, 5, 6]]))


TEMPORAL = SplitConfig(method="temporal")


def run_of(
    table: TableConfig, *, split: SplitConfig | None = None, bits: Literal[4, 8] | None = None, width: int = 8
) -> Run:
    quantisation = QuantisationConfig() if isinstance(table, CodedTableConfig) else None
    if bits is not None:
        quantisation = QuantisationConfig(weights=bits, table=bits, bias=bits)
    recipe = Recipe(
        model=ModelConfig(
            width=width, table=table, encoder=SasRecConfig(), context=ContextConfig(), quantisation=quantisation
        ),
        split=split or SplitConfig(),
    )
    torch.manual_seed(0)
    network = new_network(recipe, CATALOGUE, torch.arange(6), torch.arange(6), 3)
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.add_(0.5 * torch.randn(parameter.shape))
        if isinstance(network.table, CodedTable):
            network.table.codes.copy_(torch.randint(0, 16, network.table.codes.shape))
    header = RunHeader(
        recipe=recipe,
        timed=False,
        dataset={"name": "d", "path": "/", "content_hash": "", "users": 3, "items": 6, "events": 9},
        progress={"finished": True},
    )
    return Run(header=header, catalogue=CATALOGUE, network=network.eval())


def test_neighbours_by_hand() -> None:
    near = Neighbours(CATALOGUE, [True] * 6)
    assert near.of("black pen", "furniture", {}) == pytest.approx({1: 1 / 3, 2: 1 / 3, 3: 1 / 3})
    assert near.of("sofa", "furniture", {}) == {4: 0.5, 5: 0.5}
    assert near.of(None, None, {}) == pytest.approx(dict.fromkeys(range(1, 7), 1 / 6))
    # "oak" is rarer than "table": log 6 and log 3, each over the root of 2
    ((first, much), (second, less)) = near.of("Oak-Table!", None, {}).items()
    assert (first, second) == (4, 5)
    assert much / less == pytest.approx((1.791759 + 1.098612) / 1.098612)
    # six events with item 6 weigh as 6 to 2 against the category
    weights = near.of("sofa", "furniture", {6: 6.0, 99: 5.0})
    assert weights == pytest.approx({4: 0.125, 5: 0.125, 6: 0.75})


@torch.no_grad()
def test_new_codes_do_not_depend_on_how_rows_and_turn_share_a_component() -> None:
    generator = torch.Generator().manual_seed(1)
    table = CodedTable(40, 2, 16, 8, additive=False, contextual=False)
    assert table.turn is not None
    table.weight.normal_(generator=generator)
    table.turn.normal_(generator=generator)
    table.codes.random_(0, 16, generator=generator)
    new = [{item: 0.5, item + 1: 0.5} for item in range(1, 20)]
    before = table.extended(new)
    stretch = 3.0 ** torch.arange(-4, 4)
    table.weight.view(2, 16, 4).mul_(stretch.view(2, 1, 4))
    table.turn.div_(stretch[:, None])
    assert torch.equal(table.extended(new)["codes"], before["codes"])


@torch.no_grad()
@pytest.mark.parametrize("table", TABLES, ids=str)
def test_known_items_keep_their_scores(table: TableConfig, tmp_path: Path) -> None:
    (tmp_path / "before").mkdir()
    write_run(tmp_path / "before", run_of(table))
    before = load_run(tmp_path / "before", device=CPU)  # its numbers are rounded
    after = add_items(before, NEW, {13: {4: 100.0}})
    scores = after.network.scores(HISTORIES)
    assert scores.shape == (2, 9)
    torch.testing.assert_close(scores[:, :6], before.network.scores(HISTORIES), rtol=1e-5, atol=1e-5)
    assert after.catalogue.ids == [1, 2, 3, 4, 5, 6, 11, 12, 13]
    assert after.catalogue.categories[-1] is None  # a category that training never met
    assert len(before.catalogue) == 6
    (tmp_path / "run").mkdir()
    write_run(tmp_path / "run", after)
    again = load_run(tmp_path / "run", device=CPU)
    torch.testing.assert_close(again.network.scores(HISTORIES), scores, rtol=1e-4, atol=1e-4)
    # history with a new item, and the new item recommended
    answer = Recommender(again).recommend([11, 1], 9)
    assert {item.id for item in answer} == {2, 3, 4, 5, 6, 12, 13}


@torch.no_grad()
@pytest.mark.parametrize("table", TABLES[:2], ids=str)
def test_any_number_of_new_items_moves_no_rounded_bias(table: TableConfig, tmp_path: Path) -> None:
    (tmp_path / "before").mkdir()
    write_run(tmp_path / "before", run_of(table, bits=4, width=16))
    before = load_run(tmp_path / "before", device=CPU)
    many = Catalogue(ids=list(range(100, 1100)), titles=["sofa"] * 1000, categories=[None] * 1000)
    (tmp_path / "run").mkdir()
    write_run(tmp_path / "run", add_items(before, many))
    after = load_run(tmp_path / "run", device=CPU).network.scores(HISTORIES)
    torch.testing.assert_close(after[:, :6], before.network.scores(HISTORIES), rtol=1e-5, atol=1e-5)


def test_more_items_than_codes() -> None:
    many = Catalogue(ids=list(range(100, 400)), titles=[None] * 300, categories=[None] * 300)
    reason = "takes no more items: 2 tables of 16 rows make 256 codes, and there are 306 items"
    with pytest.raises(DataError, match=reason):
        add_items(run_of(CodedTableConfig(tables=2, rows=16)), many)


@torch.no_grad()
@pytest.mark.parametrize("table", TABLES, ids=str)
def test_items_that_training_never_met_are_new_in_their_place(table: TableConfig) -> None:
    before = run_of(table, split=TEMPORAL)  # item 1 has no event
    assert before.network.offered.tolist() == [False] + [True] * 5
    assert return_items(before, [1, 2]) == 0
    new = Catalogue(ids=[11, 1], titles=["sofa", "red pen"], categories=["furniture", "writing"])
    after = add_items(before, new, {11: {1: 100.0}})
    assert after.catalogue.ids == [1, 2, 3, 4, 5, 6, 11]
    assert after.network.offered.all()
    scores, old = after.network.scores(HISTORIES), before.network.scores(HISTORIES)
    torch.testing.assert_close(scores[1, 1:6], old[1, 1:6])
    assert not torch.isclose(scores[1, 0], old[1, 0])
    # 1 is like 2 and 3, which are pens, and 11 like the furniture, not like 1, which had no vector yet
    alone = add_items(
        run_of(table, split=TEMPORAL),
        Catalogue(ids=[11], titles=["sofa"], categories=["furniture"]),
    )
    torch.testing.assert_close(scores[1, 6], alone.network.scores(HISTORIES)[1, 6])
    with pytest.raises(DataError, match="2 of the new items are in the model already, such as 11"):
        add_items(after, new)


@torch.no_grad()
def test_in_a_full_table_a_new_item_points_where_those_it_is_like_do() -> None:
    before = run_of(TABLES[0])
    after = add_items(before, NEW)
    torch.testing.assert_close(after.network.scores(HISTORIES)[:, :6], before.network.scores(HISTORIES))
    output = after.network.table.output()
    for new, like in ((6, slice(0, 3)), (7, slice(3, 5)), (8, slice(0, 6))):
        vector, mean = output.weight[new], output.weight[like].mean(0)
        torch.testing.assert_close(torch.cosine_similarity(vector, mean, dim=0), torch.ones(()))
        assert mean.norm() < vector.norm() < output.weight[like].norm(dim=1).mean()
        apart = (output.bias[:6] - output.bias[like].mean()).abs()
        assert output.bias[new] == output.bias[apart.argmin()]


@torch.no_grad()
@pytest.mark.parametrize("table", TABLES[1:], ids=str)
def test_in_a_coded_table_a_new_item_takes_a_free_code_near_its_company(table: TableConfig) -> None:
    before = run_of(table)
    after = add_items(before, NEW, {13: {4: 1000.0}})
    assert isinstance(after.network.table, CodedTable)
    assert isinstance(before.network.table, CodedTable)
    codes = after.network.table.codes
    assert torch.equal(codes[:6], before.network.table.codes)
    assert len(codes.unique(dim=0)) == 9
    vectors = after.network.table(torch.arange(1, 10)[None], None)[0]
    assert torch.cdist(vectors[8:], vectors[:6]).argmin() == 3


def test_what_cannot_be_added() -> None:
    with pytest.raises(DataError, match="1 of the new items are in the model already, such as 3"):
        add_items(run_of(TABLES[0]), Catalogue(ids=[9, 3], titles=[None] * 2, categories=[None] * 2))
    with pytest.raises(DataError, match="ids of this model are such as 1, those of new items such as 'x'"):
        add_items(run_of(TABLES[0]), Catalogue(ids=["x"], titles=[None], categories=[None]))
    with pytest.raises(DataError, match="only models whose items have codes or vectors of their own"):
        add_items(run_of(ComposedTableConfig()), NEW)


def test_removed_items_are_neither_read_nor_recommended(tmp_path: Path) -> None:
    run = run_of(TABLES[1])
    before = Recommender(run).recommend([1], 10)
    remove_items(run, [2, "4"])
    (tmp_path / "run").mkdir()
    write_run(tmp_path / "run", run)
    recommender = Recommender.load(tmp_path / "run")
    answer = recommender.recommend([1], 10)
    assert [item.id for item in answer] == [item.id for item in before if item.id not in (2, 4)]
    assert recommender.recommend([2, 1], 10).unknown_ids == (2,)
    assert [item.id for item in recommender.recommend([2, 1], 10)] == [item.id for item in answer]
    twice = Catalogue(ids=[11, 11], titles=[None, None], categories=[None, None])
    with pytest.raises(DataError, match="of the 2 new items some have the same id"):
        add_items(run, twice)
    with pytest.raises(DataError, match="1 ids are not in the model, such as 77"):
        remove_items(run, [77])
    with pytest.raises(DataError, match="no item to recommend"):
        remove_items(run, [1, 2, 3, 4, 5, 6])
    assert run.network.offered.sum() == 4


def test_the_commands(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "run").mkdir()
    write_run(tmp_path / "run", run_of(TABLES[1]))
    (tmp_path / "items.csv").write_text("item,title,category\n1,red pen,writing\n21,gold pen,writing\n22,desk,\n")
    (tmp_path / "log.csv").write_text("user,item,timestamp\na,22,1\na,4,2\na,22,3\nb,1,1\nb,2,2\n")
    paths = {name: str(tmp_path / name) for name in ("run", "items.csv", "log.csv", "more", "less")}
    add = ["add-items", paths["run"], paths["items.csv"], "--out", paths["more"]]
    assert main([*add, "--log", paths["log.csv"]]) == 0
    counts = "2 new items, 1 of them with events, 0 that had been removed and 1 that were there already"
    assert counts in capsys.readouterr().out
    assert load_run(tmp_path / "more", device=CPU).catalogue.ids[6:] == [21, 22]
    assert main(["remove-items", paths["more"], "21", "1", "--out", paths["less"]]) == 0
    assert "6 items are left to recommend" in capsys.readouterr().out
    assert main(["recommend", paths["less"], "--history", "22", "4", "-k", "9"]) == 0
    printed = capsys.readouterr().out
    assert "red pen" not in printed
    assert "blue pen" in printed
    assert main(["add-items", paths["less"], paths["items.csv"], "--out", str(tmp_path / "back")]) == 0
    assert "0 new items, 0 of them with events, 2 that had been removed and 1 that" in capsys.readouterr().out
    assert (tmp_path / "back" / MODEL).read_bytes() == (tmp_path / "more" / MODEL).read_bytes()
    assert main(["add-items", paths["more"], paths["items.csv"], "--out", str(tmp_path / "x")]) == 2
    assert "the run has all of its 3 items already" in capsys.readouterr().err
    (tmp_path / "other.csv").write_text("nr;wort\n1;red pen\n;no id\n21;gold pen\n22;desk\n")
    (tmp_path / "other-log.csv").write_text("a|22|1\na|4|2\na|22|3\n")
    named = ["add-items", paths["run"], str(tmp_path / "other.csv"), "--out", str(tmp_path / "named")]
    named += ["--items-id", "nr", "--title", "wort", "--on-bad-rows", "skip"]
    assert main([*named, "--columns", "user,item,timestamp"]) == 2
    assert "--columns describes a log: give one with --log" in capsys.readouterr().err
    log = str(tmp_path / "other-log.csv")
    assert main([*named, "--columns", "user,item,timestamp", "--separator", "|", "--log", log]) == 0
    assert f"1 bad rows skipped\n{counts}" in capsys.readouterr().out
    unfinished = json.loads((tmp_path / "run" / "run.json").read_text())
    unfinished["progress"]["finished"] = False
    (tmp_path / "run" / "run.json").write_text(json.dumps(unfinished))
    for command in (["add-items", paths["run"], paths["items.csv"]], ["remove-items", paths["run"], "1"]):
        assert main([*command, "--out", str(tmp_path / "x")]) == 2
        assert f"is not finished: go on with `lsan train --resume {paths['run']}`" in capsys.readouterr().err
    unfinished["progress"]["finished"] = True
    (tmp_path / "run" / "run.json").write_text(json.dumps(unfinished))
    for bad in ("abc", "--5", "0200", "9223372036854775808"):
        (tmp_path / "bad.csv").write_text(f"item,title\n200,a pen\n{bad},a name\n")
        assert main(["add-items", paths["run"], str(tmp_path / "bad.csv"), "--out", str(tmp_path / "x")]) == 2
        assert f"the item id '{bad}' is no whole number of 64 bits" in capsys.readouterr().err
