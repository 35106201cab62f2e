"""What is not as it was written is set aside with a line and made again; no input of the user is blamed."""

from __future__ import annotations

import json
import os
import shutil
import zipfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch

from distributed.engine.chunks import FILES, PART_SCHEMA
from distributed.engine.seals import digest_of
from distributed.engine.store import Store
from tad.data.arrays import find
from tad.errors import DamagedError, RunError
from tad.stages import Artifact, Context
from tests.support.artifacts import STAGES, changed, contents
from tests.support.tiny import TinyEngine, tiny_dataset
from tests.support.toy import ToyConfig, ToyFit, ToyMap, ToyMapConfig


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    return tiny_dataset(tmp_path_factory.mktemp("damage") / "data", videos=4)


@pytest.fixture(scope="module")
def made(data, tmp_path_factory):
    """A store of each stage's artifact, which tests copy; the content of each artifact."""
    folder = tmp_path_factory.mktemp("made")
    found = {name: make(TinyEngine(data, 0, folder)) for name, make in STAGES.items()}
    return folder, {name: (artifact.fingerprint, contents(artifact.path)) for name, artifact in found.items()}


def warnings(folder: Path) -> list[str]:
    lines = (folder / "run" / "events.jsonl").read_text().splitlines()
    return [event["text"] for line in lines if (event := json.loads(line))["kind"] == "warning"]


def first(folder: Path, pattern: str) -> Path:
    return sorted(folder.glob(pattern))[0] if pattern else folder


def cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def zeros(path: Path) -> None:
    path.write_bytes(bytes(path.stat().st_size))


def empty(path: Path) -> None:
    path.write_bytes(b"")


def folder_instead(path: Path) -> None:
    path.unlink()
    path.mkdir()


def link_to_nothing(path: Path) -> None:
    path.unlink()
    path.symlink_to("/nowhere/at/all")


def link_to_the_same(path: Path) -> None:
    """A file or folder of elsewhere that holds the same."""
    path.rename(target := path.parent.parent.parent / "elsewhere")
    path.symlink_to(target)


def pipe(path: Path) -> None:
    path.unlink(missing_ok=True)
    os.mkfifo(path)


def other_weights(path: Path) -> None:
    torch.save({"state": {"weight": torch.zeros(2, 2)}, "settings": {}}, path)


def said(text: str) -> Callable[[Path], None]:
    def write(path: Path) -> None:
        path.write_text(text)

    write.__name__ = f"said {text[:20]}"
    return write


FINISHED = [
    *(("fit", "meta.json", harm) for harm in (empty, said("[]"), said("{"), said('{"files": 3}'), Path.unlink, cut)),
    *(("fit", "meta.json", harm) for harm in (said('{"files": {"../../x": "1 a"}}'), folder_instead)),
    *(("fit", "model.pt", harm) for harm in (empty, cut, zeros, changed, other_weights, Path.unlink, folder_instead)),
    ("fit", "model.pt", link_to_nothing),
    ("fit", "model.pt", link_to_the_same),
    ("fit", "model.pt", pipe),
    ("fit", "", link_to_the_same),
    ("fit", "meta.json", said('{"inputs": 3}')),
    ("arrays", "arrays", link_to_the_same),
    ("fit", "history.json", Path.unlink),
    ("segments", "segments.parquet", Path.unlink),
    ("segments", "segments.parquet", changed),
    *(
        ("arrays", name, harm)
        for name in ("arrays/0*.arrow", "arrays/index.arrow")
        for harm in (cut, changed, Path.unlink)
    ),
    ("arrays", "arrays", shutil.rmtree),
]


@pytest.mark.parametrize(("stage", "file", "harm"), FINISHED, ids=lambda x: getattr(x, "__name__", str(x)))
def test_a_damaged_artifact_is_set_aside_and_made_again(data, made, tmp_path, stage, file, harm):
    source, expected = made
    key, content = expected[stage]
    store = tmp_path / "store"
    shutil.copytree(source / "store" / key, store / key)
    harm(first(store / key, file))
    artifact = STAGES[stage](TinyEngine(data, 0, tmp_path))
    assert artifact.fingerprint == key and contents(artifact.path) == content
    assert (store / f"{key}.damaged-1").is_dir(), "nothing is removed"
    [line] = warnings(tmp_path)
    assert line.startswith(f"{store / key}: damaged: ") and f"moved to {key}.damaged-1" in line
    assert file.partition("*")[0] in line
    assert Store(store).find(key) == artifact


def test_what_is_whole_is_read_once_by_a_process_and_again_when_it_changed(made, tmp_path):
    source, expected = made
    key, _ = expected["fit"]
    shutil.copytree(source / "store" / key, tmp_path / key)
    assert Store(tmp_path).find(key) is not None
    changed(tmp_path / key / "model.pt")
    assert Store(tmp_path).find(key) is None
    with pytest.raises(RunError, match=f"{key} is damaged: model.pt is not what was written"):
        Store(tmp_path).require(key)


def test_an_artifact_from_before_digests_is_used_and_set_aside_when_it_cannot_be_read(data, made, tmp_path):
    source, expected = made
    key, content = expected["fit"]
    shutil.copytree(source / "store" / key, tmp_path / "store" / key)
    meta = tmp_path / "store" / key / "meta.json"
    document = json.loads(meta.read_text())
    del document["files"]
    meta.write_text(json.dumps(document))
    found = STAGES["fit"](TinyEngine(data, 0, tmp_path))
    assert contents(found.path) == content and warnings(tmp_path) == []
    pipe(found.path / "model.pt")
    assert Store(tmp_path / "store").find(key) is None, "it would be waited for without end"
    (found.path / "model.pt").unlink()
    empty(found.path / "model.pt")
    with pytest.raises(DamagedError, match=rf"model.pt: .*moved to {key}.damaged-1. Run the same command again"):
        found.model()
    assert contents(STAGES["fit"](TinyEngine(data, 0, tmp_path)).path) == content


@dataclass(frozen=True)
class Reads(ToyMap):
    """Reads its input for each video; a file of it is cut off before the first is read."""

    def open(self, context: Context) -> Any:
        function, source = super().open(context), context.inputs["arrays"]

        def run(video: str) -> Any:
            cut(source.path / find(source.path, "mean", video).file)
            source.array("mean", video)
            return function(video)

        return run


def test_videos_are_not_blamed_for_a_damaged_input(data, tmp_path):
    engine = TinyEngine(data, 0, tmp_path)
    arrays = STAGES["arrays"](engine)
    with pytest.raises(DamagedError, match=r"in the store: arrays/.*\.arrow: .*Run the same command again") as caught:
        engine.map(Reads(ToyMapConfig()), {"arrays": arrays})
    assert "ignored" not in str(caught.value)
    assert contents(STAGES["arrays"](TinyEngine(data, 0, tmp_path)).path) != {}


@dataclass(frozen=True)
class Ends(ToyFit):
    """Ends like a killed process after its second epoch."""

    def open(self, context: Context) -> Any:
        task, items = super().open(context), []
        item = task.item

        def counted(index: int, rng: np.random.Generator) -> Any:
            items.append(index)
            if len(items) > 2 * len(task):
                raise KeyboardInterrupt
            return item(index, rng)

        task.item = counted
        return task


def other_state(path: Path) -> None:
    state = torch.load(path, weights_only=True)
    torch.save(state | {"module": {"weight": torch.zeros(3, 3)}}, path)


def other_weight(path: Path) -> None:
    """One bit of the first weight; torch itself does not find it."""
    weight = torch.load(path, weights_only=True)["module"]["weight"].numpy().tobytes()
    content = path.read_bytes()
    at = content.index(weight)
    path.write_bytes(content[:at] + bytes([content[at] ^ 1]) + content[at + 1 :])


def no_state(path: Path) -> None:
    torch.save([1, 2], path)


def compressed(path: Path) -> None:
    """The same values; of somebody else's it might be a few bytes that become more than the memory holds."""
    with zipfile.ZipFile(path) as archive:
        files = {name: archive.read(name) for name in archive.namelist()}
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in files.items():
            archive.writestr(name, content)


CHECKPOINTS = [compressed, empty, cut, other_weight, zeros, other_state, no_state, folder_instead, said("rubbish")]


@pytest.mark.parametrize("harm", CHECKPOINTS, ids=lambda x: x.__name__)
def test_a_training_begins_again_when_its_checkpoint_is_damaged(data, made, tmp_path, harm):
    key, content = made[1]["fit"]
    with pytest.raises(KeyboardInterrupt):
        TinyEngine(data, 0, tmp_path).fit(Ends(ToyConfig(epochs=3)))
    checkpoint = tmp_path / "store" / f"{key}.partial" / "checkpoint.pt"
    harm(checkpoint)
    artifact = STAGES["fit"](TinyEngine(data, 0, tmp_path))
    assert contents(artifact.path) == content
    [line] = warnings(tmp_path)
    assert line.startswith(f"{checkpoint}: damaged: ") and "the training begins again" in line
    assert (tmp_path / "store" / f"{key}.partial.checkpoint.pt.damaged-1").exists() and "pt.damaged-1" in line


def test_a_training_goes_on_from_a_checkpoint_that_is_whole(data, made, tmp_path):
    with pytest.raises(KeyboardInterrupt):
        TinyEngine(data, 0, tmp_path).fit(Ends(ToyConfig(epochs=3)))
    artifact = STAGES["fit"](TinyEngine(data, 0, tmp_path))
    assert contents(artifact.path) == made[1]["fit"][1]
    events = [json.loads(line) for line in (tmp_path / "run" / "events.jsonl").read_text().splitlines()]
    assert [e["epoch"] for e in events if e["kind"] == "epoch"] == [0, 1, 2]


@pytest.mark.parametrize("harm", [empty, cut, changed, folder_instead, said("rubbish")], ids=lambda x: x.__name__)
@pytest.mark.parametrize("file", ["chunks/000001.parquet", "output/arrays/0*.arrow"])
def test_a_map_makes_damaged_parts_again(data, made, tmp_path, file, harm):
    """A map that was stopped when all was mapped."""
    key, content = made[1]["arrays"]
    broken = ToyMap(ToyMapConfig(), version=2, output="arrays")
    engine = TinyEngine(data, 0, tmp_path)
    store, commit = engine.store, engine.store.commit

    def stop(*_: Any) -> Any:
        raise KeyboardInterrupt

    store.commit = stop
    with pytest.raises(KeyboardInterrupt):
        engine.map(broken)
    store.commit = commit
    harm(first(tmp_path / "store" / f"{key}.partial", file))
    artifact = STAGES["arrays"](TinyEngine(data, 0, tmp_path))
    assert contents(artifact.path) == content
    [line] = warnings(tmp_path)
    assert "damaged: " in line and ".parquet.damaged-1" in line
    assert list((tmp_path / "store").glob(f"{key}.partial.00000*.parquet.damaged-1"))


def a_file(path: Path) -> None:
    path.write_text("not mine")


def a_folder(path: Path) -> None:
    (path / "kept").mkdir(parents=True)


def a_link(path: Path) -> None:
    target = path.parent.parent / "elsewhere"
    target.mkdir()
    (target / "kept").write_text("the user's")
    path.symlink_to(target)


@pytest.mark.parametrize(
    ("suffix", "harm"),
    [("", a_file), ("", a_folder), (".partial", a_file), (".partial", a_link), (".lock", a_folder), (".lock", a_link)],
)
def test_what_is_in_the_way_is_moved_and_never_followed(data, made, tmp_path, suffix, harm):
    key, content = made[1]["segments"]
    (tmp_path / "store").mkdir()
    harm(tmp_path / "store" / f"{key}{suffix}")
    artifact = STAGES["segments"](TinyEngine(data, 0, tmp_path))
    assert contents(artifact.path) == content
    [line] = warnings(tmp_path)
    assert f"moved to {key}{suffix}.damaged-1" in line
    assert (tmp_path / "store" / f"{key}{suffix}.damaged-1").exists()
    if harm is a_link:
        assert [p.name for p in (tmp_path / "elsewhere").iterdir()] == ["kept"]


@pytest.mark.parametrize("name", ["output", "chunks", "checkpoint.pt", "output/arrays"])
@pytest.mark.parametrize("kind", ["link", "pipe"])
def test_work_in_progress_of_somebody_else_leads_nowhere(data, made, tmp_path, name, kind):
    """Nothing is written, removed or waited for through it, hidden files of the target's least of all."""
    stage = "fit" if name == "checkpoint.pt" else "arrays"
    key, content = made[1][stage]
    victim, place = tmp_path / "victim", tmp_path / "store" / f"{key}.partial" / name
    (victim / ".git").mkdir(parents=True)
    (victim / ".bashrc").write_text("mine")
    place.parent.mkdir(parents=True)
    place.symlink_to(victim) if kind == "link" else os.mkfifo(place)
    artifact = STAGES[stage](TinyEngine(data, 0, tmp_path))
    assert contents(artifact.path) == content and not artifact.path.is_symlink()
    assert {path.name for path in victim.iterdir()} == {".git", ".bashrc"}
    [line] = warnings(tmp_path)
    assert f"{name} is {'a link' if kind == 'link' else 'neither'}" in line
    assert f"moved to {key}.partial.damaged-1" in line


def test_a_model_that_is_compressed_is_not_unpacked(made, tmp_path):
    source, expected = made
    shutil.copytree(source / "store" / expected["fit"][0], tmp_path / "x")
    compressed(tmp_path / "x" / "model.pt")
    with pytest.raises(DamagedError, match="compressed"):
        Artifact("x", tmp_path / "x").model()


@pytest.mark.parametrize("key", ["../../etc", "k", "", "A" * 24, "0" * 23, "0" * 24 + "\n", None, "0" * 24 + "/x"])
def test_what_is_no_fingerprint_becomes_no_path(tmp_path, key):
    for ask in (Store(tmp_path).find, Store(tmp_path).require, Store(tmp_path).meta):
        with pytest.raises(RunError, match="not the name of an artifact"):
            ask(key)


def test_failing_videos_keep_the_other_parts_and_their_arrays(data, tmp_path):
    videos = data.videos("train")
    with pytest.raises(RunError, match="failed for 1 of 4"):
        TinyEngine(data, 0, tmp_path).map(ToyMap(ToyMapConfig(broken=(videos[1],)), output="arrays"))
    [partial] = (tmp_path / "store").glob("*.partial")
    sizes = [path.stat().st_size > 0 for path in sorted((partial / "output" / "arrays").glob("*.arrow"))]
    assert sizes == [True, False, True, True]


def test_a_map_that_an_earlier_version_began_goes_on(data, tmp_path):
    """It wrote the array of each video to a file of its own, and named that in the part of the chunk."""
    videos, last = data.videos("train"), data.videos("train")[-1]
    broken = ToyMap(ToyMapConfig(broken=(last,)), output="arrays")
    with pytest.raises(RunError, match="failed for 1 of 4"):
        TinyEngine(data, 0, tmp_path).map(broken)
    [partial] = (tmp_path / "store").glob("*.partial")
    (partial / "output" / "arrays" / "000000.arrow").unlink()
    (partial / "output" / "mean").mkdir()
    old = f"output/mean/{videos[0]}.npy"
    np.save(partial / old, np.arange(3.0))
    files = {FILES: json.dumps({old: digest_of(partial / old)})}
    pq.write_table(PART_SCHEMA.empty_table().replace_schema_metadata(files), partial / "chunks" / "000000.parquet")

    @dataclass(frozen=True)
    class Mended(ToyMap):
        def open(self, context: Context) -> Any:
            return ToyMap(ToyMapConfig(), output="arrays").open(context)

    made = TinyEngine(data, 0, tmp_path).map(Mended(broken.config, output="arrays"))
    assert f"{made.fingerprint}.partial" == partial.name and warnings(tmp_path) == []
    assert made.array("mean", videos[0]).tolist() == [0, 1, 2]
    assert [made.array("mean", video).shape for video in videos[1:]] == [(16,)] * 3
