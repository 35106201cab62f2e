"""Shared fixtures: real data and golden vectors where they are, tiny datasets made on the spot."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

# Before torch is imported, and for every process the tests start: tiny tensors gain nothing from threads, and equality
# to the bit needs the same number of them everywhere.
os.environ["OMP_NUM_THREADS"] = "1"

import pytest

pytest_plugins = ["tests.support.world"]

SHARED = Path(os.environ.get("TAD_SHARED", Path(__file__).resolve().parents[2] / "shared"))


def shared_path(*parts: str) -> Path:
    """A file or folder of the shared test data; skips where it is absent, fails in CI."""
    path = SHARED.joinpath(*parts)
    if not path.exists():
        reason = f"{path} is absent; set TAD_SHARED to the folder that holds data/ and golden/"
        if os.environ.get("CI") == "true":
            pytest.fail(reason)
        pytest.skip(reason)
    return path


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
