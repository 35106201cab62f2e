"""Semi-supervised training of the detector `apl-actionformer`: two halves of a step, contrast, going on."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from pydantic import ValidationError
from torch import Tensor

from tad.data.dataset import Dataset
from tad.data.labels import FullLabels
from tad.data.segments import Segments
from tad.errors import ConfigError, DataError
from tad.methods.actionformer.detector import TrainStage
from tad.methods.apl.actionformer import AplActionFormerDetector, AplActionFormerProposer
from tad.methods.apl.actionformer_training import AplTask
from tad.methods.apl.contrast import anchors, pyramid_rows
from tad.methods.apl.frame_contrast import ContrastOptions, draw_frames
from tad.methods.apl.options import AplLabelledTraining, AplTraining
from tad.methods.common.windows import Labels
from tad.recipe.recipe import Recipe, load_recipe
from tad.stages import Artifact, Context, one_worker
from tests.support.apl import task
from tests.support.plain import SMALL, as_artifact, batch_of, invent
from tests.support.rounds import round_of, taught
from tests.support.tiny import TinyEngine

EVERYTHING = {"quality": {"enabled": True}, "unlabelled_weight": 2.0, "contrast_weight": 0.1, "contrast_frames": 20}


@pytest.fixture
def plain(tmp_path: Path) -> tuple[Dataset, Segments]:
    """v0 and v1 are fully labelled; v5 is known to hold something, but has no pseudo-label."""
    data, labels = invent(tmp_path / "plain")
    full = {}
    for video in ("v0", "v1"):
        mine = labels.filter(np.array(labels.video_ids) == video)
        full[video] = FullLabels(mine.spans, mine.label_index(data.classes))
    return replace(data, full_by_id=full), labels.filter(np.array(labels.video_ids) != "v5")


def values(opened: AplTask, batch: dict[str, Tensor]) -> dict[str, float]:
    return {k: float(v.detach()) for k, v in opened.loss(opened.module, batch, one_worker).items()}


# -- two halves --------------------------------------------------------------------------------------------------------


def test_an_item_is_a_pair_and_an_epoch_a_pass_over_videos_without_full_labels(
    plain: tuple[Dataset, Segments], tmp_path: Path
):
    opened = task(*plain, tmp_path, unlabelled_weight=2.0)
    assert opened.videos == ["v2", "v3", "v4", "v5"] and len(opened) == 4
    assert (opened.settings["labelled"], opened.settings["unlabelled"]) == (2, 4)
    lengths = {v: len(plain[0].features(v)) for v in plain[0].videos("train")}
    seen = set()
    for index in range(4):
        for seed in range(12):
            item = opened.item(index, np.random.default_rng(seed))
            seen.add(next(v for v in ("v0", "v1") if close(item.features, plain[0], v)))
            if index < 3:
                assert item.partner is not None and close(item.partner.features, plain[0], opened.videos[index])
            else:
                assert item.partner is None  # nothing was found in it, so it teaches nothing
    assert seen == {"v0", "v1"} and len(lengths) == 6
    batch = batch_of(opened, [0, 3, 1])
    videos = batch["video"]
    assert videos.max() == 4
    level = batch["unlabelled"][: len(videos)]
    assert (level[videos == 2]).logical_not().all() and level[videos >= 3].all() and not level[videos == 0].any()
    points = [videos[:: 2**k] for k in range(opened.levels)]
    assert torch.equal(batch["unlabelled"][torch.cat(points) >= 0], (torch.cat(points) >= 3)[torch.cat(points) >= 0])


def close(window: np.ndarray, data: Dataset, video: str) -> bool:
    """Whether the window is of the video."""
    whole = np.array(data.features(video), dtype=np.float32)
    return any(np.array_equal(whole[i : i + len(window)], window) for i in range(len(whole) - len(window) + 1))


@pytest.mark.parametrize(("weight", "options"), [(1.0, {}), (3.0, {"quality": {"enabled": True}})])
def test_the_loss_is_the_sum_of_both_halves_each_over_its_own_positives(
    weight: float, options: dict, plain: tuple[Dataset, Segments], tmp_path: Path
):
    """So with true labels and weight 1 it is that of full supervision on both."""
    opened = task(*plain, tmp_path, unlabelled_weight=weight, **options)
    items = [opened.item(i, np.random.default_rng(i)) for i in (0, 1, 2)]
    found = opened.loss(opened.module, opened.collate(items), one_worker)
    found["loss"].backward()
    joint = {k: float(v.detach()) for k, v in found.items()}
    halves, gradients = [], []
    for windows in ([replace(item, partner=None) for item in items], [item.partner for item in items]):
        alone = task(*plain, tmp_path, **options)
        found = alone.loss(alone.module, alone.collate(windows), one_worker)
        found["loss"].backward()
        halves.append(({k: float(v.detach()) for k, v in found.items()}, float(alone.module.normaliser)))
        gradients.append([p.grad for p in alone.module.parameters()])
    (first, labelled), (second, unlabelled) = halves
    for name in joint.keys() - {"positives"}:
        assert joint[name] == pytest.approx(first[name] + weight * second[name], rel=1e-4), name
    for p, a, b in zip(opened.module.parameters(), *gradients, strict=True):
        torch.testing.assert_close(p.grad, a + weight * b, rtol=1e-3, atol=1e-5)
    assert float(opened.module.normaliser) == labelled != unlabelled == float(opened.module.unlabelled_normaliser)


def test_a_step_without_partners_leaves_their_number_alone(plain: tuple[Dataset, Segments], tmp_path: Path):
    opened = task(*plain, tmp_path, **EVERYTHING)
    found = opened.loss(opened.module, batch_of(opened, [3]), one_worker)
    found["loss"].backward()
    assert torch.isfinite(found["loss"])
    assert float(opened.module.unlabelled_normaliser) == 100 != float(opened.module.normaliser)


@pytest.mark.parametrize("split", [([0, 1], [2]), ([0, 1, 2], [3])])
def test_workers_shares_of_pairs_add_up(
    split: tuple[list[int], list[int]], plain: tuple[Dataset, Segments], tmp_path: Path
):
    """Also where one of them has no partner."""
    options = {"unlabelled_weight": 2.0, "quality": {"enabled": True}}
    whole = task(*plain, tmp_path, **options)
    expected = values(whole, batch_of(whole, split[0] + split[1]))
    told: list[list[Tensor]] = []
    for videos in split:
        part, mine = task(*plain, tmp_path, **options), []
        part.loss(part.module, batch_of(part, videos), lambda x, mine=mine: mine.append(x) or x)
        told.append(mine)
    assert len(told[0]) == len(told[1])
    sums = [a + b for a, b in zip(*told, strict=True)]
    found = 0.0
    for videos in split:
        part, answers = task(*plain, tmp_path, **options), iter(sums)
        found += float(part.loss(part.module, batch_of(part, videos), lambda _, a=answers: next(a))["loss"].detach())
        assert part.module.unlabelled_normaliser == whole.module.unlabelled_normaliser
        assert part.module.normaliser == whole.module.normaliser
    assert found == pytest.approx(expected["loss"], rel=1e-5)


def test_weight_0_is_a_run_that_never_reads_the_other_videos(plain: tuple[Dataset, Segments], tmp_path: Path):
    data, labels = plain
    options = SMALL | {"drop_path": 0.3, "input_dropout": 0.3, "levels": 3, "max_length": 64, "epochs": 3}
    detector = AplActionFormerDetector(training={**options, "unlabelled_weight": 0.0, "quality": {"enabled": True}})
    every = taught(as_artifact(labels, tmp_path / "labels"))
    whole = detector.train(round_of(TinyEngine(data, 0, tmp_path / "whole")), every).model()
    # The others have no features, nor pseudo-labels.
    for video in ("v2", "v3", "v4", "v5"):
        data.feature_path(video).unlink()
    few = labels.filter(np.isin(labels.video_ids, ["v0", "v1"]))
    context = Context(data, {"labels": as_artifact(few, tmp_path / "few")}, data.videos("train"), 0)
    from distributed.engine.loop import Worker, final_model, fit

    stage = TrainStage(detector.training, task=AplTask)
    alone = final_model(fit(stage, context, Worker(), None, lambda *_: None))
    assert all(torch.equal(value, alone["state"][key]) for key, value in whole["state"].items())

    heavy = AplActionFormerDetector(training=detector.training.model_copy(update={"unlabelled_weight": 1.0}))
    with pytest.raises(Exception, match=r"v[2345]"):
        heavy.train(round_of(TinyEngine(data, 0, tmp_path / "heavy")), every)


def test_a_step_at_weight_0_is_a_step_on_labelled_videos_alone(plain: tuple[Dataset, Segments], tmp_path: Path):
    opened = task(*plain, tmp_path, unlabelled_weight=0.0, quality={"enabled": True})
    items = [opened.item(i, np.random.default_rng(i)) for i in (0, 1)]
    alone = task(*plain, tmp_path, quality={"enabled": True})
    first = values(opened, opened.collate(items))
    assert first == values(alone, alone.collate(items))


def test_only_full_labels_are_plain_training_and_none_are_refused(plain: tuple[Dataset, Segments], tmp_path: Path):
    data, labels = plain
    with pytest.raises(DataError, match="none of the 6 training videos is fully labelled, beside which"):
        task(replace(data, full_by_id={}), labels, tmp_path, unlabelled_weight=2.0)
    none = FullLabels(np.zeros((0, 2)), np.zeros(0, np.int64))
    every = replace(data, full_by_id={v: data.full_by_id.get(v, none) for v in data.videos("train")})
    opened = task(every, labels, tmp_path, unlabelled_weight=2.0)
    assert len(opened) == 6 and "unlabelled" not in opened.settings
    assert values(opened, batch_of(opened, [0, 2])) == (lambda t: values(t, batch_of(t, [0, 2])))(
        task(every, labels, tmp_path)
    )


# -- contrast ----------------------------------------------------------------------------------------------------------


def test_frames_take_the_shortest_label_around_them_and_none_in_ignored_background():
    labels = Labels(np.array([[2.0, 30.0], [10.0, 14.0]]), np.array([0, 1]), np.ones(2, np.float32), np.zeros(2))

    def draw(count: int, zones: np.ndarray, full: bool = True, **options: object) -> tuple[np.ndarray, np.ndarray]:
        config = ContrastOptions(contrast_weight=0.1, contrast_frames=count, **options)
        return draw_frames(40, labels, zones, config, full, np.random.default_rng(0))

    frames, found = draw(50, np.array([[28.0, 35.0]]))
    assert frames[:40].tolist() == list(range(40)) and (found[40:] == -1).all()
    by_hand = [0] * 2 + [1] * 8 + [2] * 5 + [1] * 16 + [-1] * 5 + [0] * 4
    assert found[:40].tolist() == by_hand
    frames, found = draw(8, np.zeros((0, 2)))
    assert (frames // 5 == np.arange(8)).all() and (found == np.array(by_hand)[frames].clip(0)).all()
    assert (draw(8, np.zeros((0, 2)), contrast_unlabelled=False)[1] == found).all()
    assert (draw(8, np.zeros((0, 2)), full=False)[1] == found).all()
    assert (draw(8, np.zeros((0, 2)), full=False, contrast_unlabelled=False)[1] == -1).all()


def test_the_contrast_of_each_half_is_weighted_as_the_half(plain: tuple[Dataset, Segments], tmp_path: Path):
    opened = task(*plain, tmp_path, unlabelled_weight=3.0, contrast_weight=0.5, contrast_frames=24)
    batch = batch_of(opened, [0, 1, 3])
    assert batch["frames"].shape == batch["frame_labels"].shape == (5, 24)
    assert (batch["video"][batch["frames"]] == torch.arange(5)[:, None]).all()
    found = opened.loss(opened.module, batch, one_worker)
    levels = opened.module.encode(batch["features"], batch["video"])
    z = pyramid_rows(levels.rows, len(batch["features"]), opened.levels, batch["frames"])
    assert z.shape == (5, 24, 32 * opened.levels)

    def mean(rows: Tensor, labels: Tensor) -> Tensor:
        loss, valid = anchors(rows, labels)
        return loss.sum() / valid.sum()

    def both(part: slice) -> Tensor:
        labels, rows = batch["frame_labels"][part], z[part]
        coarse = [mean(*video) for video in zip(rows, labels.clamp(max=1), strict=True)]
        return torch.stack(coarse).mean() + mean(rows.flatten(0, 1), labels.flatten())

    expected = both(slice(0, 3)) + 3 * both(slice(3, 5))
    torch.testing.assert_close(found["contrast"], expected)
    plainly = opened.config.regression_weight * found["regression"] + found["classification"]
    torch.testing.assert_close(found["loss"], plainly + 0.5 * expected)
    gradient = torch.autograd.grad(found["contrast"], opened.module.stem[0].out.weight)[0]
    assert gradient.abs().sum() > 0


# -- going on ----------------------------------------------------------------------------------------------------------


def saved(opened: AplTask, folder: Path) -> Artifact:
    folder.mkdir()
    torch.save({"state": opened.module.state_dict(), "settings": opened.settings}, folder / "model.pt")
    return Artifact("before", folder)


def go_on(data: Dataset, labels: Segments, folder: Path, before: Artifact, **options: object) -> AplTask:
    inputs = {"labels": as_artifact(labels, folder / "labels"), "before": before}
    torch.manual_seed(9)
    config = AplTraining(**(SMALL | {"init": "before"} | options))
    return AplTask(config, Context(data, inputs, data.videos("train"), seed=0))


def test_training_goes_on_from_the_model_before(plain: tuple[Dataset, Segments], tmp_path: Path):
    data, labels = plain
    first = task(data, labels, tmp_path, levels=4, upsample=2)
    with torch.no_grad():
        for parameter in first.module.parameters():
            parameter.add_(0.1 * torch.randn_like(parameter))
        first.module.normaliser.fill_(17.0)
    before = saved(first, tmp_path / "first")
    # Null options are the model's; what it lacks starts fresh, what is not wanted any more is left.
    opened = go_on(data, labels, tmp_path, before, width=None, upsample=None, **EVERYTHING)
    assert [opened.settings[k] for k in ("width", "levels", "upsample")] == [32, 4, 2]
    state = opened.module.state_dict()
    assert all(torch.equal(value, state[key]) for key, value in first.module.state_dict().items())
    assert state.keys() - first.module.state_dict().keys() == {
        "quality_head.weight",
        "quality_head.bias",
        "unlabelled_normaliser",
    }
    assert state["quality_head.bias"].tolist() == [0, -3]
    back = go_on(data, labels, tmp_path, saved(opened, tmp_path / "second"), upsample=2)
    assert all(torch.equal(value, state[key]) for key, value in back.module.state_dict().items())

    encoder = {
        k: v
        for k, v in first.module.state_dict().items()
        if k.split(".")[0] in ("embedding", "stem", "branch", "necks")
    }
    settings = {k: v for k, v in first.settings.items() if k != "classes"}
    (tmp_path / "encoder").mkdir()
    torch.save({"state": encoder, "settings": settings}, tmp_path / "encoder" / "model.pt")
    opened = go_on(data, labels, tmp_path, Artifact("e", tmp_path / "encoder"), upsample=2)
    assert all(torch.equal(value, opened.module.state_dict()[key]) for key, value in encoder.items())


def test_a_model_that_does_not_fit_is_refused(plain: tuple[Dataset, Segments], tmp_path: Path):
    data, labels = plain
    first = task(data, labels, tmp_path)
    before = saved(first, tmp_path / "first")
    with pytest.raises(ConfigError, match=r"(?s)3 problems.*width is 32 there and 16 here.*levels .*window is 9"):
        go_on(data, labels, tmp_path, before, width=16, levels=2, window=7)
    odd = first.module.state_dict() | {"class_head.bias": torch.zeros(5)}
    odd.pop("stem.1.out.bias")
    torch.save({"state": odd, "settings": first.settings}, before.path / "model.pt")
    with pytest.raises(
        ConfigError, match=r"(?s)class_head.bias has shape \[5\] there and \[2\].*stem.1.out.bias is mis"
    ):
        go_on(data, labels, tmp_path, before)
    torch.save({"state": {"conv.weight": torch.zeros(1)}, "settings": {"dim": 8}}, before.path / "model.pt")
    with pytest.raises(ConfigError, match="no pyramid of actionformer"):
        go_on(data, labels, tmp_path, before)
    with pytest.raises(ConfigError, match="needs a model to start from, and there is none"):
        task(data, labels, tmp_path, init="before")
    with pytest.raises(
        ConfigError, match="init: before starts from the proposer's weights, but the proposer is snippet"
    ):
        load_recipe("pser", ["detector.training.init=before"])
    with pytest.raises(
        ValidationError, match=r"detector.training and proposer.training differ in width, window; set them alike"
    ):
        Recipe(
            proposer=AplActionFormerProposer(training=AplLabelledTraining(width=64, levels=3)),
            detector=AplActionFormerDetector(training=AplTraining(init="before", width=32, window=9)),
        )


@pytest.mark.parametrize("wrong", [{"init": "before"}, {"unlabelled_weight": 2.0}])
def test_the_proposer_s_model_is_the_first_one_and_sees_labelled_videos_alone(wrong: dict[str, object]):
    with pytest.raises(ValidationError, match="Extra inputs are not permitted"):
        AplActionFormerProposer.model_validate({"training": wrong})


def test_a_dataset_without_full_labels_is_refused_before_anything_is_trained(
    plain: tuple[Dataset, Segments], tmp_path: Path
):
    recipe = load_recipe("pser", ["detector.training.unlabelled_weight=1.0"])
    message = "unlabelled_weight weighs videos beside fully labelled ones, and none of the 6 training videos"
    assert any(message in p for p in recipe.problems(replace(plain[0], full_by_id={})))
    assert not any(message in p for p in recipe.problems(plain[0]))


# -- all of it ---------------------------------------------------------------------------------------------------------


def test_rounds_with_everything_on(plain: tuple[Dataset, Segments], tmp_path: Path):
    torch.set_num_threads(1)
    data, labels = plain
    zone = as_artifact(Segments.of("v2", 0.5, 1.5, "jump", 0.4), tmp_path / "ignored")
    artifact = as_artifact(labels, tmp_path / "labels")
    with_zone = taught(artifact, zone)
    small = SMALL | {"epochs": 2, "lr": 3e-3, "drop_path": 0.1}
    models = []
    for name in ("one", "two"):
        engine = TinyEngine(data, seed=0, folder=tmp_path / name)
        alone = AplActionFormerDetector(training={**small, "quality": {"enabled": True}})
        first = alone.train(round_of(engine), taught(artifact))
        options = small | EVERYTHING | {"init": "before", "label_score_weight": 0.5}
        joint = AplActionFormerDetector(training=options)
        models.append(joint.train(round_of(engine, number=1, model=first), with_zone))
    states = [model.model()["state"] for model in models]
    assert all(torch.equal(value, states[1][key]) for key, value in states[0].items())
    assert not torch.equal(states[0]["class_head.weight"], first.model()["state"]["class_head.weight"])
    assert float(states[0]["unlabelled_normaliser"]) < 100
    now = round_of(engine, number=2, model=models[1], labels=artifact)
    found = joint.detect(now, joint.train(now, with_zone)).segments()
    assert len(found) and set(found.video_ids) == set(data.videos("train"))
