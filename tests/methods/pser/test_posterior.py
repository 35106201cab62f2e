"""PseR where the dataset has no features: seeds are refined by the posterior of labeler `points`, and it is said."""

from __future__ import annotations

import shutil

import numpy as np
import pytest

from tad.cli import main
from tad.data.dataset import Dataset
from tad.data.segments import Segments
from tad.methods.points.labeler import PointsLabeler
from tad.methods.pser.labeler import PserLabeler
from tests.support.rounds import round_of
from tests.support.tiny import TinyEngine, tiny_dataset


@pytest.fixture(scope="module")
def bare(tmp_path_factory) -> Dataset:
    """No video has features."""
    data = tiny_dataset(tmp_path_factory.mktemp("bare") / "data", videos=6, classes=2, dim=8)
    shutil.rmtree(data.root / "features")
    return data


def proposals_of(data: Dataset) -> Segments:
    """Around every point, of three lengths, and now and then beside it."""
    rng = np.random.default_rng(0)
    rows = [(v, t, data.classes[c]) for v in data.videos("train") for t, c in zip(*data.points(v), strict=True)] * 3
    videos, times, labels = zip(*rows, strict=True)
    length = rng.uniform(1, 6, len(rows))
    start = np.maximum(np.array(times) - rng.uniform(-0.1, 0.9, len(rows)) * length, 0.0)
    return Segments.of(videos, start, start + length, labels, rng.uniform(0.2, 1, len(rows)))


def test_the_labels_are_those_of_labeler_points_from_one_artifact(bare, tmp_path):
    engine = TinyEngine(bare, 0, tmp_path)
    round = round_of(engine, proposals=engine.adopt(proposals_of(bare), "proposals"))
    expected = PointsLabeler().label(round).segments
    for labeler in (PserLabeler(), PserLabeler(refine="posterior")):
        assert labeler.label(round).segments == expected, "made once, found again"
    assert not np.allclose(expected.segments().spans, PserLabeler().seeds(round).segments().spans)


def test_it_is_chosen_only_where_no_training_video_has_features(bare, tmp_path):
    assert not PserLabeler().reads_features(bare)
    assert "has no features; seeds are refined as by labeler points" in PserLabeler().warnings(bare)[0]
    asked = PserLabeler(refine="posterior")
    assert not asked.reads_features(bare) and asked.warnings(bare) == [], "nothing to say of what was asked for"
    bag = PserLabeler(refine="bag")
    assert bag.reads_features(bare) and bag.warnings(bare) == [], "the paper's way is not replaced"
    shutil.copytree(bare.root, tmp_path / "one")
    (tmp_path / "one/features").mkdir()
    np.save(tmp_path / "one/features" / f"{bare.videos('train')[0]}.npy", np.zeros((4, 8), np.float32))
    one = Dataset.open(tmp_path / "one")
    assert PserLabeler().reads_features(one) and PserLabeler().warnings(one) == [], "files are missing: an error"


def test_of_a_remote_dataset_the_listing_says_whether_there_are_features(bare, tmp_path, monkeypatch):
    monkeypatch.setenv("TAD_CACHE", str(tmp_path / "cache"))
    shutil.copytree(bare.root, tmp_path / "far")
    assert not Dataset.open(f"file://{tmp_path}/far").has_features("train")
    (tmp_path / "far/features").mkdir()
    video, other = bare.videos("train")[-1], bare.videos("test")[0]
    np.save(tmp_path / "far/features" / f"{other}.npy", np.zeros((4, 8), np.float32))
    assert not Dataset.open(f"file://{tmp_path}/far").has_features("train"), "of a test video"
    np.save(tmp_path / "far/features" / f"{video}.npy", np.zeros((4, 8), np.float32))
    assert Dataset.open(f"file://{tmp_path}/far").has_features("train")
    assert not list((tmp_path / "cache").rglob("*.npy")), "none is fetched"


def test_on_the_command_line(bare, tmp_path, capsys):
    proposals_of(bare).to_json_file(tmp_path / "proposals.json")
    common = ["--data", str(bare.root), "--proposals", str(tmp_path / "proposals.json"), "--local"]
    common += ["--store", str(tmp_path / "store")]
    found = {}
    for name, command in {"pser": ["pser"], "points": ["points"]}.items():
        out = tmp_path / f"{name}.json"
        with pytest.raises(SystemExit) as ended:
            main(["label", *command, *common, "--out", str(out)])
        assert ended.value.code in (0, None)
        said = " ".join(capsys.readouterr().err.split())
        assert ("has no features; seeds are refined as by labeler points" in said) == (name == "pser")
        found[name] = out.read_text()
    assert found["pser"] == found["points"]
    with pytest.raises(SystemExit) as ended:
        main(["label", "pser", *common, "--out", str(tmp_path / "bag.json"), "--set", "refine=bag"])
    assert ended.value.code and "feature" in capsys.readouterr().err
