"""The shared test data: real annotations, features, published results and golden vectors."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

SHARED = Path(os.environ.get("TAD_SHARED", Path(__file__).resolve().parents[3] / "shared"))


def shared_path(*parts: str) -> Path:
    """A file or folder of the shared test data; skips where it is absent, fails in CI."""
    path = SHARED.joinpath(*parts)
    if not path.exists():
        reason = f"{path} is absent; set TAD_SHARED to the folder that holds data/ and golden/"
        if os.environ.get("CI") == "true":
            pytest.fail(reason)
        pytest.skip(reason)
    return path
