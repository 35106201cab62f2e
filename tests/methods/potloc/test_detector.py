"""The detector `potloc`: training and detecting through the engine, decoding, the published options."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from tad.data.dataset import Dataset
from tad.errors import ConfigError, RunError
from tad.methods.potloc.detector import (
    Curves,
    PotlocDecoding,
    PotlocDetect,
    PotlocDetection,
    PotlocDetector,
    blend,
    pool,
)
from tad.methods.potloc.training import PotlocTask
from tad.ops.iou import tiou
from tad.recipe.recipe import load_recipe
from tad.stages import Artifact, Context
from tests.support.plain import as_artifact, invent
from tests.support.potloc import SMALL, opened, windows_around_points
from tests.support.rounds import round_of, taught
from tests.support.tiny import TinyEngine, tiny_dataset

# -- training ----------------------------------------------------------------------------------------------------------


def test_it_learns_what_is_plain(tmp_path: Path) -> None:
    torch.set_num_threads(1)
    data, labels = invent(tmp_path / "plain")
    artifact = as_artifact(labels, tmp_path / "labels")
    detector = PotlocDetector(training=SMALL | {"epochs": 60, "batch_size": 2, "lr": 5e-3, "window": 9, "width": 32})
    round = round_of(TinyEngine(data, seed=0, folder=tmp_path / "engine"))
    model = detector.train(round, taught(artifact))
    detections = detector.detect(round, model).segments()
    found = 0
    for video, truth in labels.by_video().items():
        mine = detections.filter(np.array(detections.video_ids) == video)
        best = mine.take(np.arange(min(len(mine), len(truth) + 1)))
        overlap = tiou(truth.spans, best.spans)
        overlap[np.array(truth.labels)[:, None] != np.array(best.labels)[None]] = 0
        found += int((overlap.max(1, initial=0) >= 0.4).sum())
    assert found / len(labels) > 0.8
    assert max(len(rows) for rows in detections.by_video().values()) <= 200


def test_the_convolutional_ablation_trains_and_detects(data: Dataset, tmp_path: Path) -> None:
    detector = PotlocDetector(training=SMALL | {"epochs": 2, "levels": 1, "stem": 0, "radius": None})
    engine = TinyEngine(data, seed=0, folder=tmp_path / "engine")
    model = detector.train(round_of(engine), taught(as_artifact(windows_around_points(data), tmp_path / "labels")))
    assert not [name for name in model.model()["state"] if name.startswith(("stem", "branch"))]
    assert len(detector.detect(round_of(engine, "test"), model).segments())


# -- detections --------------------------------------------------------------------------------------------------------


def pulse(rows: int, first: int, last: int, classes: int = 2) -> Curves:
    """A level whose class 1 and actionness are high on rows first..last."""
    cas, actionness = np.full((rows, classes), 0.01), np.full(rows, 0.01)
    cas[first : last + 1, 1] = actionness[first : last + 1] = 0.9
    return Curves(cas, actionness, np.array([0.1, 0.8]))


NONE = Curves(np.zeros((32, 2)), np.zeros(32), np.array([0.1, 0.8]))


@pytest.mark.parametrize(("depth", "rows"), [(0, 32), (1, 16), (2, 8)])
def test_a_run_of_a_level_covers_its_rows_on_the_finest(depth: int, rows: int) -> None:
    config = PotlocDecoding(cas_thresholds=[0.45], relative=False, actionness_thresholds=[0.45], scale=4, margin=0.25)
    levels = [NONE] * depth + [pulse(rows, 2, 4)]
    places, score, label = pool(levels, np.zeros(0, np.int64), config)
    stride = 2**depth
    # Row i lies at i * stride; its cell reaches half a stride to either side. Interpolated at half the height.
    assert places == pytest.approx(np.array([[1.5, 4.5]]) * stride, abs=stride / 4 + 1e-9)
    assert label.tolist() == [1] and score[0] > 0.5
    published = config.model_copy(update={"centred": False})
    places, _, _ = pool(levels, np.zeros(0, np.int64), published)
    # There it begins at its row, an edge: half a snippet before the position.
    assert places[:, 0] + 0.5 == pytest.approx([1.5 * stride], abs=stride / 4 + 1e-9)
    assert places[:, 1] + 0.5 == pytest.approx([4.5 * stride], abs=stride / 2 + 1e-9)


def test_which_classes_are_looked_for() -> None:
    config = PotlocDecoding(cas_thresholds=[0.005], actionness_thresholds=[0.5], class_threshold=0.5)
    first = Curves(np.full((8, 3), 0.2), np.full(8, 0.2), np.array([0.7, 0.2, 0.3]))
    second = Curves(np.full((4, 3), 0.2), np.full(4, 0.2), np.array([0.1, 0.2, 0.9]))

    def classes(prior: list[float] | None = None, known: tuple[int, ...] = (), **options: object) -> list[list[int]]:
        """On each level; a run of the first level is 8 long, of the second 8 after scaling but starts elsewhere."""
        changed = config.model_copy(update=options)
        levels = [first, second]
        if prior is not None:
            levels = blend(levels, Curves(first.cas, first.actionness, np.array(prior)), changed, 1)
        places, _, label = pool(levels, np.array(known, np.int64), changed)
        finest = places[:, 0] == -0.5
        return [sorted(set(label[finest].tolist())), sorted(set(label[~finest].tolist()))]

    assert classes() == [[2], [2]]  # means .4, .2, .6
    assert classes(by_level=True) == [[0], [2]]
    assert classes(known=(1,)) == [[1], [1]]
    assert classes([0.9, 0.9, 0.1], video_power=0.5) == [[0], [0]]
    assert classes([0.9, 0.9, 0.1], video_power=0.0) == [[2], [2]]


def test_curves_of_the_proposer_are_blended_at_the_same_places() -> None:
    ramp = np.arange(8.0)[:, None] * [0.1, 0.05]
    proposer = Curves(ramp, ramp[:, 0], np.array([0.4, 0.9]))
    rows = [15, 8, 4]  # two rows a snippet, strides 1, 2 and 4
    levels = [Curves(np.ones((n, 2)), np.zeros(n), np.array([0.9, 0.1])) for n in rows]
    for depth, level in enumerate(blend(levels, proposer, PotlocDecoding(curve_share=0.25, video_power=0.5), 2)):
        at = np.minimum(np.arange(rows[depth]) * 2**depth / 2, 7)
        np.testing.assert_allclose(level.cas, 0.75 + 0.25 * at[:, None] * [0.1, 0.05])
        np.testing.assert_allclose(level.actionness, 0.25 * at * 0.1)
        np.testing.assert_allclose(level.video, [0.6, 0.3])
    alone = blend(levels, proposer, PotlocDecoding(curve_share=0.0, video_power=0.0), 2)
    assert all(np.array_equal(x, y) for a, b in zip(alone, levels, strict=True) for x, y in zip(a, b, strict=True))


def model_of(task: PotlocTask, folder: Path) -> Artifact:
    folder.mkdir()
    torch.save({"state": task.module.state_dict(), "settings": task.settings}, folder / "model.pt")
    return Artifact("m", folder)


def test_detection_of_any_length(data: Dataset, tmp_path: Path) -> None:
    task = opened(data, windows_around_points(data), tmp_path / "labels", levels=4)
    model = model_of(task, tmp_path / "model")
    config = PotlocDetection(decode=PotlocDecoding(min_score=None, max_detections=7))
    name = data.videos("train")[0]
    for rows in (1, 2, 61, 3000):
        folder = tmp_path / str(rows) / "features"
        folder.mkdir(parents=True)
        values = np.random.default_rng(0).normal(size=(rows, 8))
        np.save(folder / f"{name}.npy", values.astype(np.float32))
        entry = data.videos_by_id[name]._replace(duration=rows * 0.64)
        sized = Dataset(folder.parent, data.manifest, {name: entry}, {})
        found = PotlocDetect(config).open(Context(sized, {"model": model}, [name], 0, source="d"))(name)
        assert 0 < len(found) <= 7 and set(found.labels) <= set(data.classes)
        assert (found.start >= 0).all() and (found.end <= entry.duration).all()
        assert (np.diff(found.score) <= 0).all()


def test_published_suppression_adds_a_second(data: Dataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import tad.methods.potloc.detector as detecting

    spans = np.array([[10.0, 10.4], [10.7, 11.1], [20.0, 24.0], [24.5, 28.5]])
    grid = data.grid(data.videos("train")[0])

    def pooled(*_: object) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        return grid.to_position(spans), np.array([0.9, 0.8, 0.7, -0.1]), np.zeros(4, np.int64)

    monkeypatch.setattr(detecting, "pool", pooled)
    task = opened(data, windows_around_points(data), tmp_path / "labels")
    given = Context(data, {"model": model_of(task, tmp_path / "model")}, [], 0, source="d")
    name = data.videos("train")[0]
    faithful = PotlocDetector(faithful=True)
    lower = faithful.postprocess.model_copy(update={"iou_threshold": 0.3})
    found = PotlocDetect(PotlocDetection(decode=faithful.decode, postprocess=lower)).open(given)(name)
    # .4 s each and .3 s apart: (1 - .3) / (.4 + .4 + 1 + .3) = 1/3.
    assert found.start == pytest.approx([10.0, 20.0, 24.5]) and found.end == pytest.approx([10.4, 24.0, 28.5])
    assert found.score == pytest.approx([0.9, 0.7, -0.1])
    soft = PotlocDetect(PotlocDetection()).open(given)(name)
    assert soft.start == pytest.approx([10.0, 10.7, 20.0])  # none overlap; below the least score is dropped


def test_refined_rows_come_back_to_seconds(data: Dataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import tad.methods.potloc.detector as detecting

    name, spans = data.videos("train")[0], np.array([[10.0, 12.0], [20.0, 24.0]])
    rows = 2 * data.grid(name).to_position(spans)
    monkeypatch.setattr(detecting, "pool", lambda *_: (rows, np.array([0.9, 0.8]), np.zeros(2, np.int64)))
    task = opened(data, windows_around_points(data), tmp_path / "labels", upsample=2)
    given = Context(data, {"model": model_of(task, tmp_path / "model")}, [], 0, source="d")
    assert PotlocDetect(PotlocDetection()).open(given)(name).spans == pytest.approx(spans)


def test_training_videos_keep_their_given_classes(data: Dataset, tmp_path: Path) -> None:
    engine = TinyEngine(data, seed=0, folder=tmp_path / "engine")
    detector = PotlocDetector(training=SMALL | {"epochs": 1}, decode={"min_score": None})
    model = detector.train(round_of(engine), taught(as_artifact(windows_around_points(data), tmp_path / "labels")))
    for video, found in detector.detect(round_of(engine), model).segments().by_video().items():
        assert set(found.label_index(data.classes)) == set(data.video_classes(video))
    for found in detector.detect(round_of(engine, "test"), model).segments().by_video().values():
        assert len(set(found.labels)) == 1  # nothing is sure yet: the best class alone


def test_a_model_of_other_data_is_refused(data: Dataset, tmp_path: Path) -> None:
    model = model_of(opened(data, windows_around_points(data), tmp_path / "labels"), tmp_path / "model")
    other = tiny_dataset(tmp_path / "wide", videos=3, classes=3, dim=12)
    with pytest.raises(RunError, match=r"trained with dim = 8, but .* has 12"):
        PotlocDetect(PotlocDetection()).open(Context(other, {"model": model}, [], 0))
    more = tiny_dataset(tmp_path / "more", videos=3, classes=4, dim=8)
    with pytest.raises(RunError, match="trained with classes"):
        PotlocDetect(PotlocDetection()).open(Context(more, {"model": model}, [], 0))


def test_faithful_sets_the_published_options() -> None:
    detector = PotlocDetector(faithful=True, training={"epochs": 5})
    training, decode = detector.training, detector.decode
    assert (training.window, training.levels, training.width, training.max_length) == (12, 3, 512, 768)
    assert training.rounded and training.background_rows == "published" and training.epochs == 5
    assert (decode.class_threshold, decode.cas_thresholds, decode.margin) == (0.7, [0.4], 0.1)
    assert len(decode.actionness_thresholds) == 34 and decode.actionness_thresholds[-1] == 0.925
    assert (
        decode.by_level
        and not decode.relative
        and not decode.video_factor
        and decode.video_power == decode.curve_share == 0
    )
    assert decode.max_detections is None
    suppression = detector.postprocess
    assert (suppression.suppression, suppression.iou_threshold, suppression.stretch) == ("nms", 0.45, 1.0)
    with pytest.raises(ConfigError, match=r"faithful: true sets decode\.margin to 0\.1, found 0\.2"):
        load_recipe("potloc-released", ["detector.decode.margin=0.2"])
