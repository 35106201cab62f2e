"""Damaged stores, and run folders of somebody else."""

from __future__ import annotations

import json
import os
import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from tests.rough.harness import RUN, Case, Edit, accepted, content, folder_at, link_at, nothing, pipe_at, refused

AGAIN = (
    "run", "seeds", "--data", "{here}/data", "--local", "--rounds", "1", "--set", "proposer.training.epochs=1",
    "--set", "detector.training.epochs=1", "--store", "{here}/done-store", "--out", "{here}/again",
)  # fmt: skip
"""The command that made `done`, into another folder."""
FIT, SCORE, PROPOSE, DETECTOR, LABELS = (
    "snippet/train",
    "snippet/score",
    "snippet/propose",
    "actionformer/train",
    "pser-seed/label",
)


def artifact(here: Path, stage: str) -> Path:
    """A finished artifact of a stage in the store."""
    for meta in sorted((here / "done-store").glob("*/meta.json")):
        document = json.loads(meta.read_text())
        if document["stage"] == stage:
            return meta.parent
    stages = [json.loads(m.read_text())["stage"] for m in (here / "done-store").glob("*/meta.json")]
    raise AssertionError(f"no artifact of {stage}: {stages}")


def damaged(stage: str, change: Callable[[Path], object], remake: tuple[str, ...] = ()) -> Edit:
    """A change of an artifact's folder; artifacts of the stages `remake` are gone, so that it is read."""

    def edit(here: Path) -> None:
        folder = artifact(here, stage)
        for other in remake:
            for meta in list((here / "done-store").glob("*/meta.json")):
                if json.loads(meta.read_text())["stage"] == other:
                    shutil.rmtree(meta.parent)
        change(folder)

    return edit


def partial(stage: str, change: Callable[[Path], object]) -> Edit:
    """An unfinished artifact in the place of the finished one."""

    def edit(here: Path) -> None:
        folder = artifact(here, stage)
        target = folder.with_name(f"{folder.name}.partial")
        shutil.rmtree(folder)
        change(target)

    return edit


def same_bytes(here: Path, text: str) -> None:
    for name in ("round-0/proposals.parquet", "round-1/detections-test.parquet"):
        assert (here / "again" / name).read_bytes() == (here / "done" / name).read_bytes(), f"{name} differs"


def store(what: str, edit: Edit) -> Case:
    """A store that is damaged: what is bad is made again, to the same bytes."""
    return accepted("store", what, edit, AGAIN, check=same_bytes, writes=("done-store/",))


def some_file(folder: Path, pattern: str) -> Path:
    return sorted(folder.rglob(pattern))[0]


def cut(pattern: str, to: int | float) -> Callable[[Path], None]:
    def change(folder: Path) -> None:
        path = some_file(folder, pattern)
        os.truncate(path, int(path.stat().st_size * to) if isinstance(to, float) else to)

    return change


def with_meta(text: str) -> Callable[[Path], None]:
    return lambda folder: (folder / "meta.json").write_text(text) and None


def zeroed(folder: Path) -> None:
    """Weights of another network that looks the same."""
    model = torch.load(folder / "model.pt", weights_only=True)
    model["state"] = {k: torch.zeros_like(v) for k, v in model["state"].items()}
    torch.save(model, folder / "model.pt")


def pickle_bomb(folder: Path) -> None:
    (folder / "model.pt").write_bytes(b"cos\nsystem\n(S'touch PWNED'\ntR.")


def other_shape(folder: Path) -> None:
    torch.save({"state": {"x": torch.zeros(3)}, "settings": {}}, folder / "model.pt")


def flipped(pattern: str) -> Callable[[Path], None]:
    """One bit of a file, in its middle."""

    def change(folder: Path) -> None:
        path = some_file(folder, pattern)
        held = bytearray(path.read_bytes())
        held[len(held) // 2] ^= 1
        path.write_bytes(held)

    return change


def locked(here: Path, kind: str) -> None:
    path = artifact(here, FIT)
    lock = path.with_name(f"{path.name}.lock")
    lock.unlink(missing_ok=True)
    if kind == "folder":
        lock.mkdir()
    else:
        lock.symlink_to(here / "data" / "dataset.yaml")


def in_the_way(name: str, make: Callable[[Path], object]) -> Edit:
    """Something else in the place of what a training writes; a folder that it might lead to must stay as it is."""

    def edit(here: Path) -> None:
        folder = artifact(here, FIT)
        shutil.rmtree(folder)
        (here / "mine" / ".git").mkdir(parents=True)
        (here / "mine" / ".bashrc").write_text("mine")
        place = folder.with_name(f"{folder.name}.partial") / name
        place.parent.mkdir()
        make(place)

    return edit


WAYS: list[tuple[str, Callable[[Path], object]]] = [
    ("a link", lambda path: path.symlink_to(path.parents[2] / "mine")),
    ("a named pipe", os.mkfifo),
]


def _kept(text: str) -> None:
    assert "kept for runs that do not lie below --runs" in text and "nothing to remove" in text, text


STORE = [
    *(
        store(f"meta.json {what}", damaged(stage, with_meta(text)))
        for stage in (FIT, PROPOSE)
        for what, text in [("empty", ""), ("a list", "[]"), ("truncated", '{"stage": "sni'), ("null", "null"), ("{}", "{}")]
    ),
    store("meta.json binary", damaged(FIT, lambda f: (f / "meta.json").write_bytes(bytes(range(256))) and None)),
    store("model.pt 0 bytes (power cut)", damaged(FIT, cut("model.pt", 0), (SCORE, PROPOSE))),
    store("model.pt truncated", damaged(FIT, cut("model.pt", 0.5), (SCORE, PROPOSE))),
    store("model.pt one bit flipped", damaged(FIT, flipped("model.pt"), (SCORE, PROPOSE))),
    store("model.pt missing", damaged(FIT, lambda f: (f / "model.pt").unlink(), (SCORE, PROPOSE))),
    store("model.pt a pickle that runs code", damaged(FIT, pickle_bomb, (SCORE, PROPOSE))),
    store("model.pt all zero", damaged(FIT, zeroed, (SCORE, PROPOSE))),
    store("model.pt of another shape", damaged(FIT, other_shape, (SCORE, PROPOSE))),
    store("model.pt of the detector 0 bytes", damaged(DETECTOR, cut("model.pt", 0), ("actionformer/detect",))),
    store("segments.parquet missing", damaged(PROPOSE, lambda f: (f / "segments.parquet").unlink(), (DETECTOR, LABELS))),
    store("segments.parquet truncated", damaged(PROPOSE, cut("segments.parquet", 0.5), (DETECTOR, LABELS))),
    store("segments.parquet 0 bytes", damaged(PROPOSE, cut("segments.parquet", 0), (DETECTOR, LABELS))),
    store("segments.parquet one bit flipped", damaged(PROPOSE, flipped("segments.parquet"), (DETECTOR, LABELS))),
    store("an array truncated", damaged(SCORE, cut("0*.arrow", 0.5), (PROPOSE, DETECTOR, LABELS))),
    store("an array 0 bytes", damaged(SCORE, cut("0*.arrow", 0), (PROPOSE, DETECTOR, LABELS))),
    store("an array missing", damaged(SCORE, lambda f: some_file(f, "0*.arrow").unlink(), (PROPOSE, DETECTOR, LABELS))),
    store("an array one bit flipped", damaged(SCORE, flipped("0*.arrow"), (PROPOSE, DETECTOR, LABELS))),
    store("checkpoint.pt truncated", partial(FIT, lambda f: f.mkdir() or ((f / "checkpoint.pt").write_bytes(b"PK\3\4" * 99) and None))),
    store("checkpoint.pt 0 bytes (power cut)", partial(FIT, lambda f: f.mkdir() or ((f / "checkpoint.pt").write_bytes(b"") and None))),
    store("checkpoint.pt a list", partial(FIT, lambda f: f.mkdir() or torch.save([1], f / "checkpoint.pt"))),
    store("a map's part truncated", partial(PROPOSE, lambda f: (f / "parts").mkdir(parents=True) or ((f / "parts/000000.parquet").write_bytes(b"PAR1") and None))),
    store("a map's part 0 bytes", partial(PROPOSE, lambda f: (f / "parts").mkdir(parents=True) or ((f / "parts/000000.parquet").write_bytes(b"") and None))),
    *(store(f"{name} of work in progress {what}", in_the_way(name, make)) for name in ("output", "checkpoint.pt") for what, make in WAYS),
    store("model.pt is a link to another file", damaged(FIT, lambda f: (f / "model.pt").rename(f.parent.parent / "m.pt") and (f / "model.pt").symlink_to(f.parent.parent / "m.pt"))),
    store("model.pt is a named pipe", damaged(FIT, lambda f: (f / "model.pt").unlink() or os.mkfifo(f / "model.pt"))),
    store("an artifact is a link", damaged(FIT, lambda f: f.rename(f.parent.parent / "moved") and f.symlink_to(f.parent.parent / "moved"))),
    store("meta.json with inputs that are a number", damaged(FIT, with_meta('{"inputs": 3}'))),
    *(refused("store", f"verify: meta.json {what}", damaged(FIT, with_meta(text)), ("store", "verify", "--store", "{here}/done-store"), "meta.json") for what, text in [("empty", ""), ("a list", "[]"), ("of another artifact", '{"fingerprint": "x"}')]),
    *(refused("store", f"gc: events.jsonl of a run {what}", make("done/events.jsonl"), ("store", "gc", "--store", "{here}/done-store", "--runs", "{here}", "--yes"), "events.jsonl") for what, make in [("a named pipe", pipe_at), ("a device", lambda name: link_at(name, "/dev/zero"))]),
    accepted("store", "gc: no runs below --runs", folder_at("empty"), ("store", "gc", "--store", "{here}/done-store", "--runs", "{here}/empty", "--yes"), check=lambda h, t: _kept(t)),
    accepted("store", "gc: the run was moved", lambda h: (h / "done").rename(h / "moved"), ("store", "gc", "--store", "{here}/done-store", "--runs", "{here}/data", "--yes"), check=lambda h, t: _kept(t), writes=("done",)),
    store("partial is a file", partial(FIT, lambda f: f.write_text("x") and None)),
    store("lock file is a folder", lambda h: locked(h, "folder")),
    store("lock file is a link to another file", lambda h: locked(h, "link")),
    store("an artifact is a file", damaged(FIT, lambda f: shutil.rmtree(f) or (f.write_text("x") and None))),
    refused("store", "is a file", content("store", "x"), RUN, "store"),
    refused("store", "below a file", nothing, (*RUN[:-4], "--store", "{here}/detections.json/s", *RUN[-2:]), "detections.json"),
    refused("store", "a name too long", nothing, (*RUN[:-4], "--store", "{here}/" + "x" * 300, *RUN[-2:]), "xxx"),
]  # fmt: skip


# -- run folders -------------------------------------------------------------------------------------------------------


def in_run(change: Callable[[Any], object], name: str = "run.json") -> Edit:
    def edit(here: Path) -> None:
        document = json.loads((here / "done" / name).read_text())
        changed = change(document)
        (here / "done" / name).write_text(json.dumps(document if changed is None else changed))

    return edit


REPORT = ("report", "{here}/done")
DETECT = (
    "detect", "{here}/done", "--data", "{here}/data", "--local", "--out", "{here}/o.json", "--store", "{here}/done-store",
)  # fmt: skip
SAME = (*AGAIN[:-1], "{here}/done")


def run_folder(what: str, edit: Edit, command: tuple[str, ...], *says: str) -> Case:
    return refused("run folder", what, edit, command, *(says or ("run.json",)), writes=("done/", "done-store/"))


DAMAGES: list[tuple[str, Edit]] = [
    ("empty", content("done/run.json", "")),
    ("a list", content("done/run.json", "[]")),
    ("truncated", content("done/run.json", '{"recipe": ')),
    ("binary", content("done/run.json", bytes(range(256)))),
    ("a folder", folder_at("done/run.json")),
    ("a named pipe", pipe_at("done/run.json")),
    ("a number for the dataset", in_run(lambda d: d.update(dataset=3))),
    ("a text for the recipe", in_run(lambda d: d.update(recipe="x"))),
]

RUN_FOLDERS = [
    *(run_folder(f"run.json {what}: report", edit, REPORT) for what, edit in DAMAGES),
    *(run_folder(f"run.json {what}: detect", edit, DETECT) for what, edit in DAMAGES),
    *(run_folder(f"run.json {what}: the same command", edit, SAME) for what, edit in DAMAGES),
    run_folder("run.json without dataset: detect", in_run(lambda d: d.pop("dataset") and None), DETECT),
    run_folder("run.json with an unknown recipe key: detect", in_run(lambda d: d["recipe"].update(nothing=1)), DETECT),
    run_folder("run.json of another recipe: the same command", in_run(lambda d: d["recipe"].update(rounds=7)), SAME, "recipe"),
    run_folder("no run.json: report", lambda h: (h / "done/run.json").unlink(), REPORT),
    run_folder("rounds.json a number: detect", content("done/rounds.json", "3"), DETECT, "rounds.json"),
    run_folder("rounds.json truncated: detect", content("done/rounds.json", "[{"), DETECT, "rounds.json"),
    run_folder("rounds.json of texts: detect", content("done/rounds.json", '["a"]'), DETECT, "rounds.json"),
    run_folder("a round that is not there: detect", nothing, (*DETECT, "--round", "7"), "7"),
    run_folder("a model's key that leaves the store", in_run(lambda d: d[1].update(model="../../data"), "rounds.json"), DETECT, "model"),
    run_folder("a model's key that is a number", in_run(lambda d: d[1].update(model=5), "rounds.json"), DETECT, "model"),
    run_folder("not a run: report", nothing, ("report", "{here}/data"), "data"),
    run_folder("--out holds other files", content("out/notes.txt", "mine"), RUN, "out"),
    run_folder("--out is a file", content("out", "mine"), RUN, "out"),
    run_folder("--out below a file", nothing, (*RUN[:-1], "{here}/detections.json/run"), "detections.json"),
    run_folder("--out of 300 letters", nothing, (*RUN[:-1], "{here}/" + "x" * 300), "xxx"),
    run_folder("--out a link to itself", link_at("out", "out"), RUN, "out"),
    run_folder("detect: --out is a folder", folder_at("o.json"), DETECT, "o.json"),
    run_folder("detect: --out below a file", nothing, (*DETECT[:6], "{here}/detections.json/x.json", *DETECT[7:]), "detections.json"),
    run_folder("report: --out is a folder", folder_at("r.html"), (*REPORT, "--out", "{here}/r.html"), "r.html"),
    accepted("run folder", "tracking without run_id: the same command, tracked anew", in_run(lambda d: d.update(tracking={"uri": "x"}, state="failed")), (*SAME, "--tracking", "sqlite:///{here}/m.db"), check=lambda h, t: _state(h, "finished"), writes=("done/", "done-store/", "m.db")),
    run_folder("tracking a text: the same command", in_run(lambda d: d.update(tracking="x", state="failed")), (*SAME, "--tracking", "sqlite:///{here}/m.db"), "run.json"),
    accepted("run folder", "events.jsonl cut in a line: report", lambda h: os.truncate(h / "done/events.jsonl", 1000), REPORT, writes=("done/",)),
    accepted("run folder", "events.jsonl with other lines: report", content("done/events.jsonl", '3\n[]\n{"kind": 5}\nx\n'), REPORT, writes=("done/",)),
    accepted("run folder", "no events.jsonl: report", lambda h: (h / "done/events.jsonl").unlink(), REPORT, writes=("done/",)),
    accepted("run folder", "a state `running` that is not: the same command", in_run(lambda d: d.update(state="running", driver=d["driver"] | {"pid": 4_000_000})), SAME, check=lambda h, t: _state(h, "finished"), writes=("done/", "done-store/")),
    run_folder("the store names a server: detect", in_run(lambda d: d.update(store="s3://b/s?endpoint_override=127.0.0.1:9&scheme=http")), DETECT[:-2], "--store"),
    run_folder("the store names a folder that is not there: detect", in_run(lambda d: d.update(store="/nowhere/of/this/name")), DETECT[:-2], "--store"),
    accepted("run folder", "the dataset names a server: report", in_run(lambda d: d["dataset"].update(root="s3://b/d?endpoint_override=127.0.0.1:9&scheme=http")), REPORT, check=lambda h, t: _no_server(t), writes=("done/",)),
    run_folder("replay of a run that another server has", content("done/events.jsonl", '{"time": 1, "kind": "start", "experiment": "x", "tracking": "sqlite:////tmp/none.db"}\n'), ("ui", "--replay", "{here}/done"), "events"),
    run_folder("replay of a record that is a list", content("done/events.jsonl", "[]\n"), ("ui", "--replay", "{here}/done"), "events"),
]  # fmt: skip


STUDY = ("tune", "seeds", "--space", "thresholds", "--data", "{here}/data", "--objective", "points", "--trials", "1", "--set", "rounds=0", "--set", "proposer.training.epochs=1", "--local", "--out", "{here}/st", "--store", "{here}/done-store")  # fmt: skip


def linked(name: str) -> list[Edit]:
    """A study's folder of somebody else, in which something is a link to the user's own."""

    def edit(here: Path) -> None:
        (here / "mine").mkdir()
        (here / "mine" / "history.png").write_text("mine")
        (here / "st" / name).parent.mkdir(parents=True, exist_ok=True)
        (here / "st" / name).symlink_to(here / "mine")

    return [content("st/study.json", '{"version": 1, "study": "seeds-synthetic-points-seed0"}'), edit]


RUN_FOLDERS += [
    refused("run folder", f"study: {name} is a link", linked(name), (*STUDY, "--study", "seeds-synthetic-points-seed0"), name, "is a link", writes=("done-store/",))
    for name in ("study.db", "trials", "figures", "data", "trials/0000/events.jsonl")
]  # fmt: skip


READ = "reads"
RUN_FOLDERS += [
    refused("run folder", f"{what} over a file that it reads", nothing, command, READ)
    for what, command in [
        ("detect: --out", (*DETECT[:6], "{here}/done/run.json", *DETECT[7:])),
        ("detect: --out", (*DETECT[:6], "{here}/data/points.csv", *DETECT[7:])),
        ("report: --out", (*REPORT, "--out", "{here}/done/rounds.json")),
        ("report: --out", (*REPORT, "--out", "{here}/data/dataset.yaml", "--data", "{here}/data")),
        ("evaluate: --json", ("evaluate", "{here}/detections.json", "--data", "{here}/data", "--subset", "test", "--json", "{here}/detections.json")),
        ("quality: --json", ("quality", "{here}/done/round-1/labels.parquet", "--data", "{here}/data", "--json", "{here}/data/annotations.json")),
        ("label: --out", ("label", "pser-seed", "--proposals", "{here}/done/round-0/proposals.parquet", "--data", "{here}/data", "--local", "--store", "{here}/store", "--out", "{here}/done/round-0/proposals.parquet")),
    ]
]


def _state(here: Path, state: str) -> None:
    assert json.loads((here / "done/run.json").read_text())["state"] == state


def _no_server(text: str) -> None:
    assert "127.0.0.1:9" not in re.sub(r"endpoint_override=\S+", "", text)


CASES = [*STORE, *RUN_FOLDERS]
