"""A dataset with points, made once for the tests of this folder."""

from __future__ import annotations

import pytest

from tad.data.dataset import Dataset
from tests.support.tiny import tiny_dataset


@pytest.fixture(scope="package")
def data(tmp_path_factory: pytest.TempPathFactory) -> Dataset:
    return tiny_dataset(tmp_path_factory.mktemp("potloc") / "data", videos=6, classes=3, dim=8)
