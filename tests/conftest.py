"""Shared fixtures: real data and golden vectors where they are, tiny datasets made on the spot."""

from __future__ import annotations

import json
import os
from typing import Any

# Before torch is imported, and for every process the tests start: tiny tensors gain nothing from threads, and equality
# to the bit needs the same number of them everywhere.
os.environ["OMP_NUM_THREADS"] = "1"

import pytest

from tests.support.shared import shared_path

pytest_plugins = ["tests.support.supervision", "tests.support.world"]


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Files that start a Ray come first: they wait more than they compute, and the last file runs alone."""
    slow = {item.path for item in items if item.get_closest_marker("ray")}
    items.sort(key=lambda item: item.path not in slow)


@pytest.fixture(scope="session", autouse=True)
def _own_cache(tmp_path_factory):
    """Digests of the tests' files stay out of the user's cache."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("TAD_CACHE", str(tmp_path_factory.mktemp("cache")))
        yield


@pytest.fixture
def shared():
    return shared_path


@pytest.fixture
def golden():
    def read(name: str) -> Any:
        return json.loads(shared_path("golden", f"{name}.json").read_text())

    return read
