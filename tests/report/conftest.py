"""A dataset, a run on it and a small dataset: made once for the tests of this folder."""

from __future__ import annotations

from pathlib import Path

import pytest

from tad.data.dataset import Dataset
from tests.support.run_folder import make_dataset, make_run


@pytest.fixture(scope="package")
def data(tmp_path_factory) -> Dataset:
    return make_dataset(tmp_path_factory.mktemp("report") / "data")


@pytest.fixture(scope="package")
def small(tmp_path_factory) -> Dataset:
    """Few videos, for pages that are looked at in one respect only."""
    return make_dataset(tmp_path_factory.mktemp("report") / "data", train=2, test=1)


@pytest.fixture(scope="package")
def run(data, tmp_path_factory) -> Path:
    return make_run(tmp_path_factory.mktemp("report"), data)
