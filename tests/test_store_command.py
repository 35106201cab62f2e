"""`tad store`: what is there, whether it is whole, and what may go. Nothing else ever goes."""

from __future__ import annotations

import json
import os
import time
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from distributed.engine import Engine
from distributed.record import Record
from distributed.store import Store
from tad.cli import tad
from tests.test_store_damage import changed
from tests.tiny import tiny_dataset
from tests.toy import ToyConfig, ToyFit, ToyMap, ToyMapConfig


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    return tiny_dataset(tmp_path_factory.mktemp("command") / "data", videos=4)


@pytest.fixture
def place(data, tmp_path, monkeypatch):
    """A store inside the folder of two runs, one of which is interrupted; and an artifact that no run names."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("TAD_CACHE", str(tmp_path / "cache"))
    monkeypatch.delenv("TAD_STORE", raising=False)
    model = engine(data, "one").fit(ToyFit(ToyConfig(epochs=2)))
    found = engine(data, "one").map(ToyMap(ToyMapConfig()), {"model": model})
    given_up = engine(data, "gone").fit(ToyFit(ToyConfig(epochs=1)))
    (Path("runs") / "gone" / "events.jsonl").unlink()
    # The second run names the map only: its model is needed as an input.
    (Path("runs") / "one" / "events.jsonl").unlink()
    (Path("runs") / "one" / "rounds.json").write_text(json.dumps([{"round": 0, "model": found.fingerprint}]))
    with pytest.raises(RuntimeError):
        engine(data, "two").map(Broken(ToyMapConfig(segments=3)))
    return {"model": model.fingerprint, "map": found.fingerprint, "given up": given_up.fingerprint}


class Broken(ToyMap):
    def open(self, context: Any) -> Any:
        raise RuntimeError("ends while it is in progress")


def engine(data: Any, run: str) -> Engine:
    return Engine(data, Store("runs/store"), Record(Path("runs") / run))


def age(hours: float = 2) -> None:
    """Makes all of the store look so old."""
    then = time.time() - hours * 3600
    for above, below, names in os.walk("runs/store"):
        for name in (".", *below, *names):
            os.utime(Path(above, name), (then, then), follow_symlinks=False)


def call(*arguments: str, fails: bool = False) -> str:
    result = CliRunner().invoke(tad, ["store", *arguments])
    assert (result.exception is not None) == fails, result.output
    return result.output + (str(result.exception) if fails else "")


def names() -> set[str]:
    return {path.name for path in Path("runs/store").iterdir() if not path.name.endswith((".lock", ".holder"))}


def test_list_shows_what_needs_what(place):
    rows = call("list").splitlines()
    assert rows[0].split() == ["what", "name", "stage", "size", "age", "needed", "by"]
    [model] = [row for row in rows if place["model"] in row]
    assert "toy/fit" in model and model.endswith("one") and " kB" in model and "min" in model
    [other] = [row for row in rows if place["given up"] in row]
    assert other.endswith("no run")
    [partial] = [row for row in rows if ".partial" in row]
    assert partial.startswith("in progress") and partial.endswith("two")
    assert "3 artifacts" in rows[-1]


def test_gc_shows_first_and_removes_only_what_no_run_names(place):
    before = names()
    assert "nothing to remove" in call("gc"), "all is of the last hour"
    age()
    shown = call("gc")
    assert place["given up"] in shown and "no run names it" in shown and "run it again with --yes" in shown
    assert place["model"] not in shown and place["map"] not in shown and ".partial" not in shown
    assert names() == before, "it was only shown"
    assert "removed: " in call("gc", "--yes")
    assert before - names() == {place["given up"]}
    assert not (Path("runs/store") / f"{place['given up']}.lock").exists()
    assert "nothing to remove" in call("gc", "--yes")


def test_gc_removes_what_is_left_over_and_nothing_that_is_not_the_stores(place, tmp_path):
    store = Path("runs/store")
    precious = tmp_path / "precious"
    precious.mkdir()
    (precious / "kept").write_text("x")
    mine = {"notes.txt", "0" * 23, "f" * 24, "e" * 24, f"{'d' * 24}.partial", "c" * 24, ".hidden", "model.damaged-1"}
    for name in ("0" * 23, "f" * 24, "e" * 24, ".hidden"):
        (store / name).mkdir()
    (store / ("e" * 24) / "meta.json").write_text('{"fingerprint": "of another"}')
    (store / "notes.txt").write_text("x")
    (store / "model.damaged-1").write_text("x")
    (store / f"{'d' * 24}.partial").symlink_to(precious)
    (store / ("c" * 24)).symlink_to(precious)
    stale = {f"{'a' * 24}.partial", f"{place['model']}.damaged-1", f"{'a' * 24}.partial.checkpoint.pt.damaged-2"}
    stale |= {f".fetch-{'a' * 24}-xy", ".node-xy", f".gone-{'a' * 24}-xy"}
    for name in stale:
        (store / name).mkdir()
        (store / name / "link").symlink_to(precious)
    (store / f"{'a' * 24}.lock").touch()
    age()
    shown = call("gc")
    assert all(name in shown for name in stale) and not any(f"{name} " in shown for name in mine)
    call("gc", "--yes")
    assert mine <= names() and not stale & names() and place["map"] in names()
    assert not (store / f"{'a' * 24}.lock").exists()
    assert (precious / "kept").read_text() == "x", "links are not followed"


def test_gc_removes_nothing_while_a_stage_runs(place):
    age()
    with Store("runs/store").lock("b" * 24, "stage x"):
        assert "nothing is removed while a stage runs" in call("gc", "--yes", fails=True)
        assert place["given up"] in names()
        assert f"process {os.getpid()} on " in call("gc", "--yes", fails=True)


def test_gc_refuses_when_it_knows_no_run(place, tmp_path):
    (tmp_path / "empty").mkdir()
    assert "name the folders of your runs" in call("gc", "--yes", "--runs", str(tmp_path / "empty"), fails=True)
    assert "nowhere: cannot be read" in call("gc", "--runs", "runs", "--runs", "nowhere", fails=True)
    assert "no such store" in call("gc", "--store", "nowhere", fails=True) and not Path("nowhere").exists()


def test_a_run_behind_a_link_keeps_its_artifacts(place, tmp_path):
    Path("runs/one").rename(tmp_path / "elsewhere")
    Path("runs/one").symlink_to(tmp_path / "elsewhere")
    age()
    assert place["model"] not in call("gc")


def test_gc_finds_copies_that_nobody_reads(place, tmp_path):
    old, new, mine = (tmp_path / "cache" / (letter * 16) for letter in "abc")
    for folder in (old, new):
        (folder / "features").mkdir(parents=True)
        (folder / "dataset.yaml").write_text("x")
    mine.mkdir()
    (mine / "thesis.tex").write_text("x")
    then = time.time() - 40 * 24 * 3600
    for path in (old / "dataset.yaml", old / "features", old, mine / "thesis.tex", mine):
        os.utime(path, (then, then))
    shown = call("gc")
    assert str(old) in shown and str(new) not in shown and str(mine) not in shown
    call("gc", "--yes")
    assert not old.exists() and new.exists() and (mine / "thesis.tex").exists()


def test_verify_reads_everything_and_changes_nothing(place):
    assert "3 artifacts read" in call("verify")
    changed(Path("runs/store") / place["model"] / "model.pt")
    before = names()
    said = call("verify", fails=True)
    assert f"{place['model']} (toy/fit): model.pt is not what was written" in said and "1 problem" in said
    assert names() == before
    assert "1 artifacts read" in call("verify", place["map"])
    assert "no such artifact: 000" in call("verify", "0" * 24, fails=True)
    meta = Path("runs/store") / place["model"] / "meta.json"
    document = json.loads(meta.read_text())
    del document["files"]
    meta.write_text(json.dumps(document))
    assert "1 were made before there were digests" in call("verify")


@pytest.mark.parametrize("meta", [None, "", "[]", "{", "{}", '{"fingerprint": "of another"}', '{"inputs": 3}'])
def test_verify_finds_a_damaged_description(place, meta):
    """Of an artifact that nothing but its name tells from anybody's folder."""
    path = Path("runs/store") / place["model"] / "meta.json"
    path.unlink()
    if meta is not None:
        path.write_text(meta)
    said = call("verify", fails=meta != "{}")
    assert meta == "{}" or f"{place['model']} (unknown stage): meta.json" in said
    call("list"), call("gc")


@pytest.mark.parametrize("kind", ["file", "link", "nothing"])
def test_verify_finds_what_is_no_folder(place, tmp_path, kind):
    path = Path("runs/store") / place["model"]
    path.rename(tmp_path / "away")
    path.write_text("x") if kind == "file" else path.symlink_to(tmp_path / ("away" if kind == "link" else "nowhere"))
    assert f"{place['model']} (unknown stage): " in call("verify", fails=True)


@pytest.mark.parametrize("name", ["run.json", "rounds.json", "events.jsonl"])
def test_a_pipe_or_a_device_in_a_runs_folder_is_not_read(place, name):
    path = Path("runs/two") / name
    for make in (os.mkfifo, lambda path: path.symlink_to("/dev/zero")):
        path.unlink(missing_ok=True)
        make(path)
        for command in ("list", "gc"):
            assert f"{path}: is a" in call(command, fails=True)


def test_links_within_a_runs_folder_are_not_followed(place):
    """They may lead anywhere, to / for instance."""
    (Path("runs/one") / "round-9").symlink_to("/proc")
    assert place["map"] in call("list")


def test_a_store_in_a_bucket_is_listed_verified_and_tidied(place, tmp_path, data, monkeypatch):
    """A bucket behind file://; a copy of each artifact lies in the cache."""
    uri = f"file://{tmp_path / 'bucket'}"
    model = Engine(data, Store(uri), Record(Path("runs") / "one")).fit(ToyFit(ToyConfig(epochs=2)))
    other = Engine(data, Store(uri), Record(tmp_path / "other")).fit(ToyFit(ToyConfig(epochs=3)))
    rows = call("list", "--store", uri).splitlines()
    assert sum(model.fingerprint in row for row in rows) == 2 and sum("(copy here)" in row for row in rows) == 2
    assert "2 artifacts read" in call("verify", "--store", uri)
    (tmp_path / "bucket" / model.fingerprint / "history.json").write_bytes(b"")
    assert "history.json has 0 bytes" in call("verify", "--store", uri, fails=True)
    assert "nothing to remove" in call("gc", "--store", uri)
    monkeypatch.setattr("distributed.garbage.YOUNG_S", -1.0)
    monkeypatch.setattr("distributed.garbage.YOUNG_IN_BUCKET_S", -1.0)
    call("gc", "--store", uri, "--yes")
    assert {p.name for p in (tmp_path / "bucket").iterdir()} == {model.fingerprint}
    assert model.path.exists() and not other.path.exists()
