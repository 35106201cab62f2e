"""Places that cannot be written: full disks, read-only file systems, links, pipes and folders in the way."""

from __future__ import annotations

import subprocess
from pathlib import Path

from tests.rough.harness import RUN, Edit, accepted, content, folder_at, link_at, pipe_at, refused


def mounted(name: str, size: str, source: str | None = None) -> Edit:
    """A small disk; with a source, a read-only view of a folder. Unmounted with the case's folder by the caller."""

    def edit(here: Path) -> None:
        path = here / name
        path.mkdir(parents=True, exist_ok=True)
        command = ["mount", "-t", "tmpfs", "-o", size, "tmpfs", str(path)]
        subprocess.run(command, check=True)

    return edit


def at(option: str, place: str, command: tuple[str, ...] = RUN) -> tuple[str, ...]:
    position = command.index(option)
    return (*command[: position + 1], place, *command[position + 2 :])


LABEL = ("label", "pser-seed", "--proposals", "{here}/done/round-0/proposals.parquet", "--data", "{here}/data", "--local", "--store", "{here}/store", "--out", "{here}/o.json")  # fmt: skip
EVALUATE = ("evaluate", "{here}/detections.json", "--data", "{here}/data", "--subset", "test", "--json", "{here}/small/x")
EXPORT = ("export", "opentad", "--labels", "{here}/done/round-1/labels.parquet", "--data", "{here}/data", "--out", "{here}/small/x")
TUNE = ("tune", "seeds", "--space", "thresholds", "--data", "{here}/data", "--objective", "points", "--trials", "2", "--set", "rounds=0", "--set", "proposer.training.epochs=1", "--local", "--out", "{here}/small/st", "--store", "{here}/store")
SYNTH = ("synth", "{here}/small/new", "--videos", "4")
SPLIT = ("split", "{here}/data", "--dev", ".4", "--out", "{here}/small/new")

PLACES = [
    refused("places", f"{what} on a {kind}", mounted("small", options), command, "small", writes=("small",))
    for kind, options in (("full disk (60 KB)", "size=60k,nr_inodes=40"), ("read-only file system", "ro,size=1m"))
    for what, command in [
        ("store", at("--store", "{here}/small/s")), ("run folder", at("--out", "{here}/small/r")), ("study", TUNE),
        ("synth", SYNTH),
        *([("label --out", at("--out", "{here}/small/o.json", LABEL)), ("evaluate --json", EVALUATE), ("export --out", EXPORT), ("split --out", SPLIT)] if "ro" in options else []),
    ]
]  # fmt: skip


REPORT = ("report", "{here}/done", "--out", "{here}/small/x")
JUDGE = ("quality", "{here}/done/round-1/labels.parquet", "--data", "{here}/data", "--json", "{here}/small/x")
FILES = [
    refused("files to write", f"{name}: {what}", edit, command, option, says)
    for name, option, command in (
        ("evaluate", "--json", EVALUATE), ("quality", "--json", JUDGE), ("report", "--out", REPORT),
        ("label", "--out", at("--out", "{here}/small/x", LABEL)),
    )
    for what, edit, says in (
        ("a named pipe", [folder_at("small"), pipe_at("small/x")], "named pipe"), ("a folder", folder_at("small/x"), "folder"),
        ("a link to a device", [folder_at("small"), link_at("small/x", "/dev/null")], "device"),
        ("a link to itself", [folder_at("small"), link_at("small/x", "x")], "small/x"),
        ("below a file", content("small", "mine"), "file"),
    )
]  # fmt: skip
FILES += [
    accepted("files to write", "a link to a file, which is written", [folder_at("small"), content("small/aim", ""), link_at("small/x", "aim")], EVALUATE, writes=("small/aim",)),
    accepted("files to write", "a name of 252 bytes", folder_at("small"), at("--json", "{here}/small/" + "\U00020000" * 63, EVALUATE)),
]  # fmt: skip

CASES = [*PLACES, *FILES]
