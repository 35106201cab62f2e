"""A search from end to end: shared stages, the same score again, no sight of the test set, resumed, told to MLflow."""

from __future__ import annotations

import json
import re
import shlex
import shutil
import subprocess
from collections import Counter

import pytest
from optuna.trial import TrialState

from distributed.run.session import Options as RunOptions
from distributed.run.session import self_train
from distributed.tuning.search import tune
from distributed.tuning.trials import AS_IT_IS, REASON, VALUES, counts
from search_spaces.space import Choice, Parameter, Space
from tad.data.dataset import Dataset
from tad.errors import ConfigError, RunError
from tad.recipe.recipe import load_recipe
from tests.support.search import MERGE, ONE_ROUND, computed, options, study_of, values_of
from tests.support.tiny import RECIPE, tiny_dataset


def test_trials_share_the_stages_that_they_do_not_change(finished):
    made = computed(finished / "study")
    assert set(made.values()) == {1}, "no artifact is made twice"
    stages = Counter(name.split(" ")[0] for name in made)
    assert stages["snippet/train"] == stages["pser/heads"] == 1
    assert stages["pser/refine"] == 2 * 5, "training and dev labels of each trial"
    assert "actionformer/train" not in stages, "pseudo-labels alone are judged"
    trials = study_of(finished).trials
    assert [t.state.name for t in trials] == ["COMPLETE"] * 5
    assert trials[0].intermediate_values == {5: trials[0].value}, "the proposer makes no pseudo-labels"
    assert trials[0].user_attrs[AS_IT_IS] and trials[0].user_attrs["made"] > trials[1].user_attrs["made"] == 2
    assert trials[1].user_attrs["cost"] > trials[1].user_attrs["seconds"] / 2, (
        "shared stages belong to what a recipe costs"
    )


def test_the_recipe_and_the_best_trial_score_the_same_when_they_are_run(finished, tmp_path):
    """With a store of its own: everything is trained again."""
    study = study_of(finished)
    own = Dataset.open(finished / "study" / "data")
    best = load_recipe(str(finished / "study" / "best.yaml"))
    assert best.select == "dev-quality" and f"trial {study.best_trial.number} of study s" in best.description
    for name, recipe, value in (
        ("as-it-is", load_recipe(RECIPE, ["rounds=1", "select=dev-quality"]), study.trials[0].value),
        ("best", best, study.best_value),
    ):
        self_train(name, recipe, own, RunOptions(tmp_path / name, tmp_path / "store", local=True))
        rows = json.loads((tmp_path / name / "rounds.json").read_text())
        assert rows[1]["scores"]["dev_quality"] == value


def test_nothing_of_the_test_videos_is_copied_or_read(finished, data, tmp_path, capsys):
    """The test videos' annotations are absurd and their features gone; the search is the same to the last digit."""
    own = Dataset.open(finished / "study" / "data")
    assert own.videos("test") == [] and data.videos("test") != []
    for role in ("train", "dev"):
        assert own.fingerprint(role) == data.fingerprint(role), "so that artifacts are shared with `tad run`"
    assert not set(data.videos("test")) & {p.stem for p in (own.root / "features").iterdir()}
    for text in ("annotations.json", "points.csv", "dataset.yaml"):
        assert not [v for v in data.videos("test") if v in (own.root / text).read_text()]

    poisoned = tmp_path / "data"
    shutil.copytree(data.root, poisoned, symlinks=True)
    document = json.loads((poisoned / "annotations.json").read_text())
    for video in data.videos("test"):
        document["database"][video]["annotations"] = [{"label": "poison", "segment": ["poison", -1]}]
        (poisoned / "features" / f"{video}.npy").unlink()
    (poisoned / "annotations.json").write_text(json.dumps(document))
    tune(ONE_ROUND, MERGE, Dataset.open(poisoned), "dev-quality", 0, options(tmp_path))
    assert values_of(study_of(tmp_path)) == values_of(study_of(finished))


def test_the_same_command_goes_on_and_another_one_is_refused(finished, data, tmp_path, capsys):
    shutil.copytree(finished, tmp_path / "copy", symlinks=True)
    folder = tmp_path / "copy"
    before = values_of(study_of(folder))
    tune(ONE_ROUND, MERGE, data, "dev-quality", 0, options(folder))
    assert values_of(study_of(folder)) == before and "5 of 5 trials" in capsys.readouterr().out
    tune(ONE_ROUND, MERGE, data, "dev-quality", 0, options(folder, trials=7))
    after = values_of(study_of(folder))
    assert after[:5] == before and len(after) == 7
    assert len({json.dumps(params) for _, _, params in after}) == 7, "the sampler does not repeat itself"
    other = load_recipe(RECIPE, ["rounds=1", "labeler.heads.epochs=2"])
    for arguments, differs in [
        ((other, MERGE, data, "dev-quality", 0), "recipe differs"),
        ((ONE_ROUND, Space(MERGE.parameters[:1]), data, "dev-quality", 0), "space differs"),
        ((ONE_ROUND, MERGE, data, "points", 0), "data, objective differ"),
        ((ONE_ROUND, MERGE, data, "dev-quality", 1), "seed differs"),
    ]:
        with pytest.raises(RunError, match=f"study s: is another search: its {differs}"):
            tune(*arguments, options(folder))
    with pytest.raises(RunError, match="holds the study s; give t another folder"):
        tune(ONE_ROUND, MERGE, data, "dev-quality", 0, options(folder, name="t"))


def test_data_that_changed_is_refused(finished, data, tmp_path):
    changed = tmp_path / "data"
    shutil.copytree(data.root, changed, symlinks=True)
    lines = (changed / "points.csv").read_text().splitlines()
    (changed / "points.csv").write_text("\n".join(lines[:-1]) + "\n")
    shutil.copytree(finished, tmp_path / "copy", symlinks=True)
    with pytest.raises(RunError, match=r"holds other (train|dev) videos, labels or features"):
        tune(ONE_ROUND, MERGE, Dataset.open(changed), "dev-quality", 0, options(tmp_path / "copy"))


def test_mlflow_has_the_study_its_trials_and_the_runs_that_made_their_stages(finished, data):
    from distributed.tracking.address import mlflow

    uri = f"sqlite:///{finished / 'mlflow.db'}"
    client = mlflow().MlflowClient(tracking_uri=uri, registry_uri=uri)
    experiment = client.get_experiment_by_name(data.name).experiment_id
    runs = {run.info.run_name: run for run in client.search_runs([experiment])}
    study, parent = study_of(finished), runs["study s"]
    assert parent.data.tags["tad.kind"] == "study" and parent.info.status == "FINISHED"
    assert parent.data.metrics["best"] == study.best_value and parent.data.metrics["default"] == study.trials[0].value
    assert parent.data.metrics["trials complete"] == 5
    figures = {p.path for p in client.list_artifacts(parent.info.run_id, "figures")}
    assert figures == {f"figures/{n}.png" for n in ("history", "importance", "slice", "contour")}
    assert "best.yaml" in {p.path for p in client.list_artifacts(parent.info.run_id)}
    assert len(runs) == 6, "the study and five trials"
    makers = {}
    for trial in study.trials:
        run = runs[f"trial {trial.number}"]
        assert run.data.tags["mlflow.parentRunId"] == parent.info.run_id and run.info.status == "FINISHED"
        assert run.data.metrics["value"] == trial.value and run.data.tags["state"] == "COMPLETE"
        assert run.data.metrics["made"] == trial.user_attrs["made"]
        assert run.data.params == {key: str(value) for key, value in trial.user_attrs[VALUES].items()}
        links = {key: tag for key, tag in run.data.tags.items() if key.startswith("stage/")}
        assert len(links) == trial.user_attrs["made"] + trial.user_attrs["cached"]
        makers[trial.number] = {key: tag.split(" by run ")[1] for key, tag in links.items()}
    first = runs["trial 0"].info.run_id
    assert set(makers[0].values()) == {first}
    assert makers[1]["stage/0/snippet/train/train"] == makers[1]["stage/1/pser/heads/train"] == first
    assert makers[1]["stage/1/pser/refine/dev"] == runs["trial 1"].info.run_id


def test_the_end_of_a_search_says_what_a_user_needs(finished, data, tmp_path, capsys):
    shutil.copytree(finished, tmp_path / "copy", symlinks=True)
    summary = tune(ONE_ROUND, MERGE, data, "dev-quality", 0, options(tmp_path / "copy"))
    text = capsys.readouterr().out
    study = study_of(finished)
    default, best = study.trials[0].value, study.best_value
    assert f"recipe as it is:  dev-quality {default:.4f} (trial 0)" in text
    assert f"best:             dev-quality {best:.4f}" in text
    assert f"gain:             {best - default:+.4f} ± {summary.error:.4f}, the standard error over dev videos" in text
    assert "labeler.merge.rank_power" in text and "stages: " in text and "boundaries of" in text
    final = "best.yaml" if summary.clear else "trials/0000/recipe.yaml"
    assert f"tad run {tmp_path}/copy/study/{final} --data {data.root} --seed $s" in text and "for s in 1 2 3" in text
    assert summary.states == {"COMPLETE": 5} and len(summary.importances) == 2
    assert sum(share for _, share in summary.importances) == pytest.approx(1)


def test_its_commands_can_be_pasted_into_a_shell(finished, data, tmp_path, capsys):
    folder = tmp_path / "my däta (1) $HOME 'q'"
    shutil.copytree(finished, folder, symlinks=True)
    shutil.copytree(data.root, folder / "data")
    summary = tune(ONE_ROUND, MERGE, Dataset.open(folder / "data"), "dev-quality", 0, options(folder))
    lines = capsys.readouterr().out.splitlines()
    once, seeds = (lines[i + 1].strip() for i, line in enumerate(lines) if line.endswith(":"))
    store, best = str(folder / "store"), str(folder / "study" / "best.yaml")
    assert shlex.split(once) == [
        *("tad", "run", best, "--data", str(folder / "study" / "data"), "--seed", "0", "--store", store)
    ]
    # A shell runs the loop; `tad` prints what it is given.
    script = f"""tad() {{ printf '%s\\n' "$@"; }}; {seeds}"""
    given = subprocess.run(["bash", "-c", script], capture_output=True, text=True, check=True).stdout.splitlines()
    final = best if summary.clear else str(folder / "study" / "trials" / "0000" / "recipe.yaml")
    words = ["run", final, "--data", str(folder / "data"), "--seed", "S", "--store", store]
    assert given == [seed if word == "S" else word for seed in "123" for word in words]


@pytest.mark.parametrize("name", ["q?a", "100%", "ä (1)"])
def test_a_study_s_folder_may_have_any_name(data, tmp_path, capsys, name):
    for _ in range(2):
        tune(ONE_ROUND, MERGE, data, "dev-quality", 0, options(tmp_path / name, minutes=1e-6))
    assert capsys.readouterr().err.count("study s: 0 of 5 trials are done") == 2
    assert {p.name for p in tmp_path.iterdir()} == {name}
    assert (tmp_path / name / "study" / "study.db").is_file()


def test_a_range_in_which_training_diverges(data, tmp_path):
    """Its trials fail with the training loop's words; the search goes on."""
    space = Space((Parameter("proposer.training.lr", Choice(1e-3, 1e30), "w", "proposer", stand_in=1e-3),))
    tune(ONE_ROUND, space, data, "dev-quality", 0, options(tmp_path, trials=4, sampler="random"))
    trials = study_of(tmp_path).trials
    for trial in trials[1:]:
        assert trial.state.name == ("FAIL" if trial.params["proposer.training.lr"] == 1e30 else "COMPLETE")
    reasons = {t.user_attrs[REASON] for t in trials if t.state.name == "FAIL"}
    assert reasons and all(
        re.fullmatch(r"RunError: stage snippet/train: loss is nan in epoch \d+, step \d+; lower the .*", r)
        for r in reasons
    )


# -- what is wrong is said before any training -----------------------------------------------------------------------


@pytest.mark.parametrize(
    ("recipe", "objective", "more", "message"),
    [
        ([], "dev-quality", {"trials": 0}, "--trials 0: a search needs 1 trial at least"),
        ([], "dev-quality", {"minutes": 0.0}, "--time-budget 0"),
        (["labeler.method=pser-seed"], "dev-quality", {}, "nothing to tune: the recipe has"),
        (["labeler.merge.rank_power=20"], "dev-quality", {}, "labeler.merge.rank_power: the recipe's value"),
        (["rounds=0"], "dev-quality", {}, "rounds: 0 makes none"),
        (
            ["rounds=1"],
            "dev-quality",
            {"scheduler": "asha"},
            "with objective dev-quality and 1 rounds there is nothing",
        ),
        ([], "dev-quality", {"scheduler": "asha", "cost": True}, "with two objectives leave it out"),
        ([], "dev-quality", {"storage": "postgresql://a:b@127.0.0.1:9/x"}, r"postgresql://a:\*\*\*@127.0.0.1:9/x"),
        ([], "dev-quality", {"warm_start": "nowhere"}, "--warm-start nowhere: no such study"),
        ([], "dev-quality", {"tracking": "http://127.0.0.1:9"}, "no MLflow server answers"),
    ],
)
def test_what_makes_a_search_impossible(data, tmp_path, recipe, objective, more, message):
    with pytest.raises((RunError, ConfigError), match=message):
        tune(load_recipe(RECIPE, recipe), MERGE, data, objective, 0, options(tmp_path, **more))
    assert not list(tmp_path.glob("store/*")) and not list(tmp_path.glob("study/trials/*"))


def test_objectives_that_the_data_do_not_have(data, tmp_path):
    bare = tiny_dataset(tmp_path / "bare", videos=4, classes=2, dim=12)
    with pytest.raises(RunError, match=r"dev-map needs videos with the role dev.*tad split --dev"):
        tune(ONE_ROUND, MERGE, bare, "dev-map", 0, options(tmp_path))
    blind = tmp_path / "blind"
    shutil.copytree(data.root, blind, symlinks=True)
    document = json.loads((blind / "annotations.json").read_text())
    for video in data.videos("dev"):
        document["database"][video]["annotations"] = []
    (blind / "annotations.json").write_text(json.dumps(document))
    with pytest.raises(RunError, match="needs annotated segments of the 3 dev videos"):
        tune(ONE_ROUND, MERGE, Dataset.open(blind), "dev-quality", 0, options(tmp_path / "blind-study"))


def test_a_folder_of_something_else_is_left_alone(data, tmp_path):
    (tmp_path / "study").mkdir()
    (tmp_path / "study" / "thesis.tex").write_text("")
    with pytest.raises(RunError, match="not empty and not a study's folder"):
        tune(ONE_ROUND, MERGE, data, "dev-quality", 0, options(tmp_path))


def test_a_recipe_that_fails_ends_the_search(data, tmp_path, capsys):
    """And once its cause is mended, the same command begins anew with it."""
    for video in data.videos("train")[:1]:
        broken = tmp_path / "data"
        shutil.copytree(data.root, broken, symlinks=True)
        (broken / "features" / f"{video}.npy").unlink()
    with pytest.raises(RunError, match=r"the recipe as it is fails.*no feature file"):
        tune(ONE_ROUND, MERGE, Dataset.open(broken), "dev-quality", 0, options(tmp_path))
    study = study_of(tmp_path)
    assert [t.state.name for t in study.trials] == ["FAIL"] and "no feature file" in study.trials[0].user_attrs[REASON]


# -- other ways to search ----------------------------------------------------------------------------------------------


def test_two_objectives_and_a_warm_start(finished, data, tmp_path):
    shutil.copytree(finished / "store", tmp_path / "store")
    more = {"sampler": "nsga2", "cost": True, "warm_start": str(finished / "study"), "trials": 4}
    summary = tune(ONE_ROUND, MERGE, data, "dev-quality", 0, options(tmp_path, **more))
    earlier = study_of(finished)
    trials = [t for t in study_of(tmp_path).trials if counts(t)]
    assert trials[1].params == pytest.approx(earlier.best_trial.params) or earlier.best_trial.number == 0
    assert trials[0].values[0] == earlier.trials[0].value
    assert all(len(t.values) == 2 and t.values[1] > 0 for t in trials)
    assert summary.front and (tmp_path / "study" / "figures" / "pareto.png").stat().st_size > 5000


def test_a_time_budget_asks_for_no_more_trials(data, tmp_path, capsys):
    tune(ONE_ROUND, MERGE, data, "dev-quality", 0, options(tmp_path, trials=1000, minutes=1e-6))
    assert "0 of 1000 trials: none" in capsys.readouterr().out


def test_the_local_scheduler_stops_trials_between_rounds(data, tmp_path):
    """Two rounds; the recipe itself always comes to its end."""
    recipe = load_recipe(RECIPE, ["rounds=2", "labeler.heads.epochs=1", "detector.training.epochs=1"])
    tune(recipe, MERGE, data, "dev-quality", 0, options(tmp_path, scheduler="median", trials=8))
    trials = study_of(tmp_path).trials
    assert trials[0].state == TrialState.COMPLETE and all(set(t.intermediate_values) >= {5} for t in trials)
    for trial in trials:
        assert (10 in trial.intermediate_values) == (trial.state == TrialState.COMPLETE)
    assert TrialState.PRUNED in {t.state for t in trials}
