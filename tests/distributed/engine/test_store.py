"""The artifact store: whole or absent, one computes while others wait."""

from __future__ import annotations

import threading

import pytest

from distributed.engine.store import Store, fingerprint
from tad.errors import RunError

K, HALF = fingerprint({"k": 1}), fingerprint({"k": 2})


def test_fingerprint_depends_on_content_not_on_order():
    assert fingerprint({"a": 1, "b": [1, 2]}) == fingerprint({"b": [1, 2], "a": 1})
    assert fingerprint({"a": 1}) != fingerprint({"a": 2})
    with pytest.raises(ValueError, match="Out of range float"):
        fingerprint({"a": float("nan")})


def test_an_artifact_is_found_only_when_whole(tmp_path):
    store = Store(tmp_path)
    folder = store.partial(K).folder
    (folder / "output" / "model.pt").write_text("weights")
    (folder / "checkpoint.pt").write_text("state")
    (folder / "chunks").mkdir()
    assert store.find(K) is None
    artifact = store.commit(K, {"stage": "x"})
    assert sorted(p.name for p in artifact.path.iterdir()) == ["meta.json", "model.pt"]
    assert store.find(K) == artifact and store.meta(K)["stage"] == "x"
    assert not (tmp_path / f"{K}.partial").exists()


def test_what_an_earlier_attempt_left_is_still_there(tmp_path):
    (Store(tmp_path).partial(K).folder / "checkpoint.pt").write_text("state")
    assert (Store(tmp_path).partial(K).folder / "checkpoint.pt").read_text() == "state"


def test_two_that_need_the_same_artifact_compute_it_once(tmp_path):
    store, made = Store(tmp_path), []

    def need() -> None:
        with Store(tmp_path).lock(K, "x"):
            if store.find(K) is None:
                made.append(1)
                store.partial(K)
                store.commit(K, {})

    threads = [threading.Thread(target=need) for _ in range(8)]
    for t in threads:
        t.start()
    for t in threads:
        t.join()
    assert made == [1]


def test_a_store_that_cannot_be_written_is_told(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(RunError, match="artifact store cannot be written"):
        Store(tmp_path / "file")


def test_a_bucket_keeps_what_another_machine_finished(tmp_path, monkeypatch):
    """A URI of pyarrow.fs, here of the local file system; two caches stand for two machines."""
    uri = f"file://{tmp_path / 'bucket'}"
    monkeypatch.setenv("TAD_CACHE", str(tmp_path / "one"))
    store = Store(uri)
    folder = store.partial(K).folder
    (folder / "output" / "cas").mkdir()
    (folder / "output" / "cas" / "v.npy").write_text("curve")
    assert store.find(K) is None
    store.commit(K, {"stage": "x"})
    assert (tmp_path / "bucket" / K / "meta.json").is_file()
    monkeypatch.setenv("TAD_CACHE", str(tmp_path / "two"))
    other = Store(uri)
    found = other.find(K)
    assert found is not None and (found.path / "cas" / "v.npy").read_text() == "curve"
    assert other.meta(K)["stage"] == "x" and other.find(HALF) is None
    (tmp_path / "bucket" / HALF).mkdir()
    (tmp_path / "bucket" / HALF / "model.pt").write_text("weights")
    assert other.find(HALF) is None  # an upload that was interrupted
    with pytest.raises(RunError, match="artifact store cannot be used: nowhere://x: "):
        Store("nowhere://x")
