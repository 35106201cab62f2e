"""The labeler `mixed`: each video by what it has, and detectors that learn from its labels."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest

from tad.data.dataset import Dataset
from tad.data.labels import SUPERVISION
from tad.data.segments import Segments
from tad.evaluation.ground_truth import ground_truth
from tad.methods.common.windows import read_labels, teaching
from tad.methods.gaufuse.labeler import Gate, GaufuseLabeler
from tad.methods.mixed.labeler import POSSIBLE, MixedLabeler, Sure
from tad.methods.pser.labeler import PserLabeler
from tad.methods.roles import Proposer
from tad.methods.snippet.proposer import SnippetProposer
from tad.methods.snippet.training import TrainingConfig
from tad.recipe.recipe import load_recipe
from tad.stages import Context
from tests.support.plain import as_artifact
from tests.support.rounds import GivenRound, round_of
from tests.support.supervision import of_kind
from tests.support.tiny import TinyEngine

QUICK = SnippetProposer(training=TrainingConfig(epochs=4, batch_size=4, lr=1e-2))


@pytest.fixture(scope="module")
def proposed(by_type: dict[str, Dataset], tmp_path_factory: pytest.TempPathFactory) -> GivenRound:
    """Round 2 on the mixed dataset, with a proposer's candidates and scores."""
    return after(QUICK, TinyEngine(by_type["mixed"], 0, tmp_path_factory.mktemp("proposed")), number=2)


def after(proposer: Proposer, engine: TinyEngine, number: int = 0) -> GivenRound:
    """A round that starts from the proposer's candidates, scores and model."""
    first = round_of(engine)
    model = proposer.train(first)
    candidates = proposer.propose(first, model, suppressed=False)
    return round_of(engine, number=number, proposals=candidates, scores=proposer.score(first, model), model=model)


def test_each_video_is_labelled_by_what_it_has(proposed: GivenRound) -> None:
    data = proposed.data
    labeler = MixedLabeler(unlabelled=Sure(class_threshold=0.0))
    found = labeler.label(proposed).segments.segments()
    by_video = found.by_video()
    sources = {kind: {r["source"] for v in of_kind(data, kind) for r in by_video[v].rows()} for kind in SUPERVISION}
    assert sources == {
        "full": {"given@2"},
        "points": {"pser/boundaries@2"},
        "classes": {"gaufuse/fuse@2"},
        "none": {"gaufuse/fuse@2"},
    }
    truth = ground_truth(data, "train").by_video()
    for video in of_kind(data, "full"):
        rows, full = by_video[video], data.full_labels(video)
        assert full is not None and len(rows) == len(truth[video])
        np.testing.assert_array_equal(rows.spans, full.spans)
        assert (rows.score == 1).all() and np.isnan(rows.point).all()
    made = PserLabeler().label(proposed)
    alone, note = made.segments.segments().by_video(), labeler.label(proposed).note
    assert note is not None and made.note is not None and note() == made.note(), "what pser decided is told"
    for video in of_kind(data, "points"):
        assert by_video[video].digest() == alone[video].digest()
        assert len(by_video[video]) == len(data.points(video).time)
    for video in of_kind(data, "classes"):
        assert set(by_video[video].label_index(data.classes)) <= set(data.video_classes(video))
        assert (by_video[video].score > 0).all()


def test_videos_with_nothing_get_labels_of_classes_that_the_model_is_sure_of(proposed: GivenRound) -> None:
    data, scores = proposed.data, proposed.scores()
    bare = of_kind(data, "none")
    video = {v: scores.array("video", v) for v in bare}
    least = float(np.sort(np.concatenate(list(video.values())))[-2])
    labeler = MixedLabeler(unlabelled=Sure(class_threshold=least))
    found = labeler.label(proposed).segments.segments().by_video()
    for v in bare:
        allowed = set(np.flatnonzero(video[v] >= least))
        assert set(found.get(v, Segments.empty()).label_index(data.classes)) <= allowed
    assert any(v in found for v in bare)
    unsure = MixedLabeler(unlabelled=Sure(class_threshold=1.0)).label(proposed)
    without = MixedLabeler().label(round_of(proposed.engine, number=2, proposals=proposed.proposals()))
    for made in (unsure, without):
        assert not set(bare) & set(made.segments.segments().codes("video_id")[1])


def test_fused_candidates_that_become_no_label_are_left_open(proposed: GivenRound) -> None:
    data = proposed.data
    labeler = MixedLabeler(fusion=GaufuseLabeler(gate=Gate(min_score=0.3, rivals=0.3)), ignore=True)
    made, every = labeler.label(proposed), GaufuseLabeler(gate=Gate(min_score=POSSIBLE)).label(proposed)
    assert made.ignored is not None
    assert labeler.model_copy(update={"ignore": False}).label(proposed).ignored is None
    weak = {v for kind in ("classes", "none") for v in of_kind(data, kind)}

    def facts(rows: Segments) -> set[tuple[str, float, float, str]]:
        return {(r["video_id"], r["start"], r["end"], r["label"]) for r in rows.rows() if r["video_id"] in weak}

    labels, left = made.segments.segments(), made.ignored.segments()
    assert set(left.codes("video_id")[1]) <= weak and set(left.codes("source")[1]) == {"mixed/ignore@2"}
    assert facts(left) and not facts(left) & facts(labels)
    assert facts(left) | facts(labels) == facts(every.segments.segments())
    alone = MixedLabeler(ignore=True).label(round_of(proposed.engine, number=2, proposals=proposed.proposals()))
    assert alone.ignored is not None and len(alone.ignored.segments()), "without scores no label, and nothing is known"


@pytest.mark.parametrize("kind", ["full", "points", "classes"])
def test_datasets_of_one_kind_are_labelled_by_one_part(kind: str, by_type: dict[str, Dataset], tmp_path: Path) -> None:
    now = after(QUICK, TinyEngine(by_type[kind], 0, tmp_path))
    assert len(MixedLabeler().seeds(now).segments())
    found = MixedLabeler().label(now).segments.segments()
    assert len(found)
    source = {"full": "given@0", "points": "pser/seed@0", "classes": "gaufuse/fuse@0"}[kind]
    assert found.codes("source")[1] == [source]


@pytest.mark.parametrize("detector", ["actionformer", "potloc", "hrpro-instance", "rskp"])
@pytest.mark.parametrize("kind", ["full", "points", "classes", "mixed"])
def test_detectors_learn_from_all_kinds(kind: str, detector: str, by_type: dict[str, Dataset], tmp_path: Path) -> None:
    """Cells of the docs' table: one epoch on the pseudo-labels of a dataset of this kind, then detections."""
    data = by_type[kind]
    own = detector == "rskp"
    sets = [f"proposer.method={'rskp' if own else 'snippet'}", "proposer.training.epochs=2"]
    sets += ["detector.training.epochs=1"] if detector == "actionformer" else []
    sets += ["detector.schedule.epochs=[1]"] if own else []
    sets += ["detector.training.epochs=1"] if detector in ("potloc", "hrpro-instance") else []
    recipe = load_recipe("pser", [f"detector.method={detector}", *sets])
    now = after(recipe.proposer, TinyEngine(data, 0, tmp_path), number=1)
    labels = MixedLabeler(unlabelled=Sure(class_threshold=0.0)).label(now)
    trained = recipe.detector.train(now, labels)
    found = recipe.detector.detect(now, trained).segments()
    assert set(found.codes("video_id")[1]) <= set(data.videos("train")) and len(found)


def test_a_video_without_pseudo_labels_is_background_only_where_that_is_known(
    by_type: dict[str, Dataset], tmp_path: Path
) -> None:
    folder = tmp_path / "data"
    shutil.copytree(by_type["mixed"].root, folder, symlinks=True)
    (full, bare), points, classes, _ = (of_kind(by_type["mixed"], kind) for kind in SUPERVISION)
    path = folder / "full_labels.csv"
    rows = [row for row in path.read_text().splitlines() if not row.startswith(f"{bare},")]
    path.write_text("\n".join([*rows, f"{bare},,,"]) + "\n")
    data = Dataset.open(folder)
    labelled = [points[0], classes[0]]
    labels = as_artifact(Segments.of(labelled, [1.0, 1.0], [2.0, 2.0], data.classes[0]), tmp_path / "labels")
    context = Context(data, {"labels": labels}, data.videos("train"), 0)
    assert set(teaching(context, read_labels(context))) == {*labelled, bare, points[1]}
    assert full not in teaching(context, read_labels(context)), "its actions are known, and no label says where"
