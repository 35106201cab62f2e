"""Dev videos and hidden points split off a dataset: stratified, recorded, and out of training's reach."""

from __future__ import annotations

import ast
from collections import Counter

import numpy as np
import pytest
from click.testing import CliRunner

from tad.commands import data as commands
from tad.data.dataset import Dataset
from tad.errors import DataError
from tad.evaluation.ground_truth import ground_truth
from tad.prepare.check import check
from tad.prepare.import_hrpro import import_hrpro
from tad.prepare.split import dev_videos, hide_points, split_holdout, split_kfold
from tests.support.annotated import annotated
from tests.support.structure import TRAINING, files, layer, tree
from tests.support.tiny import tiny_dataset


@pytest.fixture
def data(tmp_path) -> Dataset:
    return tiny_dataset(tmp_path / "data", videos=10, classes=3, dim=8)


def count(data: Dataset, videos: list[str]) -> int:
    return sum(len(data.points(v).time) for v in videos)


def test_dev_videos_leave_training_and_all_else_stays(data, tmp_path):
    made = split_holdout(data, 0.3, None, 0, tmp_path / "out")
    dev = Dataset.open(tmp_path / "out")
    assert made.videos == {"train": 7, "dev": 3, "test": 5} and made.hidden == 0
    assert sorted(dev.videos("train") + dev.videos("dev")) == sorted(data.videos("train"))
    assert dev.videos("test") == data.videos("test") and dev.manifest.held_out is None
    for video in data.videos("train"):
        assert np.array_equal(dev.points(video).time, data.points(video).time)
        assert dev.feature_path(video).is_symlink()
    assert (
        ground_truth(dev, "dev").digest()
        == ground_truth(data, "train")
        .filter(np.isin(ground_truth(data, "train").video_ids, dev.videos("dev")))
        .digest()
    )
    assert dev.manifest.split.model_dump() == {"dev": 0.3, "hidden": None, "seed": 0}
    assert not [f for f in check(dev.root) if f.severity == "error"]


def test_the_same_seed_the_same_split_and_another_seed_another(data, tmp_path):
    for name, seed in (("a", 1), ("b", 1), ("c", 2)):
        split_holdout(data, 0.3, 0.3, seed, tmp_path / name)
    written = [
        [(tmp_path / n / f).read_bytes() for f in ("annotations.json", "points.csv", "held_out.csv")] for n in "abc"
    ]
    assert written[0] == written[1] and all(x != y for x, y in zip(written[0], written[2], strict=True))


def test_hidden_points_are_in_neither_the_points_nor_the_fingerprint(data, tmp_path):
    made = split_holdout(data, None, 0.25, 0, tmp_path / "out")
    hidden = Dataset.open(tmp_path / "out")
    train = data.videos("train")
    assert made.hidden == sum(len(hidden.held_out(v).time) for v in train) > 0
    for video in train:
        seen, held = hidden.points(video), hidden.held_out(video)
        assert sorted([*seen.time, *held.time]) == data.points(video).time.tolist()
        assert not set(seen.time) & set(held.time)
        assert set(hidden.video_classes(video)) == set(data.video_classes(video)), "what is in a video stays true"
    before = hidden.fingerprint("train")
    (hidden.root / "held_out.csv").write_text("video_id,label,time\n")
    assert Dataset.open(hidden.root).fingerprint("train") == before != data.fingerprint("train")


def test_points_of_dev_videos_are_not_hidden(data, tmp_path):
    split_holdout(data, 0.3, 0.4, 0, tmp_path / "out")
    made = Dataset.open(tmp_path / "out")
    for video in made.videos("dev"):
        assert np.array_equal(made.points(video).time, data.points(video).time)
        assert not len(made.held_out(video).time)


def test_hidden_points_follow_the_share_of_each_class_and_spread_over_videos(tmp_path):
    rows = [(f"v{i}", c, float(t)) for i in range(6) for c in ("run", "jump") for t in range(5 if c == "run" else 10)]
    data = annotated(tmp_path / "data", [], rows)
    masks = hide_points(data, data.videos("train"), 0.2, 0)
    by_class = Counter(int(c) for v, m in masks.items() for c in data.points(v).label[m])
    assert by_class == {data.classes.index("run"): 6, data.classes.index("jump"): 12}
    for video, mask in masks.items():
        assert Counter(data.points(video).label[mask].tolist()) == {
            data.classes.index("run"): 1,
            data.classes.index("jump"): 2,
        }


def test_no_class_loses_its_last_point_in_a_video(tmp_path):
    rows = [(f"v{i}", "run", 1.0) for i in range(9)] + [("v9", "run", float(t)) for t in range(3)]
    data = annotated(tmp_path / "data", [], rows)
    masks = hide_points(data, data.videos("train"), 0.9, 0)
    assert list(masks) == ["v9"] and masks["v9"].sum() == 2
    with pytest.raises(DataError, match=r"(?s)no point can be hidden.*--dev"):
        hide_points(data, data.videos("train")[:9], 0.9, 0)


def test_dev_videos_are_stratified_and_no_class_leaves_training(tmp_path):
    rows = [(f"v{i:02}", f"c{i % 5}", 1.0) for i in range(50)] + [("v00", "rare", 2.0)]
    data = annotated(tmp_path / "data", [], rows)
    for seed in range(5):
        dev = dev_videos(data, 0.2, seed)
        assert Counter(int(v[1:]) % 5 for v in dev) == dict.fromkeys(range(5), 2) and "v00" not in dev


def test_what_cannot_be_split_is_told(data, tmp_path):
    with pytest.raises(DataError, match=r"share of 0\.01 of 10 training videos with labels is 0 dev videos"):
        split_holdout(data, 0.01, None, 0, tmp_path / "out")
    split_holdout(data, 0.3, None, 0, tmp_path / "dev")
    with pytest.raises(DataError, match=r"has 3 dev videos already"):
        split_holdout(Dataset.open(tmp_path / "dev"), 0.3, None, 0, tmp_path / "out")
    with pytest.raises(DataError, match="is the source"):
        split_holdout(data, 0.3, None, 0, data.root, force=True)
    assert not (tmp_path / "out").exists()


def test_a_folder_split_twice_keeps_what_was_hidden(data, tmp_path):
    split_holdout(data, None, 0.3, 0, tmp_path / "hidden")
    hidden = Dataset.open(tmp_path / "hidden")
    split_kfold(hidden, 2, 0, tmp_path / "folds")
    fold = Dataset.open(tmp_path / "folds" / "fold-0")
    assert any(len(fold.held_out(v).time) for v in fold.videos("train"))
    for video in fold.videos("train"):
        assert np.array_equal(fold.held_out(video).time, hidden.held_out(video).time)
    for video in fold.videos("dev"):  # all their points are there to judge by
        assert np.array_equal(fold.points(video).time, data.points(video).time)


def test_a_bad_file_of_held_out_points_is_named(data, tmp_path):
    split_holdout(data, None, 0.3, 0, tmp_path / "out")
    path = tmp_path / "out" / "held_out.csv"
    points = (tmp_path / "out" / "points.csv").read_text().splitlines()
    path.write_text("\n".join(points[:2]) + "\n")
    with pytest.raises(DataError, match=r"held_out\.csv: 1 problem:\n  video train_\d+: .* is in points\.csv, too"):
        Dataset.open(tmp_path / "out")
    path.write_text(f"{points[0]}\n{data.videos('test')[0]},{data.classes[0]},1.0\n")
    with pytest.raises(DataError, match=r"video test_\d+: does not train"):
        Dataset.open(tmp_path / "out")
    path.unlink()
    with pytest.raises(DataError, match=r"missing, but dataset\.yaml names it under `held_out`"):
        Dataset.open(tmp_path / "out")
    assert [f for f in check(tmp_path / "out") if f.severity == "error" and "held_out.csv" in f.where]


def test_training_code_does_not_ask_for_held_out_points():
    for module, path in files().items():
        if layer(module) in TRAINING:
            names = {n.attr for n in ast.walk(tree(path)) if isinstance(n, ast.Attribute)}
            assert not names & {"held_out", "held_out_by_id"}, module


def test_the_command(data, tmp_path):
    def run(*more: str):
        return CliRunner().invoke(commands.split, [str(data.root), *more])

    result = run("--dev", "0.3", "--hide-points", "0.3", "--seed", "4", "--out", str(tmp_path / "out"))
    assert result.exit_code == 0, result.output
    made = Dataset.open(tmp_path / "out")
    train, hidden = made.videos("train"), sum(len(p.time) for p in made.held_out_by_id.values())
    assert result.output.splitlines()[0] == (
        f"{tmp_path / 'out'}: 7 train, 3 dev, 5 test videos, {count(made, train)} training points, {hidden} held out"
    )
    text = (tmp_path / "out" / "dataset.yaml").read_text()
    assert "split:\n  dev: 0.3\n  hidden: 0.3\n  seed: 4\n" in text and "held_out: held_out.csv" in text
    assert made.name == f"{data.name}-dev-hidden"
    for wrong in ((), ("--dev", "0.2", "--kfold", "3"), ("--dev", "0.2", "--pool"), ("--dev", "1")):
        assert run(*wrong, "--out", str(tmp_path / "x")).exit_code == 2
    assert not (tmp_path / "x").exists()


def test_the_real_training_videos(shared, tmp_path):
    import_hrpro(shared("data", "thumos14"), tmp_path / "data", features="none")
    data = Dataset.open(tmp_path / "data")
    made = split_holdout(data, 0.2, 0.2, 0, tmp_path / "out")
    assert (made.videos["train"], made.videos["dev"]) == (160, 40)
    assert not made.missing and not made.unjudged
    assert made.hidden / (made.hidden + made.points) == pytest.approx(0.2, abs=0.01)
