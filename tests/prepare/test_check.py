"""`tad check`: one row per defect, and all of them at once."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner

from tad.commands import data as commands
from tad.data.dataset import Dataset
from tad.data.findings import summary
from tad.errors import DataError
from tad.evaluation.ground_truth import ground_truth
from tad.prepare.check import check
from tad.prepare.import_hrpro import import_hrpro
from tad.prepare.import_opentad import import_opentad
from tad.prepare.synth import make_dataset


@pytest.fixture
def folder(tmp_path) -> Path:
    make_dataset(tmp_path / "toy", videos=3, classes=2, dim=4)
    return tmp_path / "toy"


def found(root: Path) -> set[tuple[str, str, str]]:
    return {(f.severity, f.kind, f.where) for f in check(root)}


def annotations(root: Path, edit) -> None:
    document = json.loads((root / "annotations.json").read_text())
    edit(document["database"])
    (root / "annotations.json").write_text(json.dumps(document))


def features(root: Path, edit) -> None:
    path = root / "features" / "train_0000.npy"
    array = np.load(path)
    changed = edit(array)
    np.save(path, array if changed is None else changed, allow_pickle=True)


def replace(file, old, new):
    def edit(root: Path) -> None:
        text = (root / file).read_text()
        assert old in text
        (root / file).write_text(text.replace(old, new))

    return edit


def append(file, text):
    return lambda root: (root / file).write_text((root / file).read_text() + text)


def rows(*items):
    return lambda root: annotations(root, lambda db: db["train_0000"]["annotations"].extend(items))


def item(start, end, label="jump"):
    return {"segment": [start, end], "label": label}


def put(row, value):
    def edit(array):
        array[row, 0] = value

    return lambda root: features(root, edit)


V, F = "video train_0000", "features/train_0000.npy"
ROWS = {
    "a healthy folder": (lambda root: None, None),
    "no manifest": (lambda root: (root / "dataset.yaml").unlink(), ("error", "dataset.yaml", "dataset.yaml")),
    "unknown key": (append("dataset.yaml", "\nx: 1\n"), ("error", "dataset.yaml", "dataset.yaml")),
    "no annotations": (
        lambda root: (root / "annotations.json").unlink(),
        ("error", "annotations.json", "annotations.json"),
    ),
    "no JSON": (append("annotations.json", "]"), ("error", "annotations.json", "annotations.json")),
    "empty subset": (replace("dataset.yaml", "  test: test", "  tset: test"), ("error", "empty subset", "subset tset")),
    "subset without role": (
        replace("dataset.yaml", "  test: test", "  dev: dev"),
        ("warning", "subset without role", "subset test"),
    ),
    "unsafe id": (
        lambda root: annotations(root, lambda db: db.update({"../x": dict(db["train_0000"])})),
        ("error", "unsafe id", "video '../x'"),
    ),
    "no duration": (
        lambda root: annotations(root, lambda db: db["train_0000"].pop("duration")),
        ("error", "malformed video", V),
    ),
    "no fps": (
        lambda root: (
            replace("dataset.yaml", "fps: 25", "fps: native")(root),
            annotations(root, lambda db: db["train_0000"].pop("fps")),
        ),
        ("error", "no fps", V),
    ),
    "duplicate id": (
        replace("annotations.json", '"test_0000": {', '"train_0000": {"subset": "train"}, "test_0000": {'),
        ("error", "duplicate id", V),
    ),
    "two subsets": (
        replace("annotations.json", '"test_0000": {', '"train_0000": {"subset": "test"}, "test_0000": {'),
        ("error", "video in two subsets", V),
    ),
    "reversed": (rows(item(5, 4)), ("error", "reversed segment", f"{V}, row {{n}}")),
    "reversed a little": (rows(item(5, 4.8)), ("error", "reversed segment", f"{V}, row {{n}}")),
    "reversed by rounding": (rows(item(4.1, 4)), ("warning", "segment reversed by rounding", f"{V}, row {{n}}")),
    "zero length": (rows(item(4, 4)), ("warning", "zero-length segment", f"{V}, row {{n}}")),
    "zero length at the front": (rows(item(0, 0)), ("warning", "zero-length segment", f"{V}, row {{n}}")),
    "unknown class": (rows(item(4, 5, "swim")), ("error", "unknown class", f"{V}, row {{n}}")),
    "malformed segment": (rows({"segment": [1]}), ("error", "malformed segment", f"{V}, row {{n}}")),
    "exceeds": (rows(item(1, 1000)), ("warning", "segment exceeds video", f"{V}, row {{n}}")),
    "beyond": (rows(item(500, 501)), ("warning", "segment beyond video", f"{V}, row {{n}}")),
    "duplicate segment": (
        lambda root: annotations(
            root, lambda db: db["train_0000"]["annotations"].append(db["train_0000"]["annotations"][0])
        ),
        ("warning", "duplicate segment", f"{V}, row {{n}}"),
    ),
    "point of unknown class": (
        append("points.csv", "train_0000,swim,1\n"),
        ("error", "unknown class", f"points.csv line {{l}}, {V}"),
    ),
    "point outside": (
        append("points.csv", "train_0000,jump,1000\n"),
        ("error", "point outside video", f"points.csv line {{l}}, {V}"),
    ),
    "point of nobody": (
        append("points.csv", "nobody,jump,1\n"),
        ("error", "point of unknown video", "points.csv line {l}, video nobody"),
    ),
    "point without time": (
        append("points.csv", "train_0000,jump\n"),
        ("error", "malformed point", "points.csv line {l}"),
    ),
    "boundary columns": (
        replace("points.csv", "label,time", "label,time,start"),
        ("error", "points header", "points.csv"),
    ),
    "duplicate point": (
        append("points.csv", "train_0000,jump,1\ntrain_0000,jump,1\n"),
        ("warning", "duplicate point", f"points.csv line {{l}}, {V}"),
    ),
    "no labels": (lambda root: (root / "points.csv").unlink(), ("warning", "no labels", "points.csv")),
    "video without label": (
        lambda root: (root / "points.csv").write_text("video_id,label,time\ntrain_0001,jump,1\n"),
        ("warning", "video without label", V),
    ),
    "class without label": (
        lambda root: (root / "points.csv").write_text("video_id,label,time\ntrain_0001,jump,1\n"),
        ("warning", "class without label", "throw"),
    ),
    "unknown ignored": (
        replace("dataset.yaml", "ignored: []", "ignored: [nobody]"),
        ("warning", "unknown ignored video", "video nobody"),
    ),
    "no ambiguous file": (
        append("dataset.yaml", "\nambiguous: amb.csv\n"),
        ("error", "ambiguous intervals", "amb.csv"),
    ),
    "missing feature": (
        lambda root: (root / "features" / "train_0000.npy").unlink(),
        ("error", "missing feature file", V),
    ),
    "extra feature": (
        lambda root: (root / "features" / "nobody.npy").write_bytes(b""),
        ("warning", "extra file", "features/nobody.npy"),
    ),
    "empty file": (
        lambda root: (root / "features" / "train_0000.npy").write_bytes(b""),
        ("error", "empty feature file", F),
    ),
    "no rows": (lambda root: features(root, lambda x: x[:0]), ("error", "empty feature file", F)),
    "no npy": (
        lambda root: (root / "features" / "train_0000.npy").write_bytes(b"hello"),
        ("error", "unreadable feature file", F),
    ),
    "objects": (
        lambda root: features(root, lambda x: np.array([{}], dtype=object)),
        ("error", "unreadable feature file", F),
    ),
    "vector": (lambda root: features(root, lambda x: x[:, 0]), ("error", "feature shape", F)),
    "width": (lambda root: features(root, lambda x: x[:, :3]), ("error", "feature width", F)),
    "integers": (lambda root: features(root, lambda x: x.astype(np.int64)), ("error", "feature dtype", F)),
    "float64": (lambda root: features(root, lambda x: x.astype(np.float64)), ("error", "feature dtype", F)),
    "float16": (lambda root: features(root, lambda x: x.astype(np.float16)), ("warning", "feature dtype", F)),
    "NaN": (put(5, np.nan), ("error", "NaN in features", F)),
    "Inf": (put(5, -np.inf), ("error", "Inf in features", F)),
    "length a little off": (lambda root: features(root, lambda x: x[:-4]), ("warning", "feature length", F)),
    "length far off": (lambda root: features(root, lambda x: x[: len(x) // 2]), ("error", "feature length", F)),
    "dangling link": (
        lambda root: (
            (root / "features" / "train_0000.npy").unlink(),
            (root / "features" / "train_0000.npy").symlink_to(root / "gone.npy"),
        ),
        ("error", "missing feature file", F),
    ),
}


@pytest.mark.parametrize("name", ROWS)
def test_each_defect_is_found(folder, name):
    edit, expected = ROWS[name]
    edit(folder)
    findings = found(folder)
    if expected is None:
        assert findings == set()
        return
    places = {"n": None, "l": None}
    if "{n}" in expected[2]:
        database = json.loads((folder / "annotations.json").read_text())["database"]
        places["n"] = len(database["train_0000"]["annotations"]) - 1
    if "{l}" in expected[2]:
        places["l"] = len((folder / "points.csv").read_text().splitlines())
    severity, kind, where = expected
    assert (severity, kind, where.format(**places)) in findings


def test_opening_fails_only_where_check_finds_an_error(folder, tmp_path):
    """What check calls a warning does not stop a run."""
    for name, (edit, _) in ROWS.items():
        root = shutil.copytree(folder, tmp_path / "copies" / name)
        edit(root)
        if not any(f.severity == "error" for f in check(root)):
            for video_id in (data := Dataset.open(root)).videos("train"):
                data.features(video_id)


def test_everything_at_once(folder):
    """A broken manifest hides nothing of what can be seen without it."""
    append("dataset.yaml", "\nx: 1\n")(folder)
    rows(item(5, 4))(folder)
    append("points.csv", "nobody,jump,1\ntrain_0000,jump,1000\n")(folder)
    put(3, np.nan)(folder)
    kinds = {f.kind for f in check(folder)}
    assert kinds == {
        "dataset.yaml",
        "reversed segment",
        "point of unknown video",
        "point outside video",
        "NaN in features",
    }


def test_no_features_is_one_finding(folder):
    for path in (folder / "features").iterdir():
        path.unlink()
    assert found(folder) == {("error", "no features", "features")}
    assert "tad synth" in check(folder)[0].detail


def test_counts_and_the_first_five(folder):
    rows(*[item(500 + i, 501 + i) for i in range(7)])(folder)
    text = summary(check(folder))
    assert "warning: segment beyond video: 7" in text
    assert "... and 2 more" in text
    assert text.endswith("0 errors, 7 warnings")
    assert text.count("video train_0000, row") == 5


def test_exit_codes(folder):
    run = CliRunner()
    rows(item(500, 501))(folder)
    assert run.invoke(commands.check, [str(folder)]).exit_code == 0
    rows(item(5, 4))(folder)
    result = run.invoke(commands.check, [str(folder)])
    assert result.exit_code == 1
    assert "error: reversed segment: 1" in result.output


def test_no_folder(tmp_path):
    with pytest.raises(DataError, match="no such dataset folder"):
        check(tmp_path / "x")


def test_a_uri_is_checked_like_a_folder(folder, tmp_path, monkeypatch):
    monkeypatch.setenv("TAD_CACHE", str(tmp_path / "cache"))
    rows(item(500, 501))(folder)
    video = sorted((folder / "features").glob("*.npy"))[0]
    (folder / "features" / "extra.npy").write_bytes(video.read_bytes())
    broken = np.load(video)
    broken[0, 0] = np.nan
    np.save(video, broken)
    assert check(folder.as_uri()) == check(folder)
    assert {f.kind for f in check(folder)} >= {"segment beyond video", "extra file", "NaN in features"}
    (folder / "features" / "extra.npy").unlink()  # and is no finding any more
    video.unlink()
    assert check(folder.as_uri()) == check(folder)
    result = CliRunner().invoke(commands.check, [folder.as_uri()])
    assert result.exit_code == 1 and "error: missing feature file: 1" in result.output
    missing = CliRunner().invoke(commands.check, [f"{folder.as_uri()}-not"])
    assert isinstance(missing.exception, DataError) and "no such dataset" in str(missing.exception)


def test_real_annotations_have_only_warnings(shared, tmp_path):
    """412 videos of the published THUMOS14 file: 30 segments beyond their video, nothing worse."""
    import_opentad(shared("data", "formats"), tmp_path / "all", annotations="actionformer_thumos14.json")
    findings = check(tmp_path / "all")
    assert sum(f.kind == "segment beyond video" for f in findings) == 30
    assert {f.kind for f in findings if f.severity == "error"} == {"no features"}
    import_hrpro(shared("data", "gtea"), tmp_path / "gtea")
    assert found(tmp_path / "gtea") == {
        ("error", "no features", "features"),
        ("warning", "segment exceeds video", "video S3_CofHoney_C1, row 19"),
    }


def test_segments_in_frames_are_an_error(folder):
    def to_frames(database):
        for entry in database.values():
            for row in entry["annotations"]:
                row["segment"] = [25 * t + 1000 for t in row["segment"]]

    annotations(folder, to_frames)
    assert ("error", "segments not in seconds", "annotations.json") in found(folder)
    with pytest.raises(DataError, match=r"segments lie beyond the end of their video.*are these frames"):
        ground_truth(Dataset.open(folder), "train")


def test_points_of_another_unit_are_told(folder):
    data = Dataset.open(folder)
    rows = [r for r in ground_truth(data, "train").rows() if r["start"] > 2]
    assert len(rows) >= 10
    middle = [(r["video_id"], r["label"], (r["start"] + r["end"]) / 2) for r in rows]
    for factor, told in ((1, False), (0.01, True)):
        lines = "".join(f"{video},{label},{time * factor}\n" for video, label, time in middle)
        (folder / "points.csv").write_text("video_id,label,time\n" + lines)
        assert (("warning", "points outside segments", "points.csv") in found(folder)) == told


def test_classes_that_are_none_or_look_alike(folder):
    manifest = (folder / "dataset.yaml").read_text()
    (folder / "dataset.yaml").write_text(manifest.replace("- jump", "- jump\n- Jump\n- Background"))
    names = {(kind, where) for _, kind, where in found(folder)}
    assert {("class that may be no action", "class Background"), ("classes alike", "classes jump, Jump")} <= names


def test_a_training_set_that_is_ignored_as_a_whole(folder):
    text = (folder / "dataset.yaml").read_text()
    (folder / "dataset.yaml").write_text(
        text.replace("ignored: []", f"ignored: {Dataset.open(folder).videos('train')}")
    )
    assert ("error", "empty subset", "role train") in found(folder)


def test_null_for_no_annotation_and_blanks_around_subsets(folder):
    def change(database):
        for video, entry in database.items():
            entry["subset"] += " "
            if video.startswith("train"):
                entry["annotations"] = None

    annotations(folder, change)
    manifest = (folder / "dataset.yaml").read_text()
    (folder / "dataset.yaml").write_text(manifest.replace("  train: train", "  ' train': train"))
    assert not [row for row in found(folder) if row[0] == "error"]
    assert len(Dataset.open(folder).videos("train")) == 3 and not len(ground_truth(Dataset.open(folder), "train"))
