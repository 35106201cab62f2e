"""`tad tune` as a command: what it refuses, and the study's page in a real browser."""

from __future__ import annotations

import re
import shutil
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from contextlib import contextmanager
from pathlib import Path

import optuna
import pytest

from distributed.tuning.study import open_storage
from tad.cli import main
from tad.data.dataset import Dataset
from tad.prepare.relabel import derive_labels, one_kind
from tests.support.tiny import RECIPE, tiny_dataset

GOOD = 'Parameter("labeler.merge.rank_power", Float(0.0, 8.0), "x", "labels", method="pser")'


@pytest.fixture(scope="module")
def data(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("cli") / "data"
    tiny_dataset(folder, videos=4, classes=2, dim=12)
    return folder


def space_file(folder: Path, *parameters: str) -> Path:
    path = folder / "my_space.py"
    path.write_text(f"from search_spaces.space import Float, Parameter\nSPACE = [{', '.join(parameters)}]\n")
    return path


def refused(capsys, *arguments) -> str:
    with pytest.raises(SystemExit) as end:
        main(["tune", *map(str, arguments)])
    assert end.value.code in (1, 2)
    said = capsys.readouterr().err
    assert "Traceback" not in said
    return " ".join(said.split())


ASHA = ["--space", "perturbation", "--trials", "3", "--scheduler", "asha"]


@pytest.mark.parametrize(
    ("more", "message"),
    [
        (["--space", "perturbaton", "--trials", "3"], "did you mean perturbation?"),
        (["--space", "nowhere/my_space.py", "--trials", "3"], "nowhere/my_space.py: no such file"),
        (["--space", "perturbation", "--trials", "0"], "--trials 0: a search needs 1 trial at least"),
        (["--space", "perturbation", "--trials", "many"], "'many' is not a valid integer"),
        (["--space", "perturbation", "--trials", "3", "--objective", "test-map"], "'test-map' is not one of"),
        (["--space", "perturbation", "--trials", "3", "--objective", "dev-map"], "needs videos with the role dev"),
        (["--space", "perturbation", "--trials", "3", "--concurrency", "0"], "neither a positive number nor auto"),
        (
            ["--space", "perturbation", "--trials", "3", "--set", "labeler.merge.rank_powr=1"],
            "did you mean rank_power?",
        ),
        (["--space", "perturbation", "--trials", "3", "--storage", "nonsense"], "--storage: not the URL of a database"),
        ([*ASHA, "--objective", "dev-quality", "--set", "rounds=1"], "--scheduler asha: stops trials"),
        (["--space", "potloc", "--trials", "3"], "Known: "),
        (["--space", "perturbation", "--trials", str(10**12)], "a search has 1,000,000 trials at most"),
        (["--space", "perturbation", "--trials", "3", "--time-budget", "nan"], "'nan' is not a number"),
        (["--space", "perturbation", "--trials", "3", "--time-budget", "inf"], "inf is not in the range"),
        (["--space", "perturbation", "--trials", "3", "--time-budget", "0"], "0.0 is not in the range 0<x<=525600"),
        (["--space", "perturbation", "--trials", "3", "--gpus-per-trial", "nan"], "'nan' is not a number"),
        (["--space", "perturbation", "--trials", "3", "--gpus-per-trial", "1e9"], "is not in the range 0<=x<=1000"),
        (["--space", "perturbation", "--trials", "3", "--workers", str(10**9)], "'1000000000' is more than 10000"),
        (["--space", "perturbation", "--trials", "3", "--concurrency", "9" * 5000], "neither a positive number"),
        (["--space", "perturbation", "--trials", "3", "--seed", "-1"], "-1 is not in the range"),
        (["--space", "perturbation", "--trials", "3", "--seed", str(2**32)], "is not in the range 0<=x<=4294967295"),
        (["--space", "perturbation", "--trials", "3", "--out", "/proc/self/study"], "cannot be made"),
        (["--space", "perturbation", "--trials", "3", "--out", "x" * 300], "cannot be made: file name too"),
        (
            ["--space", "perturbation", "--trials", "3", "--set", "detector.training.lr=.inf"],
            "detector.training.lr: input should be a finite number",
        ),
        (["--space", "perturbation", "--trials", "3", "--set", "rounds=1000000000"], "rounds: input should be less"),
        (
            ["--space", "perturbation", "--trials", "3", "--storage", "postgresql://u:SECRET@127.0.0.1:9/x"],
            "@127.0.0.1:9/x: the study's storage ",
        ),
    ],
)
def test_bad_input_is_refused_before_any_training(data, tmp_path, monkeypatch, capsys, more, message):
    monkeypatch.chdir(tmp_path)
    said = refused(capsys, RECIPE, "--data", data, "--local", *more)
    assert message in said and "SECRET" not in said
    assert not list(tmp_path.glob("runs/store/*"))
    assert all("SECRET" not in path.read_text(errors="replace") for path in tmp_path.rglob("*.json"))


@pytest.mark.parametrize(
    ("more", "message"),
    [
        (["--rounds", str(10**9)], "is not in the range 0<=x<=1000"),
        (["--gpus-per-worker", "nan"], "'nan' is not a number"),
        (["--gpus-per-worker", "-1"], "is not in the range 0<=x<=1000"),
        (["--gpus-per-worker", "1e-320"], "is less than 0.0001, the least share of a GPU"),
        (["--workers", str(10**9)], "'1000000000' is more than 10000"),
    ],
)
def test_options_of_a_run_beyond_sense(data, tmp_path, monkeypatch, capsys, more, message):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(SystemExit) as end:
        main(["run", RECIPE, "--data", str(data), "--local", *more])
    said = capsys.readouterr().err
    assert end.value.code in (1, 2) and message in " ".join(said.split()) and "Traceback" not in said
    assert not list(tmp_path.iterdir())


def test_without_dev_videos_and_points_the_classes_are_the_objective(data, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    whole = Dataset.open(data)
    derive_labels(whole, one_kind(whole, "classes"), tmp_path / "bare")
    said = refused(capsys, RECIPE, "--data", tmp_path / "bare", "--local", "--space", "perturbation", "--trials", "3")
    assert "no training video has a point" in said and "select" not in said, "pser needs points, the objective does not"
    assert [p.name for p in (tmp_path / "runs" / "tune").iterdir()] == ["tiny-data-classes-classes-seed0"]


def test_a_key_that_the_recipe_does_not_have(data, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    space = space_file(tmp_path, GOOD.replace("rank_power", "rank_pwer"), GOOD.replace("8.0", "3.0"))
    said = refused(capsys, RECIPE, "--data", data, "--local", "--trials", 2, "--space", space)
    assert "labeler.merge.rank_pwer: the recipe has no such key; did you mean labeler.merge.rank_power?" in said
    assert "labeler.merge.rank_power: the recipe's value" in said, "4 lies outside 0 to 3; both problems are listed"


@pytest.mark.ray
def test_a_plan_that_the_cluster_cannot_carry(data, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    given = [RECIPE, "--data", data, "--trials", 2, "--space", space_file(tmp_path, GOOD), "--tracking", "none"]
    said = refused(capsys, *given, "--gpus-per-trial", 64)
    assert "--gpus-per-trial 64: the cluster has" in said and not list(tmp_path.glob("runs/tune/*/trials"))


# -- the page of optuna-dashboard ------------------------------------------------------------------------------------


@contextmanager
def dashboard(storage: str, folder: Path):
    """draw(path): the text of a page of optuna-dashboard, by a headless Chromium; skips where either is missing."""
    pytest.importorskip("optuna_dashboard", reason="optuna-dashboard is not installed")
    browser = next((b for b in ("chromium", "chromium-browser", "google-chrome") if shutil.which(b)), None)
    if browser is None:
        pytest.skip("no Chromium on this machine")
    with socket.create_server(("127.0.0.1", 0)) as free:
        url = f"http://127.0.0.1:{free.getsockname()[1]}"
    code = "from optuna_dashboard._cli import main; main()"
    command = [sys.executable, "-c", code, storage, "--port", url.rpartition(":")[2], "--host", "127.0.0.1"]

    def draw(path: str) -> str:
        flags = ["--headless=new", "--no-sandbox", "--disable-gpu", "--virtual-time-budget=20000", "--dump-dom"]
        flags += [f"--user-data-dir={folder / 'chromium'}", "--window-size=1600,3000"]
        result = subprocess.run([browser, *flags, url + path], capture_output=True, timeout=120)
        html = re.sub(r"<(script|style).*?</\1>", " ", result.stdout.decode(), flags=re.DOTALL)
        return " ".join(re.sub(r"<[^>]+>", " ", html).split())

    with (folder / "dashboard.log").open("w") as log:
        server = subprocess.Popen(command, stdout=log, stderr=log)
    try:
        deadline = time.monotonic() + 60
        while time.monotonic() < deadline:
            try:
                urllib.request.urlopen(f"{url}/dashboard", timeout=2).close()
                break
            except OSError:
                assert server.poll() is None, (folder / "dashboard.log").read_text()
                time.sleep(0.3)
        yield draw
    finally:
        server.send_signal(signal.SIGTERM)
        server.wait(20)


@pytest.mark.slow
def test_the_study_page_lists_trials_in_their_true_states(data, tmp_path, monkeypatch):
    """A search by the command, and on its storage one trial of each other fate."""
    monkeypatch.chdir(tmp_path)
    given = [RECIPE, "--data", data, "--trials", 3, "--space", space_file(tmp_path, GOOD), "--set", "rounds=0"]
    given += ["--study", "seen", "--storage", f"sqlite:///{tmp_path}/study.db", "--local", "--objective", "points"]
    subprocess.run([sys.executable, "-m", "tad", "tune", *map(str, given)], check=True)
    storage = open_storage(f"sqlite:///{tmp_path}/study.db")
    study = optuna.load_study(study_name="seen", storage=storage)
    for state in (optuna.trial.TrialState.PRUNED, optuna.trial.TrialState.FAIL):
        study.tell(study.ask(), state=state)
    with dashboard(f"sqlite:///{tmp_path}/study.db", tmp_path) as draw:
        assert "seen" in draw("/dashboard/")
        text = draw(f"/dashboard/studies/{study._study_id}/trials")
    found = re.findall(r"Trial (\d+) .*?(Complete|Pruned|Fail|Running|Waiting)", text)
    assert dict(found) == {"0": "Complete", "1": "Complete", "2": "Complete", "3": "Pruned", "4": "Fail"}, text[:2000]
