"""A detector that reads finer features than the rest of its recipe."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from distributed.run.cross_fitting import operating_point
from distributed.run.session import Options, self_train
from distributed.tuning.folder import identity
from search_spaces.load import load
from tad.cli import main
from tad.data.dataset import Dataset
from tad.data.segments import Segments
from tad.errors import ConfigError, DataError
from tad.evaluation.subset import Subset
from tad.prepare.relabel import derive_labels, one_kind
from tad.prepare.split import split_holdout
from tad.recipe.recipe import Recipe, load_recipe
from tad.recipe.rounds import Rounds
from tests.support.tiny import RECIPE, TinyEngine, tiny_dataset

FINER = "detector_features=finer"
QUICK = [
    "labeler.method=pser-seed",
    "proposer.training.epochs=3",
    "detector.training.epochs=2",
    "detector.training.width=16",
    "detector.training.max_length=64",
]


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Dataset:
    """Usual features, finer ones with twice as many rows, and a dev video."""
    folder = tmp_path_factory.mktemp("finer")
    every = tiny_dataset(folder / "all", videos=6, classes=1, dim=8, finer=2, difficulty=0.0)
    split_holdout(every, 0.2, None, 0, folder / "data")
    return Dataset.open(folder / "data")


def metas(rounds: Rounds) -> dict[str, list[dict[str, Any]]]:
    """What the store says of the artifacts of each stage."""
    found: dict[str, list[dict[str, Any]]] = {}
    for path in sorted(rounds.engine.store.root.glob("*/meta.json")):
        meta = json.loads(path.read_text())
        found.setdefault(meta["stage"], []).append(meta)
    return found


def test_the_detector_alone_reads_the_finer_rows(data: Dataset, tmp_path: Path) -> None:
    """Same proposals, seeds and labels in round 1; another model; rows of that of twice as many a second."""
    engine = TinyEngine(data, 0, tmp_path)
    usual, finer = (Rounds(load_recipe(RECIPE, [*QUICK, *more]), engine) for more in ([], [FINER]))
    for role in ("train", "dev", "test"):
        assert usual.detections(0, role).fingerprint == finer.detections(0, role).fingerprint
        assert usual.scores(role).fingerprint == finer.scores(role).fingerprint
    assert usual.seeds(1).fingerprint == finer.seeds(1).fingerprint
    assert usual.labels(1).segments.fingerprint == finer.labels(1).segments.fingerprint
    assert usual.model(1).fingerprint != finer.model(1).fingerprint
    assert set(metas(finer)) == {"snippet/train", "snippet/score", "snippet/propose", "pser/seed", "actionformer/train"}
    rows = [rounds.model(1).model()["settings"]["upsample"] for rounds in (usual, finer)]
    assert rows == [2, 1], "the usual labels cover some ten rows, and twice as many of the finer ones"
    for role in ("train", "dev", "test"):
        found = finer.detections(1, role)
        assert found.fingerprint != usual.detections(1, role).fingerprint
        segments = found.segments()
        assert len(segments) and (segments.end <= [data.duration(v) for v in segments.video_ids]).all()
    assert finer.round(1).of_detector.data.read == "finer" and finer.round(1).data.read is None
    assert finer.round(1).of_detector.scores() == finer.round(1).scores(), "the proposer's are of its own rows"


def test_a_detector_of_finer_rows_finds_actions_where_they_are(tmp_path: Path) -> None:
    """Full labels of easy features: a model that learnt segments on other rows than it reads would find none."""
    data = tiny_dataset(tmp_path / "data", videos=10, classes=2, dim=16, finer=2, difficulty=0.0)
    derive_labels(data, one_kind(data, "full"), tmp_path / "full")
    training = ["epochs=20", "width=32", "levels=4", "upsample=1"]
    sets = ["labeler.method=full", "rounds=1", *(f"detector.training.{one}" for one in training)]
    rounds = Rounds(load_recipe(RECIPE, [*sets, FINER]), TinyEngine(Dataset.open(tmp_path / "full"), 0, tmp_path))
    found = rounds.detections(1, "test").segments()
    assert Subset.of_dataset(data, "test").evaluate(found).to_json()["average"] > 0.4


def test_a_whole_run_and_detect_from_it(data: Dataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    recipe = load_recipe(RECIPE, [*QUICK, FINER, "select=dev-map"])
    self_train("finer", recipe, data, Options(tmp_path / "run", tmp_path / "store", local=True))
    rows = json.loads((tmp_path / "run" / "rounds.json").read_text())
    assert [row["test_map"]["average"] >= 0 for row in rows] == [True] * 3
    assert rows[2]["scores"]["dev_map"] is not None
    words = ["--data", str(data.root), "--store", "store", "--local", "--round", "1", "--out", "found.parquet"]
    with pytest.raises(SystemExit, match="0"):
        main(["detect", "run", *words])
    assert (
        Segments.from_parquet(tmp_path / "found.parquet").digest()
        == Segments.from_parquet(tmp_path / "run" / "round-1" / "detections-test.parquet").digest()
    )


def test_folds_read_the_finer_rows_too(data: Dataset, tmp_path: Path) -> None:
    recipe = load_recipe(RECIPE, [*QUICK, FINER, "rounds=1", "operating_point.folds=2"])
    rounds = Rounds(recipe, TinyEngine(data, 0, tmp_path))
    assert operating_point(rounds, 1) is not None
    trained = metas(rounds)["actionformer/train"]
    assert len(trained) == 3 and len({meta["fingerprint"] for meta in trained}) == 3


def test_a_dataset_without_them_is_told_before_anything_is_trained(
    data: Dataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    plain = tiny_dataset(tmp_path / "plain", videos=2)
    recipe = load_recipe(RECIPE, [FINER])
    assert [text for text in recipe.problems(plain) if "no features named 'finer'" in text]
    assert not recipe.problems(data)
    with pytest.raises(SystemExit):
        main(["run", RECIPE, "--set", FINER, "--data", str(plain.root), "--local", "--store", "store", "--no-check"])
    assert "no features named 'finer' (found: none)" in capsys.readouterr().err
    assert not list(Path("store").rglob("model.pt"))


def test_files_that_are_read_must_be_there_and_no_others(data: Dataset) -> None:
    recipe = load_recipe(RECIPE, [FINER])
    assert [view.read for view in recipe.views(data)] == [None, "finer"]
    assert [view.read for view in recipe.views(data, detector=False)] == [None]
    assert [view.read for view in load_recipe(RECIPE, [FINER, "rounds=0"]).views(data)] == [None]
    assert [view.read for view in load_recipe(RECIPE).views(data)] == [None]
    file = {"method": "file", "path": "proposals.json"}
    seeds = Recipe.model_validate({"proposer": file, "labeler": {"method": "pser-seed"}, "detector_features": "finer"})
    assert [view.read for view in seeds.views(data)] == ["finer"]
    with pytest.raises(DataError, match="no features named 'coarse'"):
        load_recipe(RECIPE, ["detector_features=coarse"]).views(data)


@pytest.mark.parametrize(
    ("sets", "message"),
    [
        (["detector.method=hrpro-instance"], "hrpro-instance mines its negatives on the proposer's background curve"),
        (["detector.method=potloc"], "potloc averages its curves.*set detector.decode.curve_share to 0, use detector"),
        (["detector.method=potloc", "detector.decode.curve_share=0.0"], None),
        (["detector.method=bmn"], "bmn reads the proposer's class scores.*set detector.decode.snippets to false"),
        (["detector.method=bmn", "detector.decode.snippets=false"], None),
        (["detector.method=rskp", "proposer.method=rskp"], "rskp gives labelers snippet scores"),
        (["detector.method=apl-actionformer"], None),
        (
            ["proposer.method=apl-actionformer", "detector.method=apl-actionformer", "detector.training.init=before"],
            "apl-actionformer starts from the proposer's weights",
        ),
    ],
)
def test_detectors_that_take_rows_of_the_proposer_for_their_own_are_refused(sets: list[str], message: str) -> None:
    assert load_recipe("pser", sets).detector_features is None
    if message is None:
        assert load_recipe("pser", [*sets, FINER]).detector_features == "finer"
    else:
        with pytest.raises(
            ConfigError, match=f"detector_features: finer gives the detector rows of its own, but {message}"
        ):
            load_recipe("pser", [*sets, FINER])


@pytest.mark.parametrize("sets", [["detector.method=potloc", "detector.decode.curve_share=0.0"],
                                  ["detector.method=bmn", "detector.decode.snippets=false"]])  # fmt: skip
def test_detectors_that_are_not_refused_run(sets: list[str], data: Dataset, tmp_path: Path) -> None:
    quick = ["proposer.training.epochs=2", "labeler.method=pser-seed", "detector.training.epochs=1"]
    rounds = Rounds(load_recipe("pser", [*quick, *sets, *quick[2:], FINER]), TinyEngine(data, 0, tmp_path))
    assert len(rounds.detections(1, "test").segments())


def test_a_pretraining_of_the_detector_reads_its_rows(data: Dataset, tmp_path: Path) -> None:
    sets = ["detector.method=apl-actionformer", "detector.pretrain.enabled=true", "detector.pretrain.epochs=1"]
    recipe = load_recipe("pser", [*sets, *QUICK, FINER, "rounds=1"])
    rounds = Rounds(recipe, TinyEngine(data, 0, tmp_path))
    before = rounds.model(1)
    (pretrained,) = metas(rounds)["contrastive/train"]
    (trained,) = metas(rounds)["actionformer/train"]
    assert trained["inputs"]["before"] == pretrained["fingerprint"] and before.fingerprint == trained["fingerprint"]
    usual = Rounds(load_recipe("pser", [*sets, *QUICK, "rounds=1"]), rounds.engine)
    usual.model(1)
    assert len(metas(usual)["contrastive/train"]) == 2, "of other rows"


def test_studies_tell_recipes_and_features_apart(data: Dataset) -> None:
    def of(*sets: str) -> dict[str, str]:
        return identity(load_recipe(RECIPE, sets), load("thresholds"), data, 0, False)

    assert of()["recipe"] != of(FINER)["recipe"] and of()["data"] != of(FINER)["data"]
    assert "detector_features" not in load_recipe(RECIPE).identity()
