"""Two bundles of one catalogue that answer differently."""

from dataclasses import replace
from pathlib import Path

import pytest

from lsan.config import Gru4RecConfig, SasRecConfig, TimeConfig
from lsan.data.catalogue import Catalogue
from lsan.export.bundle import make_bundle
from small_networks import CATALOGUE, ITEMS, TABLES, model_of, run_of


@pytest.fixture(scope="session")
def bundles(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """Files. The first model reads times; ids are texts, all but one item have titles, some categories."""
    folder = tmp_path_factory.mktemp("bundles")
    titles = [None if item == 7 else f"Café № {item}" for item in range(1, ITEMS + 1)]
    catalogue = Catalogue(ids=CATALOGUE.ids, titles=titles, categories=CATALOGUE.categories)
    models = [
        model_of(SasRecConfig, "causal", TABLES[0], time=TimeConfig()),
        model_of(Gru4RecConfig, "causal", TABLES[0]),
    ]
    files = []
    for number, model in enumerate(models):
        file = folder / f"{number}.lsan"
        file.write_bytes(make_bundle(replace(run_of(model), catalogue=catalogue)).content)
        files.append(file)
    return files
