"""Artifacts of small stages, and what their files hold."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from distributed.engine.engine import Engine
from tad.stages import Artifact
from tests.support.toy import ToyConfig, ToyFit, ToyMap, ToyMapConfig

STAGES: dict[str, Callable[[Engine], Artifact]] = {
    "fit": lambda engine: engine.fit(ToyFit(ToyConfig(epochs=3))),
    "segments": lambda engine: engine.map(ToyMap(ToyMapConfig())),
    "arrays": lambda engine: engine.map(ToyMap(ToyMapConfig(), version=2, output="arrays")),
}


def contents(folder: Path) -> dict[str, bytes]:
    files = [path for path in folder.rglob("*") if path.is_file() and path.name != "meta.json"]
    return {str(path.relative_to(folder)): path.read_bytes() for path in files}


def changed(path: Path) -> None:
    """The same size, one bit of its middle another."""
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)
