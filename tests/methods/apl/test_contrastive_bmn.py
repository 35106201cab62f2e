"""Where the detector `bmn` starts: its base pre-trained without labels, and the model of the last round."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from distributed.engine.loop import Worker, final_model, fit
from tad.data.dataset import Dataset
from tad.data.segments import Segments
from tad.errors import ConfigError
from tad.methods.apl.bmn import AplBmnDetector, AplBmnTask
from tad.methods.apl.contrastive import ContrastiveConfig, ContrastiveTask
from tad.methods.apl.contrastive_bmn import Base, BasePretraining, BaseTrain, pretrain
from tad.methods.apl.options import AplBmnTraining
from tad.methods.bmn.model import Bmn
from tad.methods.bmn.options import SHAPE, BmnTraining
from tad.methods.bmn.targets import windows
from tad.methods.bmn.training import TrainStage
from tad.stages import Artifact, Batch, Context, one_worker
from tests.support.plain import as_artifact, invent, label_fully
from tests.support.rounds import round_of, taught
from tests.support.tiny import TinyEngine

SMALL = {"fit": "windows", "length": 32, "durations": 32, "upsample": 1, "width": 16, "samples": 8, "batch_size": 4}
NULLS = {"fit": None, "length": None, "durations": None, "upsample": None, "width": None}
ENABLED = ContrastiveConfig(enabled=True, epochs=1, frames=20)


@pytest.fixture
def plain(tmp_path: Path) -> tuple[Dataset, Segments]:
    """The labels of two of six videos are given."""
    data, truth = invent(tmp_path / "plain")
    return label_fully(data, truth, ("v0", "v1")), truth


def base_of(config: ContrastiveConfig, **options: object) -> BaseTrain:
    return BaseTrain(BasePretraining(**config.model_dump(), training=BmnTraining(**(SMALL | options))))


def context(data: Dataset, seed: int = 0) -> Context:
    return Context(data, {}, data.videos("train"), seed)


def batch(opened: ContrastiveTask, items: list[int]) -> Batch:
    return opened.collate([opened.item(i, np.random.default_rng([0, i])) for i in items])


def saved(state: dict, settings: dict, folder: Path) -> Artifact:
    folder.mkdir(exist_ok=True)
    torch.save({"state": state, "settings": settings}, folder / "model.pt")
    return Artifact(folder.name, folder)


def go_on(data: Dataset, labels: Segments, folder: Path, before: Artifact | None, **options: object) -> AplBmnTask:
    inputs = {"labels": as_artifact(labels, folder / "labels")} | ({} if before is None else {"before": before})
    torch.manual_seed(9)
    config = AplBmnTraining(**(SMALL | options))
    return AplBmnTask(config, Context(data, inputs, data.videos("train"), 0))


# -- pre-training ----------------------------------------------------------------------------------------------------


def test_frames_are_bins_of_all_windows_and_never_padding(plain):
    data, _ = plain
    for options in ({}, {"upsample": 2}, {"fit": "resize"}, {"length": 256}):
        opened = base_of(ENABLED, **options).open(context(data))
        length, fit_ = opened.settings["length"], opened.settings["fit"]
        want = [
            (v, i)
            for v in data.videos("train")
            for i in range(len(windows(len(data.features(v)), length, fit_, opened.settings["upsample"])))
        ]
        assert isinstance(opened.part, Base) and opened.part.items == want and len(opened) == len(want)
        made = batch(opened, [3, 0])
        used = made["labels"] >= 0
        assert made["features"].shape == (2 * length, 8) and used.sum() == 40
        assert (made["video"][made["frames"]] == torch.arange(2)[:, None])[used].all()
        for row in (0, 1):  # the two clusters are k-means of the window's input features
            inputs = made["features"][made["frames"][row]].numpy()
            means = np.stack([inputs[(made["labels"][row] == i).numpy()].mean(0) for i in (0, 1)])
            nearest = ((inputs[:, None] - means) ** 2).sum(-1).argmin(1)
            assert (nearest == made["labels"][row].numpy()).mean() > 0.9


def test_the_contrast_reaches_all_weights_of_the_base(plain):
    opened = base_of(ENABLED).open(context(plain[0]))
    values = opened.loss(opened.module, batch(opened, [0, 1, 2]), one_worker)
    values["loss"].backward()
    assert values["loss"] == values["coarse"] + values["fine"] and values["coarse"] > 0 and values["fine"] > 0
    assert len(list(opened.module.parameters())) == 4
    assert all(p.grad is not None and p.grad.any() for p in opened.module.parameters())


def test_the_encoder_is_the_base_of_the_network(plain):
    """Row by row, with zeros beyond the end of a short video."""
    torch.manual_seed(0)
    opened = base_of(ENABLED, length=80).open(context(plain[0]))
    network = Bmn(8, 80, 80, width=16, samples=8)
    network.load_state_dict(opened.module.state_dict(), strict=False)
    made = batch(opened, [0, 1, 2])
    seen = {}
    network.start.register_forward_pre_hook(lambda _, inputs: seen.update(x=inputs[0]))
    mask = made["video"].view(3, 80) >= 0
    network(made["features"].view(3, 80, 8) + (~mask)[..., None], mask)
    assert not mask.all()
    rows = torch.arange(240).view(3, 80)
    z = opened.module(made["features"] + (made["video"] < 0)[:, None], made["video"], rows)
    assert torch.equal(z, seen["x"].transpose(1, 2))


def test_frames_of_a_class_come_together_and_part_from_others(plain):
    data, truth = plain

    def likeness(opened: ContrastiveTask) -> float:
        """Mean cosine of action frames of one class less that of action and background."""
        spans, found, labels = truth.by_video(), [], []
        for index, (video, _) in enumerate(opened.part.items):
            rows = torch.from_numpy(opened.part.window(index, np.random.default_rng(0)))
            centre = (np.arange(len(rows)) + 0.5) * 0.64
            label = np.zeros(len(rows), int)
            for start, end, name in zip(spans[video].start, spans[video].end, spans[video].labels, strict=True):
                label[(centre > start) & (centre < end)] = 1 + data.classes.index(name)
            features, of_video, _ = opened.part.pack([rows.numpy()])
            with torch.no_grad():
                found.append(opened.module(features, of_video, torch.arange(len(rows))[None])[0])
            labels.append(label)
        z, label = torch.nn.functional.normalize(torch.cat(found), dim=1), np.concatenate(labels)
        cosine, action = (z @ z.T).numpy(), label > 0
        same = (label[:, None] == label) & action[:, None]
        return float(cosine[same].mean() - cosine[action][:, ~action].mean())

    stage = base_of(ContrastiveConfig(epochs=20, frames=40), lr=1e-2, length=96, width=32)
    opened = stage.open(context(data))
    before = likeness(opened)
    state = fit(stage, context(data), Worker(), None, lambda *_: None)
    assert state["history"][-1]["loss"] < 0.8 * state["history"][0]["loss"]
    opened.module.load_state_dict(final_model(state)["state"])
    assert likeness(opened) > before + 0.2


def test_the_same_seed_gives_the_same_base(plain):
    data, _ = plain
    one, again, other = (
        fit(base_of(ENABLED), context(data, seed), Worker(), None, lambda *_: None)["module"] for seed in (0, 0, 1)
    )
    assert all(torch.equal(one[k], again[k]) for k in one) and not all(torch.equal(one[k], other[k]) for k in one)


def test_shape_is_derived_as_the_detector_on_the_same_labels_would(plain, tmp_path):
    data, truth = plain
    given = truth.filter(np.isin(truth.video_ids, ["v0", "v1"]))
    for labels, fit_ in ((given, "resize"), (given.replace(end=given.start + 3 * 0.64), "windows")):
        rows = zip(labels.video_ids, labels.labels, labels.start, labels.end, strict=True)
        lines = ["video_id,label,start,end", *(",".join(map(str, row)) for row in rows)]
        (data.root / "full_labels.csv").write_text("\n".join(lines) + "\n")
        changed = Dataset.open(data.root)
        base = base_of(ENABLED, **NULLS).open(context(changed)).settings
        detector = go_on(changed, labels, tmp_path, None, **NULLS).settings
        assert {key: detector[key] for key in SHAPE} == base and base["fit"] == fit_
    (data.root / "full_labels.csv").unlink()
    bare = base_of(ENABLED, **NULLS).open(context(Dataset.open(data.root))).settings
    assert (bare["fit"], bare["length"], bare["upsample"], bare["width"]) == ("windows", 128, 1, 32)


# -- starting from a model -------------------------------------------------------------------------------------------


def test_training_starts_from_the_base_and_takes_its_shape(plain, tmp_path):
    data, truth = plain
    before = pretrain(round_of(TinyEngine(data, 0, tmp_path)), ENABLED, BmnTraining(**(SMALL | {"upsample": 3})))
    state = before.model()["state"]
    opened = go_on(data, truth, tmp_path, before, **NULLS)
    fresh = go_on(data, truth, tmp_path, None, upsample=3)
    assert {key: opened.settings[key] for key in SHAPE} == {key: fresh.settings[key] for key in SHAPE}
    assert (opened.settings["fit"], opened.settings["length"], opened.settings["upsample"]) == ("windows", 32, 3)
    own = opened.module.state_dict()
    assert state.keys() == {key for key in own if key.startswith("base.")}
    assert all(torch.equal(own[key], value) for key, value in state.items())
    assert not torch.equal(own["base.0.weight"], fresh.module.state_dict()["base.0.weight"])


def test_training_goes_on_from_the_model_before(plain, tmp_path):
    data, truth = plain
    first = go_on(data, truth, tmp_path, None, quality=True, durations=20)
    with torch.no_grad():
        for parameter in first.module.parameters():
            parameter.add_(torch.randn_like(parameter))
    before = saved(first.module.state_dict(), first.settings, tmp_path / "first")
    short = truth.replace(end=truth.start + 3 * 0.64)  # other labels, from which other settings would be derived
    opened = go_on(data, short, tmp_path, before, quality=True, **NULLS)
    assert {k: opened.settings[k] for k in (*SHAPE, "durations")} == {
        k: first.settings[k] for k in (*SHAPE, "durations")
    }
    own = opened.module.state_dict()
    assert own.keys() == first.module.state_dict().keys()
    assert all(torch.equal(own[key], value) for key, value in first.module.state_dict().items())


def test_a_model_that_does_not_fit_is_refused(plain, tmp_path):
    data, truth = plain
    first = go_on(data, truth, tmp_path, None)
    before = saved(first.module.state_dict(), first.settings, tmp_path / "first")
    with pytest.raises(ConfigError, match=r"(?s)4 problems.*width is 16 there and 24 here.*samples.*published_.*dist"):
        go_on(data, truth, tmp_path, before, width=24, samples=4, published_edges=True, quality=True)
    odd = first.module.state_dict() | {"project.bias": torch.zeros(5)}
    odd.pop("base.2.bias")
    saved(odd, first.settings, tmp_path / "first")
    with pytest.raises(ConfigError, match=r"(?s)project.bias has shape \[5\] there and \[8\].*base.2.bias is missing"):
        go_on(data, truth, tmp_path, before)
    saved({"stem.weight": torch.zeros(1)}, first.settings, tmp_path / "first")
    with pytest.raises(ConfigError, match=r"first/model\.pt: no base of bmn.* set init to none"):
        go_on(data, truth, tmp_path, before)


def test_rounds_go_on_and_the_base_is_trained_once(plain, tmp_path):
    data, truth = plain
    engine = TinyEngine(data, 0, tmp_path)
    labels = engine.adopt(truth, "labels")
    options = SMALL | {"epochs": 1}
    proposer = Artifact("no model of bmn", tmp_path / "nowhere")
    fresh = AplBmnDetector(training=options)
    started = AplBmnDetector(training=options, pretrain=ENABLED)
    both = AplBmnDetector(training=options | {"init": "before"}, pretrain=ENABLED)
    on = AplBmnDetector(training=options | {"init": "before"})

    def inputs(model: Artifact) -> dict[str, str]:
        return engine.store.meta(model.fingerprint)["inputs"]

    one, lesson = round_of(engine, number=1, model=proposer, scores=labels), taught(labels)
    plainly = fresh.train(one, lesson)
    # Off, all is as it was; so it is in round 1 without a base, whatever the proposer left.
    assert plainly.fingerprint == one.fit(TrainStage(BmnTraining(**options)), {"labels": labels}).fingerprint
    assert on.train(one, lesson).fingerprint == plainly.fingerprint
    first = both.train(one, lesson)
    assert first.fingerprint == started.train(one, lesson).fingerprint != plainly.fingerprint
    base = pretrain(one, ENABLED, BmnTraining(**options))
    assert inputs(first)["before"] == base.fingerprint
    two = round_of(engine, number=2, model=first, labels=labels, scores=labels)
    second = both.train(two, lesson)
    assert inputs(second)["before"] == first.fingerprint
    assert inputs(started.train(two, lesson))["before"] == base.fingerprint
    # Only what the base depends on makes another one.
    assert pretrain(two, ENABLED, AplBmnTraining(**options, quality=True, positive=0.8)).path == base.path
    assert pretrain(two, ENABLED, BmnTraining(**(options | {"width": 8}))).path != base.path
