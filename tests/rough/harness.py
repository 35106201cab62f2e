"""Runs the command line on a bad input in a forked process and judges what came of it.

Every case gets a fresh folder with a dataset of nine videos (`data`), detections of its test videos (`detections.json`)
and a finished run with its store (`done`, `done-store`). What lies there is the user's: it must stay as it was, whatever
the command does, except where a case says so.
"""

from __future__ import annotations

import functools
import hashlib
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, NamedTuple

import yaml

Edit = Callable[[Path], object]
"""Changes the folder of a case."""
Check = Callable[[Path, str], object]
"""Looks at what an accepted input led to: the folder, and what was printed."""
Verdict = Literal["right", "traceback", "unclear", "silent", "refused", "hang", "lost", "wrong", "broken"]

LIMIT = 90.0
"""Seconds until a case hangs."""


@dataclass(frozen=True)
class Case:
    """One input and what is right.

    Attributes:
        area: what kind of file or option is bad.
        what: what is bad about it.
        edits: make it.
        command: arguments of `tad`; `{here}` is the folder of the case.
        says: words that the error must hold, None if the input is to be accepted.
        check: for an accepted input; raises AssertionError.
        writes: files that the command may change or remove, relative to the folder.
    """

    area: str
    what: str
    edits: tuple[Edit, ...]
    command: tuple[str, ...]
    says: tuple[str, ...] | None
    check: Check | None = None
    writes: tuple[str, ...] = ()


class Outcome(NamedTuple):
    """What happened."""

    verdict: Verdict
    status: int | None
    seconds: float
    text: str


def refused(area: str, what: str, edits: Edit | Sequence[Edit], command: Sequence[str], *says: str, **more: Any) -> Case:
    """A case that must end with an error that holds these words."""
    return Case(area, what, _edits(edits), tuple(command), says, **more)


def accepted(area: str, what: str, edits: Edit | Sequence[Edit], command: Sequence[str], **more: Any) -> Case:
    """A case that must end well."""
    return Case(area, what, _edits(edits), tuple(command), None, **more)


def _edits(edits: Edit | Sequence[Edit]) -> tuple[Edit, ...]:
    return tuple(edits) if isinstance(edits, Sequence) else (edits,)


# -- the folder of a case ----------------------------------------------------------------------------------------------

RUN = (
    "run", "seeds", "--data", "{here}/data", "--local", "--rounds", "0", "--set", "proposer.training.epochs=1",
    "--store", "{here}/store", "--out", "{here}/out",
)  # fmt: skip
CHECK = ("check", "{here}/data")
EVALUATE = ("evaluate", "{here}/detections.json", "--data", "{here}/data", "--subset", "test")


def make_base(folder: Path) -> None:
    """The folder that every case starts from."""
    from tad.cli import tad
    from tad.prepare.synth import make_dataset

    make_dataset(folder / "data", videos=6, test=3, classes=3, dim=16, seed=0)
    results: dict[str, list[dict[str, Any]]] = {}
    database = json.loads((folder / "data" / "annotations.json").read_text())["database"]
    for video, entry in database.items():
        if entry["subset"] == "test":
            results[video] = [a | {"score": 0.9} for a in entry["annotations"]]
    (folder / "detections.json").write_text(json.dumps({"results": results}))
    command = [
        "run", "seeds", "--data", str(folder / "data"), "--local", "--rounds", "1", "--set", "proposer.training.epochs=1",
        "--set", "detector.training.epochs=1", "--store", str(folder / "done-store"), "--out", str(folder / "done"),
    ]  # fmt: skip
    tad.main(args=command, prog_name="tad", standalone_mode=False)


def copied(base: Path, target: Path) -> None:
    """A copy of the base; run.json of the finished run names the copy."""
    shutil.copytree(base, target, symlinks=True)
    for path in target.rglob("run.json"):
        path.write_text(path.read_text().replace(str(base), str(target)))


def snapshot(folder: Path) -> dict[str, str]:
    """Every file, link and folder below a folder, and what it holds."""
    found: dict[str, str] = {}
    for root, folders, files in os.walk(folder):
        for name in [*folders, *files]:
            path = Path(root, name)
            key = str(path.relative_to(folder))
            if path.is_symlink():
                found[key] = f"-> {os.readlink(path)}"
            elif path.is_file():
                found[key] = hashlib.sha256(path.read_bytes()).hexdigest()
            else:
                found[key] = "folder" if path.is_dir() else "special"
    return found


# -- running and judging -----------------------------------------------------------------------------------------------


def run_case(case: Case, base: Path, folder: Path) -> Outcome:
    """Makes the case in a new folder, runs its command in a fork of this process, and judges."""
    copied(base, folder)
    for edit in case.edits:
        edit(folder)
    before = snapshot(folder)
    output = folder.with_name(f"{folder.name}.out")
    start = time.perf_counter()
    sys.stdout.flush()
    sys.stderr.flush()
    child = os.fork()
    if child == 0:
        _command([a.replace("{here}", str(folder)) for a in case.command], folder, output)
    status = _wait(child, start + LIMIT)
    seconds = time.perf_counter() - start
    text = output.read_text(errors="replace")
    if os.path.ismount(folder / "small"):
        subprocess.run(["umount", "-l", folder / "small"], check=True)
    lost = [k for k, v in before.items() if snapshot_of(folder, k) != v and not k.startswith(case.writes or ("\0",))]
    return Outcome(_judge(case, status, text, lost, folder), status, seconds, text + "".join(f"\nlost: {k}" for k in lost))


def snapshot_of(folder: Path, key: str) -> str | None:
    """One entry of `snapshot`."""
    path = folder / key
    if path.is_symlink():
        return f"-> {os.readlink(path)}"
    if path.is_file():
        return hashlib.sha256(path.read_bytes()).hexdigest()
    if not path.exists():
        return None
    return "folder" if path.is_dir() else "special"


def _command(arguments: list[str], folder: Path, output: Path) -> None:
    """In the child: never returns."""
    code = 1
    try:
        os.setsid()
        handle = os.open(output, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o644)
        null = os.open(os.devnull, os.O_RDONLY)
        os.dup2(null, 0)
        os.dup2(handle, 1)
        os.dup2(handle, 2)
        sys.stdout = os.fdopen(1, "w", encoding="utf-8", errors="backslashreplace", closefd=False)
        sys.stderr = os.fdopen(2, "w", encoding="utf-8", errors="backslashreplace", closefd=False)
        os.chdir(folder)
        os.environ["TMPDIR"] = str(folder.parent)
        from tad.cli import main

        sys.argv = ["tad", *arguments]
        try:
            main(arguments)
            code = 0
        except SystemExit as end:
            code = end.code if isinstance(end.code, int) else int(end.code is not None)
        except BaseException:
            import traceback

            traceback.print_exc()
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)


def _wait(child: int, until: float) -> int | None:
    while time.perf_counter() < until:
        done, status = os.waitpid(child, os.WNOHANG)
        if done:
            return os.waitstatus_to_exitcode(status)
        time.sleep(0.005)
    os.killpg(child, signal.SIGKILL)
    os.waitpid(child, 0)
    return None


def _judge(case: Case, status: int | None, text: str, lost: list[str], folder: Path) -> Verdict:
    if lost:
        return "lost"
    if status is None:
        return "hang"
    if "Traceback (most recent call last)" in text or "traceback is in" in text:
        return "traceback"
    if case.says is None:
        if status != 0:
            return "refused"
        try:
            if case.check is not None:
                case.check(folder, text)
        except (AssertionError, OSError, KeyError, ValueError) as problem:
            print(f"{case.area}: {case.what}: {problem!r}")
            return "wrong"
        return "right"
    if status == 0:
        return "silent"
    words = text.lower()
    return "right" if status > 0 and all(word.lower() in words for word in case.says) else "unclear"


# -- edits -------------------------------------------------------------------------------------------------------------


def nothing(here: Path) -> None:
    """The input is bad by its options alone."""


def content(name: str, text: str | bytes) -> Edit:
    """A file with this content."""

    def edit(here: Path) -> None:
        path = here / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(text.encode() if isinstance(text, str) else text)

    return edit


def replaced(name: str, old: str, new: str) -> Edit:
    """A file in which one text stands for another."""

    def edit(here: Path) -> None:
        text = (here / name).read_text()
        assert old in text, f"{old!r} is not in {name}"
        (here / name).write_text(text.replace(old, new))

    return edit


def appended(name: str, text: str | bytes) -> Edit:
    """A file with more at its end."""

    def edit(here: Path) -> None:
        with (here / name).open("ab") as file:
            file.write(text.encode() if isinstance(text, str) else text)

    return edit


def in_yaml(change: Callable[[dict[str, Any]], object], name: str = "data/dataset.yaml") -> Edit:
    """dataset.yaml after a change of its document."""

    def edit(here: Path) -> None:
        document = yaml.safe_load((here / name).read_text())
        change(document)
        (here / name).write_text(yaml.safe_dump(document, sort_keys=False))

    return edit


def in_json(change: Callable[[Any], object], name: str = "data/annotations.json") -> Edit:
    """A JSON file after a change of its document."""

    def edit(here: Path) -> None:
        document = json.loads((here / name).read_text())
        changed = change(document)
        (here / name).write_text(json.dumps(document if changed is None else changed))

    return edit


def removed(name: str) -> Edit:
    def edit(here: Path) -> None:
        path = here / name
        shutil.rmtree(path) if path.is_dir() and not path.is_symlink() else path.unlink()

    return edit


def folder_at(name: str) -> Edit:
    """A folder where a file should be."""

    def edit(here: Path) -> None:
        path = here / name
        if path.is_file():
            path.unlink()
        path.mkdir(parents=True, exist_ok=True)

    return edit


def pipe_at(name: str) -> Edit:
    """A named pipe where a file should be."""

    def edit(here: Path) -> None:
        (here / name).unlink(missing_ok=True)
        os.mkfifo(here / name)

    return edit


def link_at(name: str, target: str) -> Edit:
    """A link; `{here}` in the target is the folder of the case."""

    def edit(here: Path) -> None:
        path = here / name
        if path.is_dir() and not path.is_symlink():
            shutil.rmtree(path)
        path.unlink(missing_ok=True)
        path.symlink_to(target.replace("{here}", str(here)))

    return edit


def truncated(name: str, to: int | float) -> Edit:
    """A file cut to this many bytes, or this share of it."""

    def edit(here: Path) -> None:
        path = here / name
        size = path.stat().st_size
        os.truncate(path, int(size * to) if isinstance(to, float) else to)

    return edit


@functools.cache
def first_video(kind: str = "train") -> str:
    return f"{kind}_0000"
