"""Real I3D features through the snippet grid and both networks."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch

from tad.data.dataset import Dataset
from tad.data.grid import SnippetGrid
from tad.methods.actionformer.detector import ActionFormerDetector
from tad.methods.pser.seed_labeler import SeedLabeler
from tad.methods.snippet.model import SnippetModel
from tad.methods.snippet.proposer import SnippetProposer
from tad.methods.snippet.training import TrainingConfig
from tests.support.rounds import round_of
from tests.support.tiny import TinyEngine


@pytest.fixture
def high_jump(shared):
    folder = shared("data", "features", "untrimmed")
    features = np.load(folder / "highjump.npy", allow_pickle=False)
    return folder, np.ascontiguousarray(features.reshape(-1, features.shape[-1]).astype(np.float32))


def test_one_real_file_through_grid_and_forward_pass(high_jump):
    _, features = high_jump
    assert features.shape == (164, 2048)
    grid = SnippetGrid.resized(duration=164 * 0.148, length=164)
    assert grid.from_edge(grid.to_edge(10.0)) == pytest.approx(10.0)
    assert grid.row(10.0) == int(10.0 / 0.148)
    torch.manual_seed(0)
    model = SnippetModel(dim=2048, classes=3, width=64).eval()
    with torch.inference_mode():
        scores = model(torch.from_numpy(features)[None], torch.ones(1, 164, dtype=torch.bool))
    cas = scores.cas()
    assert cas.shape == (1, 164, 3) and torch.isfinite(cas).all() and (cas >= 0).all() and (cas <= 1).all()


def test_a_dataset_of_real_features_runs_end_to_end(high_jump, tmp_path):
    """Two videos, one point for each annotated action; only that it runs on real numbers, not how well."""
    folder, _ = high_jump
    truth = json.loads((folder / "bbformer_gt.json").read_text())["GT"]
    names = ["highjump", "tennis26"]
    database, points = {}, ["video_id,label,time"]
    (tmp_path / "data" / "features").mkdir(parents=True)
    for name in names:
        duration = truth[f"{name}.npy"]["duration"]
        array = np.load(folder / f"{name}.npy", allow_pickle=False)
        np.save(tmp_path / "data" / "features" / f"{name}.npy", array.reshape(-1, 2048).astype(np.float32))
        database[name] = {"subset": "train", "duration": duration, "fps": 25, "annotations": []}
        for row in truth[f"{name}.npy"]["annotations"]:
            start, end = map(float, row["segment"])
            points.append(f"{name},action,{min((start + end) / 2, duration)}")
    (tmp_path / "data" / "annotations.json").write_text(json.dumps({"database": database}))
    (tmp_path / "data" / "points.csv").write_text("\n".join(points) + "\n")
    (tmp_path / "data" / "dataset.yaml").write_text(
        "name: real\nclasses: [action]\nsubsets: {train: train}\ngrid: {length: 128, dim: 2048}\n"
    )
    data = Dataset.open(tmp_path / "data")
    engine = TinyEngine(data, 0, tmp_path)
    proposer = SnippetProposer(training=TrainingConfig(epochs=2, width=32))
    proposals = proposer.propose(round_of(engine), proposer.train(round_of(engine)))
    labels = SeedLabeler().label(round_of(engine, proposals=proposals))
    detector = ActionFormerDetector(training={"epochs": 1, "width": 32})
    detections = detector.detect(round_of(engine), detector.train(round_of(engine), labels)).segments()
    assert len(labels.segments.segments()) == len(points) - 1 and len(detections)
