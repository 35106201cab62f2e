"""Feature files of two videos, written in any kind of file and brought into a dataset folder."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from tad.errors import DataError
from tad.prepare.feature_files import Features, Lookup, find

ROWS = {"a": 9, "b": 11}
"""Rows of each video; the values are all different and exact in float16."""


def matrix(video: str, width: int = 4, begin: int = 0) -> np.ndarray:
    return (np.arange(ROWS[video] * width).reshape(-1, width) % 512 + begin).astype(np.float32)


def put(path: Path, array: Any, **more: Any) -> None:
    """Writes one file of the kind that its name says; more arrays go beside the first."""
    path.parent.mkdir(parents=True, exist_ok=True)
    if path.suffix == ".npy":
        np.save(path, array)
    elif path.suffix == ".npz":
        np.savez_compressed(path, **{"feats": array} | more)
    elif path.suffix in (".pt", ".pth"):
        tensors = {k: torch.tensor(v) for k, v in ({"feats": array} | more).items()}
        torch.save(tensors if more else tensors["feats"], path)
    else:
        h5py = pytest.importorskip("h5py", reason="HDF5 files need h5py")
        with h5py.File(path, "w") as file:
            for key, value in ({"feats": array} | more).items():
                file[key] = value


def bring(
    folder: Path, out: Path, rows: dict[str, int] | None = None, videos: tuple[str, ...] = ("a", "b"), **lookup: Any
) -> tuple[Features, dict[str, np.ndarray], list[str]]:
    """Finds and writes; the features, the files' content and all warnings.

    Raises:
        DataError: the problems, one a line.
    """
    problems: list[str] = []
    warnings: list[str] = []
    found = find(dict.fromkeys(videos, folder), Lookup(**lookup), rows or {}, problems, warnings)
    if problems:
        raise DataError("\n".join(problems))
    out.mkdir()
    warnings += found.write(out, "link")
    return found, {p.stem: np.load(p, allow_pickle=False) for p in sorted((out / "features").glob("*.npy"))}, warnings
