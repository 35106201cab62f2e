"""A user's own CSV tables become datasets: names of columns, units, durations; nothing is guessed in silence."""

from __future__ import annotations

import csv
import json

import numpy as np
import pytest
from click.testing import CliRunner

from tad.commands.importing import import_ as command
from tad.data.csv_table import clock, read_table, video_id
from tad.data.dataset import Dataset
from tad.errors import DataError
from tad.evaluation.ground_truth import ground_truth
from tad.prepare.import_csv import import_csv

VIDEOS = "video,duration,fps,subset\na,100,25,train\nb,80,30,test\nempty,50,25,train\n"
SEGMENTS = [("a", "jump", 10.0, 20.0), ("a", "kick", 30.0, 90.0), ("b", "jump", 8.0, 72.0)]


@pytest.fixture
def videos(tmp_path):
    (tmp_path / "videos.csv").write_text(VIDEOS)
    return tmp_path / "videos.csv"


def table(path, header, rows, delimiter=","):
    with path.open("w", newline="", encoding="utf-8-sig") as file:
        writer = csv.writer(file, delimiter=delimiter)  # CR LF
        writer.writerows([header, *rows])
    return path


def truth(data):
    found = ground_truth(data, "train").rows(), ground_truth(data, "test").rows()
    return [(r["video_id"], r["label"], r["start"], r["end"]) for rows in found for r in rows]


@pytest.mark.parametrize(
    ("header", "factor", "note"),
    [
        ("video,label,start,end", 1, "times are seconds: the last of all lies at 90% of its video"),
        ("Video ID,Class Name,t-start,t-end", 1, "times are seconds"),
        ("file,action,Start (s),Stop (s)", 1, None),
        ("clip,activity,start_ms,end_ms", 1000, None),
        ("video_id,category,onset,stop", 1000, "times are ms"),
        ("video,label,start_frame,stop_frame", "frames", None),
        ("video,label,begin,end", "frames", "times are frames"),
    ],
)
@pytest.mark.parametrize("delimiter", [",", ";", "\t"])
def test_columns_and_units(tmp_path, videos, header, factor, note, delimiter):
    fps = {"a": 25, "b": 30}
    rows = [(v, f" {c} ", *(t * (fps[v] if factor == "frames" else factor) for t in (s, e))) for v, c, s, e in SEGMENTS]
    table(tmp_path / "mine.csv", header.split(","), rows, delimiter)
    done = import_csv(tmp_path / "mine.csv", tmp_path / "out", videos=videos, features="none")
    data = Dataset.open(tmp_path / "out")
    assert truth(data) == SEGMENTS and data.classes == ["jump", "kick"]
    assert data.videos("train") == ["a", "empty"] and data.duration("b") == 80
    assert done.videos == {"train": 2, "test": 1} and done.warnings == []
    assert any(note in text for text in done.notes) if note else not any("times are" in text for text in done.notes)
    assert any("training does not read" in text for text in done.notes)


def test_full_labels_points_and_classes(tmp_path, videos):
    segments = table(
        tmp_path / "s.csv", ["video", "label", "start", "end"], [*SEGMENTS, SEGMENTS[0], ("empty", "", "", "")]
    )
    points = table(tmp_path / "p.csv", ["video", "label", "time"], [("a", "kick", 30.5), ("a", "jump", 70)])
    done = import_csv(segments, tmp_path / "full", kind="full", videos=videos, points=points, features="none")
    assert (tmp_path / "full" / "full_labels.csv").read_text().splitlines() == [
        "video_id,label,start,end",
        "a,jump,10.0,20.0",
        "a,kick,30.0,90.0",
        "empty,,,",
    ]
    assert done.points == 2 and (tmp_path / "full" / "points.csv").read_text().splitlines()[1:] == [
        "a,kick,30.5",
        "a,jump,70.0",
    ]
    full = Dataset.open(tmp_path / "full").full_labels("a")
    assert full is not None and full.spans.tolist() == [[10, 20], [30, 90]]
    classes = table(
        tmp_path / "c.csv", ["video", "label"], [("a", "kick"), ("a", "kick"), ("a", "jump"), ("b", "jump")]
    )
    import_csv(classes, tmp_path / "classes", videos=videos, features="none")
    assert (tmp_path / "classes" / "labels.csv").read_text().splitlines() == [
        "video_id,label",
        "a,kick",
        "a,jump",
        "b,jump",
    ]
    done = import_csv(points, tmp_path / "points", videos=videos, features="none")
    assert Dataset.open(tmp_path / "points").points("a").time.tolist() == [30.5, 70] and done.points == 2
    both = table(
        tmp_path / "both.csv",
        ["video", "label", "start", "end", "point"],
        [("a", "jump", 10, 20, 15.5), ("a", "kick", 60, 90, 70)],
    )
    import_csv(both, tmp_path / "both", kind="points", videos=videos, features="none")
    assert Dataset.open(tmp_path / "both").points("a").time.tolist() == [15.5, 70]
    with pytest.raises(DataError, match=r"has segments and points .*choose one by --as full or points"):
        import_csv(both, tmp_path / "x", videos=videos, features="none")


def test_durations_of_features(tmp_path):
    """100 rows of 16 frames every 4, at 25 a second: the last window ends at 16.48 s."""
    (tmp_path / "features").mkdir()
    np.save(tmp_path / "features" / "v_a.npy", np.ones((100, 8), dtype=np.float32))
    np.save(tmp_path / "features" / "v_b.npy", np.ones((50, 8), dtype=np.float32))
    rows = [("path/to/a.mp4", "jump", "0:00:01.5", "0:16.9"), ("b.avi", "kick", "0:02", "0:03")]
    source = table(tmp_path / "mine.csv", ["video_path", "label", "start", "end"], rows)
    done = import_csv(source, tmp_path / "out", fps=25)
    data = Dataset.open(tmp_path / "out")
    assert data.duration("a") == pytest.approx(16.48) and data.features("a").shape == (100, 8)
    assert truth(data) == [("a", "jump", 1.5, pytest.approx(16.48)), ("b", "kick", 2.0, 3.0)]
    assert "times a little beyond" in done.warnings[0] and "durations of 2 videos" in " ".join(done.notes)
    with pytest.raises(DataError, match="no duration of 2 of 2 videos"):
        import_csv(source, tmp_path / "native")


def test_real_clicks(shared, tmp_path):
    """SF-Net's annotators: no header, blank lines between, blanks after names; durations from the published file."""
    database = json.loads(shared("data", "thumos14", "gt_full.json").read_text())["database"]
    held = {v: e["duration"] for v, e in database.items() if e["subset"] == "Validation"}
    table(tmp_path / "videos.csv", ["video", "duration"], held.items())
    clicks = shared("data", "human_points", "Thumos14", "THUMOS1.txt")
    arguments = ["csv", str(clicks), str(tmp_path / "out"), "--videos", str(tmp_path / "videos.csv"), "--fps", "25"]
    result = CliRunner().invoke(command, [*arguments, "--columns", "video,time,label"], catch_exceptions=False)
    assert result.exit_code == 0 and "times are seconds" in result.output
    data = Dataset.open(tmp_path / "out")
    lines = [line for line in clicks.read_text().splitlines() if line.strip()]
    assert len(data.classes) == 20 and sum(len(data.points(v).time) for v in held) == len(lines)
    with pytest.raises(DataError, match=r"no column of videos among video_validation_0000051, 68.9.*--columns"):
        CliRunner().invoke(command, [*arguments, "--force"], catch_exceptions=False)


def test_real_point_file(shared, tmp_path):
    """THUMOS14's published points: frames of each video's own rate, beside the boundaries, which are not read."""
    database = json.loads(shared("data", "thumos14", "gt_full.json").read_text())["database"]
    rows = [(v, e["duration"], e["fps"]) for v, e in database.items() if e["subset"] == "Validation"]
    table(tmp_path / "videos.csv", ["video", "duration", "fps"], rows)
    source = shared("data", "thumos14", "point_labels", "point_gaussian.csv")
    arguments = ["csv", str(source), str(tmp_path / "out"), "--as", "points", "--videos", str(tmp_path / "videos.csv")]
    result = CliRunner().invoke(command, arguments, catch_exceptions=False)
    assert result.exit_code == 0 and "times are frames" in result.output and "3003 points" in result.output
    annotations = json.loads((tmp_path / "out" / "annotations.json").read_text())["database"]
    assert not any(entry["annotations"] for entry in annotations.values())


def test_a_real_table_of_an_annotation_tool(shared, tmp_path):
    """BORIS: `Duration (s)` is that of each event, `Total length` that of the video."""
    source = shared("data", "annotation_tools", "boris", "test_export_aggregated_events_test_full_1.tsv")
    found = read_table(source)
    assert {"video", "label", "start", "end", "duration", "fps", "length"} <= found.columns.keys()
    assert found.columns["duration"] == "Total length" and found.units == {
        "start": "seconds",
        "end": "seconds",
        "length": "seconds",
    }
    own = table(tmp_path / "own.csv", ["video", "label", "start", "end", "duration"], [("a", "jump", 1, 3.5, 2.5)])
    assert "duration" not in read_table(own).columns
    own = table(tmp_path / "own.csv", ["video", "label", "start", "end", "duration"], [("a", "jump", 1, 3.5, 60)])
    assert read_table(own).columns["duration"] == "duration"


# -- bad input ---------------------------------------------------------------------------------------------------------

HEAD = "video,label,start,end\n"


@pytest.mark.parametrize(
    ("text", "options", "message"),
    [
        ("", {}, "no column of videos among nothing"),
        ("a,jump,1,2\n", {}, "no column of videos among a, jump, 1, 2; name it video or"),
        (HEAD, {}, "no row has a label"),
        ("video,label,start\na,jump,1\n", {}, "has a start or an end without the other"),
        ("video,start,end\na,1,2\n", {}, "annotations need a column of label; it has video, start, end"),
        ("video,clip,label,start,end\na,a,jump,1,2\n", {}, "the columns video and clip are both a video"),
        (HEAD + "a,jump,1\n", {}, "line 2: 3 fields, but the header has 4"),
        (HEAD + "a,jump,1,nan\n", {"unit": "seconds"}, "line 2: video a: 1 to nan is no time"),
        (
            HEAD + "a,jump,1,x\na,,1,2\n",
            {"unit": "seconds"},
            r"(?s)2 problems.*'x' is not a number.*line 3: video a: no label",
        ),
        (HEAD + "a,jump,50,20\n", {"unit": "seconds"}, "50 to 20 is no time"),
        (HEAD + "a,jump,-1,20\n", {"unit": "seconds"}, "-1 to 20 is no time"),
        (HEAD + "a,jump,1:70,2:00\n", {}, "'1:70' is no time of the form H:M:S"),
        (
            HEAD + "a,jump,1,200\n",
            {"unit": "seconds"},
            r"200.000 s is beyond its end at 100.000 s; is the unit \(seconds\)",
        ),
        (HEAD + "a,jump,1,2\n", {}, "the unit of its times is not clear .none of seconds, frames"),
        (HEAD + "a,jump,30,90\n", {}, "not clear .seconds, by whole numbers of fewer than three videos"),
        ("video,label,start_frame,end\na,jump,1,2\n", {"unit": "seconds"}, "columns in frames, --unit seconds"),
        ("video,label,start_frame,end_ms\na,jump,1,2\n", {}, "columns in frames and ms, --unit not given"),
        (HEAD + "../a,jump,1,2\n..,jump,1,2\n", {}, r"video '\.\.': unsafe as a file name"),
        (HEAD + "new,jump,1,2\n", {}, "no duration of 1 of 4 videos"),
        (HEAD + "x/a.mp4,jump,10,60\ny/a.mp4,jump,10,60\n", {}, "y/a.mp4 and .* are both called a"),
        ("video,label,start,end,split\na,jump,10,60,test\n", {}, "video a is in subset test, and elsewhere train"),
        ("video,label,start,end,split\nc,jump,10,60,odd\n", {}, "subset 'odd': call it train, dev or test"),
        ("video,label,start,end,fps\na,jump,10,60,24\n", {}, "video a has fps 24, and elsewhere 25"),
        ("video,label,start,end,video duration\na,jump,10,60,-5\n", {}, "duration -5 must be positive"),
        ("video,label,start,end,fps\na,jump,10,60,zero\n", {}, "fps 'zero' is not a number"),
    ],
)
def test_bad_tables(tmp_path, videos, text, options, message):
    (tmp_path / "mine.csv").write_text(text)
    with pytest.raises(DataError, match=message):
        import_csv(tmp_path / "mine.csv", tmp_path / "out", videos=videos, features="none", **options)
    assert not (tmp_path / "out").exists()


def test_frames_need_a_rate(tmp_path):
    (tmp_path / "videos.csv").write_text("video,duration\na,100\n")
    (tmp_path / "mine.csv").write_text(HEAD + "a,jump,250,500\n")
    options = {"videos": tmp_path / "videos.csv", "features": "none", "unit": "frames"}
    with pytest.raises(
        DataError, match=r"the frame rate of 1 videos is not known \(a\): add a column fps, or give --video-fps"
    ):
        import_csv(tmp_path / "mine.csv", tmp_path / "out", **options)
    import_csv(tmp_path / "mine.csv", tmp_path / "out", **options, video_fps=25)
    assert ground_truth(Dataset.open(tmp_path / "out"), "train").spans.tolist() == [[10, 20]]


def test_a_class_list_gives_the_order(tmp_path, videos):
    table(tmp_path / "mine.csv", ["video", "label", "start", "end"], SEGMENTS)
    (tmp_path / "classes.txt").write_text("kick\njump\nthrow\n")
    import_csv(
        tmp_path / "mine.csv", tmp_path / "out", videos=videos, classes=tmp_path / "classes.txt", features="none"
    )
    assert Dataset.open(tmp_path / "out").classes == ["kick", "jump", "throw"]
    (tmp_path / "classes.txt").write_text("kick\n")
    with pytest.raises(DataError, match="class 'jump' of 2 rows is not in"):
        import_csv(
            tmp_path / "mine.csv", tmp_path / "x", videos=videos, classes=tmp_path / "classes.txt", features="none"
        )


def test_names_and_clocks():
    assert video_id("videos\\clip.v2.MP4") == "clip.v2" and video_id("-x_1.5") == "-x_1.5" and video_id("a/b") == "b"
    assert clock("1:02:03.5") == 3723.5 and clock("2:03") == 123 and clock("7.25") == 7.25
