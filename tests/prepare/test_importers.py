"""Importers: real sources give the published counts; broken sources list every problem and write nothing."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest
from click.testing import CliRunner

from tad.commands import importing as commands
from tad.data.dataset import Dataset
from tad.errors import DataError
from tad.evaluation.ground_truth import ground_truth
from tad.prepare.feature_files import Lookup
from tad.prepare.import_hrpro import import_hrpro
from tad.prepare.import_opentad import default_roles, import_opentad
from tests.support.sources import HEADER, add_features, hrpro_source, opentad_source


def test_hrpro_layout(tmp_path):
    src = hrpro_source(tmp_path / "src")
    add_features(src, {"a": "train", "b": "train", "c": "test"})
    (src / "Ambiguous_test.txt").write_text("c  1.0 2.0\n\nunlisted 0 1\n")
    done = import_hrpro(src, tmp_path / "out", name="mine")
    assert (done.videos, done.points, done.features, done.warnings) == ({"train": 2, "test": 1}, 2, 3, [])
    data = Dataset.open(tmp_path / "out")
    assert (data.name, data.classes, data.manifest.grid.dim) == ("mine", ["jump", "throw"], 4)
    assert data.points("a").time.tolist() == [2.1]
    assert data.feature_path("a").is_symlink()
    assert data.features("c").shape == (10, 4)
    assert (tmp_path / "out" / "ambiguous.csv").read_text() == "video_id,start,end\nc,1.0,2.0\n"
    assert "unlisted" not in (tmp_path / "out" / "annotations.json").read_text()


def test_rounded_rates_are_mended(tmp_path):
    """29.97 frames a second stand for 30000 / 1001."""
    src = hrpro_source(tmp_path / "src")
    document = json.loads((src / "gt_full.json").read_text())
    document["database"]["a"]["fps"] = 29.97
    (src / "gt_full.json").write_text(json.dumps(document))
    import_hrpro(src, tmp_path / "out")
    data = Dataset.open(tmp_path / "out")
    assert data.points("a").time.tolist() == pytest.approx([21 * 1001 / 30000], rel=1e-12)
    assert (data.videos_by_id["a"].fps, data.videos_by_id["b"].fps) == (30000 / 1001, 10)


def test_no_boundary_of_the_point_file_is_written(tmp_path):
    """Frames 1234 and 4321 stand only in start_frame and stop_frame; a longer number (a file's time) may hold them."""
    src = hrpro_source(tmp_path / "src")
    (src / "point_labels" / "points.csv").write_text(HEADER + "jump,1234,4321,a,21\n")
    import_hrpro(src, tmp_path / "out")
    assert (tmp_path / "out" / "points.csv").read_text() == "video_id,label,time\na,jump,2.1\n"
    for path in (tmp_path / "out").rglob("*.*"):
        assert not {"1234", "4321", "123.4", "432.1"} & set(re.findall(r"\d+(?:\.\d+)?", path.read_text())), path


def test_points_after_the_end_are_moved_to_it(tmp_path):
    src = hrpro_source(tmp_path / "src")
    (src / "point_labels" / "points.csv").write_text(HEADER + "jump,1,2,a,65\njump,1,2,unlisted,5\n")
    done = import_hrpro(src, tmp_path / "out")
    assert Dataset.open(tmp_path / "out").points("a").time.tolist() == [6.4]
    assert len(done.warnings) == 2
    assert "line 2: video a: 6.500 s of 6.400 s" in done.warnings[0]
    assert "1 points of videos in no split list" in done.warnings[1]


def test_copies_and_leaves_features(tmp_path):
    src = hrpro_source(tmp_path / "src")
    add_features(src, {"a": "train"})
    done = import_hrpro(src, tmp_path / "copy", features="copy")
    assert not Dataset.open(tmp_path / "copy").feature_path("a").is_symlink()
    assert "no file for 2 of 3 videos: b, c" in done.warnings[0]
    assert import_hrpro(src, tmp_path / "none", features="none").features == 0
    assert not (tmp_path / "none" / "features").exists()


def test_a_filled_folder_needs_force(tmp_path):
    src = hrpro_source(tmp_path / "src")
    import_hrpro(src, tmp_path / "out")
    with pytest.raises(DataError, match=r"is not empty; .* --force"):
        import_hrpro(src, tmp_path / "out")
    import_hrpro(src, tmp_path / "out", force=True)
    with pytest.raises(DataError, match="is the source"):
        import_hrpro(src, src, force=True)


def text(file, content):
    def edit(src: Path) -> None:
        (src / file).parent.mkdir(exist_ok=True)
        (src / file).write_text(content)

    return edit


def database(**videos):
    def edit(src: Path) -> None:
        document = json.loads((src / "gt_full.json").read_text())
        document["database"] |= videos
        (src / "gt_full.json").write_text(json.dumps(document))

    return edit


@pytest.mark.parametrize(
    ("edit", "message"),
    [
        (lambda src: (src / "gt_full.json").unlink(), "gt_full.json: missing"),
        (text("gt_full.json", "{}"), "gt_full.json: expected"),
        (lambda src: (src / "split_test.txt").unlink(), "split_test.txt: missing"),
        (text("split_test.txt", "c\na\n"), "video a is in split_train.txt, too"),
        (text("split_test.txt", "c\nzz\n"), "video zz is not in gt_full.json"),
        (database(a={"duration": 5, "annotations": []}), "video a: has no fps"),
        (database(a={"duration": 5, "fps": 0, "annotations": []}), "video a: fps 0 must be positive"),
        (
            database(a={"duration": 5, "fps": 9, "annotations": [{"segment": [2, 1], "label": "x"}]}),
            r"video a, row 0: segment \[2, 1\]",
        ),
        (text("point_labels/points.csv", "class,video_id\njump,a\n"), "points.csv: needs the columns .*point"),
        (text("point_labels/points.csv", HEADER + "jump,1,2,a,x\n"), "line 2: video a: point 'x' is not a frame"),
        (text("point_labels/points.csv", HEADER + "jump,1,2,a,-3\n"), "line 2: video a: point '-3' is not a frame"),
        (text("point_labels/points.csv", HEADER + "swim,1,2,a,5\n"), "line 2: video a: class 'swim'"),
        (text("point_labels/more.csv", HEADER), "several point files .*--points"),
        (text("Ambiguous_test.txt", "c 3 1\n"), "Ambiguous_test.txt, line 1"),
        (text("features/train/a.npy", "hello"), "a.npy: not a plain .npy file"),
    ],
)
def test_broken_hrpro_sources(tmp_path, edit, message):
    src = hrpro_source(tmp_path / "src")
    (src / "features" / "train").mkdir(parents=True)
    edit(src)
    with pytest.raises(DataError, match=message):
        import_hrpro(src, tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_all_problems_of_a_source_are_listed_at_once(tmp_path):
    src = hrpro_source(tmp_path / "src")
    text("split_test.txt", "zz\n")(src)
    text("point_labels/points.csv", HEADER + "swim,1,2,a,5\njump,1,2,b,x\n")(src)
    text("Ambiguous_test.txt", "c 3 1\n")(src)
    with pytest.raises(DataError, match=r"(?s)4 problems.*zz.*'swim'.*'x'.*Ambiguous"):
        import_hrpro(src, tmp_path / "out")


def test_widths_must_agree(tmp_path):
    src = hrpro_source(tmp_path / "src")
    add_features(src, {"a": "train"})
    add_features(src, {"b": "train"}, dim=5)
    with pytest.raises(DataError, match=r"several widths: 4 \(1 files\), 5 \(1 files\)"):
        import_hrpro(src, tmp_path / "out")


@pytest.mark.parametrize(
    ("name", "videos", "classes", "points", "instances"),
    [
        ("thumos14", {"train": 200, "test": 210}, 20, 3003, 3003),
        ("gtea", {"train": 21, "test": 7}, 7, 367, 367),
        ("beoid", {"train": 46, "test": 12}, 34, 594, 594),
    ],
)
def test_real_hrpro_sources(shared, tmp_path, name, videos, classes, points, instances):
    done = import_hrpro(shared("data", name), tmp_path / "out")
    assert (done.videos, done.points, done.warnings) == (videos, points, [])
    data = Dataset.open(tmp_path / "out")
    assert len(data.classes) == classes
    truth = ground_truth(data, "train")
    assert len(truth) == instances  # of THUMOS14's 3,007 four lie beyond their video
    total = 0
    for video_id, segments in truth.by_video().items():
        point = data.points(video_id)
        inside = (segments.start[:, None] <= point.time) & (point.time <= segments.end[:, None])
        same = segments.label_index(data.classes)[:, None] == point.label
        assert (inside & same).any(0).all()
        total += len(point.time)
    assert total == points


def test_opentad_layout(tmp_path):
    src = opentad_source(tmp_path / "src")
    (src / "features" / "missing_files.txt").write_text("b\nunknown\n")
    done = import_opentad(src, tmp_path / "out")
    assert (done.videos, done.features) == ({"train": 1, "test": 1}, 1)
    data = Dataset.open(tmp_path / "out")
    assert data.classes == ["throw", "jump"]
    assert data.videos_by_id["a"].fps == 25.0
    assert data.videos("test") == []
    assert data.manifest.ignored == ["b"]
    grid = data.manifest.grid
    assert (grid.fps, grid.stride, grid.window, grid.dim) == ("native", 4, 16, 6)
    assert data.grid("a").to_position(2.32) == pytest.approx(12.5)  # (2.32 * 25 - 8) / 4
    assert len(data.points("a").time) == 0


@pytest.mark.parametrize(
    ("lines", "classes"), [("7 throw\n2 jump up\n", ["jump up", "throw"]), ("throw\n\njump up\n", ["throw", "jump up"])]
)
def test_class_lists(tmp_path, lines, classes):
    src = opentad_source(tmp_path / "src")
    (src / "category_idx.txt").write_text(lines)
    import_opentad(src, tmp_path / "out")
    assert Dataset.open(tmp_path / "out").classes == classes


@pytest.mark.parametrize(
    ("names", "roles"),
    [
        (("training", "validation"), {"training": "train", "validation": "test"}),
        (("Validation", "Test"), {"Validation": "train", "Test": "test"}),
        (("train", "val", "test"), {"train": "train", "val": "dev", "test": "test"}),
    ],
)
def test_roles_by_name(names, roles):
    assert default_roles({n: {"subset": n, "annotations": [1]} for n in names}, Path("a.json")) == roles


def test_unannotated_test_subsets_have_no_role():
    database = {n: {"subset": n, "annotations": [1]} for n in ("training", "validation")}
    database["x"] = {"subset": "testing", "annotations": []}
    assert default_roles(database, Path("a.json")) == {"training": "train", "validation": "test"}
    with pytest.raises(DataError, match=r"a\.json: no training subset among test"):
        default_roles({"a": {"subset": "test", "annotations": [1]}}, Path("a.json"))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"annotations": "x.json"}, "x.json: no such annotation file"),
        ({"classes": "x.txt"}, "x.txt: no such class list"),
        ({"block": "x.txt"}, "x.txt: no such block list"),
        ({"files": Lookup("x")}, "x: no such feature folder"),
        ({"subsets": {"x": "train"}}, "no video is in subset x; found training, validation"),
        ({"dim": 7}, "6 wide, not 7"),
        ({"stride": -1}, "the feature grid cannot be"),
    ],
)
def test_wrong_options(tmp_path, options, message):
    with pytest.raises(DataError, match=message):
        import_opentad(opentad_source(tmp_path / "src"), tmp_path / "out", **options)
    assert not (tmp_path / "out").exists()


def test_broken_opentad_sources_list_everything(tmp_path):
    src = opentad_source(tmp_path / "src")
    document = {
        "a": {"subset": "training", "duration": 5.0, "annotations": [{"segment": [1, 2], "label": "swim"}]},
        "../b": {"subset": "training", "duration": 5.0, "fps": 25, "annotations": []},
        "c": {"subset": "training", "duration": 5.0, "fps": 25, "annotations": [{"segment": [3, 2], "label": "jump"}]},
        "d": {"subset": "training", "duration": "x"},
        "e": {"subset": "training", "duration": 5.0, "fps": 25, "annotations": [{"segment": [1, 2], "label": "swim"}]},
    }
    (src / "anno.json").write_text(json.dumps({"database": document}))
    with pytest.raises(DataError) as raised:
        import_opentad(src, tmp_path / "out")
    for part in ("5 problems", "neither fps nor frame", "'../b': unsafe", "video c, row 0", "video d", "'swim' of 1"):
        assert part in str(raised.value)


def test_real_opentad_sources(shared, tmp_path):
    formats = shared("data", "formats")
    with pytest.raises(DataError, match=r"found actionformer_thumos14.json, thumos_14_anno.json.*--annotations"):
        import_opentad(formats, tmp_path / "x")
    done = import_opentad(formats, tmp_path / "opentad", annotations="thumos_14_anno.json")
    assert done.videos == {"train": 200, "test": 211}
    opentad = Dataset.open(tmp_path / "opentad")
    assert opentad.videos_by_id["video_validation_0000051"].fps == pytest.approx(5091 / 169.794)
    done = import_opentad(formats, tmp_path / "actionformer", annotations="actionformer_thumos14.json")
    assert done.videos == {"train": 200, "test": 212}
    actionformer = Dataset.open(tmp_path / "actionformer")
    assert actionformer.classes == opentad.classes
    assert len(opentad.classes) == 20
    assert len(ground_truth(actionformer, "train")) == 3003
    # Without the class list the order is that of label_id, which is the same.
    (tmp_path / "src").mkdir()
    (tmp_path / "src" / "a.json").write_text((formats / "actionformer_thumos14.json").read_text())
    import_opentad(tmp_path / "src", tmp_path / "no_list")
    assert Dataset.open(tmp_path / "no_list").classes == opentad.classes


def test_commands(tmp_path):
    run = CliRunner()
    src = hrpro_source(tmp_path / "hrpro")
    result = run.invoke(commands.import_, ["hrpro", str(src), str(tmp_path / "a"), "--dim", "8"])
    assert result.exit_code == 0, result.output
    assert "2 train, 1 test videos, 2 points, 0 feature files" in result.output
    assert "tad synth" in result.output
    assert Dataset.open(tmp_path / "a").manifest.grid.dim == 8
    src = opentad_source(tmp_path / "opentad")
    arguments = ["--fps", "25", "--stride", "16", "--test-subset", "training", "--train-subset", "validation"]
    result = run.invoke(commands.import_, ["opentad", str(src), str(tmp_path / "b"), *arguments])
    assert result.exit_code == 0, result.output
    assert Dataset.open(tmp_path / "b").videos("train") == ["b"]
    assert run.invoke(commands.import_, ["opentad", str(src), str(tmp_path / "c"), "--fps", "x"]).exit_code == 2
