"""The same invented videos with labels of each kind."""

from __future__ import annotations

import pytest

from tad.data.dataset import Dataset
from tad.data.labels import SUPERVISION
from tad.prepare.relabel import derive_labels, one_kind
from tad.prepare.synth import make_dataset

TYPES = ("full", "points", "classes", "nothing", "mixed")
"""Columns of the tables of docs/supervision.md."""


@pytest.fixture(scope="session")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Dataset:
    """All training videos have points."""
    folder = tmp_path_factory.mktemp("whole") / "data"
    make_dataset(folder, videos=8, classes=3, dim=16, seed=1)
    return Dataset.open(folder)


@pytest.fixture(scope="session")
def by_type(whole: Dataset, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Dataset]:
    """A dataset of each column of the docs' table; fully labelled videos have no points beside, as they may."""
    folder, videos, made = tmp_path_factory.mktemp("types"), whole.videos("train"), {}
    for name in TYPES:
        kinds = {v: SUPERVISION[i % 4] for i, v in enumerate(videos)}
        if name != "mixed":
            kinds = one_kind(whole, "none" if name == "nothing" else name)  # type: ignore[arg-type]
        derive_labels(whole, kinds, folder / name)
        path = folder / name / "points.csv"
        if path.exists():
            bare = {v for v in videos if kinds[v] == "full"}
            rows = path.read_text().splitlines(keepends=True)
            path.write_text("".join(row for row in rows if row.split(",")[0] not in bare))
        made[name] = Dataset.open(folder / name)
    return made


def of_kind(data: Dataset, kind: str) -> list[str]:
    return [v for v in data.videos("train") if data.supervision(v) == kind]
