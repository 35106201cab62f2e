"""What the tests of several methods train on."""

from __future__ import annotations

from pathlib import Path

import pytest

from tad.data.dataset import Dataset
from tad.data.segments import Segments
from tests.support.plain import invent


@pytest.fixture
def plain(tmp_path: Path) -> tuple[Dataset, Segments]:
    """Six videos whose two classes are plain to see, and their actions as pseudo-labels."""
    return invent(tmp_path / "plain")
