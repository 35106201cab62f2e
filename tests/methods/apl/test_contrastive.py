"""Contrastive pre-training: windows, clusters, several workers, and the detectors that start from it."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from pydantic import ValidationError
from torch.nn.parallel import DistributedDataParallel

from distributed.engine.loop import Worker, final_model, fit
from tad.data.dataset import Dataset
from tad.data.segments import Segments
from tad.errors import RunError
from tad.methods.apl.actionformer import AplActionFormerDetector, AplActionFormerProposer, start
from tad.methods.apl.actionformer_training import AplTask
from tad.methods.apl.contrast import Gather, cluster
from tad.methods.apl.contrastive import ContrastiveConfig
from tad.methods.apl.contrastive_bmn import BasePretraining, BaseTrain
from tad.methods.apl.contrastive_pyramid import ContrastiveTrain, pretrain, pretraining
from tad.methods.apl.options import AplLabelledTraining, AplTraining
from tad.methods.apl.potloc import AplPotlocDetector, EncodedTask
from tad.methods.bmn.options import BmnTraining
from tad.methods.potloc.options import PotlocTraining
from tad.stages import Context, FitStage, one_worker
from tests.support import plain
from tests.support.rounds import round_of, taught
from tests.support.tiny import TinyEngine, tiny_dataset
from tests.support.workers import two_workers

SMALL = {"width": 16, "heads": 2, "levels": 3, "window": 5, "drop_path": 0.0, "input_dropout": 0.0, "batch_size": 2}
CONTRAST = ContrastiveConfig(epochs=3, frames=20)


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Dataset:
    return tiny_dataset(tmp_path_factory.mktemp("contrastive") / "data", videos=6)


def stage(contrast: ContrastiveConfig = CONTRAST, **more) -> ContrastiveTrain:
    return ContrastiveTrain(pretraining(contrast, AplTraining(**SMALL | more)))


BMN = BaseTrain(BasePretraining(epochs=3, frames=20, training=BmnTraining(length=32, width=16, batch_size=2)))


def context(data: Dataset) -> Context:
    return Context(data, {}, data.videos("train"), 0)


def batch(task, indices):
    return task.collate([task.item(i, np.random.default_rng([0, i])) for i in indices])


def train(data: Dataset, fitted: FitStage):
    return fit(fitted, context(data), Worker(), None, lambda *_: None)


def test_frames_are_rows_of_their_video_and_never_padding(data):
    for upsample in (1, 2):
        task = stage(upsample=upsample).open(context(data))
        made = batch(task, [3, 0])
        used = made["labels"] >= 0
        assert (made["video"][made["frames"]] == torch.arange(2)[:, None])[used].all()
        assert set(made["labels"][used].tolist()) == {0, 1}
        inputs = made["features"][made["frames"]][0].numpy()
        assert inputs[used[0].numpy()].any(1).all()
        # The two clusters are k-means of the window's input features.
        groups = [inputs[(made["labels"][0] == i).numpy()] for i in (0, 1)]
        means = np.stack([g.mean(0) for g in groups])
        nearest = ((inputs[used[0].numpy()][:, None] - means) ** 2).sum(-1).argmin(1)
        assert (nearest == made["labels"][0][used[0]].numpy()).mean() > 0.9


def test_a_video_shorter_than_the_number_of_frames_gives_all_its_rows(data):
    task = stage(ContrastiveConfig(frames=200)).open(context(data))
    made = batch(task, [0, 1])
    rows = (made["video"] >= 0).sum()
    assert (made["labels"] >= 0).sum() == rows < made["labels"].numel()
    values = task.loss(task.module, made, one_worker)
    values["loss"].backward()
    assert torch.isfinite(values["loss"])


def test_all_weights_of_the_encoder_learn(data):
    task = stage().open(context(data))
    values = task.loss(task.module, batch(task, [0, 1]), one_worker)
    values["loss"].backward()
    assert values["loss"] == values["coarse"] + values["fine"]
    assert all(p.grad is not None and p.grad.any() for p in task.module.parameters())


def test_weights_say_which_contrast_counts(data):
    found = []
    for coarse, fine in ((1.0, 0.0), (0.0, 1.0)):
        torch.manual_seed(0)
        task = stage(ContrastiveConfig(frames=20, coarse_weight=coarse, fine_weight=fine)).open(context(data))
        values = task.loss(task.module, batch(task, [0, 1]), one_worker)
        assert values["loss"] == coarse * values["coarse"] + fine * values["fine"]
        found.append((values["coarse"], values["fine"]))
    assert found[0] == found[1]


def test_frames_of_a_class_come_together_and_part_from_others(tmp_path):
    """Twelve rows of background and twelve of the video's class, in turn, unlike each other but for noise."""
    data = tiny_dataset(tmp_path / "data", videos=6, classes=2)
    rng = np.random.default_rng(0)
    truth = {}
    for index, video in enumerate(data.videos("train")):
        length = len(data.features(video))
        truth[video] = np.arange(length) // 12 % 2 * (1 + index % 2)
        rows = np.eye(16)[truth[video]] * 2 + 1 + rng.normal(0, 0.1, (length, 16))
        np.save(data.feature_path(video), rows.astype(np.float16))
    data = Dataset.open(data.root)
    task = stage().open(context(data))

    def likeness() -> tuple[float, float]:
        """Mean cosine of frames of one class and of different classes, across videos."""
        found = []
        for video in data.videos("train"):
            features = torch.from_numpy(np.array(data.features(video), dtype=np.float32))
            rows = torch.nn.functional.pad(features, (0, 0, 0, -len(features) % 4))
            real = torch.where(torch.arange(len(rows)) < len(features), 0, -1)
            with torch.no_grad():
                found.append(task.module.eval()(rows, real, torch.arange(len(features))))
        z = torch.nn.functional.normalize(torch.cat(found), dim=1)
        label = torch.from_numpy(np.concatenate(list(truth.values())))
        same = label[:, None] == label
        return float((z @ z.T)[same].mean()), float((z @ z.T)[~same].mean())

    same, different = likeness()
    contrast = ContrastiveConfig(epochs=15, frames=20, clusters=3)
    state = train(data, stage(contrast, lr=1e-2))
    losses = [epoch["loss"] for epoch in state["history"]]
    assert losses[-1] < 0.5 * losses[0]
    task.module.load_state_dict(final_model(state)["state"])
    trained, apart = likeness()
    assert trained - apart > same - different + 0.3, (same, different, trained, apart)


def test_same_seed_same_weights_whatever_came_before(data):
    one, again = train(data, stage()), train(data, stage())
    assert all(torch.equal(one["module"][k], again["module"][k]) for k in one["module"])


def test_nan_features_stop_the_training_with_its_place(tmp_path):
    data = tiny_dataset(tmp_path / "data", videos=2, classes=2)
    for video in data.videos("train"):
        rows = np.array(data.features(video))
        rows[5:] = np.nan
        np.save(data.feature_path(video), rows)
    with pytest.raises(RunError, match=r"contrastive/train: loss is nan in epoch 0, step 0; .*`tad check`"):
        train(Dataset.open(data.root), stage())


def _worker(rank: int, data: Dataset, folder: Path, fitted: FitStage) -> None:
    torch.set_num_threads(1)
    torch.distributed.init_process_group("gloo", init_method=f"file://{folder}/meet", rank=rank, world_size=2)
    worker = Worker(rank, 2, torch.device("cpu"), DistributedDataParallel)
    torch.save(fit(fitted, context(data), worker, None, lambda *_: None), folder / f"{rank}.pt")
    torch.distributed.destroy_process_group()


@pytest.mark.parametrize("fitted", [stage(), BMN], ids=["pyramid", "bmn"])
def test_two_workers_learn_what_one_learns(fitted, data, tmp_path):
    """One video on each: the clusters over the batch are over both all the same."""
    alone = train(data, fitted)
    two_workers(_worker, data, tmp_path, fitted)
    first, second = (torch.load(tmp_path / f"{rank}.pt", weights_only=True) for rank in (0, 1))
    for name, value in alone["module"].items():
        assert torch.equal(first["module"][name], second["module"][name])
        torch.testing.assert_close(first["module"][name], value, atol=1e-4, rtol=1e-3)
    for a, b in zip(alone["history"], first["history"], strict=True):
        assert a == pytest.approx(b, rel=1e-3)


def test_clusters_of_the_batch_are_those_of_all_frames(data):
    task = stage().open(context(data))
    made = batch(task, [4, 1])
    labels = task.fine_labels(made, Gather(made["items"], len(task), one_worker))
    assert labels.shape == (2, 20) and labels.max() == 3  # twice the batch; in the order of the items
    inputs = made["features"][made["frames"]][[1, 0]].flatten(0, 1).numpy()
    rng = np.random.default_rng(made["seeds"][[1, 0]].tolist())
    assert np.array_equal(labels.flatten(), cluster(inputs, 4, rng))


# -- detectors that start from it -----------------------------------------------------------------------------------

ENABLED = ContrastiveConfig(enabled=True, epochs=1, frames=20)
NULLS = plain.SMALL | {"width": None, "levels": None, "upsample": None, "epochs": 1}
"""Options that the detector derives where nothing is given; the encoder derives them first."""


@pytest.fixture
def labelled(tmp_path: Path) -> tuple[Dataset, Segments]:
    data, truth = plain.invent(tmp_path / "plain")
    rows = [",".join(map(str, r)) for r in zip(truth.video_ids, truth.labels, truth.start, truth.end, strict=True)]
    few = [row for row in rows if row.startswith(("v0", "v1"))]
    (data.root / "full_labels.csv").write_text("\n".join(["video_id,label,start,end", *few]) + "\n")
    return Dataset.open(data.root), truth


def test_training_starts_from_the_encoder_and_takes_its_shape(labelled, tmp_path):
    data, truth = labelled
    engine = TinyEngine(data, 0, tmp_path)
    training, inputs = start(round_of(engine), ENABLED, AplTraining(**NULLS))
    saved = inputs["before"].model()
    labels = plain.as_artifact(truth, tmp_path / "labels")
    task = AplTask(training, Context(data, inputs | {"labels": labels}, data.videos("train"), 0))
    state = task.module.state_dict()
    assert all(torch.equal(state[key], value) for key, value in saved["state"].items())
    assert {key.split(".")[0] for key in state.keys() - saved["state"].keys()} == {
        "class_stack",
        "offset_stack",
        "class_head",
        "offset_head",
        "scales",
        "normaliser",
    }
    for key in ("dim", "width", "levels", "upsample"):
        assert task.settings[key] == saved["settings"][key]


def test_shape_is_derived_as_the_detector_on_the_same_labels_would(labelled, tmp_path):
    data, truth = labelled
    given = truth.filter(np.isin(truth.video_ids, ["v0", "v1"]))
    labels = plain.as_artifact(given, tmp_path / "labels")
    options = AplTraining(**NULLS)
    encoder = stage(**NULLS).open(context(data)).settings
    detector = AplTask(options, Context(data, {"labels": labels}, data.videos("train"), 0)).settings
    for key in ("width", "levels", "upsample"):
        assert encoder[key] == detector[key]


def test_proposer_and_detector_have_the_option(labelled, tmp_path):
    data, truth = labelled
    engine = TinyEngine(data, 0, tmp_path)
    fresh = AplActionFormerProposer(training=AplLabelledTraining(**NULLS))
    trained = fresh.model_copy(update={"pretrain": ENABLED}).train(round_of(engine))
    assert trained.fingerprint != fresh.train(round_of(engine)).fingerprint
    labels = engine.adopt(truth, "labels")
    detector, found = AplActionFormerDetector(training=NULLS, pretrain=ENABLED), []
    for number in (1, 2):
        now = round_of(engine, number=number)
        detector.train(now, taught(labels))
        found.append(pretrain(now, ENABLED, AplTraining(**NULLS)).fingerprint)
    assert found[0] == found[1]  # one encoder for all rounds
    with pytest.raises(ValidationError, match="two models to start from"):
        AplActionFormerDetector(pretrain=ENABLED, training={"init": "before"})


def test_without_full_labels_the_shape_is_that_of_the_paper(data):
    settings = stage(**SMALL | {"levels": None}).open(context(data)).settings
    assert settings["levels"] == 6 and settings["upsample"] == 1


def test_contrast_after_pretraining_can_be_left_to_labelled_videos(labelled, tmp_path):
    """The second row of the paper's Table S4: of the pairs of windows only the fully labelled one takes part."""
    data, truth = labelled
    inputs = {"labels": plain.as_artifact(truth, tmp_path / "labels")}
    options = plain.SMALL | {"unlabelled_weight": 2.0, "contrast_weight": 0.1, "contrast_frames": 20}
    found = {}
    for both in (True, False):
        torch.manual_seed(0)
        training = AplTraining(**options, contrast_unlabelled=both)
        task = AplTask(training, Context(data, inputs, data.videos("train"), 0))
        made = batch(task, [0, 1])
        first, second = made["frame_labels"].split(2)
        assert (first >= 0).all() and (second >= 0).all() == both and (second == -1).all() != both
        found[both] = {name: float(value.detach()) for name, value in task.loss(task.module, made, one_worker).items()}
    assert 0 < found[False]["contrast"] < found[True]["contrast"]
    assert found[False]["classification"] == found[True]["classification"]


def test_weights_say_which_contrast_of_labels_counts(labelled, tmp_path):
    """The rows of the paper's Table 5, in the joint phase."""
    data, truth = labelled
    inputs = {"labels": plain.as_artifact(truth, tmp_path / "labels")}
    found = []
    for weights in ({}, {"contrast_fine_weight": 0.0}, {"contrast_coarse_weight": 0.0}):
        torch.manual_seed(0)
        training = AplTraining(**plain.SMALL, contrast_weight=0.1, contrast_frames=20, **weights)
        task = AplTask(training, Context(data, inputs, data.videos("train"), 0))
        found.append(float(task.loss(task.module, batch(task, [0, 1]), one_worker)["contrast"].detach()))
    assert found[0] == pytest.approx(found[1] + found[2]) and min(found) > 0


def test_potloc_starts_from_it_too(labelled, tmp_path):
    data, truth = labelled
    options = {"width": 32, "window": 9, "levels": 2, "stem": 1, "gain": 0.2, "epochs": 1}
    training = PotlocTraining(**options)
    engine = TinyEngine(data, 0, tmp_path)
    encoder = pretrain(round_of(engine), ENABLED, training)
    inputs = {"labels": plain.as_artifact(truth, tmp_path / "labels"), "encoder": encoder}
    task = EncodedTask(training, Context(data, inputs, data.videos("train"), 0))
    state = task.module.state_dict()
    assert all(torch.equal(state[key], value) for key, value in encoder.model()["state"].items())
    assert {key.split(".")[0] for key in state.keys() - encoder.model()["state"].keys()} == {"decoder", "head"}
    labels = taught(engine.adopt(truth, "labels"))
    started = AplPotlocDetector(training=training, pretrain=ENABLED).train(round_of(engine), labels)
    assert started.fingerprint != AplPotlocDetector(training=training).train(round_of(engine), labels).fingerprint
