"""What a model will cost, before training."""

import pytest

from lsan.cli import main
from lsan.compression import costs
from lsan.compression.costs import costs_of_options
from lsan.compression.sizes import small_run
from lsan.config import recipe_from, recipe_to
from lsan.errors import ConfigError
from lsan.export.bundle import shipped_parts
from lsan.presets import load_preset


def test_the_table_has_every_option(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["plan", "--items", "50_000", "--width", "32", "--history", "20"]) == 0
    printed = capsys.readouterr().out
    for option in ("vectors, 32 bits", "vectors, 4 bits", "16 codes of 256 rows", "4 codes of 256 rows"):
        assert option in printed
    assert "50,000 items, width 32, histories of 20 events" in printed
    assert main(["plan", "--items", "50_000", "--width", "50"]) == 0
    assert "no codes: a width of 50 cannot be cut" in capsys.readouterr().out


def test_more_costs_more() -> None:
    recipe = load_preset("lsan")
    small = {one.option: one for one in costs_of_options(recipe, 10_000, 100_000)}
    large = {one.option: one for one in costs_of_options(recipe, 100_000, 1_000_000)}
    for option, one in small.items():
        other = large[option]
        assert one.shipped < other.shipped
        assert one.training < other.training
        assert one.serving < other.serving
        assert one.microseconds < other.microseconds
    shipped = [one.shipped for one in large.values()]
    assert shipped == sorted(shipped, reverse=True)


def test_time_is_that_of_this_machine(monkeypatch: pytest.MonkeyPatch) -> None:
    recipe = load_preset("lsan")
    here = next(costs_of_options(recipe, 1000, 1000)).microseconds
    slowness = costs.slowness()
    assert slowness > 0
    monkeypatch.setattr(costs, "slowness", lambda: 3 * slowness)
    assert next(costs_of_options(recipe, 1000, 1000)).microseconds == pytest.approx(3 * here)


def test_bytes_are_those_of_the_file() -> None:
    recipe = load_preset("lsan")
    one = next(one for one in costs_of_options(recipe, 3000, 30_000) if one.option == "16 codes of 256 rows")
    content = recipe_to(recipe)
    content["model"] |= {
        "table": {"kind": "coded", "tables": 16, "rows": 256},
        "quantisation": {"weights": 4, "table": 8, "bias": 4},
    }
    found = sum(shipped_parts(small_run(recipe_from(content, where="test"), 3000)).values())
    assert one.shipped == pytest.approx(found, rel=0.01)


def test_errors(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(ConfigError, match="knows the encoders"):
        list(costs_of_options(load_preset("gru4rec"), 1000, 1000))
    assert main(["plan", "--items", "1"]) == 2
    with pytest.raises(SystemExit):
        main(["plan", "--items", "many"])
    assert "not a whole number" in capsys.readouterr().err
