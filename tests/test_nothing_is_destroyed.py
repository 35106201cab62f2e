"""Commands that write folders, in rough situations: what is the user's is there afterwards, byte for byte."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest

from tad.cli import main
from tad.data.dataset import Dataset
from tad.data.output import MARKER, output_folder, strangers
from tad.data.synth import make_dataset
from tad.errors import DataError
from tests.sources import add_features, hrpro_source, opentad_source

VERBS = "id,key,instances,category\n0,take,[],x\n1,put,[],x\n"
INFO = "video_id,duration,fps,resolution\nP01_01,100.5,59.94,1x1\nP03_01,50,50,1x1\n"
EPIC = "narration_id,video,start,stop,verb,noun,action\n"

COMMANDS = {
    "split --dev": ["split", "data", "--dev", ".4", "--out", "OUT"],
    "split --kfold": ["split", "data", "--kfold", "2", "--out", "OUT"],
    "split --labelled": ["split", "data", "--labelled", ".5", "--mode", "uniform", "--out", "OUT"],
    "labels": ["labels", "data", "OUT", "--kind", "classes"],
    "import hrpro": ["import", "hrpro", "hrpro", "OUT"],
    "import opentad": ["import", "opentad", "opentad", "OUT", "--features", "copy"],
    "import epic": ["import", "epic", "epic", "OUT", "--task", "verb"],
    "export": ["export", "opentad", "--labels", "labels.json", "--data", "data", "--out", "OUT"],
    "synth": ["synth", "OUT", "--videos", "2", "--classes", "2", "--dim", "4"],
}
SOURCE = dict.fromkeys(COMMANDS, "data") | {f"import {x}": x for x in ("hrpro", "opentad", "epic")}


@pytest.fixture(scope="module")
def users(tmp_path_factory) -> Path:
    """A folder with what the commands read, and files of the user beside."""
    root = tmp_path_factory.mktemp("users")
    make_dataset(root / "data", videos=4, classes=2, dim=4, test=1)
    for marker in root.rglob(MARKER):
        marker.unlink()  # as if the user had made it
    (root / "labels.json").write_text(
        '{"version": 1, "results": {"train_0000": [{"segment": [1, 4], "label": "jump", "score": 0.5}]}}'
    )
    add_features(hrpro_source(root / "hrpro"), {"a": "train", "b": "train", "c": "test"})
    opentad_source(root / "opentad")
    (root / "epic").mkdir()
    (root / "epic" / "EPIC_100_verb_classes.csv").write_text(VERBS)
    (root / "epic" / "EPIC_100_video_info.csv").write_text(INFO)
    (root / "epic" / "training.csv").write_text(EPIC + "a,P01_01,30,75,1,8,9\n")
    (root / "epic" / "validation.csv").write_text(EPIC + "d,P03_01,30,75,1,8,9\n")
    (root / "precious").mkdir()
    (root / "precious" / "thesis.txt").write_text("all my work")
    return root


@pytest.fixture
def world(users, tmp_path, monkeypatch) -> Path:
    """A copy of the user's folder, which is the current one."""
    shutil.copytree(users, tmp_path / "world", symlinks=True)
    monkeypatch.chdir(tmp_path / "world")
    return tmp_path / "world"


def snapshot(root: Path) -> dict[str, tuple[str, object]]:
    """Everything below a folder: kind, and content, link target or nothing."""
    found: dict[str, tuple[str, object]] = {}
    for folder, folders, files in os.walk(root):
        for name in (*folders, *files):
            path = Path(folder) / name
            key = str(path.relative_to(root))
            if path.is_symlink():
                found[key] = ("link", os.readlink(path))
            else:
                found[key] = ("folder", path.stat().st_mode) if path.is_dir() else ("file", path.read_bytes())
    return found


def run(name: str, out: str | Path = "OUT", *more: str) -> int:
    """The command with its output folder; its exit status."""
    arguments = [str(out) if a == "OUT" else a for a in COMMANDS[name]]
    with pytest.raises(SystemExit) as end:
        main([*arguments, *more])
    return int(end.value.code or 0)


def refused(name: str, root: Path, message: str, capsys, out: str | Path = "OUT") -> None:
    """The command, with --force, ends with one clear error and leaves everything as it is."""
    before = snapshot(root)
    capsys.readouterr()
    status = run(name, out, "--force")
    said = capsys.readouterr().err
    assert status in (1, 2) and message in said and "Traceback" not in said and ".tad-" not in said.replace(MARKER, "")
    assert snapshot(root) == before


every_command = pytest.mark.parametrize("name", COMMANDS)
with_source = pytest.mark.parametrize("name", [name for name in COMMANDS if name != "synth"])


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
    full = ": needs 0.0 MB" if name == "synth" else ": cannot be written: no space left on device"
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


class Killed(BaseException):
    """Stands for the end of the process: from here on no file operation succeeds any more."""


class _Killer:
    left: int | None = None

    def __call__(self, event: str, args: tuple[object, ...]) -> None:
        if self.left is None:
            return
        writes = event == "open" and isinstance(args[2], int) and args[2] & (os.O_WRONLY | os.O_RDWR | os.O_CREAT)
        if writes or event in ("os.rename", "os.mkdir", "os.symlink", "os.remove", "os.rmdir", "ctypes.dlsym"):
            if self.left <= 0:
                raise Killed
            self.left -= 1


KILLER = _Killer()
sys.addaudithook(KILLER)


def killed_after(operations: int, command: Callable[[], object]) -> bool:
    """Whether the command was ended by this number of operations on files."""
    KILLER.left = operations
    try:
        command()
    except Killed:
        return True
    finally:
        KILLER.left = None
    return False


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


def test_synthetic_features_never_replace_real_ones(world, capsys):
    """Nor do they go through a link, or leave dataset.yaml changed when they cannot be written."""
    command = ["synth", "data", "--dim", "6", "--force"]

    def refused_here(message: str) -> None:
        before = snapshot(world)
        with pytest.raises(SystemExit) as end:
            main(command)
        assert end.value.code == 1 and message in capsys.readouterr().err and snapshot(world) == before

    refused_here("features: was not written by `tad synth`")
    shutil.move(world / "data" / "features", world / "real")
    (world / "data" / "features").symlink_to(world / "real")
    refused_here("features: is a link to")
    (world / "data" / "features").unlink()
    (world / "data" / "features").mkdir()
    for path in sorted((world / "real").glob("*.npy")):
        (world / "data" / "features" / path.name).symlink_to(path)
    (world / "data" / "features" / "readme.txt").write_text("mine")
    refused_here("features: was not written by `tad synth`")
    (world / "data" / "features" / "readme.txt").unlink()
    (world / "data" / "synth.json").write_text('{"my": "own"}')
    refused_here("synth.json: was not written by `tad synth`")
    (world / "data" / "synth.json").unlink()
    real = snapshot(world / "real")
    with pytest.raises(SystemExit):
        main(command)
    assert snapshot(world / "real") == real  # the links are replaced, what they lead to stays
    data = Dataset.open(world / "data")
    assert data.manifest.grid.dim == 6 and not data.feature_path("train_0000").is_symlink()
    (world / "data" / "features" / "train_0000.npy").unlink()
    np.save(world / "data" / "features" / "train_0000.npy", np.ones((9, 6), np.float32))
    refused_here("train_0000.npy: was changed")


def test_features_that_are_killed_or_do_not_fit_leave_dataset_yaml(world, capsys):
    shutil.rmtree(world / "data" / "features")
    old = (world / "data" / "dataset.yaml").read_bytes()
    for count in range(14):
        assert killed_after(count, lambda: main(["synth", "data", "--dim", "6"]))
        assert (world / "data" / "dataset.yaml").read_bytes() in (old, old.replace(b"dim: 4", b"dim: 6"))
    with pytest.raises(SystemExit) as end:
        main(["synth", "data", "--dim", "6"])
    assert end.value.code == 0 and Dataset.open(world / "data").features("train_0000").shape[1] == 6


def test_an_import_may_be_given_synthetic_features_and_be_made_again(world, capsys):
    for more in ([], ["--force"]):
        assert run("import epic", "OUT", *more) == 0, capsys.readouterr().err
        with pytest.raises(SystemExit) as end:
            main(["synth", "OUT", "--dim", "4"])
        assert end.value.code == 0, capsys.readouterr().err
    (world / "OUT" / "features" / "mine.npy").write_bytes(b"mine")
    refused("import epic", world, "features/mine.npy: was added", capsys)


def test_features_in_the_output_that_is_to_be_replaced(world, capsys):
    """A dataset links to files of another one; made anew from it, that one would lose them."""
    assert run("import opentad", "copied") == 0
    shutil.copytree("copied", "linked", symlinks=True)
    (world / "linked" / MARKER).unlink()
    for path in (world / "linked" / "features").glob("*.npy"):
        path.unlink()
        path.symlink_to(world / "copied" / "features" / path.name)
    before = snapshot(world)
    with pytest.raises(SystemExit) as end:
        main(["labels", "linked", "copied", "--kind", "none", "--force"])
    assert end.value.code == 1 and "holds what is read" in capsys.readouterr().err
    assert snapshot(world) == before


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["split", "data", "--dev", "nan", "--out", "OUT"], "nan"),
        (["split", "data", "--hide-points", "inf", "--out", "OUT"], "is not in the range"),
        (["split", "data", "--labelled", "1e-300", "--out", "OUT"], "is 0 labelled ones"),
        (["split", "data", "--kfold", str(10**9), "--out", "OUT"], "needs 2 to 4"),
        (["split", "data", "--kfold", "9" * 5000, "--out", "OUT"], "is not a valid integer"),
        (["split", "data", "--kfold", "-2", "--out", "OUT"], "needs 2 to 4"),
        (["split", "data", "--dev", ".4", "--seed", "-1", "--out", "OUT"], "is not in the range"),
        (["split", "data", "--dev", ".4", "--seed", "1" * 400, "--out", "OUT"], "is not in the range"),
        (["labels", "data", "OUT", "--mix", "full=nan,none=0.5"], "must be positive and sum to 1"),
        (["labels", "data", "OUT", "--mix", "full=1e999"], "must be positive and sum to 1"),
        (["labels", "data", "OUT", "--kind", "none", "--videos", "rubbish"], "rubbish: line 2: the byte 0xff is"),
        (["labels", "data", "OUT", "--kind", "none", "--videos", "empty"], "empty: names no video"),
        (["labels", "data", "OUT", "--kind", "none", "--videos", "precious"], "is a directory"),
        (["labels", "data", "OUT", "--kind", "none", "--videos", "pipe"], "pipe: is a named pipe, not a file"),
        (["labels", "data", "OUT", "--kind", "none", "--videos", "others"], "video ../x"),
    ],
)
def test_numbers_and_lists_beyond_sense(arguments, message, world, capsys):
    (world / "rubbish").write_bytes(b"train_0000\n\xff\xfe\x00")
    (world / "empty").write_text("\n")
    (world / "others").write_text("../x\ntrain_0000\n")
    os.mkfifo(world / "pipe")
    names = sorted(p.name for p in world.iterdir())
    with pytest.raises(SystemExit) as end:
        main(arguments)
    said = capsys.readouterr().err
    assert end.value.code in (1, 2) and message in said and "Traceback" not in said
    assert sorted(p.name for p in world.iterdir()) == names


def test_a_list_of_videos_as_spreadsheets_write_it(world):
    (world / "list").write_bytes(b"\xef\xbb\xbftrain_0000\r\ntrain_0002\r\n")
    with pytest.raises(SystemExit) as end:
        main(["labels", "data", "OUT", "--kind", "none", "--videos", "list"])
    data = Dataset.open(world / "OUT")
    assert end.value.code == 0
    assert [v for v in data.videos("train") if data.supervision(v) == "none"] == ["train_0000", "train_0002"]
