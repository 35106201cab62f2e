"""Labels of all kinds in one dataset: what each teaches, labeler `mixed`, `pser-weak`, and the docs' table."""

from __future__ import annotations

import json
import re
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch

from distributed.run.session import Options, self_train
from tad.cli import main
from tad.data.dataset import Dataset
from tad.data.grid import SnippetGrid
from tad.data.labels import SUPERVISION
from tad.data.segments import Segments
from tad.errors import DataError, RunError
from tad.evaluation.ground_truth import ground_truth
from tad.methods.common.windows import read_labels, teaching
from tad.methods.hrpro.proposer import HrproTask, HrproTraining
from tad.methods.mixed.labeler import MixedLabeler, Sure
from tad.methods.points.labeler import PointsLabeler
from tad.methods.pser.weak import PserWeakLabeler
from tad.methods.snippet.mining import mine
from tad.methods.snippet.proposer import SnippetProposer
from tad.methods.snippet.training import SnippetTask, TrainingConfig, action_rows, labelled_rows
from tad.prepare.relabel import derive_labels, one_kind
from tad.recipe.recipe import Recipe, load_recipe
from tad.recipe.supervision import label_problems, label_warnings, labeler_problems
from tad.stages import Artifact, Before, Context, one_worker
from tests.support.plain import as_artifact
from tests.support.structure import ROOT
from tests.support.tiny import TinyEngine, tiny_dataset

DOCS = ROOT / "docs" / "supervision.md"
TYPES = ("full", "points", "classes", "nothing", "mixed")
QUICK = SnippetProposer(training=TrainingConfig(epochs=4, batch_size=4, lr=1e-2))


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Dataset:
    """All training videos have points."""
    return tiny_dataset(tmp_path_factory.mktemp("whole") / "data", videos=8, classes=3, dim=16, seed=1)


@pytest.fixture(scope="module")
def by_type(whole: Dataset, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Dataset]:
    """A dataset of each column of the docs' table; fully labelled videos have no points beside, as they may."""
    folder, videos, made = tmp_path_factory.mktemp("types"), whole.videos("train"), {}
    for name in TYPES:
        kinds = {v: SUPERVISION[i % 4] for i, v in enumerate(videos)}
        if name != "mixed":
            kinds = one_kind(whole, "none" if name == "nothing" else name)  # type: ignore[arg-type]
        derive_labels(whole, kinds, folder / name)
        path = folder / name / "points.csv"
        if path.exists():
            bare = {v for v in videos if kinds[v] == "full"}
            rows = path.read_text().splitlines(keepends=True)
            path.write_text("".join(row for row in rows if row.split(",")[0] not in bare))
        made[name] = Dataset.open(folder / name)
    return made


def of_kind(data: Dataset, kind: str) -> list[str]:
    return [v for v in data.videos("train") if data.supervision(v) == kind]


def opened(data: Dataset, **options: object) -> SnippetTask:
    torch.manual_seed(0)
    return SnippetTask(TrainingConfig.model_validate(options), Context(data, {}, data.videos("train"), 0))


def batch_of(task: SnippetTask, videos: list[str]) -> dict[str, torch.Tensor]:
    return task.collate([task.item(task.videos.index(v), np.random.default_rng(0)) for v in videos])


# -- the snippet model -----------------------------------------------------------------------------------------------


def test_rows_of_an_action_are_those_whose_centre_it_holds_and_at_least_one() -> None:
    grid = SnippetGrid(fps=1, stride=1, window=1, length=10)  # row i is [i, i + 1), centre i + .5
    spans = np.array([[2.5, 5.5], [2.6, 5.4], [7.1, 7.2], [0.0, 10.0], [9.8, 9.9]])
    rows = [(s.start, s.stop) for s in action_rows(spans, grid)]
    assert rows == [(2, 5), (3, 5), (7, 8), (0, 10), (9, 10)]


def test_full_labels_say_of_every_row_what_it_is_and_points_are_mined_around(by_type: dict[str, Dataset]) -> None:
    data = by_type["mixed"]
    task = opened(data)
    assert task.settings["labels"] == {"full": 2, "points": 2, "classes": 2, "none": 2}
    assert set(task.videos) == {v for v in data.videos("train") if data.supervision(v) != "none"}
    assert (task.settings["videos"], task.settings["skipped_videos"]) == (6, 2)
    videos = [of_kind(data, kind)[0] for kind in ("full", "points", "classes")]
    batch = batch_of(task, videos)
    background = torch.rand(batch["mask"].shape, generator=torch.Generator().manual_seed(0)) * batch["mask"]
    rows = labelled_rows(background, batch, task.config)
    mined = mine(background, batch["points"], batch["mask"])
    length = len(data.features(videos[0]))
    truth = data.full_labels(videos[0])
    assert truth is not None and len(truth.label)
    positions = data.grid(videos[0]).from_position(np.arange(length, dtype=np.float64))
    inside = (positions[:, None] >= truth.spans[:, 0]) & (positions[:, None] < truth.spans[:, 1])
    for label in range(3):
        held = inside[:, truth.label == label].any(1)
        assert rows.action[0, :length, label].numpy()[held].all()
        assert rows.action[0, :length, label].sum() <= held.sum() + (truth.label == label).sum()
    assert torch.equal(rows.background[0, :length], ~rows.action[0, :length].any(-1))
    assert not rows.background[0, length:].any() and not rows.action[0, length:].any()
    assert torch.equal(rows.action[1], mined.action[1]) and torch.equal(rows.background[1], mined.background[1])
    assert not rows.action[2].any() and not rows.background[2].any()


def test_the_search_for_segments_finds_the_full_labels(by_type: dict[str, Dataset]) -> None:
    """LACP's terms look at the most complete segments that agree with all known rows: here all rows are known."""
    data = by_type["mixed"]
    task = opened(data, score_weight=1.0, feature_weight=1.0)
    kinds = [of_kind(data, kind)[0] for kind in ("full", "points", "classes")]
    batch = batch_of(task, kinds)
    found = task.segments(task.module, batch)  # type: ignore[arg-type]
    for label in data.video_classes(kinds[0]):
        mine_ = found.span[(found.video == 0) & (found.label == int(label)) & found.action]
        covered = torch.zeros(batch["mask"].shape[1], dtype=torch.bool)
        for first, last in mine_.tolist():
            covered[first:last] = True
        assert torch.equal(covered, batch["points"][0, :, int(label)])
    assert not (found.video == 2).any()
    values = task.loss(task.module, batch, one_worker)
    values["loss"].backward()
    assert torch.isfinite(values["loss"]) and values["score"] > 0


def test_classes_teach_by_the_video_term_alone(by_type: dict[str, Dataset]) -> None:
    data = by_type["mixed"]
    task = opened(data, dropout=0.0)
    (video, _), core = of_kind(data, "classes"), task.module
    batch = batch_of(task, [video])
    assert batch["present"][0].nonzero()[:, 0].tolist() == data.video_classes(video).tolist()
    values = task.loss(core, batch, one_worker)
    assert values["point"] == 0 and values["background"] == 0 and values["video"] > 0
    optimiser = torch.optim.SGD(core.parameters(), lr=0.5)
    before = core(batch["features"], batch["mask"]).classes
    for _ in range(20):
        optimiser.zero_grad()
        task.loss(core, batch, one_worker)["loss"].backward()
        optimiser.step()
    change = (core(batch["features"], batch["mask"]).classes - before).mean((0, 1)).detach()
    assert (change[~batch["present"][0]] < 0).all()
    assert (change[batch["present"][0]] > change[~batch["present"][0]].max()).all()


def test_points_alone_teach_as_ever(whole: Dataset) -> None:
    """What mixed labels add is the identity where all videos have points."""
    task = opened(whole)
    batch = batch_of(task, task.videos)
    background = torch.rand(batch["mask"].shape, generator=torch.Generator().manual_seed(1)) * batch["mask"]
    for mine_, rows in zip(
        mine(background, batch["points"], batch["mask"]), labelled_rows(background, batch, task.config), strict=True
    ):
        assert torch.equal(mine_, rows)
    assert torch.equal(batch["present"], batch["points"].any(1)) and not batch["full"].any()
    assert task.videos == whole.videos("train")


def test_full_labels_teach_which_rows_are_action_better_than_points(
    by_type: dict[str, Dataset], tmp_path: Path
) -> None:
    """How often a class's curve is higher in a row of its actions than in another row of the same video."""

    def order(kind: str) -> float:
        data = by_type[kind]
        engine = TinyEngine(data, 0, tmp_path / kind)
        proposer = SnippetProposer(training=TrainingConfig(epochs=40, batch_size=4, lr=1e-2, dropout=0.3))
        scores = proposer.score(engine, proposer.train(engine), "train")
        shares = []
        for video in data.videos("train"):
            cas, truth = scores.array("cas", video), by_type["full"].full_labels(video)
            assert truth is not None
            held = np.zeros(cas.shape, dtype=bool)
            for rows, label in zip(action_rows(truth.spans, data.grid(video)), truth.label, strict=True):
                held[rows, label] = True
            shares.append((cas[held][:, None] > cas[~held & held.any(0)]).mean())
        return float(np.mean(shares))

    assert order("full") > order("points") + 0.05 > 0.7


def test_hrpro_fills_its_memory_from_full_rows_and_needs_a_weight_to_learn_from_classes(
    by_type: dict[str, Dataset],
) -> None:
    small = {"heads": 2, "feedforward": 16, "dropout": 0.0, "block_dropout": 0.0}

    def task(name: str, **more: object) -> HrproTask:
        data = by_type[name]
        torch.manual_seed(0)
        return HrproTask(HrproTraining.model_validate(small | more), Context(data, {}, data.videos("train"), 0))

    one = task("full")
    memory = one.first_memory(one.module, torch.device("cpu"))
    counts, sums = torch.zeros(3), torch.zeros_like(memory)
    one.module.eval()
    for i in range(len(one)):
        features, rows = one.item(i, np.random.default_rng(0))[:2]
        with torch.no_grad():
            embedding = one.module(features[None], torch.ones(1, len(features), dtype=torch.bool)).embedding[0]
        sums += rows.float().T @ embedding
        counts += rows.sum(0)
    assert counts.sum() > sum(len(one.data.full_labels(v).label) for v in one.videos)
    torch.testing.assert_close(memory, sums / counts.clamp(min=1)[:, None])
    with pytest.raises(
        DataError, match=r"8 of the 8 training videos have classes alone .*video_weight 0.*full and poi"
    ):
        task("classes")
    assert len(task("classes", video_weight=1.0)) == 8
    mixed = task("mixed")
    assert {mixed.data.supervision(v) for v in mixed.videos} == {"full", "points"}
    values = mixed.loss(
        mixed.module, mixed.collate([mixed.item(i, np.random.default_rng(0)) for i in range(4)]), one_worker
    )
    assert all(torch.isfinite(value) for value in values.values()) and values["contrast"] > 0


# -- the labeler `mixed` ---------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def proposed(
    by_type: dict[str, Dataset], tmp_path_factory: pytest.TempPathFactory
) -> tuple[TinyEngine, Artifact, Artifact]:
    """On the mixed dataset: an engine in round 2, the candidates and the scores of a proposer."""
    engine = TinyEngine(by_type["mixed"], 0, tmp_path_factory.mktemp("proposed"))
    scores = QUICK.score(engine, QUICK.train(engine), "train")
    candidates = QUICK.propose(engine, scores, "train", suppressed=False)
    engine.round = 2
    return engine, candidates, scores


def test_each_video_is_labelled_by_what_it_has(proposed: tuple[TinyEngine, Artifact, Artifact]) -> None:
    engine, candidates, scores = proposed
    data = engine.data
    labeler = MixedLabeler(unlabelled=Sure(class_threshold=0.0))
    found = labeler.label(engine, candidates, None, scores=scores).segments()
    by_video = found.by_video()
    sources = {kind: {r["source"] for v in of_kind(data, kind) for r in by_video[v].rows()} for kind in SUPERVISION}
    assert sources == {
        "full": {"given@2"},
        "points": {"points/label@2"},
        "classes": {"gaufuse/fuse@2"},
        "none": {"gaufuse/fuse@2"},
    }
    truth = ground_truth(data, "train").by_video()
    for video in of_kind(data, "full"):
        rows, full = by_video[video], data.full_labels(video)
        assert full is not None and len(rows) == len(truth[video])
        np.testing.assert_array_equal(rows.spans, full.spans)
        assert (rows.score == 1).all() and np.isnan(rows.point).all()
    alone = PointsLabeler().label(engine, candidates, None).segments().by_video()
    for video in of_kind(data, "points"):
        assert by_video[video].digest() == alone[video].digest()
        assert len(by_video[video]) == len(data.points(video).time)
    for video in of_kind(data, "classes"):
        assert set(by_video[video].label_index(data.classes)) <= set(data.video_classes(video))
        assert (by_video[video].score > 0).all()


def test_videos_with_nothing_get_labels_of_classes_that_the_model_is_sure_of(
    proposed: tuple[TinyEngine, Artifact, Artifact],
) -> None:
    engine, candidates, scores = proposed
    bare = of_kind(engine.data, "none")
    video = {v: scores.array("video", v) for v in bare}
    least = float(np.sort(np.concatenate(list(video.values())))[-2])
    labeler = MixedLabeler(unlabelled=Sure(class_threshold=least))
    found = labeler.label(engine, candidates, None, scores=scores).segments().by_video()
    for v in bare:
        allowed = set(np.flatnonzero(video[v] >= least))
        assert set(found.get(v, Segments.empty()).label_index(engine.data.classes)) <= allowed
    assert any(v in found for v in bare)
    unsure = MixedLabeler(unlabelled=Sure(class_threshold=1.0)).label(engine, candidates, None, scores=scores)
    without = MixedLabeler().label(engine, candidates, None)
    for artifact in (unsure, without):
        assert not set(bare) & set(artifact.segments().codes("video_id")[1])


@pytest.mark.parametrize("kind", ["full", "points", "classes"])
def test_datasets_of_one_kind_are_labelled_by_one_part(kind: str, by_type: dict[str, Dataset], tmp_path: Path) -> None:
    data = by_type[kind]
    engine = TinyEngine(data, 0, tmp_path)
    scores = QUICK.score(engine, QUICK.train(engine), "train")
    candidates = QUICK.propose(engine, scores, "train", suppressed=False)
    for artifact in (
        MixedLabeler().label(engine, candidates, None, scores=scores),
        MixedLabeler().seeds(engine, candidates),
    ):
        assert len(artifact.segments())
    found = MixedLabeler().label(engine, candidates, None, scores=scores).segments()
    source = {"full": "given@0", "points": "points/label@0", "classes": "gaufuse/fuse@0"}[kind]
    assert found.codes("source")[1] == [source]


@pytest.mark.parametrize("detector", ["actionformer", "potloc", "hrpro-instance", "rskp"])
@pytest.mark.parametrize("kind", ["full", "points", "classes", "mixed"])
def test_detectors_learn_from_all_kinds(kind: str, detector: str, by_type: dict[str, Dataset], tmp_path: Path) -> None:
    """Cells of the docs' table: one epoch on the pseudo-labels of a dataset of this kind, then detections."""
    data = by_type[kind]
    engine = TinyEngine(data, 0, tmp_path)
    own = detector == "rskp"
    sets = [f"proposer.method={'rskp' if own else 'snippet'}", "proposer.training.epochs=2"]
    sets += ["detector.epochs=1"] if detector == "actionformer" else []
    sets += ["detector.schedule.epochs=[1]"] if own else []
    sets += ["detector.training.epochs=1"] if detector in ("potloc", "hrpro-instance") else []
    recipe = load_recipe("pser", [f"detector.method={detector}", *sets])
    model = recipe.proposer.train(engine)
    scores = recipe.proposer.score(engine, model, "train")
    candidates = recipe.proposer.propose(engine, scores, "train", suppressed=False)
    labels = MixedLabeler(unlabelled=Sure(class_threshold=0.0)).label(engine, candidates, None, scores=scores)
    trained = recipe.detector.train(engine, labels, scores, candidates, Before(model, None))
    found = recipe.detector.detect(engine, trained, "train", scores, candidates).segments()
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


# -- PseR without points ---------------------------------------------------------------------------------------------


def test_pser_weak_refines_fused_candidates_of_given_classes(by_type: dict[str, Dataset], tmp_path: Path) -> None:
    data = by_type["classes"]
    engine = TinyEngine(data, 0, tmp_path)
    model = QUICK.train(engine)
    scores = QUICK.score(engine, model, "train")
    candidates, embedding = (
        QUICK.propose(engine, scores, "train", suppressed=False),
        QUICK.embed(engine, model, "train"),
    )
    labeler = PserWeakLabeler.model_validate({"pser": {"heads": {"epochs": 2}}})
    fused = labeler.fusion.label(engine, candidates, None).segments()
    found = labeler.label(engine, candidates, embedding, scores=scores).segments()
    assert len(found) == len(fused) > 0 and np.isnan(found.point).all()
    for video, rows in found.by_video().items():
        assert sorted(rows.score) == sorted(fused.by_video()[video].score)
        assert set(rows.label_index(data.classes)) <= set(data.video_classes(video))
    assert found.codes("source")[1] == ["pser/refine@0"]
    assert not np.allclose(np.sort(found.start), np.sort(fused.start), atol=1e-3), "they are refined"
    with pytest.raises(RunError, match="training videos only"):
        labeler.label(engine, candidates, embedding, "dev")


# -- whole recipes ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "on", "sets"),
    [("mixed", "mixed", ["rounds=2"]), ("pser-weak", "classes", ["rounds=1", "labeler.pser.heads.epochs=2"])],
)
def test_the_recipes_run(name: str, on: str, sets: list[str], by_type: dict[str, Dataset], tmp_path: Path) -> None:
    quick = ["proposer.training.epochs=4", "detector.epochs=3", "stop.change=1.0", "stop.score_drop=1.0"]
    recipe = load_recipe(name, [*sets, *quick])
    self_train(name, recipe, by_type[on], Options(tmp_path / "run", tmp_path / "store", local=True))
    rows = json.loads((tmp_path / "run" / "rounds.json").read_text())
    assert [row["round"] for row in rows] == list(range(recipe.rounds + 1))
    assert all(row["test_map"]["average"] >= 0 for row in rows)
    labels = Segments.from_parquet(tmp_path / "run" / f"round-{recipe.rounds}" / "labels.parquet")
    assert {source.rpartition("@")[2] for source in labels.codes("source")[1]} == {str(recipe.rounds)}


def test_pser_on_classes_names_what_to_use_before_anything_is_trained(
    by_type: dict[str, Dataset], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(SystemExit) as ended:
        main(["run", "pser", "--data", str(by_type["classes"].root), "--local", "--store", str(tmp_path / "store")])
    assert ended.value.code == 1
    said = " ".join(capsys.readouterr().err.split())
    assert "no training video has a point, and labeler pser makes one pseudo-label for every point" in said
    assert "gaufuse or pser-weak" in said and "mixed" in said
    assert not list((tmp_path / "store").rglob("model.pt")) + list((tmp_path / "store").rglob("*.partial"))
    proposals = tmp_path / "proposals.json"
    Segments.of(by_type["classes"].videos("train")[0], 0.0, 1.0, by_type["classes"].classes[0]).to_json_file(proposals)
    with pytest.raises(SystemExit):
        main(
            [
                "label",
                "points",
                "--data",
                str(by_type["classes"].root),
                "--proposals",
                str(proposals),
                "--out",
                "x.json",
            ]
        )
    assert "labeler points makes one pseudo-label for every point" in " ".join(capsys.readouterr().err.split())


# -- the table of the docs -------------------------------------------------------------------------------------------


def table(heading: str) -> dict[str, dict[str, str]]:
    """The rows of the table under a heading, by method and label type."""
    section = re.split(r"^## ", DOCS.read_text(), flags=re.MULTILINE)
    lines = next(s for s in section if s.startswith(heading)).splitlines()
    cells = [[c.strip() for c in line.strip("|").split("|")] for line in lines if line.startswith("|")]
    head, _, *rows = cells
    assert tuple(head[1:]) == TYPES
    return {
        name: dict(zip(TYPES, row, strict=True)) for first, *row in rows for name in re.findall(r"`([\w-]+)`", first)
    }


def methods(role: str) -> set[str]:
    union = Recipe.model_json_schema()["properties"][role]["discriminator"]["mapping"]
    return set(union)


@pytest.mark.parametrize("name", TYPES)
def test_the_table_says_what_proposers_are_refused(name: str, by_type: dict[str, Dataset]) -> None:
    rows = table("Proposers")
    assert set(rows) == methods("proposer")
    for method, cells in rows.items():
        recipe = load_recipe("pser", [f"proposer.method={method}", "rounds=0"])
        problems, warnings = label_problems(recipe, by_type[name]), label_warnings(recipe, by_type[name])
        said = "refused" if problems else "partly" if warnings else "yes"
        assert cells[name].startswith(said), f"{method} on {name}: {problems or warnings}"


@pytest.mark.parametrize("name", TYPES)
def test_the_table_says_what_labelers_are_refused(name: str, by_type: dict[str, Dataset]) -> None:
    rows = table("Labelers")
    assert set(rows) == methods("labeler")
    for method, cells in rows.items():
        recipe = load_recipe("pser", [f"labeler.method={method}"])
        problems = labeler_problems(recipe.labeler, by_type[name])
        warned = [w for w in label_warnings(recipe, by_type[name]) if method in w]
        said = "refused" if problems else "partly" if warned else "yes"
        if name == "nothing" and not problems:
            said = "no proposer"
        assert cells[name].startswith(said), f"{method} on {name}: {problems or warned}"


def test_no_proposer_learns_from_nothing_so_the_table_has_no_labeler_and_detector_for_it(
    by_type: dict[str, Dataset],
) -> None:
    for method in methods("proposer"):
        problems = label_problems(load_recipe("mixed", [f"proposer.method={method}"]), by_type["nothing"])
        assert len(problems) == 1 and "none of the 8 training videos has a label" in problems[0]
    detectors = table("Detectors")
    assert set(detectors) == methods("detector")
    for cells in detectors.values():
        assert cells["nothing"].startswith("no proposer")
        assert all(cells[name].startswith("yes") for name in TYPES if name != "nothing")
