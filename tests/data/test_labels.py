"""The files of labels: what is read, what is refused, where they travel; and `tad labels`, which writes them."""

from __future__ import annotations

import pickle
import shutil
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
import yaml
from click.testing import CliRunner

from tad.commands.labels import labels as command
from tad.data.dataset import Dataset
from tad.errors import DataError
from tad.evaluation.ground_truth import ground_truth
from tad.prepare.check import check
from tad.prepare.import_hrpro import import_hrpro
from tad.prepare.relabel import derive_labels, draw_kinds, one_kind
from tad.prepare.split import split_holdout, split_kfold
from tests.support.annotated import annotated
from tests.support.tiny import tiny_dataset

SEGMENTS = [
    ("a", "jump", 10.0, 20.0),
    ("a", "run", 40.0, 50.0),
    ("b", "run", 5.0, 9.0),
    ("c", "jump", 1.0, 2.0),
    ("e", "run", 3.0, 4.0),
    ("t", "jump", 3.0, 4.0),
]
ROLES = dict.fromkeys("abcd", "train") | {"e": "dev", "t": "test"}
LISTED = "video_id,label\nb,run\nc,run\nc,jump\ne,run\n"
FULL = "video_id,label,start,end\na,run,40,50\na,jump,10,20\na,jump,10,20\nd,,,\n"


@pytest.fixture
def folder(tmp_path) -> Path:
    """a and d are fully labelled (d holds nothing), b has a point, c and the dev video e have classes."""
    annotated(tmp_path / "data", SEGMENTS, [("b", "run", 7.0), ("a", "run", 41.0)], ROLES)
    (tmp_path / "data" / "labels.csv").write_text(LISTED)
    (tmp_path / "data" / "full_labels.csv").write_text(FULL)
    return tmp_path / "data"


def test_what_is_given(folder):
    data = Dataset.open(folder)
    assert [data.supervision(v) for v in "abcdet"] == ["full", "points", "classes", "full", "classes", "none"]
    assert [data.video_classes(v).tolist() for v in "abcdet"] == [[0, 1], [1], [0, 1], [], [1], []]
    assert data.video_classes("c").dtype == data.video_classes("t").dtype == np.int64
    spans, label = data.full_labels("a")
    assert spans.tolist() == [[10, 20], [40, 50]] and label.tolist() == [0, 1]
    assert data.full_labels("d").spans.shape == (0, 2) and len(data.full_labels("d").label) == 0
    assert data.full_labels("b") is None and data.full_labels("e") is None
    again = pickle.loads(pickle.dumps(data))
    assert again.full_labels("a").spans.tolist() == spans.tolist() and again.supervision("c") == "classes"
    remote = Dataset.open(folder.as_uri())
    assert remote.fingerprint("train") == data.fingerprint("train") and remote.supervision("d") == "full"


def test_every_label_is_in_the_fingerprint_of_its_role(folder):
    before = {role: Dataset.open(folder).fingerprint(role) for role in ("train", "dev", "test")}
    changes = (
        ("labels.csv", LISTED.replace("c,jump\n", ""), "train"),
        ("labels.csv", LISTED.replace("e,run", "e,jump"), "dev"),
        ("full_labels.csv", FULL.replace("40,50", "40,50.5"), "train"),
        ("full_labels.csv", FULL.replace("a,run", "a,jump"), "train"),
        ("full_labels.csv", FULL.replace("d,,,\n", ""), "train"),
    )
    seen = {before["train"], before["dev"]}
    for name, text, role in changes:
        whole = (folder / name).read_text()
        (folder / name).write_text(text)
        now = {r: Dataset.open(folder).fingerprint(r) for r in before}
        assert {r for r in now if now[r] != before[r]} == {role} and now[role] not in seen, text
        seen.add(now[role])
        (folder / name).write_text(whole)
    assert {role: Dataset.open(folder).fingerprint(role) for role in before} == before


@pytest.mark.parametrize(
    ("name", "text", "says"),
    [
        ("labels.csv", "video_id,label,time\n", "the header must be video_id,label; found"),
        (
            "labels.csv",
            LISTED + "x,run\nb,swim\nb\n",
            "3 problems.*line 8: 1 fields, but the header has 2.*video x: is not in annotations.*line 7.*: 'swim'",
        ),
        ("full_labels.csv", "video_id,start,end\n", "the header must be video_id,label,start,end"),
        ("full_labels.csv", FULL + "b,run,5,5\n", r"line 6, video b: \[5, 5\] s; start must be before end"),
        ("full_labels.csv", FULL + "b,run,5,100.1\n", "line 6, video b: 5, 100.1 s is outside 0..100 s"),
        ("full_labels.csv", FULL + "b,run,-1,5\nb,run,nan,5\nb,run,x,5\nb,run,5\n", "4 problems"),
        (
            "full_labels.csv",
            FULL + "b,,5,6\nx,,,\nb,swim,5,6\n",
            "3 problems.*not in dataset.yaml: ''.*video x: is not in annotations.*'swim'",
        ),
        (
            "full_labels.csv",
            FULL + "e,run,3,4\nt,,,\n",
            "2 problems.*line 6, video e: does not train.*video t: does not",
        ),
        ("full_labels.csv", FULL + "a,,,\n", "video a: holds no action, and holds some"),
    ],
)
def test_bad_files(folder, name, text, says):
    (folder / name).write_text(text)
    with pytest.raises(DataError, match=f"(?s)/{name}: .*{says}"):
        Dataset.open(folder)
    assert [f for f in check(folder) if f.severity == "error" and f.kind != "no features"]


def findings(folder: Path) -> list[tuple[str, str, str]]:
    return [tuple(f[:3]) for f in check(folder) if f.kind != "no features"]


def test_check_lists_every_problem_of_all_label_files(folder):
    assert findings(folder) == [("warning", "duplicate full label", "full_labels.csv line 4, video a")]
    (folder / "points.csv").write_text("video_id,label,time\nb,jump,7\na,run,60\n")
    (folder / "labels.csv").write_text("video_id,label\nb,run\nb,run\nx,run\nc,swim\na,run\n")
    (folder / "full_labels.csv").write_text(
        "video_id,label,start,end\na,run,40,50\na,jump,x,1\na,run,9,8\na,run,90,101\ne,,,\na,,,\n"
    )
    assert findings(folder) == [
        ("warning", "duplicate label", "labels.csv line 3, video b"),
        ("error", "label of unknown video", "labels.csv line 4, video x"),
        ("error", "unknown class", "labels.csv line 5, video c"),
        ("error", "malformed full label", "full_labels.csv line 3, video a"),
        ("error", "reversed full label", "full_labels.csv line 4, video a"),
        ("error", "full label outside video", "full_labels.csv line 5, video a"),
        ("error", "full label outside training", "full_labels.csv line 6, video e"),
        ("error", "full labels contradict", "video a"),
        ("warning", "class missing in labels.csv", "video b"),
        ("warning", "point outside full labels", "video a"),
        ("warning", "video without label", "video d"),
    ]
    (folder / "full_labels.csv").write_text("video_id,label\n")
    (folder / "labels.csv").unlink()
    assert ("error", "full labels header", "full_labels.csv") in findings(folder)
    (folder / "full_labels.csv").write_text("video_id,label,start,end\nb,run,5,9\n")
    assert ("warning", "class missing in full_labels.csv", "video b") in findings(folder)
    for name in ("points.csv", "full_labels.csv"):
        (folder / name).unlink()
    assert findings(folder) == [("warning", "no labels", "points.csv")]


def same(video: str, one: Dataset, other: Dataset) -> bool:
    a, b = one.full_labels(video), other.full_labels(video)
    return (
        one.supervision(video) == other.supervision(video)
        and one.video_classes(video).tolist() == other.video_classes(video).tolist()
        and one.points(video).time.tolist() == other.points(video).time.tolist()
        and (a is None) == (b is None)
        and (a is None or b is None or (a.spans.tolist(), a.label.tolist()) == (b.spans.tolist(), b.label.tolist()))
    )


@pytest.fixture
def mixed(tmp_path) -> Dataset:
    data = tiny_dataset(tmp_path / "whole", videos=12, classes=2, dim=8)
    kinds = draw_kinds(data, {"full": 0.25, "points": 0.25, "classes": 0.5}, 0)
    derive_labels(data, kinds, tmp_path / "mixed", seed=0)
    return Dataset.open(tmp_path / "mixed")


def test_splits_carry_labels_over_and_give_dev_videos_no_boundaries(mixed, tmp_path):
    split_holdout(mixed, 0.5, None, 0, tmp_path / "out")
    split_kfold(mixed, 3, 0, tmp_path / "folds")
    for made in map(Dataset.open, (tmp_path / "out", *sorted((tmp_path / "folds").glob("fold-*")))):
        assert all(same(v, mixed, made) for v in made.videos("train"))
        assert made.full_by_id.keys() <= set(made.videos("train"))
        for video in made.videos("dev"):
            assert made.full_labels(video) is None
            assert made.video_classes(video).tolist() == mixed.video_classes(video).tolist()
        assert not made.classes_by_id.keys() & set(made.videos("test"))
        assert made.manifest.labels == mixed.manifest.labels
    dev = Dataset.open(tmp_path / "out").videos("dev")
    assert any(mixed.supervision(v) == "full" for v in dev), "the seed shows what the test is about"


def test_a_dataset_without_points_is_split_by_its_classes(mixed, tmp_path):
    derive_labels(mixed, one_kind(mixed, "classes"), tmp_path / "classes")
    data = Dataset.open(tmp_path / "classes")
    assert not (data.root / "points.csv").exists() and not (data.root / "full_labels.csv").exists()
    made = split_holdout(data, 0.5, None, 0, tmp_path / "out")
    assert made.videos["dev"] == 6 and not made.missing and not made.unjudged
    assert (tmp_path / "out" / "labels.csv").is_file() and not (tmp_path / "out" / "points.csv").exists()
    derive_labels(mixed, one_kind(mixed, "none", mixed.videos("train")[:1]), tmp_path / "none")
    with pytest.raises(
        DataError, match=rf"needs a label: 1 problem:\n  video {mixed.videos('train')[0]} \(train\) has none"
    ):
        split_kfold(Dataset.open(tmp_path / "none"), 2, 0, tmp_path / "folds")


def test_no_point_of_a_fully_labelled_video_is_hidden(mixed, tmp_path):
    made = split_holdout(mixed, None, 0.4, 0, tmp_path / "out")
    assert made.hidden and all(mixed.full_labels(v) is None for v in Dataset.open(tmp_path / "out").held_out_by_id)


def test_kinds(folder, tmp_path):
    data = Dataset.open(folder)

    def made(kind: str, *videos: str, **more) -> Dataset:
        derive_labels(data, one_kind(data, kind, videos), tmp_path / "out", force=True, **more)
        return Dataset.open(tmp_path / "out")

    full = made("full", "b")
    assert full.full_labels("b").spans.tolist() == [[5, 9]] and full.points("b").time.tolist() == [7.0]
    assert all(same(v, data, full) for v in "acde") and full.name == "annotated-full"
    points = made("points", "b", "a")
    assert points.supervision("a") == "points" and "b" not in points.classes_by_id and points.supervision("d") == "full"
    classes = made("classes", "a", "b")
    assert [classes.supervision(v) for v in "ab"] == ["classes"] * 2 and classes.video_classes("a").tolist() == [0, 1]
    assert made("classes", "a", classes_from="annotations").video_classes("a").tolist() == [0, 1]
    none = made("none", "a", "b", "c")
    assert [none.supervision(v) for v in "abcde"] == ["none"] * 3 + ["full", "classes"]
    record = yaml.safe_load((tmp_path / "out" / "dataset.yaml").read_text())["labels"]
    assert record == {"source": "annotated", "classes_from": "given", "kinds": {"none": 3, "keep": 1}}
    assert not [f for f in check(tmp_path / "out") if f.severity == "error" and f.kind != "no features"]


def test_what_a_kind_lacks_is_listed_and_nothing_is_written(folder, tmp_path):
    data = Dataset.open(folder)
    with pytest.raises(DataError, match=r"(?s)2 problems:.*video c: has no points.*video d: has no points"):
        derive_labels(data, one_kind(data, "points"), tmp_path / "out")
    with pytest.raises(DataError, match=r"1 problem:\n  video d: no class to write: .*--from annotations"):
        derive_labels(data, one_kind(data, "classes"), tmp_path / "out")
    with pytest.raises(DataError, match=r"1 problem:\n  video c: its labels name run, but annotations.json has no"):
        derive_labels(data, one_kind(data, "full"), tmp_path / "out")
    with pytest.raises(DataError, match=r"not among the training videos: 2 problems:\n  video e\n  video x"):
        one_kind(data, "full", ["a", "e", "x"])
    for shares in ({}, {"full": 0.5}, {"full": 1.5, "none": -0.5}):
        with pytest.raises(DataError, match="positive and sum to 1"):
            draw_kinds(data, shares, 0)
    assert not (tmp_path / "out").exists()


def test_dev_videos_are_left_with_classes_where_training_videos_are_and_test_videos_with_nothing(tmp_path):
    points = [(v, c, (s + e) / 2) for v, c, s, e in SEGMENTS]
    data = annotated(tmp_path / "data", SEGMENTS, points, dict.fromkeys("abc", "train") | {"e": "dev", "t": "test"})
    derive_labels(data, one_kind(data, "classes"), tmp_path / "classes")
    made = Dataset.open(tmp_path / "classes")
    assert made.supervision("e") == "classes" and made.supervision("t") == "none" and not made.points_by_id
    derive_labels(data, draw_kinds(data, {"classes": 0.5, "points": 0.5}, 0), tmp_path / "mix")
    assert Dataset.open(tmp_path / "mix").supervision("e") == "points"
    assert ground_truth(made, "test").digest() == ground_truth(data, "test").digest()


def test_the_command(mixed, tmp_path):
    whole, out = mixed.root.parent / "whole", tmp_path / "out"

    def run(*more: str):
        return CliRunner().invoke(command, [str(whole), str(out), *more])

    result = run("--mix", "full=0.25,classes=0.5,keep=0.25", "--seed", "3", "--name", "n")
    assert result.exit_code == 0, result.output
    made = Dataset.open(out)
    counts = Counter(made.supervision(v) for v in made.videos("train"))
    assert counts == {"full": 3, "classes": 6, "points": 3} and made.name == "n"
    assert result.output.startswith(f"{out}: training videos: 3 full, 6 classes, 3 keep\nlabels: ")
    record = yaml.safe_load((out / "dataset.yaml").read_text())["labels"]
    assert record["kinds"] == {"full": 3, "classes": 6, "keep": 3} and record["seed"] == 3
    files = {f: (out / f).read_bytes() for f in ("labels.csv", "full_labels.csv", "points.csv")}
    assert run("--mix", "full=0.25,classes=0.5,keep=0.25", "--seed", "3", "--force").exit_code == 0
    assert files == {f: (out / f).read_bytes() for f in files}, "the same seed draws the same videos"
    (tmp_path / "list.txt").write_text("train_0001\ntrain_0002\n")
    result = run("--kind", "none", "--videos", str(tmp_path / "list.txt"), "--force")
    assert "2 none, 10 keep" in result.output and not (out / "labels.csv").exists()
    for wrong in (
        (),
        ("--kind", "full", "--mix", "full=1"),
        ("--mix", "full=1,full=0"),
        ("--mix", "best=1"),
        ("--mix", "full"),
        ("--mix", "full=1", "--videos", str(tmp_path / "list.txt")),
    ):
        assert run(*wrong).exit_code == 2, wrong
    shutil.rmtree(out)
    assert isinstance(run("--mix", "full=0.4").exception, DataError) and not out.exists()


def test_the_real_training_videos(shared, tmp_path):
    import_hrpro(shared("data", "thumos14"), tmp_path / "data", features="none")
    data = Dataset.open(tmp_path / "data")
    for origin in ("given", "annotations"):
        derive_labels(data, one_kind(data, "classes"), tmp_path / origin, classes_from=origin)  # type: ignore[arg-type]
    assert (tmp_path / "given" / "labels.csv").read_bytes() == (tmp_path / "annotations" / "labels.csv").read_bytes()
    made = Dataset.open(tmp_path / "given")
    assert set(made.classes_by_id) == set(data.videos("train")) and not made.points_by_id
    assert sum(len(c.label) for c in made.classes_by_id.values()) == 227
    kinds = draw_kinds(data, {"full": 0.1, "points": 0.3, "classes": 0.4, "none": 0.2}, 0)
    assert Counter(kinds.values()) == {"full": 20, "points": 60, "classes": 80, "none": 40}
    derive_labels(data, kinds, tmp_path / "mixed", seed=0)
    mixed = Dataset.open(tmp_path / "mixed")
    assert {v: mixed.supervision(v) for v in kinds} == kinds
    per_class = Counter(int(c) for v, k in kinds.items() if k == "full" for c in data.video_classes(v))
    assert set(per_class) == set(range(20)), "every class has a fully labelled video"
    truth = ground_truth(data, "train")
    assert sum(len(f.label) for f in mixed.full_by_id.values()) == sum(v in mixed.full_by_id for v in truth.video_ids)
