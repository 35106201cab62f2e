"""The proposer `file`: any labeler and detector on segments from elsewhere; which files are refused."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from click.testing import CliRunner

from distributed.run.session import Options, self_train
from tad.commands.stages import label
from tad.data.dataset import Dataset, Role
from tad.data.segments import Segments
from tad.errors import ConfigError, RunError
from tad.methods.file.proposer import FileProposer
from tad.recipe.recipe import Recipe, load_recipe
from tad.recipe.rounds import Rounds
from tests.support.tiny import TinyEngine, tiny_dataset

DETECTOR = {"method": "actionformer", "epochs": 2}


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Dataset:
    return tiny_dataset(tmp_path_factory.mktemp("file") / "data", videos=6, classes=2, dim=12, dev=2)


@pytest.fixture(scope="module")
def proposals(data: Dataset) -> Segments:
    """Two proposals in each video of every role but for the last test video, which has none."""
    videos = [v for role in ("train", "dev", "test") for v in data.videos(role)][:-1]
    parts = []
    for number, video in enumerate(videos):
        points = data.points(video).time if video in data.videos("train") else np.array([data.duration(video) / 2])
        start = np.maximum(0, points - 1 - number / 10)
        names = [data.classes[(number + i) % 2] for i in range(len(points))]
        parts.append(Segments.of(video, start, start + 2.5, names, np.linspace(1.2, 0.2, len(points))))
    return Segments.concat(parts)


@pytest.fixture(scope="module")
def file(proposals: Segments, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("proposals") / "proposals.json"
    proposals.to_json_file(path)
    return path


def recipe_of(file: Path, **more: object) -> Recipe:
    roles = {"proposer": {"method": "file", "path": str(file)}, "labeler": {"method": "points"}, "detector": DETECTOR}
    return Recipe.model_validate(roles | more)


@pytest.fixture(scope="module")
def rounds(data: Dataset, file: Path, tmp_path_factory: pytest.TempPathFactory) -> Rounds:
    return Rounds(recipe_of(file), TinyEngine(data, 0, tmp_path_factory.mktemp("engine")))


@pytest.mark.parametrize("role", ["train", "dev", "test"])
def test_every_role_gets_its_own_segments_of_the_file(data: Dataset, rounds: Rounds, proposals: Segments, role: Role):
    found = rounds.detections(0, role).segments()
    expected = proposals.filter(np.isin(proposals.video_ids, data.videos(role)))
    assert len(expected) and found.replace(source="").digest() == expected.replace(source="").digest()
    assert rounds.round(1, role).proposals(suppressed=False) == rounds.detections(0, role)
    assert rounds.scores(role) is None and rounds.round(0, role).embedding() is None


def test_labels_and_detectors_of_two_rounds(data: Dataset, rounds: Rounds):
    points = sum(len(data.points(v).time) for v in data.videos("train"))
    first, second = (rounds.labels(number).segments.segments() for number in (1, 2))
    assert len(first) == len(second) == points and first.spans.tolist() != second.spans.tolist()
    assert first.codes("source")[1] == ["points/label@1"] and second.codes("source")[1] == ["points/label@2"]
    assert rounds.round(2).proposals() == rounds.detections(1, "train"), "the file is of round 1 alone"
    assert set(rounds.detections(2, "test").segments().codes("video_id")[1]) == set(data.videos("test"))


def test_a_run_and_its_labels_by_the_command(data: Dataset, file: Path, tmp_path: Path):
    options = Options(tmp_path / "run", tmp_path / "store", local=True)
    self_train("file", recipe_of(file, rounds=1), data, options)
    rows = json.loads((tmp_path / "run/rounds.json").read_text())
    assert [row["round"] for row in rows] == [0, 1] and all(0 <= row["test_map"]["average"] <= 1 for row in rows)
    out = tmp_path / "labels.parquet"
    command = ["points", "--data", data.root, "--proposals", file, "--out", out, "--local", "--store", tmp_path / "new"]
    result = CliRunner().invoke(label, list(map(str, command)))
    assert result.exit_code == 0, result.output
    assert Segments.from_file(out).digest() == Segments.from_file(tmp_path / "run/round-1/labels.parquet").digest()


def write_ids(path: Path, video: str, ids: list[int]) -> None:
    """Proposals of a second each, one after another, whose labels are class ids, in the form of the file's suffix."""
    rows = [(float(at), at + 1.0, label, 1 - at / 10) for at, label in enumerate(ids)]
    if path.suffix == ".json":
        found = [{"segment": [start, end], "label": label, "score": score} for start, end, label, score in rows]
        path.write_text(json.dumps({"results": {video: found}}))
    elif path.suffix == ".csv":
        lines = [f"{video},{start},{end},{label},{score}" for start, end, label, score in rows]
        path.write_text("\n".join(["video_id,start,end,label,score", *lines]))
    else:
        columns = zip(("start", "end", "label", "score"), map(list, zip(*rows, strict=True)), strict=True)
        pq.write_table(pa.table({"video_id": [video] * len(rows), **dict(columns)}), path)


@pytest.mark.parametrize("suffix", [".json", ".csv", ".parquet"])
def test_labels_may_be_class_ids_of_the_dataset(tmp_path: Path, suffix: str):
    many = tiny_dataset(tmp_path / "data", videos=2, classes=4, dim=4)
    assert list(many.classes) != sorted(many.classes), "another order than the alphabet's, which must not count"
    video, path = many.videos("train")[0], tmp_path / f"ids{suffix}"
    write_ids(path, video, [3, 0, 2, 0, 1])
    rounds = Rounds(recipe_of(path), TinyEngine(many, 0, tmp_path / "engine"))
    found = rounds.detections(0, "train").segments()
    assert found.start.tolist() == [0, 1, 2, 3, 4] and found.labels == [many.classes[i] for i in (3, 0, 2, 0, 1)]
    write_ids(path, video, [3, 4])
    (problem,) = FileProposer(path=str(path)).problems(many)
    assert f"{path}: " in problem and "label 4 is not an id of the class list (4 classes, 0 to 3)" in problem


# -- what is refused -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("rows", "said"),
    [
        (Segments.of("elsewhere", [0.0], [1.0], "jump"), "none of its 1 videos is a training video of"),
        (Segments.of("train_0000", [0.0], [1.0], "cartwheel"), "unknown classes cartwheel; known: "),
    ],
)
def test_files_of_other_videos_and_classes_are_problems_of_the_recipe(data: Dataset, tmp_path: Path, rows, said):
    rows.to_json_file(tmp_path / "a.json")
    (problem,) = recipe_of(tmp_path / "a.json").problems(data)
    assert f"{tmp_path}/a.json: {said}" in problem


def test_a_file_that_is_none_is_a_problem(data: Dataset, tmp_path: Path):
    (tmp_path / "b.json").write_text("{")
    for name, said in (("a.json", "missing"), ("b.json", "JSON")):
        (problem,) = FileProposer(path=str(tmp_path / name)).problems(data)
        assert f"{tmp_path / name}: " in problem and said in problem


def test_videos_that_the_dataset_lacks_are_left_out_with_a_word(data: Dataset, proposals: Segments, tmp_path: Path):
    more = Segments.concat([proposals, Segments.of("elsewhere", [0.0], [1.0], data.classes[0])])
    more.to_json_file(tmp_path / "a.json")
    (said,) = FileProposer(path=str(tmp_path / "a.json")).warnings(data)
    assert said.startswith(f"1 videos of {tmp_path / 'a.json'} are not in ")
    assert not FileProposer(path=str(tmp_path / "a.json")).problems(data)


def test_a_recipe_without_a_path_is_refused():
    with pytest.raises(ConfigError, match=r"proposer\.path: field required"):
        load_recipe("seeds", ["proposer.method=file"])


@pytest.mark.parametrize(
    ("role", "method", "said"),
    [
        ("detector", {"method": "hrpro-instance"}, "detector hrpro-instance reads snippet scores, and the proposer"),
        ("detector", {"method": "bmn"}, "detector bmn reads the proposer's scores for the classes, and the proposer"),
        ("labeler", {"method": "gaufuse", "faithful": True}, "labeler gaufuse: .* needs the snippet scores"),
    ],
)
def test_methods_that_need_scores_say_so(data: Dataset, file: Path, tmp_path: Path, role, method, said):
    with pytest.raises(RunError, match=said):
        Rounds(recipe_of(file, **{role: method}), TinyEngine(data, 0, tmp_path)).detections(1, "test")
