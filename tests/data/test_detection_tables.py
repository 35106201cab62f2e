"""Files of detections and pseudo-labels with other spellings, and what is said where they mean something else."""

from __future__ import annotations

import json

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from click.testing import CliRunner

from tad.commands.data import export_to_opentad
from tad.commands.evaluate import evaluate, quality
from tad.commands.labels import labels
from tad.data.dataset import Dataset
from tad.data.detections import Detections
from tad.errors import DataError
from tad.evaluation.ground_truth import ground_truth
from tad.prepare.synth import make_dataset

ROWS = [("a", 0.0, 10.0, "jump", 0.9), ("a", 20.0, 29.5, "kick", 0.8), ("b", 4.0, 9.0, "jump", 0.6)]


@pytest.mark.parametrize("header", ["video,t_start,t_end,class,confidence", "Video_ID;Start;End;Label;Score;;"])
def test_tables_with_usual_names_and_separators(tmp_path, header):
    sep = ";" if ";" in header else ","
    rows = [sep.join(map(str, row)).replace(".", "," if sep == ";" else ".") for row in ROWS]
    (tmp_path / "found.csv").write_text("\n".join([header, *rows]))
    table = Detections.from_file(tmp_path / "found.csv").table.to_pydict()
    columns = (table[key] for key in ("video_id", "start", "end", "label", "score"))
    assert list(zip(*columns, strict=True)) == ROWS


def test_blanks_around_names_are_cut_off(tmp_path):
    (tmp_path / "a.json").write_text(json.dumps({" a ": [{"segment": [0, 1], "label": "jump ", "score": 1}]}))
    pq.write_table(
        pa.table({"video_id": ["a "], "start": [0.0], "end": [1.0], "label": [" jump"]}), tmp_path / "a.parquet"
    )
    for name in ("a.json", "a.parquet"):
        table = Detections.from_file(tmp_path / name).table
        assert (table["video_id"].to_pylist(), table["label"].to_pylist()) == (["a"], ["jump"])


def test_rows_without_a_segment_and_columns_without_a_label_say_what_they_have(tmp_path):
    (tmp_path / "a.json").write_text(json.dumps({"a": [{"timestamp": [0, 1], "label": "jump"}]}))
    with pytest.raises(DataError, match="video a, row 0: has no segment, but timestamp, label"):
        Detections.from_file(tmp_path / "a.json")
    (tmp_path / "a.json").write_text(json.dumps({"video-id": ["a"], "t-start": [0], "t-end": [1], "score": [1]}))
    with pytest.raises(DataError, match="columns lack label; found video-id, t-start, t-end, score"):
        Detections.from_file(tmp_path / "a.json")


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    root = tmp_path_factory.mktemp("d") / "toy"
    make_dataset(root, videos=3, test=2, classes=3, dim=4)
    return Dataset.open(root)


def results(data, role, change):
    """The ground truth of a role as detections, each row changed."""
    found: dict[str, list[dict]] = {}
    for row in ground_truth(data, role).rows():
        item = {"segment": [row["start"], row["end"]], "label": row["label"], "score": 0.5}
        change(item)
        found.setdefault(row["video_id"], []).append(item)
    return {"results": found}


def run(command, path, data, *more):
    return CliRunner().invoke(command, [str(path), "--data", str(data.root), *more])


@pytest.mark.parametrize(
    ("factor", "says"), [(25, "are these frames or milliseconds"), (1e-3, "are these shares of the video"), (1, None)]
)
def test_detections_in_another_unit_are_told(data, tmp_path, factor, says):
    path = tmp_path / "a.json"
    scaled = results(data, "test", lambda r: r.update(segment=[factor * t + (factor > 1) * 1000 for t in r["segment"]]))
    path.write_text(json.dumps(scaled))
    for where in (["--data", str(data.root), "--subset", "test"], None):
        arguments = where or ["--annotations", str(data.root / "annotations.json"), "--subset", "test"]
        result = CliRunner().invoke(evaluate, [str(path), *arguments])
        assert result.exit_code == 0 and ("note:" in result.output) == (says is not None), result.output
        assert says is None or says in result.output


def test_what_is_left_out_is_named_with_what_it_may_stand_for(data, tmp_path):
    document = results(data, "test", lambda r: None)
    video = data.videos("test")[0]
    label = document["results"][video][0]["label"]
    document["results"][video].append({"segment": [0, 1], "label": label.upper(), "score": 1})
    document["results"][f"v_{video}"] = [{"segment": [0, 1], "label": label, "score": 1}]
    (tmp_path / "a.json").write_text(json.dumps(document))
    output = run(evaluate, tmp_path / "a.json", data, "--subset", "test").output
    assert f"note: the annotations do not know 1 videos: v_{video}" in output
    assert f"'{label.upper()}' (but there is '{label}'" in output


def test_quality_refuses_classes_of_another_dataset(data, tmp_path):
    (tmp_path / "a.json").write_text(json.dumps(results(data, "train", lambda r: r.update(label="Jump"))))
    result = run(quality, tmp_path / "a.json", data)
    assert isinstance(result.exception, DataError)
    assert "classes that dataset.yaml does not have: 'Jump' (but there is 'jump'" in str(result.exception)


def test_labels_to_export_may_name_classes_by_ids(data, tmp_path):
    numbered = results(data, "train", lambda r: r.update(label=data.classes.index(r["label"])))
    (tmp_path / "a.json").write_text(json.dumps(numbered))
    arguments = ["--labels", str(tmp_path / "a.json"), "--data", str(data.root), "--out", str(tmp_path / "out")]
    result = CliRunner().invoke(export_to_opentad, arguments)
    assert result.exit_code == 0, result.exception
    written = json.loads((tmp_path / "out" / "opentad.json").read_text())["database"]
    labels = [row["label"] for v in data.videos("train") for row in written[v]["annotations"]]
    assert sorted(labels) == sorted(r["label"] for r in ground_truth(data, "train").rows())


def test_lists_of_videos_may_name_files(data, tmp_path):
    train = data.videos("train")
    (tmp_path / "v.txt").write_text(f"features/{train[0]}.npy\r\nv_{train[1]}\r\n")
    arguments = [str(data.root), str(tmp_path / "out"), "--kind", "classes", "--videos", str(tmp_path / "v.txt")]
    result = CliRunner().invoke(labels, arguments)
    assert result.exit_code == 0, result.exception
    made = Dataset.open(tmp_path / "out")
    assert [made.supervision(v) for v in train] == ["classes", "classes", "points"]
