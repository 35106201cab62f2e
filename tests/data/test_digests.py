"""The fingerprint sees every byte of the features, and reads them once."""

from __future__ import annotations

import os
import shutil
import time
from pathlib import Path

import numpy as np
import pytest

from distributed.engine.store import Store
from tad.data import digests as module
from tad.data.dataset import Dataset
from tad.data.remote import cache_of
from tad.errors import DataError
from tests.support.tiny import tiny_dataset


@pytest.fixture
def cache(tmp_path, monkeypatch) -> Path:
    monkeypatch.setenv("TAD_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


@pytest.fixture
def data(tmp_path) -> Dataset:
    return tiny_dataset(tmp_path / "toy", videos=3, classes=2, dim=64)


@pytest.fixture
def read(monkeypatch) -> list[str]:
    """The files whose content was read, by name; the test's own files count as old."""
    found: list[str] = []
    digest = module._digest
    monkeypatch.setattr(module, "_digest", lambda path: (found.append(path.name), digest(path))[1])
    monkeypatch.setattr(module, "RECENT_NS", -(10**12))
    return found


def edit(path: Path, at: int) -> None:
    """Changes one byte in place; size and time of modification stay."""
    before = path.stat()
    with path.open("r+b") as file:
        file.seek(at)
        byte = file.read(1)
        file.seek(at)
        file.write(bytes([byte[0] ^ 1]))
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))


def test_one_changed_byte_anywhere_changes_the_fingerprint(cache, data):
    """Also one between the blocks at the front, in the middle and at the end, right after the last look."""
    path = data.feature_path(data.videos("train")[0])
    seen = {data.fingerprint("train")}
    size = path.stat().st_size
    for at in (200, size // 4, size // 2, 3 * size // 4, size - 1):
        edit(path, at)
        seen.add(data.fingerprint("train"))
    assert len(seen) == 6
    assert data.fingerprint("test") == Dataset.open(data.root).fingerprint("test")


def test_content_is_read_once_and_a_touch_changes_nothing(cache, data, read):
    before = data.fingerprint("train")
    names = sorted(f"{v}.npy" for v in data.videos("train"))
    assert sorted(read) == names
    assert Dataset.open(data.root).fingerprint("train") == before and len(read) == len(names), "remembered"
    os.utime(data.feature_path(data.videos("train")[1]))
    assert data.fingerprint("train") == before and read[len(names) :] == [names[1]]
    data.feature_path(data.videos("train")[0]).unlink()
    assert data.fingerprint("train") != before


def test_links_to_a_file_share_what_is_remembered(cache, data, read, tmp_path):
    before = data.fingerprint("train")
    read.clear()
    other = tmp_path / "other"
    (other / "features").mkdir(parents=True)
    for path in data.root.iterdir():
        if path.is_file():
            (other / path.name).write_bytes(path.read_bytes())
    for path in (data.root / "features").iterdir():
        (other / "features" / path.name).symlink_to(path)
    assert Dataset.open(other).fingerprint("train") == before and not read


def test_a_file_that_has_just_changed_is_not_remembered(cache, data, monkeypatch):
    before = data.fingerprint("train")
    assert not list(cache.rglob("*.json"))
    monkeypatch.setattr(module.time, "time_ns", lambda now=time.time_ns: now() + 10 * 10**9)
    assert data.fingerprint("train") == before and list(cache.rglob("*.json"))


@pytest.mark.parametrize("damage", ["{", "[]", '{"train_0000.npy": ["x"], "train_0001.npy": 3}', "", "a folder"])
def test_a_damaged_memory_is_no_memory(cache, data, read, damage):
    before = data.fingerprint("train")
    (memory,) = cache.rglob("*.json")
    if damage == "a folder":
        memory.unlink()
        memory.mkdir()
    else:
        memory.write_text(damage)
    read.clear()
    assert data.fingerprint("train") == before and len(read) == 3


def test_without_a_place_for_the_cache_it_works_all_the_same(data, read, tmp_path, monkeypatch):
    monkeypatch.setenv("TAD_CACHE", str(tmp_path / "file" / "below"))
    (tmp_path / "file").write_text("")
    before = data.fingerprint("train")
    monkeypatch.setenv("TAD_CACHE", "~nobody-of-this-name/cache")
    assert data.fingerprint("train") == before and len(read) == 6


def test_a_dataset_behind_a_uri_needs_a_cache_and_says_so(data, tmp_path, monkeypatch):
    (tmp_path / "file").write_text("")
    for place, says in (
        (str(tmp_path / "file" / "x"), "cache cannot be written"),
        ("~nobody-of-this-name", "there is no place for the cache"),
    ):
        monkeypatch.setenv("TAD_CACHE", place)
        for use in (Dataset.open, Store):
            with pytest.raises(DataError, match=rf"{says}[\s\S]*; let TAD_CACHE name a folder that can be written$"):
                use(data.root.as_uri())
    monkeypatch.delenv("TAD_CACHE")
    monkeypatch.setenv("HOME", str(tmp_path / "file"))
    with pytest.raises(DataError, match=f"{tmp_path}/file/.cache/.*; let TAD_CACHE name a folder"):
        Dataset.open(data.root.as_uri())
    monkeypatch.setenv("TAD_CACHE", str(tmp_path / "cache"))
    opened = Dataset.open(data.root.as_uri())
    shutil.rmtree(opened.root / "features", ignore_errors=True)
    (opened.root / "features").write_text("in the way")
    with pytest.raises(DataError, match=r"cannot be fetched to .*; let TAD_CACHE name a folder that can be written$"):
        opened.features(opened.videos("train")[0])


def test_one_uri_on_two_servers_has_two_places_in_the_cache(cache, monkeypatch):
    monkeypatch.delenv("AWS_ENDPOINT_URL", raising=False)
    monkeypatch.delenv("AWS_ENDPOINT_URL_S3", raising=False)
    amazon, local = cache_of("s3://lab/data"), cache_of("file:///lab/data")
    assert amazon == cache_of("s3://lab/data/") and amazon != local
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://one:9000")
    one = cache_of("s3://lab/data")
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://one:9000/")
    assert cache_of("s3://lab/data/") == one and cache_of("file:///lab/data") == local
    monkeypatch.setenv("AWS_ENDPOINT_URL_S3", "http://two:9000")  # it goes before the other, also for pyarrow
    assert len({amazon, one, cache_of("s3://lab/data")}) == 3 and one.parent == cache.resolve()


def test_two_that_write_at_once_leave_a_whole_memory(cache, data, read):
    from concurrent.futures import ThreadPoolExecutor

    with ThreadPoolExecutor(4) as pool:
        found = set(pool.map(lambda _: Dataset.open(data.root).fingerprint("train"), range(8)))
    read.clear()
    assert len(found) == 1 and data.fingerprint("train") in found and not read
    assert [p.suffix for p in (cache / "digests").iterdir()] == [".json"]


def test_a_dataset_has_the_same_fingerprint_behind_a_uri(cache, data, read):
    remote = Dataset.open(data.root.as_uri())
    assert remote.fingerprint("train") == data.fingerprint("train")
    assert not (remote.root / "features").exists()
    video = data.videos("train")[0]
    np.save(data.feature_path(video), np.array(data.features(video)) + 1)
    assert Dataset.open(data.root.as_uri()).fingerprint("train") == data.fingerprint("train")
    data.feature_path(video).unlink()
    assert Dataset.open(data.root.as_uri()).fingerprint("train") == data.fingerprint("train")
