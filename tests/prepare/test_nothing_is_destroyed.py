"""Commands that write folders, in rough situations: what is the user's is there afterwards, byte for byte."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tad.data.dataset import Dataset
from tad.errors import DataError
from tad.prepare.output import MARKER, output_folder, strangers
from tests.support.world import SOURCE, every_command, killed_after, refused, run, snapshot, with_source


@every_command
def test_force_replaces_an_earlier_output_as_often_as_one_likes(name, world, capsys):
    before = snapshot(world)
    assert run(name) == 0, capsys.readouterr().err
    first = snapshot(world / "OUT")
    assert run(name) == 1 and "--force" in capsys.readouterr().err
    assert snapshot(world / "OUT") == first
    for _ in range(2):
        assert run(name, "OUT", "--force") == 0, capsys.readouterr().err
    again = snapshot(world)
    assert {k: v for k, v in again.items() if k.split("/")[0] != "OUT"} == before  # and no leftovers beside
    kept = {k: v for k, v in first.items() if Path(k).name != MARKER}
    assert {k: v for k, v in snapshot(world / "OUT").items() if Path(k).name != MARKER} == kept


@every_command
def test_a_link_is_not_followed(name, world, capsys):
    (world / "OUT").symlink_to("precious")
    refused(name, world, "is a link to precious", capsys)
    (world / "OUT").unlink()
    assert run(name, "real") == 0
    (world / "OUT").symlink_to("real")
    refused(name, world, "is a link to real", capsys)
    (world / "OUT").unlink()
    (world / "OUT").symlink_to("nowhere")
    refused(name, world, "is a link to nowhere", capsys)


@every_command
def test_links_inside_an_earlier_output_are_not_followed(name, world, capsys):
    assert run(name) == 0
    features = world / "OUT" / "features"
    if features.exists():
        shutil.rmtree(features)
    features.symlink_to(world / "data" / "features")
    refused(name, world, "features", capsys)
    features.unlink()
    some = next(p for p in sorted((world / "OUT").rglob("*")) if p.is_file() and p.name != MARKER)
    some.unlink()
    some.symlink_to(world / "precious" / "thesis.txt")
    refused(name, world, f"{some.name}: was changed", capsys)


@with_source
def test_the_source_its_parents_and_its_children(name, world, capsys):
    source = world / SOURCE[name]
    refused(name, world, "is the source", capsys, source)
    refused(name, world, "lies in the source", capsys, source / "new" / "out")
    inner = world / "inner"
    inner.mkdir()
    shutil.move(source, inner / "deep")
    source.symlink_to(inner / "deep")  # named by a link
    refused(name, world, "holds what is read", capsys, inner)
    refused(name, world, "is the source", capsys, inner / "deep")


@every_command
def test_what_is_not_the_commands_own_stays(name, world, capsys):
    refused(name, world, "was not written by", capsys, "precious")
    refused(name, world, "is a file", capsys, "precious/thesis.txt")
    refused(name, world, "thesis.txt", capsys, "precious/thesis.txt/out")
    refused(name, world, "cannot be written: file name too long", capsys, "x" * 300)
    refused(name, world, "current folder", capsys, ".")
    refused(name, world, "current folder", capsys, "..")
    other = "labels" if name.startswith("split") else "split --dev"
    assert run(other, "other") == 0
    refused(name, world, f"was written by `tad {other.split(' --')[0]}`, not by", capsys, "other")
    assert run(name) == 0
    (world / "OUT" / "notes.txt").write_text("mine")
    (world / "OUT" / "mine" / "empty").mkdir(parents=True)
    refused(name, world, "notes.txt: was added", capsys)
    shutil.rmtree(world / "OUT" / "mine")
    (world / "OUT" / "notes.txt").unlink()
    edited = next(p for p in sorted((world / "OUT").rglob("*.*")) if p.suffix in (".csv", ".yaml", ".json"))
    edited.write_text(edited.read_text() + " ")
    refused(name, world, f"{edited.name}: was changed", capsys)


@every_command
def test_the_home_folder(name, world, capsys, monkeypatch):
    (world / "home").mkdir()
    monkeypatch.setenv("HOME", str(world / "home"))
    refused(name, world, "is the home folder", capsys, "home")
    refused(name, world, "write the home folder in full", capsys, "~/out")


def test_a_container_without_a_home_and_a_current_folder_that_is_gone(world, monkeypatch, capsys):
    import pwd

    monkeypatch.delenv("HOME")
    monkeypatch.setattr(pwd, "getpwuid", {}.__getitem__)
    assert run("labels") == 0 and run("labels", "OUT", "--force") == 0
    (world / "gone").mkdir()
    monkeypatch.chdir(world / "gone")
    (world / "gone").rmdir()
    for more in ([], ["--force"]):
        with output_folder(world / "new", "split", force=bool(more)) as fresh:
            (fresh / "a").touch()


@pytest.fixture
def mount(world) -> Iterator[Callable[..., Path]]:
    """Mounts on a new folder; skips where this process may not."""
    mounted: list[Path] = []

    def on(place: Path, *options: str) -> Path:
        place.mkdir(exist_ok=True)
        if subprocess.run(["mount", *options, str(place)], capture_output=True).returncode:
            pytest.skip("may not mount")
        mounted.append(place)
        return place

    yield on
    for place in reversed(mounted):
        subprocess.run(["umount", "-l", str(place)], check=True)


@every_command
def test_mounts_full_disks_and_read_only_ones(name, world, capsys, mount):
    small = mount(world / "small", "-t", "tmpfs", "-o", "size=8k", "none")
    refused(name, world, "is a mount", capsys, small)
    full = ": needs about " if name == "synth" else ": cannot be written: no space left on device"
    refused(name, world, f"small/new/out{full}", capsys, small / "new" / "out")
    subprocess.run(["mount", "-o", "remount,ro", str(small)], check=True)
    refused(name, world, "cannot be written: read-only file system", capsys, small / "out")
    assert run(name) == 0
    inside = sorted(p for p in (world / "OUT").iterdir() if p.is_dir())
    if inside:
        shutil.rmtree(inside[0])
        mount(inside[0], "--bind", str(world / "data" / "features"))
        refused(name, world, "features" if name != "split --kfold" else "fold-0", capsys)


def test_a_parent_that_may_not_be_written(world, capsys):
    if os.geteuid() == 0:
        pytest.skip("root may write everywhere")
    (world / "locked").mkdir(mode=0o555)
    refused("split --dev", world, "permission denied", capsys, "locked/out")


@pytest.mark.parametrize(("name", "step"), [("split --dev", 1), ("synth", 3), ("import opentad", 3), ("export", 1)])
def test_killed_anywhere_the_old_output_or_the_new_one_stands(name, step, world):
    before = snapshot(world)
    assert run(name) == 0
    count, leftovers = 0, set()
    while killed_after(count, lambda: run(name, "OUT", "--force")):
        marker = snapshot(world / "OUT")[MARKER]
        assert b'"files"' in marker[1] and not strangers(world / "OUT")  # whole, be it the old one or the new one
        if name != "export":
            data = Dataset.open(world / "OUT")
            assert all(len(data.features(v)) for v in data.videos_by_id if name != "import opentad" or v == "a")
        rest = {k: v for k, v in snapshot(world).items() if k.split("/")[0] != "OUT"}
        left = {k.split("/")[0] for k in rest} - {k.split("/")[0] for k in before}
        assert all(k.startswith(".OUT.tad-") for k in left)
        assert {k: v for k, v in rest.items() if k.split("/")[0] not in left} == before
        leftovers |= left
        count += step
    assert count > 10 and len(leftovers) > 5
    assert run(name, "OUT", "--force") == 0
    assert {k for k in snapshot(world) if k.split("/")[0] != "OUT"} == set(before)


def test_two_at_once_do_not_take_each_other_for_dead(tmp_path):
    with pytest.raises(DataError, match="is not empty"), output_folder(tmp_path / "out", "split") as slow:
        (slow / "a").write_text("slow")
        with output_folder(tmp_path / "out", "split") as quick:
            assert (slow / "a").exists()
            (quick / "a").write_text("quick")
    assert (tmp_path / "out" / "a").read_text() == "quick" and len(list(tmp_path.iterdir())) == 1


def test_what_comes_to_be_there_meanwhile_is_kept(tmp_path):
    with output_folder(tmp_path / "out", "split") as fresh:
        (fresh / "a").write_text("1")
    with pytest.raises(DataError, match="late: was added"), output_folder(tmp_path / "out", "split", force=True):
        (tmp_path / "out" / "late").write_text("mine")
    assert sorted(p.name for p in (tmp_path / "out").iterdir()) == [MARKER, "a", "late"]
    with pytest.raises(DataError, match="new: is not empty"), output_folder(tmp_path / "new", "split"):
        (tmp_path / "new").mkdir()
        (tmp_path / "new" / "mine").write_text("mine")
    assert (tmp_path / "new" / "mine").read_text() == "mine"


def test_without_an_exchange_in_one_step_two_renames_do(tmp_path, monkeypatch):
    """As on network file systems."""
    import ctypes

    monkeypatch.setattr(ctypes, "CDLL", lambda *a, **k: object())
    for text in "12":
        with output_folder(tmp_path / "out", "split", force=True) as fresh:
            (fresh / "a").write_text(text)
    assert (tmp_path / "out" / "a").read_text() == "2" and len(list(tmp_path.iterdir())) == 1
