"""What the tests of this folder search on: a dataset with dev videos, a finished search, the address of a study."""

from __future__ import annotations

from pathlib import Path

import pytest

from distributed.tuning.search import tune
from tad.data.dataset import Dataset
from tad.prepare.split import split_holdout
from tests.support.search import MERGE, ONE_ROUND, options
from tests.support.tiny import tiny_dataset


@pytest.fixture(scope="package")
def data(tmp_path_factory) -> Dataset:
    folder = tmp_path_factory.mktemp("tuning")
    source = tiny_dataset(folder / "source", videos=10, classes=2, dim=12)
    split_holdout(source, 0.3, None, 0, folder / "data")
    return Dataset.open(folder / "data")


@pytest.fixture(scope="package")
def finished(data, tmp_path_factory) -> Path:
    """An uninterrupted search of five trials, tracked."""
    folder = tmp_path_factory.mktemp("finished")
    tune(ONE_ROUND, MERGE, data, "dev-quality", 0, options(folder, tracking=f"sqlite:///{folder / 'mlflow.db'}"))
    return folder


@pytest.fixture
def url(tmp_path):
    return f"sqlite:///{tmp_path / 'study.db'}"
