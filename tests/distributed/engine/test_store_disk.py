"""A disk that is full, too small or failing is told in one sentence, and the same command goes on later."""

from __future__ import annotations

import errno
import os
import re
import resource
import subprocess
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from distributed.engine.disk import need, size, writing
from distributed.engine.engine import Engine
from distributed.engine.record import Record
from distributed.engine.store import Store
from tad.errors import RunError
from tests.support.artifacts import contents
from tests.support.tiny import TinyEngine, tiny_dataset
from tests.support.toy import ToyConfig, ToyFit, ToyMap, ToyMapConfig

as_root = pytest.mark.skipif(os.geteuid() != 0, reason="needs root to mount a small file system")


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    return tiny_dataset(tmp_path_factory.mktemp("disk") / "data", videos=4)


@dataclass(frozen=True)
class WideFit(ToyFit):
    """With a module of 400 kB, and thus checkpoints of 1.2 MB."""

    def open(self, context: Any) -> Any:
        task = super().open(context)
        task.module.register_parameter("wide", nn.Parameter(torch.zeros(100_000)))
        task.module.forward = lambda x: nn.Linear.forward(task.module, x) + 0 * task.module.wide.sum()
        return task


@dataclass(frozen=True)
class WideMap(ToyMap):
    """Arrays of 200 kB a video."""

    def open(self, context: Any) -> Any:
        return lambda video: {"wide": np.full(50_000, float(video[-1]), dtype=np.float32)}


STAGES = {
    "fit": lambda engine: engine.fit(WideFit(ToyConfig(epochs=3))),
    "map": lambda engine: engine.map(WideMap(ToyMapConfig(), version=3, output="arrays")),
}


@contextmanager
def small(folder: Path, kilobytes: int):
    folder.mkdir(exist_ok=True)
    subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={kilobytes}k", "tmpfs", folder], check=True)
    try:
        yield
    finally:
        subprocess.run(["umount", "-l", folder], check=True)


def engine(data: Any, tmp_path: Path) -> Engine:
    return Engine(data, Store(tmp_path / "store"), Record(tmp_path / "run"))


@as_root
@pytest.mark.parametrize("stage", list(STAGES))
def test_what_does_not_fit_is_told_before_it_is_written(data, tmp_path, stage):
    with small(tmp_path / "store", 450):
        with pytest.raises(RunError) as caught:
            STAGES[stage](engine(data, tmp_path))
        said = str(caught.value)
        assert re.search(r"stage toy/\w+ needs about [\d.]+ [kM]B and [\d.]+ kB are free; free some, or choose", said)
        assert f"{tmp_path / 'store'}" in said and "\n" not in said


@as_root
@pytest.mark.parametrize("stage", list(STAGES))
def test_a_disk_that_fills_up_is_told_and_the_same_command_goes_on(data, tmp_path, monkeypatch, stage):
    """The estimate is left out, as when others fill the disk meanwhile; then the disk grows."""
    whole = STAGES[stage](TinyEngine(data, 0, tmp_path / "whole"))
    monkeypatch.setattr("distributed.engine.train.need", lambda *_: None)
    monkeypatch.setattr("distributed.engine.engine.need", lambda *_: None)
    with small(tmp_path / "store", 450):
        with pytest.raises(RunError) as caught:
            STAGES[stage](engine(data, tmp_path))
        assert re.search(r"cannot be written: .*\d \w+ of \d+ kB are free\); free some, or choose", str(caught.value))
        assert "video" not in str(caught.value) and "\n" not in str(caught.value)
        subprocess.run(["mount", "-o", "remount,size=20m", tmp_path / "store"], check=True)
        artifact = STAGES[stage](engine(data, tmp_path))
        assert contents(artifact.path) == contents(whole.path)


@pytest.mark.parametrize("stage", list(STAGES))
def test_a_limit_on_the_size_of_files_is_told(data, tmp_path, stage):
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    running = engine(data, tmp_path)
    try:
        resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, before[1]))
        with pytest.raises(RunError, match="cannot be written: "):
            STAGES[stage](running)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    STAGES[stage](engine(data, tmp_path))


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EDQUOT, errno.EIO, errno.EFBIG, errno.EROFS, errno.EACCES])
def test_each_error_of_the_disk_is_one_sentence_with_a_remedy(tmp_path, number):
    with pytest.raises(RunError) as caught, writing(tmp_path):
        raise OSError(number, os.strerror(number))
    said = str(caught.value)
    assert said.startswith(f"{tmp_path}: cannot be written: {os.strerror(number).lower()} (") and "; " in said
    with pytest.raises(OSError, match="Too many open files"), writing(tmp_path):
        raise OSError(errno.EMFILE, "Too many open files")
    with pytest.raises(RuntimeError, match="of another kind"), writing(tmp_path):
        raise RuntimeError("of another kind")


@pytest.mark.parametrize("stage", STAGES)
def test_a_store_that_is_removed_is_told_and_the_same_command_makes_it_again(data, tmp_path, monkeypatch, stage):
    """While a stage runs on it."""
    running, opened = engine(data, tmp_path), Store.partial

    def removed(*arguments):
        partial = opened(*arguments)
        (tmp_path / "store").rename(tmp_path / "away")
        return partial

    monkeypatch.setattr(Store, "partial", removed)
    with pytest.raises(RunError, match="was the store moved or removed meanwhile"):
        STAGES[stage](running)
    monkeypatch.undo()
    assert STAGES[stage](engine(data, tmp_path)).path.is_dir()


def test_sizes_are_written_as_people_do(tmp_path):
    assert [size(n) for n in (0, 999, 1500, 250_000, 3.2e9, 5e13)] == [
        "0 bytes",
        "999 bytes",
        "1.5 kB",
        "250 kB",
        "3.2 GB",
        "50.0 TB",
    ]
    need(tmp_path, 1, "x")
    with pytest.raises(RunError, match=r"x needs about 1000000.0 TB and "):
        need(tmp_path, 1e18, "x")
