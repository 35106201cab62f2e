"""`tad store`: what is there, whether it is whole, and what may go. Nothing else ever goes."""

from __future__ import annotations

import getpass
import json
import os
import shutil
import time
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

import distributed.engine.garbage
from distributed.engine.engine import Engine
from distributed.engine.locks import held
from distributed.engine.record import Record
from distributed.engine.store import Store
from distributed.engine.uses import Notes, noted
from tad.cli import tad
from tests.support.artifacts import changed
from tests.support.tiny import tiny_dataset
from tests.support.toy import ToyConfig, ToyFit, ToyMap, ToyMapConfig


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    return tiny_dataset(tmp_path_factory.mktemp("command") / "data", videos=4)


@pytest.fixture
def place(data, tmp_path, monkeypatch):
    """A store inside the folder of two runs, one of which is interrupted; and an artifact of a run that is gone."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("TAD_CACHE", str(tmp_path / "cache"))
    monkeypatch.delenv("TAD_STORE", raising=False)
    model = engine(data, "one").fit(ToyFit(ToyConfig(epochs=2)))
    found = engine(data, "one").map(ToyMap(ToyMapConfig()), {"model": model})
    given_up = engine(data, "gone").fit(ToyFit(ToyConfig(epochs=1)))
    shutil.rmtree(Path("runs") / "gone")
    # The second run, which was made before runs were noted, names the map only: its model is needed as an input.
    (Path("runs") / "one" / "events.jsonl").unlink()
    for path in Path("runs/store/.runs").iterdir():
        if found.fingerprint in path.read_text():
            path.unlink()
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
    assert "toy/fit" in model and model.endswith("one") and " kB" in model and " s  one" in model
    [other] = [row for row in rows if place["given up"] in row]
    assert f"gone ({getpass.getuser()} on " in other, "it is known from the store"
    [partial] = [row for row in rows if ".partial" in row]
    assert partial.startswith("in progress") and partial.endswith("two")
    assert "3 artifacts" in rows[-1]


GONE = ("--forget", "runs/gone")


def test_gc_shows_first_and_removes_only_what_no_run_needs(place):
    before = names()
    assert "nothing to remove" in call("gc", *GONE), "all is of the last hour"
    age()
    shown = call("gc", *GONE)
    assert place["given up"] in shown and "no run needs it" in shown and "run it again with --yes" in shown
    assert place["model"] not in shown and place["map"] not in shown and ".partial" not in shown
    assert names() == before, "it was only shown"
    assert "removed: " in call("gc", *GONE, "--yes")
    assert before - names() == {place["given up"]}
    assert not (Path("runs/store") / f"{place['given up']}.lock").exists()
    assert "nothing to remove" in call("gc", "--yes")
    assert "no run is noted there" in call("gc", *GONE, "--yes", fails=True), "it was forgotten"


def test_gc_keeps_what_runs_need_that_it_does_not_see(place, tmp_path, data):
    """Of others who share the store, of a run that was moved, of one whose place another has taken."""
    theirs = Engine(data, Store("runs/store"), Record(tmp_path / "theirs")).fit(ToyFit(ToyConfig(epochs=3)))
    Path("runs/two").rename(tmp_path / "away")
    engine(data, "two").fit(ToyFit(ToyConfig(epochs=4)))
    age()
    before = names()
    shown = call("gc", "--yes")
    assert names() == before and "nothing to remove" in shown
    for folder, n in ((tmp_path / "theirs", 1), (tmp_path / "runs" / "gone", 1)):
        assert f"{folder} ({getpass.getuser()} on " in shown and f"): {n} artifact" in shown
    assert theirs.fingerprint not in call("gc", "--runs", "runs/two"), "a run alone"
    Path(tmp_path / "theirs").rename("runs/mine")
    assert "theirs" not in call("gc"), "it lies below --runs now"
    assert "no run is noted there" in call("gc", "--forget", "runs/mine", fails=True)
    assert theirs.fingerprint not in call("gc", *GONE, "--yes")
    assert theirs.path.exists() and names() == before - {place["given up"]}


def test_gc_gives_back_what_a_run_needs_since_it_was_looked_for(place, data, monkeypatch):
    """Another run finds an artifact between the list and its removal."""
    age()
    found = Path("runs/store") / place["given up"]
    held = distributed.engine.garbage.locks_held

    def begins(store):
        monkeypatch.setattr(os, "rename", late)
        return held(store)

    rename = os.rename

    def late(path, target):
        monkeypatch.setattr(os, "rename", rename)
        assert engine(data, "late").fit(ToyFit(ToyConfig(epochs=1))).path == found.resolve()
        rename(path, target)

    monkeypatch.setattr(distributed.engine.garbage, "locks_held", begins)
    assert "removed: 0 bytes" in call("gc", *GONE, "--yes")
    assert (found / "model.pt").exists() and not list(Path("runs/store").glob(".gone*"))


def test_notes_that_cannot_be_read_keep_everything(place):
    (Path("runs/store/.runs") / ("0" * 32)).mkdir()
    assert "is a folder, not a file; it is not known" in call("gc", *GONE, "--yes", fails=True)


def test_what_is_noted_of_a_run(place, data, tmp_path):
    """Each artifact once, also after half a line of a killed process; nothing through a link."""
    one, two, three = "1" * 24, "2" * 24, "3" * 24
    store, record = Store(tmp_path / "other"), Record(tmp_path / "run")
    note = tmp_path / "other" / ".runs" / record.id
    Notes(store, record).add(one)
    with note.open("a") as file:
        file.write("2" * 10)
    for key in (one, two, two):
        Notes(store, record).add(key)
    [use] = noted(store)
    assert use.keys == {one, two} and [place for place, _ in use.places] == [str(tmp_path / "run")]
    assert note.read_text().count(one) == 1 == note.read_text().count(two)
    (tmp_path / "other" / ".runs").rename(tmp_path / "victim")
    (tmp_path / "other" / ".runs").symlink_to(tmp_path / "victim")
    Notes(store, Record(tmp_path / "new")).add(three)
    assert len(list((tmp_path / "victim").iterdir())) == 1 and noted(store) == []


def test_notes_of_two_machines_in_a_bucket_are_put_together(tmp_path, monkeypatch):
    record, keys = Record(tmp_path / "run"), ["1" * 24, "2" * 24, "3" * 24]
    for machine, key in zip("aba", keys, strict=True):
        monkeypatch.setenv("TAD_CACHE", str(tmp_path / machine))
        Notes(Store(f"file://{tmp_path / 'bucket'}"), record).add(key)
    [use] = noted(Store(f"file://{tmp_path / 'bucket'}"))
    assert use.keys == set(keys)


def test_a_run_is_known_by_its_first_event(tmp_path):
    """Also after half a line of a killed process; a folder that was copied is the same run's."""
    ids = [Record(tmp_path / "run").id]
    with (tmp_path / "run" / "events.jsonl").open("a") as file:
        file.write('{"time": 1, "ki')
    ids.append(Record(tmp_path / "run").id)
    shutil.copytree(tmp_path / "run", tmp_path / "copy")
    ids.append(Record(tmp_path / "copy").id)
    assert len(set(ids)) == 1 and Record(tmp_path / "other").id not in ids
    Record(tmp_path / "run").event("warning", text="x")
    lines = (tmp_path / "run" / "events.jsonl").read_text().splitlines()
    assert lines[1] == '{"time": 1, "ki' and json.loads(lines[2])["text"] == "x"


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
    assert ".node-xy" not in call("gc", *GONE), "of a node that may still work"
    then = time.time() - 25 * 3600
    os.utime(store / ".node-xy" / "link", (then, then), follow_symlinks=False)
    os.utime(store / ".node-xy", (then, then))
    shown = call("gc", *GONE)
    assert all(name in shown for name in stale) and not any(f"{name} " in shown for name in mine)
    call("gc", *GONE, "--yes")
    assert mine <= names() and not stale & names() and place["map"] in names()
    assert not (store / f"{'a' * 24}.lock").exists()
    assert (precious / "kept").read_text() == "x", "links are not followed"


def test_gc_removes_nothing_while_a_stage_runs(place):
    age()
    with Store("runs/store").lock("b" * 24, "stage x"):
        assert "nothing is removed while a stage runs" in call("gc", *GONE, "--yes", fails=True)
        assert place["given up"] in names()
        assert f"process {os.getpid()} on " in call("gc", *GONE, "--yes", fails=True)


def test_gc_leaves_lock_files_that_are_held(place):
    """Of a download, of which no stage's lock tells; who waits for a lock must not be given a file that is gone."""
    key = place["given up"]
    lock = Path("runs/store") / f"{key}.fetch"
    with held(lock, "the download"):
        age()
        call("gc", *GONE, "--yes")
        assert lock.exists() and not (Path("runs/store") / f"{key}.lock").exists()
    age()
    call("gc", "--yes")
    assert not lock.exists()


def test_gc_refuses_when_it_knows_no_run(place, tmp_path):
    (tmp_path / "empty").mkdir()
    shutil.rmtree("runs/store/.runs")
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
    uri, other_run = f"file://{tmp_path / 'bucket'}", tmp_path / "other"
    model = Engine(data, Store(uri), Record(Path("runs") / "one")).fit(ToyFit(ToyConfig(epochs=2)))
    other = Engine(data, Store(uri), Record(other_run)).fit(ToyFit(ToyConfig(epochs=3)))
    rows = call("list", "--store", uri).splitlines()
    assert sum(model.fingerprint in row for row in rows) == 2 and sum("(copy here)" in row for row in rows) == 2
    assert "2 artifacts read" in call("verify", "--store", uri)
    (tmp_path / "bucket" / model.fingerprint / "history.json").write_bytes(b"")
    assert "history.json has 0 bytes" in call("verify", "--store", uri, fails=True)
    assert "nothing to remove" in call("gc", "--store", uri)
    monkeypatch.setattr("distributed.engine.garbage.YOUNG_S", -1.0)
    monkeypatch.setattr("distributed.engine.garbage.YOUNG_IN_BUCKET_S", -1.0)
    assert str(other_run) in call("gc", "--store", uri, "--yes")
    assert other.path.exists() and (tmp_path / "bucket" / other.fingerprint).exists()
    call("gc", "--store", uri, "--forget", str(other_run), "--yes")
    assert {p.name for p in (tmp_path / "bucket").iterdir()} == {model.fingerprint, ".runs"}
    assert len(list((tmp_path / "bucket" / ".runs").iterdir())) == 1
    assert model.path.exists() and not other.path.exists()
