"""The snippet proposer: proposals from hand-made curves, and its stages run by the real engine."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
import yaml

from tad.data.dataset import Dataset, Role
from tad.data.grid import SnippetGrid
from tad.data.segments import Segments
from tad.errors import DataError, RunError
from tad.methods.common.candidates import CandidateConfig, candidates, predicted_classes
from tad.methods.snippet.proposer import SnippetPropose, SnippetProposer, propose
from tad.methods.snippet.training import Item, SnippetTrain, TrainingConfig, read_features
from tad.stages import Artifact, Context, one_worker
from tests.support.rounds import round_of
from tests.support.tiny import TinyEngine, tiny_dataset

QUICK = SnippetProposer(training=TrainingConfig(epochs=15, batch_size=4, lr=1e-2))


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Dataset:
    return tiny_dataset(tmp_path_factory.mktemp("snippet") / "data", videos=8, classes=3, dim=16, seed=1)


@pytest.fixture(scope="module")
def trained(data: Dataset, tmp_path_factory: pytest.TempPathFactory) -> tuple[object, Artifact, Artifact]:
    """The engine, the model and its curves on the training videos."""
    engine = TinyEngine(data, 0, tmp_path_factory.mktemp("engine"))
    model = QUICK.train(round_of(engine))
    return engine, model, QUICK.score(round_of(engine), model)


# -- candidates ------------------------------------------------------------------------------------------------------


def step_curve(length: int, first: int, last: int, scale: float = 1.0) -> np.ndarray:
    curve = np.full(length, 1e-9)
    curve[first:last] = scale
    return curve


def test_a_step_gives_its_rows_with_contrast_near_one() -> None:
    cas = np.stack([step_curve(20, 6, 11), np.zeros(20)], axis=1)
    found = candidates(
        cas,
        cas[:, 0],
        np.array([1.0, 0.0]),
        np.array([0]),
        CandidateConfig(cas_thresholds=[0.5], actionness_thresholds=[0.5], scale=1),
    )
    assert found.spans.tolist() == [[6.0, 11.0]]
    assert found.scores[0] == pytest.approx(1.0)


def test_contrast_of_both_rules_by_hand() -> None:
    """Rows 8..11 at 0.8 between shoulders of 0.2: a run of 4 has margins of one row."""
    curve = np.full(20, 0.2)
    curve[8:12] = 0.8
    settings = {"cas_thresholds": [0.5], "actionness_thresholds": [], "scale": 1}

    def scores(**more: object) -> list[float]:
        config = CandidateConfig.model_validate({**settings, **more})
        return candidates(curve[:, None], curve, np.array([0.5]), np.array([0]), config).scores.tolist()

    assert scores(contrast="plain") == pytest.approx([0.6])
    assert scores(contrast="plain", video_factor=True) == pytest.approx([0.3])
    assert scores() == pytest.approx([0.8])


def test_relative_thresholds_do_not_depend_on_the_height_of_a_curve() -> None:
    """A curve three times as high has the same best run; with absolute levels that run is longer."""
    bump = np.interp(np.arange(40), [10, 20, 30], [0.0, 1.0, 0.0])

    def best(height: float, of: int = 0, **more: object) -> list[float]:
        config = CandidateConfig.model_validate({"actionness_thresholds": [], **more})
        cas = np.stack([height * bump, 0.1 * bump], axis=1)  # another class, far lower
        found = candidates(cas, bump, np.ones(2), np.array([0, 1]), config)
        own = found.labels == of
        return found.spans[own][np.argmax(found.scores[own])].tolist()

    assert best(0.3) == best(0.9) == best(0.9, of=1)
    low, high = best(0.9)
    assert high - low == pytest.approx(10, abs=1)  # at half the height
    absolute = {"relative": False, "cas_thresholds": [0.1, 0.25]}
    assert np.diff(best(0.3, **absolute)) < np.diff(best(0.9, **absolute))


def test_the_published_interpolation_is_early_by_a_quarter_row_at_scale_two() -> None:
    cas = np.zeros((20, 1))
    cas[6:11, 0] = [0.2, 0.6, 1.0, 0.6, 0.2]
    config = CandidateConfig(cas_thresholds=[0.5], actionness_thresholds=[], centred=False)
    found = candidates(cas, cas[:, 0], np.ones(1), np.array([0]), config)
    assert found.spans.tolist() == [[7.0, 9.5]]


@pytest.mark.parametrize("scale", [1, 2, 8])
def test_interpolation_does_not_shift_a_symmetric_bump(scale: int) -> None:
    """Rows 6..10 around the middle 8.5 (edge coordinate): every run of any scale stays centred on it."""
    cas = np.zeros((20, 1))
    cas[6:11, 0] = [0.2, 0.6, 1.0, 0.6, 0.2]
    config = CandidateConfig(cas_thresholds=[0.1, 0.3, 0.5, 0.8], actionness_thresholds=[], scale=scale)
    found = candidates(cas, cas[:, 0], np.ones(1), np.array([0]), config)
    assert len(found.spans) >= 3
    np.testing.assert_allclose(found.spans.mean(1), 8.5)


def test_the_best_copy_of_a_repeated_span_is_kept() -> None:
    cas = np.stack([step_curve(30, 10, 20, 0.8), step_curve(30, 10, 20, 0.4)], axis=1)
    config = CandidateConfig(actionness_thresholds=[0.5, 0.6])
    found = candidates(cas, step_curve(30, 10, 20, 0.9), np.ones(2), np.array([0, 1]), config)
    keys = [(*span, label) for span, label in zip(found.spans.tolist(), found.labels.tolist(), strict=True)]
    assert len(set(keys)) == len(keys)
    once = candidates(cas[:, :1], step_curve(30, 10, 20, 0.9), np.ones(1), np.array([0]), config)
    at = {tuple(s): q for s, q in zip(found.spans.tolist(), found.scores.tolist(), strict=True)}
    assert all(at[tuple(s)] <= q + 1e-6 for s, q in zip(once.spans.tolist(), once.scores.tolist(), strict=True))


def test_repeats_are_ordered_by_start_end_and_descending_score() -> None:
    cas = np.round(np.random.default_rng(2).random((40, 1)), 1)
    config = CandidateConfig(repeats=True, suppression="none", contrast="zeroed", actionness_thresholds=[0.0, 0.2, 0.5])
    found = candidates(cas, cas[:, 0], np.ones(1), np.array([0]), config)
    rows = np.column_stack([found.spans, -found.scores]).tolist()
    assert rows == sorted(rows)
    assert len({tuple(span) for span in found.spans.tolist()}) < len(rows)


def test_classes_are_known_or_predicted_or_the_best() -> None:
    assert predicted_classes(np.array([0.2, 0.7, 0.5]), 0.5).tolist() == [1, 2]
    assert predicted_classes(np.array([0.2, 0.3, 0.1]), 0.5).tolist() == [1]
    cas = np.random.default_rng(0).random((12, 3))
    known = candidates(cas, cas[:, 0], np.array([0.9, 0.9, 0.0]), np.array([2]), CandidateConfig())
    assert set(known.labels.tolist()) == {2}
    predicted = candidates(cas, cas[:, 0], np.array([0.9, 0.9, 0.0]), np.zeros(0, int), CandidateConfig())
    assert set(predicted.labels.tolist()) == {0, 1}


def test_flat_and_single_row_curves() -> None:
    for length in (1, 2):
        found = candidates(
            np.full((length, 1), 0.3), np.full(length, 0.1), np.ones(1), np.array([0]), CandidateConfig()
        )
        assert found.spans.tolist() == [[0.0, float(length)]]
    nothing = candidates(np.zeros((5, 1)), np.zeros(5), np.ones(1), np.array([0]), CandidateConfig())
    assert len(nothing.spans) == 0


def test_soft_suppression_keeps_the_best_and_lowers_the_rest() -> None:
    cas = np.random.default_rng(1).random((60, 2))
    plain = CandidateConfig(suppression="none")
    soft = CandidateConfig(suppression="soft-nms")
    a = candidates(cas, cas[:, 0], np.ones(2), np.array([0, 1]), plain)
    b = candidates(cas, cas[:, 0], np.ones(2), np.array([0, 1]), soft)
    assert a.scores.max() == pytest.approx(b.scores.max())
    before = {(*s, c): q for s, c, q in zip(a.spans.tolist(), a.labels.tolist(), a.scores, strict=True)}
    after = {(*s, c): q for s, c, q in zip(b.spans.tolist(), b.labels.tolist(), b.scores, strict=True)}
    assert all(q <= before[key] + 1e-6 for key, q in after.items())
    assert sum(after.values()) < sum(before[key] for key in after)


# -- seconds ---------------------------------------------------------------------------------------------------------


def curves_dataset(
    folder: Path, grid: dict[str, object], duration: float, rows: int, role: Role = "test"
) -> tuple[Dataset, Artifact]:
    """One video with a step in rows 6..10 of class b, as a dataset and finished scores."""
    (folder / "features").mkdir(parents=True)
    manifest = {"name": "steps", "classes": ["a", "b"], "subsets": {"all": role}, "grid": {**grid, "dim": 2}}
    (folder / "dataset.yaml").write_text(yaml.safe_dump(manifest))
    (folder / "annotations.json").write_text(
        f'{{"database": {{"v": {{"subset": "all", "duration": {duration}, "fps": 30, "annotations": []}}}}}}'
    )
    np.save(folder / "features" / "v.npy", np.zeros((rows, 2), np.float32))
    for key, array in {
        "cas": np.stack([np.zeros(rows), step_curve(rows, 6, 11)], axis=1),
        "background": 1 - step_curve(rows, 6, 11),
        "video": np.array([0.0, 1.0]),
    }.items():
        (folder / "scores" / key).mkdir(parents=True)
        np.save(folder / "scores" / key / "v.npy", array.astype(np.float32))
    return Dataset.open(folder), Artifact("scores", folder / "scores")


@pytest.mark.parametrize(
    ("grid", "start", "end"),
    [
        ({"fps": 25, "stride": 16, "window": 16}, 6 * 0.64, 11 * 0.64),
        # Row i is centred at frame 4 i + 8 and stands for half a stride on either side.
        ({"fps": 30, "stride": 4, "window": 16}, (6 * 4 + 6) / 30, (11 * 4 + 6) / 30),
    ],
)
@pytest.mark.parametrize("scale", [1, 2])
def test_a_step_in_seconds(tmp_path: Path, grid: dict[str, object], start: float, end: float, scale: int) -> None:
    data, scores = curves_dataset(tmp_path / "d", grid, duration=20.0, rows=20)
    # Linear interpolation crosses one half exactly at the step's edges.
    config = CandidateConfig(cas_thresholds=[0.5], actionness_thresholds=[0.5], scale=scale)
    found = SnippetPropose(config).open(Context(data, {"scores": scores}, ["v"], 0, "snippet/propose@0"))("v")
    assert found.labels == ["b"]
    assert found.spans[0] == pytest.approx([start, end])
    assert next(iter(found.rows()))["source"] == "snippet/propose@0"


def test_proposals_end_with_the_video(tmp_path: Path) -> None:
    data, scores = curves_dataset(tmp_path / "d", {"fps": 25, "stride": 16, "window": 16}, duration=6.0, rows=20)
    config = CandidateConfig(cas_thresholds=[0.0, 0.5], actionness_thresholds=[])
    found = SnippetPropose(config).open(Context(data, {"scores": scores}, ["v"], 0, ""))("v")
    np.testing.assert_allclose(sorted(found.spans.tolist()), [[0.0, 6.0], [3.84, 6.0]])
    beyond, _ = curves_dataset(tmp_path / "e", {"fps": 25, "stride": 16, "window": 16}, duration=3.0, rows=20)
    # The step lies wholly behind the end: dropped, not turned into an empty segment.
    late = SnippetPropose(config).open(Context(beyond, {"scores": scores}, ["v"], 0, ""))("v")
    assert late.spans.tolist() == [[0.0, 3.0]]


# -- stages ----------------------------------------------------------------------------------------------------------


def covered(data: Dataset, proposals: Segments) -> float:
    """Share of points inside some proposal of their class that is shorter than half the video."""
    hits, count = 0, 0
    for video, rows in proposals.by_video().items():
        points, label = data.points(video), rows.label_index(data.classes)
        short = rows.end - rows.start < data.duration(video) / 2
        for time, kind in zip(points.time, points.label, strict=True):
            hits += bool(np.any(short & (label == kind) & (rows.start <= time) & (time <= rows.end)))
            count += 1
    return hits / count


def test_training_learns_and_proposals_cover_the_points(
    data: Dataset, trained: tuple[TinyEngine, Artifact, Artifact]
) -> None:
    engine, model, _ = trained
    history = (model.path / "history.json").read_text()
    losses = [epoch["loss"] for epoch in yaml.safe_load(history)["epochs"]]
    assert losses[-1] < 0.75 * losses[0]
    proposals = QUICK.propose(round_of(engine), model).segments()
    assert covered(data, proposals) > 0.8
    for video, rows in proposals.by_video().items():
        assert set(rows.label_index(data.classes)) <= set(data.video_classes(video))
        assert rows.start.min() >= 0
        assert rows.end.max() <= data.duration(video)
        assert np.isfinite(rows.score).all()


def test_arrays_have_their_documented_shapes(data: Dataset, trained: tuple[TinyEngine, Artifact, Artifact]) -> None:
    engine, model, scores = trained
    embedding = QUICK.embed(round_of(engine), model)
    for video in data.videos("train"):
        length = len(data.features(video))
        assert scores.array("cas", video).shape == (length, 3)
        assert scores.array("background", video).shape == (length,)
        assert scores.array("video", video).shape == (3,)
        assert {scores.array(k, video).dtype for k in ("cas", "background", "video")} == {np.dtype(np.float32)}
        assert embedding.array("embedding", video).shape == (length, 16)
        assert embedding.array("embedding", video).dtype == np.float16


def test_same_seed_same_weights(data: Dataset, trained: tuple[TinyEngine, Artifact, Artifact], tmp_path: Path) -> None:
    again = QUICK.train(round_of(TinyEngine(data, 0, tmp_path / "same"))).model()["state"]
    other = QUICK.train(round_of(TinyEngine(data, 1, tmp_path / "other"))).model()["state"]
    first = trained[1].model()["state"]
    assert all(torch.equal(first[k], again[k]) for k in first)
    assert not all(torch.equal(first[k], other[k]) for k in first)


@pytest.mark.parametrize(("role", "label"), [("train", "a"), ("test", "b")])
def test_known_classes_are_for_training_videos_only(tmp_path: Path, role: Role, label: str) -> None:
    """The points say a, the curves say b: points of a test video must not be used."""
    grid = {"fps": 25, "stride": 16, "window": 16}
    _, scores = curves_dataset(tmp_path / "d", grid, duration=20.0, rows=20, role=role)
    (tmp_path / "d" / "points.csv").write_text("video_id,label,time\nv,a,5.0\n")
    engine = TinyEngine(Dataset.open(tmp_path / "d"), 0, tmp_path / "engine")
    found = propose(round_of(engine, role), scores, CandidateConfig(), suppressed=True).segments()
    assert set(found.labels) == {label}


def test_the_loss_is_shared_between_workers(data: Dataset) -> None:
    """Gradients of two workers with unequal shares add up to those of the whole batch."""
    task = SnippetTrain(TrainingConfig()).open(Context(data, {}, data.videos("train"), 0))
    task.module.eval()
    items = [task.item(i, np.random.default_rng(0)) for i in range(4)]

    def gradients(part: list[Item]) -> list[torch.Tensor]:
        task.module.zero_grad()
        values = task.loss(task.module, task.collate(part), lambda count: count * 0 + len(items))
        values["loss"].backward()
        return [p.grad.clone() for p in task.module.parameters() if p.grad is not None]

    whole, one, three = gradients(items), gradients(items[:1]), gradients(items[1:])
    assert max(float(g.abs().max()) for g in one) > 0
    for full, a, b in zip(whole, one, three, strict=True):
        torch.testing.assert_close(a + b, full, atol=1e-6, rtol=1e-4)


def test_the_video_term_counts_fully_where_classes_are_all_that_is_known(data: Dataset) -> None:
    task = SnippetTrain(TrainingConfig(video_weight=0.25)).open(Context(data, {}, data.videos("train"), 0))
    batch = task.collate([task.item(i, np.random.default_rng(0)) for i in range(3)])
    batch["points"][1] = False
    batch["full"][2] = True
    batch["points"][2] = False
    assert task.video_weights(batch).tolist() == [0.25, 1.0, 0.25]
    alone = {name: part[1:2] for name, part in batch.items()}
    values = {k: v.item() for k, v in task.loss(task.module.eval(), alone, one_worker).items()}
    assert values["background"] == 0  # nothing is mined where there is no point
    assert values["loss"] == pytest.approx(values["video"])


def test_points_of_one_row_are_merged_and_videos_without_labels_are_left_out(data: Dataset, tmp_path: Path) -> None:
    folder = tmp_path / "d"
    copy = tiny_dataset(folder, videos=8, classes=3, dim=16, seed=1)
    video, other = copy.videos("train")[:2]
    names = copy.classes
    (folder / "points.csv").write_text(f"video_id,label,time\n{video},{names[0]},1.01\n{video},{names[2]},1.02\n")
    reduced = Dataset.open(folder)
    task = SnippetTrain(TrainingConfig()).open(Context(reduced, {}, [other, video], 0))
    assert task.settings["skipped_videos"] == 1
    assert len(task) == 1
    item = task.item(0, np.random.default_rng(0))
    labels = item.points
    assert labels.any(1).sum() == 1
    assert labels[int(reduced.grid(video).row(1.01))].tolist() == [True, False, True]
    value = task.loss(task.module, task.collate([item]), one_worker)["loss"]
    assert torch.isfinite(value)
    with pytest.raises(DataError, match=r"none of the 1 training videos has a label"):
        SnippetTrain(TrainingConfig()).open(Context(reduced, {}, [other], 0))


def test_default_learning_rate_follows_the_width(data: Dataset) -> None:
    task = SnippetTrain(TrainingConfig()).open(Context(data, {}, data.videos("train"), 0))
    assert task.settings["lr"] == 1e-3
    given = SnippetTrain(TrainingConfig(lr=0.02)).open(Context(data, {}, data.videos("train"), 0))
    assert given.optimiser(given.module, 10)[0].param_groups[0]["lr"] == 0.02


def test_bad_features_and_foreign_models_are_named(
    data: Dataset, trained: tuple[TinyEngine, Artifact, Artifact], tmp_path: Path
) -> None:
    other = tiny_dataset(tmp_path / "d", videos=4, classes=2, dim=16, seed=1)
    video = other.videos("train")[0]
    array = np.load(other.feature_path(video))
    array[3, 2] = np.nan
    np.save(other.feature_path(video), array)
    with pytest.raises(DataError, match=rf"{video}.*row 3 .*not finite"):
        read_features(other, video)
    with pytest.raises(RunError, match="trained with classes = 3"):
        QUICK.score(round_of(TinyEngine(other, 0, tmp_path / "e")), trained[1])


def test_row_of_a_point_is_the_snippet_that_holds_it() -> None:
    """HR-Pro's rule: floor(frame * 25 / (16 fps))."""
    grid = SnippetGrid(25, 16, 16, 100)
    frames = np.arange(0, 1200, 7)
    np.testing.assert_array_equal(grid.row(frames / 30), np.floor(frames * 25 / (16 * 30)).astype(int))
