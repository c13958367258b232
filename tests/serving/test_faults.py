"""The faults of benchmarks/serving_faults.py, a few of each."""

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parents[2] / "benchmarks"))

import serving_faults as faults


@pytest.fixture(scope="module")
def service(bundles: list[Path], tmp_path_factory: pytest.TempPathFactory) -> Iterator[faults.Service]:
    shop = faults.Shop(bundles, tmp_path_factory.mktemp("faults"))
    with faults.running(shop, workers=2, patience=1) as running:
        yield running


def test_no_answer_is_lost_or_wrong_when_the_model_is_swapped(service: faults.Service) -> None:
    assert faults.swaps(service, 5)["clients saw"]["right"] > 20


def test_no_answer_is_wrong_when_workers_are_killed(service: faults.Service) -> None:
    assert faults.kills(service, 2)["clients saw"]["right"] > 20


def test_no_answer_is_lost_when_the_service_is_stopped(service: faults.Service) -> None:
    assert faults.stops(service, 1)["clients saw"]["right"] > 20


def test_nonsense(service: faults.Service) -> None:
    assert set(faults.bodies(service, 1000)["statuses"]) == {200, 400, 422}


def test_slow_clients(service: faults.Service) -> None:
    assert faults.slow(service, 12, seconds=0.5)["clients saw"]["right"] > 20


def test_the_openapi_document_is_true(service: faults.Service) -> None:
    assert faults.schema(service, 5, phases="fuzzing")["report"]
