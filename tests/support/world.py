"""A folder with datasets and sources of a user, every command that writes folders, and whether anything changed."""

from __future__ import annotations

import os
import shutil
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from tad.cli import main
from tad.prepare.output import MARKER
from tad.prepare.synth import make_dataset
from tests.support.sources import add_features, hrpro_source, opentad_source

VERBS = "id,key,instances,category\n0,take,[],x\n1,put,[],x\n"
INFO = "video_id,duration,fps,resolution\nP01_01,100.5,59.94,1x1\nP03_01,50,50,1x1\n"
EPIC = "narration_id,video,start,stop,verb,noun,action\n"

COMMANDS = {
    "split --dev": ["split", "data", "--dev", ".4", "--out", "OUT"],
    "split --kfold": ["split", "data", "--kfold", "2", "--out", "OUT"],
    "split --labelled": ["split", "data", "--labelled", ".5", "--mode", "uniform", "--out", "OUT"],
    "labels": ["labels", "data", "OUT", "--kind", "classes"],
    "resize": ["resize", "data", "OUT", "--rows", "9"],
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
