"""What the field publishes and what real users had: each input with the right value."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from click.testing import CliRunner

from tad.commands import importing as commands
from tad.data.dataset import Dataset
from tad.errors import DataError
from tad.evaluation.ground_truth import raw_ground_truth
from tad.prepare.check import check
from tad.prepare.feature_files import Lookup
from tad.prepare.import_epic import import_epic
from tad.prepare.import_hrpro import import_hrpro
from tad.prepare.import_opentad import import_opentad
from tests.support.shared import shared_path

CLOCK: dict[str, Any] = {"fps": 15, "stride": 16}


def case(name: str, tmp_path: Path) -> Path:
    """A copy of a user's folder."""
    return shutil.copytree(shared_path("cases", *name.split("/")), tmp_path / "src")


def errors(folder: Path) -> list[str]:
    return [f.kind for f in check(folder) if f.severity == "error"]


@pytest.mark.parametrize("name", ["01-opentad-nested-lists/src", "02-feature-prefix/src"])
def test_layout_as_opentads_own_scripts_leave_it(tmp_path, name):
    src = case(name, tmp_path)
    done = import_opentad(src, tmp_path / "out", **CLOCK)
    data = Dataset.open(tmp_path / "out")
    assert data.classes == ["zumba", "archery", "kite flying"]
    assert data.manifest.ignored == ["vid0007"]
    assert (done.features, done.warnings, errors(data.root)) == (7, [], [])
    assert data.feature_path("vid0003").is_symlink()
    assert "3 classes in the order of annotations/category_idx.txt: zumba, archery, kite flying" in done.notes
    assert "ignored videos: 1, listed in features/tsp/missing_files.txt" in done.notes


def test_block_lists_of_names_of_files_and_of_all_places_count(tmp_path):
    src = case("02-feature-prefix/src", tmp_path)
    (src / "features" / "tsp" / "missing_files.txt").write_text("v_vid0007\r\n")
    (src / "annotations" / "blocked.json").write_text('["vid0001", "unknown"]')
    document = json.loads((src / "annotations" / "activity_net.v1-3.min.json").read_text())
    document["database"]["vid0001"]["duration"] = None  # as videos that are gone from the web
    (src / "annotations" / "activity_net.v1-3.min.json").write_text(json.dumps(document))
    done = import_opentad(src, tmp_path / "out", **CLOCK)
    data = Dataset.open(tmp_path / "out")
    assert data.manifest.ignored == ["vid0007"] and "vid0001" not in data.videos_by_id
    assert done.features == 6
    assert not any("without a duration" in text for text in done.warnings)  # it is ignored anyway
    done = import_opentad(src, tmp_path / "x", block="features/tsp/missing_files.txt", **CLOCK)
    assert "1 videos without a duration were left out: vid0001" in done.warnings


def test_segments_of_no_length_are_dropped_and_counted(tmp_path):
    src = case("03-zero-length-truth/src", tmp_path)
    path = src / "annotations" / "activity_net.v1-3.min.json"
    before = sum(len(e["annotations"]) for e in json.loads(path.read_text())["database"].values())
    done = import_opentad(src, tmp_path / "out", **CLOCK)
    assert (
        "dropped 2 segments of no length: video vid0002, row 3: [0, 0], video vid0003, row 3: [12.5, 12.5]"
        in done.notes
    )
    assert len(raw_ground_truth(tmp_path / "out", []).start) == before - 2
    assert errors(tmp_path / "out") == []
    document = json.loads(path.read_text())
    document["database"]["vid0000"]["annotations"].append({"segment": [5.04, 5.0], "label": "zumba"})  # by rounding
    path.write_text(json.dumps(document))
    assert any("dropped 3 segments" in n for n in import_opentad(src, tmp_path / "out", force=True, **CLOCK).notes)
    document["database"]["vid0000"]["annotations"].append({"segment": [6, 5], "label": "zumba"})
    path.write_text(json.dumps(document))
    with pytest.raises(DataError, match=r"1 problem:\n  video vid0000, row 4: segment \[6, 5\] must be \[start, end\]"):
        import_opentad(src, tmp_path / "x", **CLOCK)


def test_a_row_of_epic_without_length_is_dropped(tmp_path):
    src = case("03-zero-length-truth/src-epic", tmp_path)
    done = import_epic(src, tmp_path / "out", task="verb")
    assert "dropped 1 segments of no length: EPIC_100_train.csv, line 7: video P01_02: [17, 17]" in done.notes
    rows = sum(len((src / f"EPIC_100_{s}.csv").read_text().splitlines()) - 1 for s in ("train", "validation"))
    assert len(raw_ground_truth(tmp_path / "out", []).start) == rows - 1
    assert done.features == 6 and errors(tmp_path / "out") == []


def test_a_video_whose_only_row_is_dropped_stays(tmp_path):
    src = case("03-zero-length-truth/src-epic", tmp_path)
    lines = (src / "EPIC_100_train.csv").read_text().splitlines()
    kept = [line for i, line in enumerate(lines) if i == 6 or ",P01_02," not in line]
    (src / "EPIC_100_train.csv").write_text("\n".join(kept))
    import_epic(src, tmp_path / "out", task="verb")
    assert "P01_02" in Dataset.open(tmp_path / "out").videos("train")


def test_epics_npz_features(tmp_path):
    src = case("04-epic-npz/src", tmp_path)
    done = import_epic(src, tmp_path / "out", task="verb")
    assert (done.features, done.warnings, errors(tmp_path / "out")) == (6, [], [])
    assert "the array 'feats' of each file is taken" in done.notes
    data = Dataset.open(tmp_path / "out")
    with np.load(src / "features" / "P02_03.npz") as arrays:
        assert np.array_equal(data.features("P02_03"), arrays["feats"])
    done = import_epic(src, tmp_path / "probs", task="verb", files=Lookup(key="v_probs"))
    assert Dataset.open(tmp_path / "probs").manifest.grid.dim == 97


@pytest.mark.parametrize("name", ["clsnum", "block", "ann"])
def test_byte_order_marks_of_opentad_files(tmp_path, name):
    src = case(f"05-bom/opentad-{name}", tmp_path)
    done = import_opentad(src, tmp_path / "out", **CLOCK)
    data = Dataset.open(tmp_path / "out")
    assert (data.classes, data.manifest.ignored) == (["zumba", "archery", "kite flying"], ["vid0007"])
    assert (done.features, errors(data.root)) == (7, [])


@pytest.mark.parametrize("name", ["amb", "split"])
def test_byte_order_marks_of_hrpro_files(tmp_path, name):
    src = case(f"05-bom/hrpro-{name}", tmp_path)
    done = import_hrpro(src, tmp_path / "out")
    assert (done.videos, done.points, done.features) == ({"train": 4, "test": 2}, 8, 6)
    text = (tmp_path / "out" / "ambiguous.csv").read_text()
    assert text == "video_id,start,end\nvideo_004,1.0,3.0\nvideo_005,2.0,4.0\n"


def rewrite(folder: Path, change: Any) -> None:
    for path in folder.rglob("*"):
        if path.suffix in (".txt", ".csv", ".json"):
            path.write_bytes(change(path.read_text("utf-8-sig")))


DIALECTS = {
    "mark": lambda text: text.encode("utf-8-sig"),
    "CR LF": lambda text: text.replace("\n", "\r\n").encode(),
    "no last line break": lambda text: text.rstrip("\n").encode(),
}


@pytest.mark.parametrize("dialect", DIALECTS)
def test_every_text_file_in_every_dialect(tmp_path, dialect):
    """All of a source's files are changed; what is written of them stays the same."""
    sources = {
        "opentad": (import_opentad, "05-bom/opentad-ann", CLOCK),
        "hrpro": (import_hrpro, "05-bom/hrpro-amb", {}),
        "epic": (import_epic, "04-epic-npz/src", {"task": "verb"}),
    }
    for name, (importer, folder, options) in sources.items():
        written = []
        for change in (str.encode, DIALECTS[dialect]):
            src = tmp_path / f"{name}{len(written)}"
            shutil.copytree(shared_path("cases", *folder.split("/")), src)
            rewrite(src, change)
            out = tmp_path / f"{name}{len(written)}-out"
            importer(src, out, **(options | {"name": "x"}))
            files = sorted(p for p in out.iterdir() if p.is_file() and not p.name.startswith("."))
            written.append({p.name: p.read_bytes() for p in files})
        assert written[0] == written[1], name


@pytest.mark.parametrize(
    ("encoding", "message"), [("utf-16", "is UTF-16"), ("latin-1", "line 2: the byte 0xe9 is not UTF-8")]
)
def test_other_encodings_are_named(tmp_path, encoding, message):
    src = case("01-opentad-nested-lists/src", tmp_path)
    (src / "annotations" / "category_idx.txt").write_bytes("zumba\narchéry\nkite flying\n".encode(encoding))
    with pytest.raises(DataError, match=rf"category_idx.txt: .*{message}"):
        import_opentad(src, tmp_path / "out", **CLOCK)


def test_blanks_around_names_are_cut_off(tmp_path):
    """Real annotators' files have 'FrisbeeCatch '."""
    src = case("05-bom/hrpro-amb", tmp_path)
    document = json.loads((src / "gt_full.json").read_text("utf-8-sig"))
    for entry in document["database"].values():
        for row in entry["annotations"]:
            row["label"] = f" {row['label']}\t"
    (src / "gt_full.json").write_text(json.dumps(document))
    lines = (src / "point_labels" / "points.csv").read_text().splitlines()
    (src / "point_labels" / "points.csv").write_text("\n".join(line.replace(",", " , ") for line in lines))
    (src / "split_train.txt").write_text((src / "split_train.txt").read_text().replace("\n", " \n\n"))
    done = import_hrpro(src, tmp_path / "out")
    assert (done.videos, done.points) == ({"train": 4, "test": 2}, 8)
    assert Dataset.open(tmp_path / "out").classes == ["dive", "jump"]


def test_uneven_rows_and_keys_held_twice_are_named(tmp_path):
    src = case("05-bom/hrpro-amb", tmp_path)
    points = src / "point_labels" / "points.csv"
    lines = points.read_text().splitlines()
    points.write_text("\n".join([lines[0], lines[1] + ",more", *lines[2:]]))
    fields = len(lines[0].split(","))
    with pytest.raises(DataError, match=rf"points.csv: .*\n.*line 2: {fields + 1} fields, but the header has {fields}"):
        import_hrpro(src, tmp_path / "out")
    (src / "gt_full.json").write_text('{"database": {"a": {}, "b": {}, "a": {}}}')
    with pytest.raises(DataError, match=r"gt_full.json: 1 problem:\n  key 'a': appears twice in one object"):
        import_hrpro(src, tmp_path / "out")
    (src / "gt_full.json").write_text('{"database": ' + "[" * 200_000)
    with pytest.raises(DataError, match="nested too deeply"):
        import_hrpro(src, tmp_path / "out")


MMACTION = {  # the example of MMAction2's documentation
    "v_--1DO2V4K74": {
        "duration_second": 211.53,
        "duration_frame": 6337,
        "annotations": [{"segment": [30.025882995319815, 205.2318595943838], "label": "Rock climbing"}],
        "feature_frame": 6336,
        "fps": 30.0,
        "rfps": 29.9579255898,
    },
    "v_--6bJUbfpnQ": {
        "duration_second": 26.75,
        "duration_frame": 647,
        "annotations": [{"segment": [2.578755070202808, 24.914101404056165], "label": "Drinking beer"}],
        "feature_frame": 624,
        "fps": 24.0,
        "rfps": 24.1869158879,
    },
}


def test_the_annotations_of_mmaction2(tmp_path):
    src = tmp_path / "ActivityNet"
    src.mkdir()
    for subset, names in (("train", [0]), ("val", [1]), ("full", [0, 1])):
        entries = {list(MMACTION)[i]: list(MMACTION.values())[i] for i in names}
        (src / f"anet_anno_{subset}.json").write_text(json.dumps(entries))
    (src / "features").mkdir()
    for video in MMACTION:
        np.save(src / "features" / f"{video}.npy", np.ones((400, 100), np.float64))
    with pytest.raises(DataError, match=r"\[400, 100\]; the feature grid expects 100 rows; give --transpose"):
        import_opentad(src, tmp_path / "x", length=100)
    done = import_opentad(src, tmp_path / "out", length=100, files=Lookup(transpose=True))
    assert done.videos == {"train": 1, "test": 1} and done.features == 2
    data = Dataset.open(tmp_path / "out")
    assert data.classes == ["Drinking beer", "Rock climbing"]
    assert data.features("v_--1DO2V4K74").shape == (100, 400)
    # The rows share the frames that were read, 624 of 647.
    assert data.duration("v_--6bJUbfpnQ") == pytest.approx(26.75 * 624 / 647)
    assert errors(data.root) == []
    done = import_opentad(src, tmp_path / "clock", features="none", **CLOCK | {"fps": "native"})
    data = Dataset.open(tmp_path / "clock")
    assert data.duration("v_--6bJUbfpnQ") == 26.75
    assert data.videos_by_id["v_--6bJUbfpnQ"].fps == pytest.approx(24.1869158879)
    with pytest.raises(DataError, match="its name tells no subset"):
        import_opentad(src, tmp_path / "x", annotations="anet_anno_full.json", length=100)


def test_the_taxonomy_may_come_first_and_be_long(tmp_path):
    """ActivityNet's own file has a taxonomy of 272 nodes before its database."""
    src = case("01-opentad-nested-lists/src", tmp_path)
    path = src / "annotations" / "activity_net.v1-3.min.json"
    document = json.loads(path.read_text())
    taxonomy = [{"nodeName": f"node {i}", "nodeId": i, "parentName": "Root"} for i in range(272)]
    path.write_text(json.dumps({"version": "VERSION 1.3", "taxonomy": taxonomy, "database": document["database"]}))
    assert import_opentad(src, tmp_path / "out", **CLOCK).videos == {"train": 5, "test": 3}


def test_float16_features_are_said_to_be_so(tmp_path):
    src = case("01-opentad-nested-lists/src", tmp_path)
    for path in (src / "features" / "tsp").glob("*.npy"):
        np.save(path, np.load(path).astype(np.float16))
    import_opentad(src, tmp_path / "out", **CLOCK)
    assert Dataset.open(tmp_path / "out").manifest.grid.dtype == "float16"
    assert errors(tmp_path / "out") == []


def test_two_streams_of_hrpro(tmp_path):
    src = case("05-bom/hrpro-amb", tmp_path)
    for path in list((src / "features").rglob("*.npy")):
        for stream, factor in (("rgb", 1), ("flow", 2)):
            target = path.parent / stream / path.name
            target.parent.mkdir(exist_ok=True)
            np.save(target, np.load(path) * factor)
        path.unlink()
    done = import_hrpro(src, tmp_path / "out")
    assert done.features == 6 and "feature files are named {stream}/{id}.npy" in done.notes
    data = Dataset.open(tmp_path / "out")
    array, half = data.features("video_000"), data.manifest.grid.dim // 2
    assert np.array_equal(array[:, :half] * 2, array[:, half:]) and errors(data.root) == []


def test_features_that_lie_elsewhere(tmp_path):
    """ActionFormer's folder is called i3d_features; another may be named anywhere."""
    src = case("01-opentad-nested-lists/src", tmp_path)
    (src / "features" / "tsp").rename(src / "i3d_features")
    shutil.rmtree(src / "features")
    assert import_opentad(src, tmp_path / "1", **CLOCK).features == 7
    (src / "i3d_features").rename(tmp_path / "disk")
    assert import_opentad(src, tmp_path / "2", **CLOCK).features == 0
    done = import_opentad(src, tmp_path / "3", files=Lookup(folder=str(tmp_path / "disk")), **CLOCK)
    assert done.features == 7 and Dataset.open(tmp_path / "3").manifest.ignored == ["vid0007"]


def test_options_of_the_command(tmp_path):
    src = case("02-feature-prefix/src", tmp_path)
    for path in (src / "features" / "tsp").glob("*.npy"):
        np.savez(path.with_suffix(".npz"), x=np.load(path).T, y=np.zeros(3))
        path.unlink()
    arguments = ["opentad", str(src), str(tmp_path / "out"), "--fps", "15", "--stride", "16", "--key", "x"]
    arguments += ["--feature-dir", "features/tsp", "--feature-pattern", "v_{id}.npz"]
    refused = CliRunner().invoke(commands.import_, arguments)
    assert isinstance(refused.exception, DataError) and "give --transpose" in str(refused.exception)
    said = CliRunner().invoke(commands.import_, [*arguments, "--transpose"])
    assert said.exit_code == 0, said.output
    for line in (
        "3 classes in the order of annotations/category_idx.txt: zumba, archery, kite flying",
        "feature files are named v_{id}.npz",
        "the array 'x' of each file is taken",
        "converted feature files: 7",
        "ignored videos: 1, listed in features/tsp/missing_files.txt",
        "5 train, 3 test videos, 0 points, 7 feature files",
    ):
        assert line in said.output
    assert yaml.safe_load((tmp_path / "out" / "dataset.yaml").read_text())["grid"]["fps"] == 15
    assert CliRunner().invoke(commands.import_, [*arguments, "--features", "move"]).exit_code == 2


def test_an_import_that_fails_leaves_the_earlier_one(tmp_path):
    src = case("04-epic-npz/src", tmp_path)
    import_epic(src, tmp_path / "out", task="verb")
    before = {p.name: p.read_bytes() for p in (tmp_path / "out" / "features").iterdir()}
    path = src / "features" / "P02_03.npz"
    content = bytearray(path.read_bytes())
    content[200] ^= 255
    path.write_bytes(content)
    with pytest.raises(DataError, match=r"P02_03.npz: not a plain .npz file"):
        import_epic(src, tmp_path / "out", task="verb", force=True)
    assert {p.name: p.read_bytes() for p in (tmp_path / "out" / "features").iterdir()} == before
    assert [p.name for p in tmp_path.iterdir() if p.name.startswith(".")] == []


def test_the_real_activitynet(shared, tmp_path):
    """12 of its rows are [0, 0]; of the videos that are gone from the web the durations are unknown."""
    real = shared("data", "activitynet13")
    done = import_opentad(real, tmp_path / "out", annotations="activitynet13_gt_built.json", length=100)
    assert done.videos == {"train": 9649, "test": 4728}
    assert any(
        note.startswith("dropped 12 segments of no length: video H-yBxySDyTw, row 0: [0, 0]") for note in done.notes
    )
    assert len(Dataset.open(tmp_path / "out").classes) == 200
    full = {"annotations": "activitynet13_val_full_gt.json", "length": 100, "subsets": {"validation": "test"}}
    done = import_opentad(real, tmp_path / "full", **full)
    assert done.videos == {"test": 4728}
    assert any(
        text.startswith("198 videos without a duration were left out: yHaTlDD-qHA, ") and text.endswith(" and 193 more")
        for text in done.warnings
    )
