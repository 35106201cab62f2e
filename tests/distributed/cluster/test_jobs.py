"""`tad submit` and `tad jobs` against a real job API that asks for a token."""

from __future__ import annotations

import json
import re
import shutil
import signal
import subprocess
import sys
import time

import pytest

from distributed.cluster.jobs import package
from tad.cli import main
from tad.errors import RunError
from tests.support.nodes import ROOT, free_port, nodes
from tests.support.tiny import RECIPE, tiny_dataset


@pytest.fixture(scope="module")
def head(tmp_path_factory):
    """PYTHONPATH leads nowhere: jobs have tad from the upload, or from the installation."""
    folder = tmp_path_factory.mktemp("head")
    (folder / "token").write_text("a" * 64)
    (folder / "token").chmod(0o600)
    (folder / "home").mkdir()
    variables = {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN_PATH": str(folder / "token"), "HOME": str(folder / "home")}
    with nodes(2, **variables) as cluster:
        cluster.home = folder / "home"
        yield cluster


@pytest.mark.ray
def test_a_run_is_sent_followed_and_its_exit_code_returned(head, tmp_path):
    data = tiny_dataset(tmp_path / "data", videos=4, classes=2, dim=12).root
    run = ["run", RECIPE, "--data", data, "--rounds", 0, "--out", "out", "--tracking", "none"]
    sent = head.run("-m", "tad", "submit", "--env", f"TAD_STORE={tmp_path / 'store'}", "--", *run)
    assert sent.returncode == 0, sent.stdout + sent.stderr
    assert "doctor: 1 node in order" in sent.stdout and "report: " in sent.stdout
    document = json.loads((head.home / "out" / "run.json").read_text())
    assert document["state"] == "finished" and document["store"] == str(tmp_path / "store")
    assert "working_dir" in document["command"], "the uploaded source ran, not the installed one"
    job = re.search(r"^job (\S+)$", sent.stderr, re.M)[1]
    again = head.run("-m", "tad", "jobs", job)
    assert again.returncode == 0 and again.stdout == sent.stdout
    failed = head.run("-m", "tad", "submit", "--", "check", tmp_path / "nowhere")
    assert failed.returncode == 1 and "nowhere: no such dataset folder" in failed.stdout
    assert "failed: Job entrypoint command failed with exit code 1" in failed.stderr
    listing = head.run("-m", "tad", "jobs").stdout.splitlines()
    assert [line.split()[1] for line in listing] == ["SUCCEEDED", "FAILED"] and listing[0].startswith(job)


SPACE = """
from search_spaces.space import Integer, Parameter

SPACE = [Parameter("detector.training.epochs", Integer(2, 4), "few", "detector")]
"""


@pytest.mark.slow
@pytest.mark.ray
def test_a_recipe_and_a_space_of_this_machine_are_sent_along(head, tmp_path):
    """By relative paths, of which one has a blank; the head's job runs in another folder."""
    data = tiny_dataset(tmp_path / "data", videos=4, classes=2, dim=12).root
    shutil.copyfile(RECIPE, tmp_path / "my recipe.yaml")
    (tmp_path / "my_space.py").write_text(SPACE)
    tune = ["tune", "my recipe.yaml", "--space=my_space.py:labels,rounds", "--data", data, "--trials", 1, "--local"]
    tune += ["--set", "rounds=1", "--out", "study", "--store", tmp_path / "store"]
    command = ["-m", "tad", "submit", "--", *tune]
    sent = subprocess.run(
        [sys.executable, *map(str, command)], capture_output=True, text=True, env=head.environment, cwd=tmp_path
    )
    assert sent.returncode == 0, sent.stdout + sent.stderr
    assert (head.home / "study").is_dir()
    job = re.search(r"^job (\S+)$", sent.stderr, re.M)[1]
    [line] = [line for line in head.run("-m", "tad", "jobs").stdout.splitlines() if line.startswith(job)]
    assert "tad tune 'my recipe.yaml' --space=my_space.py:labels,rounds --data" in line


@pytest.mark.slow
@pytest.mark.ray
def test_ctrl_c_detaches_and_the_job_goes_on_until_it_is_stopped(head, tmp_path):
    data = tiny_dataset(tmp_path / "data", videos=4, classes=2, dim=12).root
    run = ["run", "pser", "--data", data, "--out", tmp_path / "run", "--store", tmp_path / "store", "--no-doctor"]
    command = [sys.executable, "-m", "tad", "submit", "--", *map(str, run), "--tracking", "none"]
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    # Tests that run in the background of a shell ignore Ctrl-C, and would pass that on.
    heed = {"preexec_fn": lambda: signal.signal(signal.SIGINT, signal.SIG_DFL)}
    sent = subprocess.Popen(command, env=head.environment, cwd=ROOT, text=True, **pipes, **heed)
    for line in sent.stdout:
        if "training" in line or "Ray:" in line:
            break
    sent.send_signal(signal.SIGINT)
    _, said = sent.communicate(timeout=30)
    assert sent.returncode == 130 and "detached; the job goes on" in said and "Traceback" not in said
    job = re.search(r"tad jobs --address \S+ (\S+) ", said)[1]
    assert f"{job}  RUNNING" in head.run("-m", "tad", "jobs").stdout
    assert head.run("-m", "tad", "jobs", job, "--stop").returncode == 0
    end = time.monotonic() + 30
    while f"{job}  STOPPED" not in head.run("-m", "tad", "jobs").stdout:
        assert time.monotonic() < end
    followed = head.run("-m", "tad", "jobs", job)
    assert followed.returncode != 0 and f"job {job} stopped" in followed.stderr


@pytest.mark.ray
def test_a_wrong_token_an_unknown_job_and_no_cluster_are_told(head, tmp_path):
    (tmp_path / "other").write_text("b" * 64)
    (tmp_path / "other").chmod(0o600)
    wrong = {"RAY_AUTH_TOKEN_PATH": tmp_path / "other"}
    for command in (["jobs"], ["submit", "--", "recipes"]):
        result = head.run("-m", "tad", *command, **wrong)
        assert result.returncode == 1 and "the cluster asks for its token" in result.stderr, result.stderr
    result = head.run("-m", "tad", "doctor", **wrong)
    assert result.returncode == 1 and "does the cluster ask for a token?" in result.stderr, result.stderr
    result = head.run("-m", "tad", "jobs", "raysubmit_x")
    assert result.returncode == 1 and "no job raysubmit_x; `tad jobs` lists them" in result.stderr


@pytest.mark.ray
def test_a_cluster_of_another_ray_and_a_token_that_others_can_read_are_refused(head, tmp_path):
    """Before anything is sent."""
    before = head.run("-m", "tad", "jobs").stdout
    other = "import ray, sys\nfrom tad.cli import main\nray.__version__ = '2.99.0'\nmain(sys.argv[1:])\n"
    result = head.run("-c", other, "submit", "--", "recipes")
    assert result.returncode == 1 and "the cluster runs Ray 2." in result.stderr, result.stderr
    assert "this tad needs 2.99.0" in result.stderr
    shutil.copyfile(head.environment["RAY_AUTH_TOKEN_PATH"], tmp_path / "open")
    (tmp_path / "open").chmod(0o644)
    for command in (["submit", "--", "recipes"], ["jobs"], ["doctor"]):
        result = head.run("-m", "tad", *command, RAY_AUTH_TOKEN_PATH=tmp_path / "open")
        assert result.returncode == 1 and f"chmod 600 {tmp_path}/open" in result.stderr, result.stderr
    assert head.run("-m", "tad", "jobs").stdout == before


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--", "runn", "pser"], "tad has no command 'runn'"),
        (["--", "run", "pser", "--data", "s3://b/d", "--worker", "2"], "No such option '--worker'"),
        (["--", "run", "pser"], "Missing option '--data'"),
        (["--env", "TAD_STORE", "--", "recipes"], "--env TAD_STORE: not of the form NAME=VALUE"),
        (["--address", "ftp://x:1", "--", "recipes"], "not an address of a job API"),
    ],
)
def test_mistakes_are_found_before_anything_is_sent(capsys, arguments, message):
    with pytest.raises(SystemExit) as end:
        main(["submit", *arguments])
    assert end.value.code in (1, 2) and message in capsys.readouterr().err


def test_recipes_and_spaces_that_are_missing_or_large_are_named_before_anything_is_sent(tmp_path, capsys):
    (tmp_path / "large.py").write_bytes(b"#" * (2**20 + 1))
    files = f"training,{tmp_path / 'large.py'}:labels,{tmp_path / 'none.py'}"
    with pytest.raises(SystemExit):
        main(["submit", "--", "tune", "none.yaml", "--space", files, "--data", "s3://b/d", "--trials", "1"])
    said = capsys.readouterr().err
    assert "none.yaml: no such file on this machine" in said and "none.py: no such file on this machine" in said
    assert "large.py: 1048577 bytes; 1048576 are the most" in said


def test_no_job_api_at_the_address_is_told(capsys):
    with pytest.raises(SystemExit):
        main(["submit", "--address", f"http://127.0.0.1:{free_port()}", "--", "recipes"])
    assert "no job API answers" in capsys.readouterr().err


def test_the_upload_is_the_source_alone_and_small(tmp_path):
    with package() as folder:
        sent = sorted(str(p.relative_to(folder)) for p in folder.rglob("*") if p.is_file())
        assert sum((folder / name).stat().st_size for name in sent) < 2 * 2**20
    assert {name.split("/")[0] for name in sent} == {"tad", "distributed", "search_spaces"}
    assert {"tad/cli.py", "tad/recipes/pser.yaml", "tad/py.typed", "distributed/cluster/jobs.py"} <= set(sent)
    assert not [name for name in sent if "__pycache__" in name]
    assert not folder.exists()


def test_an_upload_that_is_too_large_names_the_largest_files(tmp_path):
    for name in ("tad", "distributed", "search_spaces"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "__init__.py").write_text("")
    (tmp_path / "tad" / "features.npy").write_bytes(b"x" * 2**20)  # is not source
    (tmp_path / "tad" / "table.py").write_bytes(b"#" * 3000)
    with package(tmp_path, limit=5000) as folder:
        assert not (folder / "tad" / "features.npy").exists()
    shutil.copyfile(tmp_path / "tad" / "table.py", tmp_path / "distributed" / "more.py")
    with (
        pytest.raises(RunError, match=r"the source to upload has 6\.0 kB.*The largest: .*(table|more)\.py"),
        package(tmp_path, limit=5000),
    ):
        pass
