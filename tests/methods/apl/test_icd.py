"""APL's discriminator: the network, what it compares, the pairs it learns from, and that it learns."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch

import tad.methods.apl.icd_model
from distributed.engine.engine import Engine
from tad.data.dataset import Dataset
from tad.data.grid import SnippetGrid
from tad.data.segments import Segments
from tad.errors import DataError
from tad.methods.apl.icd import IcdFit, IcdTask, IcdTraining, PoolLabelled, bank_problems, pooled, read_bank
from tad.methods.apl.icd_model import InstanceDiscriminator
from tad.stages import Artifact, Context, one_worker
from tests.support.plain import invent, label_fully
from tests.support.tiny import TinyEngine

GRID = SnippetGrid(fps=1.0, stride=1.0, window=1.0, length=6)
"""Row i is centred at i + 1/2 seconds."""


@pytest.fixture(scope="module")
def plain(tmp_path_factory: pytest.TempPathFactory) -> tuple[Dataset, Segments]:
    """Ten videos of two classes, the first six fully labelled; and where all actions are."""
    data, truth = invent(tmp_path_factory.mktemp("plain") / "data", videos=10)
    return label_fully(data, truth, tuple(f"v{i}" for i in range(6))), truth


@pytest.fixture(scope="module")
def banked(plain: tuple[Dataset, Segments], tmp_path_factory: pytest.TempPathFactory) -> tuple[Engine, Artifact]:
    engine = TinyEngine(plain[0], 0, tmp_path_factory.mktemp("engine"))
    return engine, engine.map(PoolLabelled())


def bank_of(folder: Path, rows: list[tuple[str, str]], vectors: np.ndarray) -> Context:
    """A context with a bank of instances (video, class), a second long each, whose vectors are given."""
    videos, classes = (sorted({row[i] for row in rows}) for i in (0, 1))
    data, _ = invent(folder / "data", videos=len(videos))
    text = (data.root / "dataset.yaml").read_text().replace("- jump\n- throw\n", "".join(f"- {c}\n" for c in classes))
    (data.root / "dataset.yaml").write_text(text)
    spans = np.arange(len(rows), dtype=np.float64)
    truth = Segments.of([v for v, _ in rows], spans, spans + 1, [c for _, c in rows])
    data = label_fully(data, truth, tuple(videos))
    for key in ("vectors", "labels"):
        (folder / key).mkdir()
    for video in videos:
        mine = [i for i, row in enumerate(rows) if row[0] == video]
        np.save(folder / "vectors" / f"{video}.npy", vectors[mine].astype(np.float32))
        np.save(folder / "labels" / f"{video}.npy", np.array([classes.index(rows[i][1]) for i in mine]))
    return Context(data, {"bank": Artifact("bank", folder)}, data.videos("train"), 0)


# -- the network -----------------------------------------------------------------------------------------------------


def random_instances(count: int, seed: int, dim: int = 6, classes: int = 3) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    return (torch.rand(count, dim, generator=generator), torch.randint(classes, (count,), generator=generator))


def test_the_published_size() -> None:
    assert sum(p.numel() for p in InstanceDiscriminator(2048).parameters()) == 524_545


def test_the_factored_form_is_the_concatenated_one() -> None:
    torch.manual_seed(0)
    model, (vectors, _) = InstanceDiscriminator(6, 16), random_instances(40, 1)
    a, b = torch.randint(40, (200,)), torch.randint(40, (200,))
    joined = torch.cat([vectors[a], vectors[b]], dim=1)
    want = model.out(torch.relu(model.joint(joined)))[:, 0]
    torch.testing.assert_close(model(vectors, a, b), want, rtol=0, atol=1e-5)


@pytest.mark.parametrize("block", [1 << 20, 64])
def test_similarity_is_the_mean_over_the_instances_of_the_class(block: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tad.methods.apl.icd_model, "BLOCK", block)
    torch.manual_seed(0)
    model = InstanceDiscriminator(6, 16).eval()
    vectors, labels = random_instances(30, 1)
    bank, bank_labels = random_instances(20, 2)
    bank_labels[bank_labels == 2] = 1  # class 2 has no labelled instance
    with torch.inference_mode():
        first, second = model.first(vectors), model.second(bank)
        found = model.similarity(first, labels, second, bank_labels)
        turned = torch.randperm(20)
        other = model.similarity(first, labels, second[turned], bank_labels[turned])
        for n in range(30):
            mine = bank[bank_labels == labels[n]]
            pairs = torch.cat([vectors[n].expand(len(mine), -1), mine], dim=1)
            want = model.out(torch.relu(model.joint(pairs))).sigmoid().mean() if len(mine) else torch.tensor(0.5)
            assert float(found[n]) == pytest.approx(float(want), abs=1e-5)
    assert (labels == 2).any() and (found[labels == 2] == 0.5).all()
    torch.testing.assert_close(found, other, rtol=0, atol=1e-9)


# -- what is compared ------------------------------------------------------------------------------------------------


def test_pooling_takes_rows_whose_centre_is_inside_or_the_nearest() -> None:
    features = np.array([[0, 9], [1, 8], [5, 7], [3, 6], [4, 5], [2, 4]], dtype=np.float16)
    spans = {
        (0.0, 6.0): (5, 9),
        (1.5, 3.5): (5, 8),  # both ends are centres
        (2.6, 3.3): (5, 7),  # no centre inside; its own, 2.95, is nearest to that of row 2
        (3.6, 4.2): (3, 6),
        (0.0, 0.2): (0, 9),
        (5.8, 6.0): (2, 4),
        (7.0, 9.0): (2, 4),  # beyond the last row
    }
    found = pooled(features, GRID, np.array(list(spans)))
    assert found.dtype == np.float32
    assert np.array_equal(found, np.array(list(spans.values()), dtype=np.float32))
    assert pooled(features, GRID, np.zeros((0, 2))).shape == (0, 2)


def test_the_bank_holds_the_labelled_instances(banked: tuple[Engine, Artifact]) -> None:
    engine, bank = banked
    data = engine.data
    found = read_bank(Context(data, {"bank": bank}, data.videos("train"), 0))
    full = [data.full_labels(v) for v in data.videos("train")]
    assert found.labels.tolist() == [c for f in full if f is not None for c in f.label]
    assert sorted(set(found.videos.tolist())) == list(range(6))
    # Each class has a channel of its own, which is 2 where it happens.
    assert (found.vectors[np.arange(len(found.labels)), found.labels] > 1.2).all()
    assert (found.vectors[np.arange(len(found.labels)), 1 - found.labels] < 1.2).all()


# -- the pairs -------------------------------------------------------------------------------------------------------


def test_partners_are_of_other_videos_then_of_the_same_then_the_instance_itself(tmp_path: Path) -> None:
    rows = [("v0", "a"), ("v0", "a"), ("v1", "a"), ("v1", "b"), ("v1", "b"), ("v1", "c")]
    task = IcdTask(IcdTraining(partners=2), bank_of(tmp_path, rows, np.eye(6, 8)))
    assert [x.tolist() for x in task.alike] == [[2], [2], [0, 1], [4], [3], [5]]
    assert [x.tolist() for x in task.different] == [[3, 4, 5]] * 3 + [[0, 1, 2, 5]] * 2 + [[0, 1, 2, 3, 4]]
    architecture = {"dim": 8, "hidden": 128}
    assert json.loads(json.dumps(task.settings)) == {"architecture": architecture, "instances": 6, "single": 1}
    assert len(task) == 2000 // 20 * 64
    drawn = np.stack([task.item(i, np.random.default_rng([0, i])) for i in range(400)])
    assert np.bincount(drawn[:, 0], minlength=6).min() > 40
    for anchor, *partners in drawn.tolist():
        assert set(partners[:2]) <= set(task.alike[anchor].tolist())
        assert set(partners[2:]) <= set(task.different[anchor].tolist()) and partners[2] != partners[3]
    assert np.array_equal(drawn[7], task.item(7, np.random.default_rng([0, 7])))


def test_the_loss_of_a_batch(tmp_path: Path) -> None:
    """-ln D over pairs of a class, -ln (1 - D) over the others, a mean each."""
    rows = [("v0", "a"), ("v1", "a"), ("v1", "b")]
    vectors = np.random.default_rng(0).random((3, 8))
    context = bank_of(tmp_path, rows, vectors)
    task = IcdTask(IcdTraining(partners=1), context)
    values = task.loss(task.module, task.collate([np.array([0, 1, 2]), np.array([1, 0, 2])]), one_worker)
    with torch.no_grad():
        pairs = torch.cartesian_prod(torch.arange(3), torch.arange(3))
        inputs = torch.from_numpy(vectors.astype(np.float32))
        probability = task.module(inputs, *pairs.T).sigmoid().view(3, 3).numpy()
    alike, others = probability[[0, 1], [1, 0]], probability[[0, 1], [2, 2]]
    want = -np.log(alike).mean() - np.log1p(-others).mean()
    assert float(values["loss"].detach()) == pytest.approx(want, abs=1e-5)
    assert float(values["accuracy"]) == ((alike > 0.5).sum() + (others <= 0.5).sum()) / 4


@pytest.mark.parametrize("dropout", [0.0, 0.25])
def test_a_lone_instance_meets_a_copy_of_itself_with_gaps(dropout: float, tmp_path: Path) -> None:
    context = bank_of(tmp_path, [("v0", "a"), ("v1", "b"), ("v1", "b")], np.ones((3, 8)))
    task, seen = IcdTask(IcdTraining(partners=1, dropout=dropout), context), []
    task.module.register_forward_pre_hook(lambda _, inputs: seen.append(inputs))
    torch.manual_seed(0)
    task.loss(task.module, task.collate([np.array([0, 0, 1]), np.array([1, 2, 0])] * 8), one_worker)
    ((vectors, first, second),) = seen
    zeros = (vectors == 0).float()
    copies = second.view(16, 2)[::2, 0]
    assert 0.35 < zeros[copies].mean() < 0.65 and (zeros[copies] != zeros[copies[0]]).any()
    rest = zeros[[i for i in range(len(vectors)) if i not in copies]].mean()
    assert rest == 0 if not dropout else 0.15 < rest < 0.35
    assert torch.equal(first.view(16, 2)[:, 0], first.view(16, 2)[:, 1])


def test_it_learns_and_depends_on_the_seed_alone(
    banked: tuple[Engine, Artifact], plain: tuple[Dataset, Segments], tmp_path: Path
) -> None:
    engine, bank = banked
    data, truth = plain
    stage = IcdFit(IcdTraining(hidden=16, batch_size=16, steps=100, lr=1e-2))
    saved = engine.fit(stage, {"bank": bank}).model()
    assert saved["settings"]["architecture"] == {"dim": 8, "hidden": 16}
    model = InstanceDiscriminator(**saved["settings"]["architecture"])
    model.load_state_dict(saved["state"])
    found = read_bank(Context(data, {"bank": bank}, data.videos("train"), 0))
    hidden = truth.filter(~np.isin(truth.video_ids, [f"v{i}" for i in range(6)])).by_video()
    assert len(hidden) == 4
    for video, rows in hidden.items():
        features = data.features(video)
        vectors = torch.from_numpy(pooled(features, data.grid(video, len(features)), rows.spans))
        label = torch.from_numpy(rows.label_index(data.classes))
        with torch.no_grad():
            second, labels = model.second(torch.from_numpy(found.vectors)), torch.from_numpy(found.labels)
            own = model.similarity(model.first(vectors), label, second, labels)
            other = model.similarity(model.first(vectors), 1 - label, second, labels)
        assert own.min() > 0.7 and other.max() < 0.3
    again = TinyEngine(data, 0, tmp_path / "again")
    same = again.fit(stage, {"bank": again.map(PoolLabelled(), {}, "train")}).model()["state"]
    assert all(torch.equal(saved["state"][k], v) for k, v in same.items())
    another = TinyEngine(data, 1, tmp_path / "another")
    changed = another.fit(stage, {"bank": another.map(PoolLabelled(), {}, "train")}).model()["state"]
    assert not torch.equal(saved["state"]["joint.weight"], changed["joint.weight"])


def test_too_few_labels_are_named(plain: tuple[Dataset, Segments], tmp_path: Path) -> None:
    data, truth = invent(tmp_path / "data", videos=3)
    assert "no training video has full labels" in bank_problems(data)[0]
    jumps = truth.filter(np.array(truth.labels) == "jump")
    one = label_fully(data, jumps, ("v0", "v1", "v2"))
    assert "fewer than two classes (jump)" in bank_problems(one)[0]
    with pytest.raises(DataError, match="fewer than two classes"):
        IcdTask(IcdTraining(), Context(one, {}, one.videos("train"), 0))
    assert bank_problems(plain[0]) == []
