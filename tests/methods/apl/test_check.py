"""The check of APL's discriminator on labelled videos that it did not learn from."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from tad.data.dataset import Dataset
from tad.data.segments import Segments
from tad.methods.apl.check import CheckFit, Likeness, _auc, check, held_out, surroundings
from tad.methods.apl.icd import IcdTraining, PoolLabelled, pooled, read_bank
from tad.methods.apl.icd_model import InstanceDiscriminator
from tad.methods.apl.labeler import AplLabeler
from tad.stages import Context
from tests.support.plain import invent, label_fully
from tests.support.rounds import round_of
from tests.support.tiny import TinyEngine

SMALL = IcdTraining(hidden=16, batch_size=16, steps=100, lr=1e-2)


@pytest.fixture
def plain(tmp_path: Path) -> tuple[Dataset, Segments]:
    """Twelve videos of two classes, the first ten fully labelled."""
    data, truth = invent(tmp_path / "plain", videos=12)
    return label_fully(data, truth, tuple(f"v{i}" for i in range(10))), truth


def test_one_labelled_video_in_five_is_left_out(plain: tuple[Dataset, Segments], tmp_path: Path) -> None:
    data, truth = plain
    videos = [v for v in data.videos("train") if data.full_labels(v) is not None]
    assert held_out(data) == [videos[4], videos[9]]
    four = label_fully(data, truth, tuple(f"v{i}" for i in range(4)))
    now = round_of(TinyEngine(four, 0, tmp_path))
    assert held_out(four) == [] and check(now, now.map(PoolLabelled()), SMALL) is None


def test_what_is_left_out_teaches_nothing(plain: tuple[Dataset, Segments], tmp_path: Path) -> None:
    data, truth = plain
    now = round_of(TinyEngine(data, 0, tmp_path))
    bank = now.map(PoolLabelled())
    task = CheckFit(SMALL).open(Context(data, {"bank": bank}, data.videos("train"), 0))
    rest = [v for v in data.videos("train") if data.full_labels(v) is not None and v not in held_out(data)]
    assert task.settings["instances"] == sum(len(data.full_labels(v).label) for v in rest)
    other = truth.replace(
        label=["throw" if v in held_out(data) else c for v, c in zip(truth.video_ids, truth.labels, strict=True)]
    )
    assert other.labels != truth.labels
    model = now.fit(CheckFit(SMALL), {"bank": bank}).model()["state"]
    changed, _ = invent(tmp_path / "changed", videos=12)
    changed = label_fully(changed, other, tuple(f"v{i}" for i in range(10)))
    again = round_of(TinyEngine(changed, 0, tmp_path / "again"))
    same = again.fit(CheckFit(SMALL), {"bank": again.map(PoolLabelled())}).model()["state"]
    assert all(torch.equal(model[k], v) for k, v in same.items())


def test_what_is_measured(plain: tuple[Dataset, Segments], tmp_path: Path) -> None:
    """Each number by the definition, and good ones where classes are plain to see."""
    data, _ = plain
    now = round_of(TinyEngine(data, 0, tmp_path))
    bank = now.map(PoolLabelled())
    model = now.fit(CheckFit(SMALL), {"bank": bank})
    found = now.map(Likeness(), {"bank": bank, "model": model})
    known = read_bank(Context(data, {"bank": bank}, data.videos("train"), 0), held_out(data))
    network = InstanceDiscriminator(8, 16)
    network.load_state_dict(model.model()["state"])
    every: dict[str, list[float]] = {"own": [], "other": [], "around": []}

    def like(vector: np.ndarray, label: int) -> float:
        mine = torch.from_numpy(known.vectors[known.labels == label])
        pairs = torch.cat([torch.from_numpy(vector).expand(len(mine), -1), mine], 1)
        with torch.no_grad():
            return float(network.out(torch.relu(network.joint(pairs))).sigmoid().mean())

    for video in data.videos("train"):
        mine = {name: found.array(name, video) for name in every}
        if video not in held_out(data):
            assert not any(len(x) for x in mine.values())
            continue
        full, features = data.full_labels(video), data.features(video)
        grid = data.grid(video, len(features))
        vectors = pooled(features, grid, full.spans)
        want = {
            "own": [like(x, c) for x, c in zip(vectors, full.label, strict=True)],
            "other": [like(x, 1 - c) for x, c in zip(vectors, full.label, strict=True)],
        }
        near, of = surroundings(full.spans, full.spans, data.duration(video))
        want["around"] = [like(x, full.label[i]) for x, i in zip(pooled(features, grid, near), of, strict=True)]
        for name, values in want.items():
            assert mine[name].tolist() == pytest.approx(values, abs=1e-5)
            every[name] += mine[name].tolist()
    assert every["around"], "there is background beside some action"
    numbers = check(now, bank, SMALL)
    assert numbers is not None and numbers["videos"] == 2 and numbers["actions"] == len(every["own"])
    assert numbers["class_auc"] == np.mean(np.array(every["own"])[:, None] > every["other"]) > 0.9
    assert numbers["background_auc"] == np.mean(np.array(every["own"])[:, None] > every["around"]) > 0.9


def test_background_beside_an_action() -> None:
    actions = np.array([[2.0, 4.0], [5.0, 8.0], [11.0, 12.0]])
    near, of = surroundings(actions, actions, duration=12.5)
    # Before the first from 0 on; after it is the second; around that there is no room but up to the third.
    assert near.tolist() == [[0.0, 2.0], [10.0, 11.0], [8.0, 11.0]] and of.tolist() == [0, 2, 1]
    near, of = surroundings(np.zeros((0, 2)), actions, 12.5)
    assert near.shape == (0, 2) and of.shape == (0,)


def test_the_area_is_the_chance_to_be_higher() -> None:
    assert _auc(np.array([0.9, 0.5]), np.array([0.5, 0.1])) == (1 + 1 + 0.5 + 1) / 4
    assert _auc(np.array([]), np.array([0.1])) is None and _auc(np.array([0.1]), np.array([])) is None


def test_the_run_reports_it_once(plain: tuple[Dataset, Segments], tmp_path: Path) -> None:
    engine = TinyEngine(plain[0], 0, tmp_path)
    labeler = AplLabeler(icd={"training": SMALL})
    none = Segments.empty(), Segments.empty()
    first = labeler.statistics(round_of(engine, number=1), *none)["icd"]
    count = len(list((tmp_path / "store").rglob("model.pt")))
    now = round_of(engine, number=2)
    assert labeler.statistics(now, *none)["icd"] == first is not None
    assert len(list((tmp_path / "store").rglob("model.pt"))) == count == 1
    assert AplLabeler(icd={"use": False}).statistics(now, *none)["icd"] is None
