"""Artifacts of small stages, and what their files hold."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np

from distributed.engine.engine import Engine
from tad.data import arrays
from tad.stages import Artifact
from tests.support.toy import ToyConfig, ToyFit, ToyMap, ToyMapConfig

STAGES: dict[str, Callable[[Engine], Artifact]] = {
    "fit": lambda engine: engine.fit(ToyFit(ToyConfig(epochs=3))),
    "segments": lambda engine: engine.map(ToyMap(ToyMapConfig())),
    "arrays": lambda engine: engine.map(ToyMap(ToyMapConfig(), version=2, output="arrays")),
}


def with_arrays(folder: Path, *files: Mapping[str, np.ndarray]) -> Artifact:
    """An artifact with arrays by name, in one file for each dictionary."""
    (folder / arrays.file_name(0)).parent.mkdir(parents=True)
    rows = []
    for number, named in enumerate(files):
        places = {}
        with (folder / arrays.file_name(number)).open("wb") as file:
            for name, array in named.items():
                content = arrays.message(array)
                places[name] = (file.tell(), content.size)
                file.write(content)
        rows.append(arrays.index_rows(number, places))
    arrays.write_index(folder, rows)
    return Artifact(folder.name, folder)


def contents(folder: Path) -> dict[str, bytes]:
    files = [path for path in folder.rglob("*") if path.is_file() and path.name != "meta.json"]
    return {str(path.relative_to(folder)): path.read_bytes() for path in files}


def changed(path: Path) -> None:
    """The same size, one bit of its middle another."""
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)
