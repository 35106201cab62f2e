"""Run folders from somebody else, of other shapes, and with another driver in them."""

from __future__ import annotations

import errno
import json
import os
import shutil
import socket
import subprocess
import sys
from pathlib import Path

import pytest
from click.testing import CliRunner

import distributed.run.run_folder
from distributed.engine.record import Record
from distributed.run.identity import Identity
from distributed.run.run_folder import claimed, locked
from distributed.run.selftrain import SelfTraining
from distributed.run.session import Options, self_train
from tad.cli import tad
from tad.errors import RunError, TadError
from tad.files import folder_name
from tad.recipe.recipe import load_recipe
from tad.report.html import write_report
from tad.report.run import Run
from tests.support.tiny import RECIPE, tiny_dataset
from tests.support.tracked_run import DOCUMENT, write

pytest_plugins = ["tests.support.tracked"]


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    return tiny_dataset(tmp_path_factory.mktemp("runs") / "data", videos=4, classes=2, dim=8)


@pytest.fixture(scope="module")
def finished(data, tmp_path_factory):
    """A run of the proposer alone, and its store."""
    folder = tmp_path_factory.mktemp("finished")
    self_train("tiny", recipe(), data, Options(folder / "run", folder / "store", local=True))
    return folder


def recipe():
    return load_recipe(RECIPE, ["rounds=0", "proposer.training.epochs=1"])


def refusal(*arguments) -> str:
    """The error of a command that must end with one."""
    result = CliRunner().invoke(tad, [str(a) for a in arguments])
    assert isinstance(result.exception, TadError), (result.output, result.exception)
    return str(result.exception)


# -- one driver ----------------------------------------------------------------------------------------------------


def test_a_second_driver_is_refused_while_the_first_lives(tmp_path):
    out = tmp_path / "run"
    with claimed(out, DOCUMENT) as earlier:
        assert earlier is None
        write(out, driver=Identity.me()._asdict())
        with pytest.raises(RunError, match=rf"another process works in this folder: process {os.getpid()} on .* today"):
            claimed(out, DOCUMENT).__enter__()
        shutil.copytree(out, tmp_path / "copy")
        with claimed(tmp_path / "copy", DOCUMENT):
            pass  # of which run.json says the same, but nobody works in it
    with claimed(out, DOCUMENT) as earlier:
        assert earlier is not None and earlier.state == "running"


def test_where_files_cannot_be_locked_the_process_tells(tmp_path, monkeypatch):
    def flock(handle, operation):
        raise OSError(errno.ENOSYS, "not here")

    monkeypatch.setattr(distributed.run.run_folder.fcntl, "flock", flock)
    code = "from distributed.run.identity import Identity; print(Identity.me(), flush=True); input()"
    child = subprocess.Popen([sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    out = write(tmp_path / "run", driver=Identity.parse(child.stdout.readline().strip())._asdict())
    with pytest.raises(RunError, match=f"process {child.pid} on"):
        locked(out).__enter__()
    child.communicate("")
    with locked(out):
        pass


def test_a_run_that_was_killed_is_mended_by_the_next_start(data, finished, tmp_path, capsys):
    run = tmp_path / "run"
    document = json.loads((finished / "run" / "run.json").read_text())
    dead = Identity.me()._replace(born=1)
    write(run, **document | {"state": "running", "driver": dead._asdict(), "started": "2026-01-02"})
    self_train("tiny", recipe(), data, Options(run, finished / "store", local=True))
    said = capsys.readouterr().err
    assert f"the attempt of 2026-01-02 did not end in order (process {dead.pid} on" in said
    after = json.loads((run / "run.json").read_text())
    assert after["state"] == "finished" and after["driver"] == Identity.me()._asdict()


def test_a_folder_that_is_moved_ends_the_run_and_it_goes_on_when_it_is_back(data, tmp_path, monkeypatch):
    """What it writes must not be torn in two."""
    run, away, propose = tmp_path / "run", tmp_path / "away", SelfTraining._propose

    def moved(self, whole):
        run.rename(away)
        return propose(self, whole)

    options = Options(run, tmp_path / "store", local=True)
    monkeypatch.setattr(SelfTraining, "_propose", moved)
    with pytest.raises(RunError, match=rf"{run}: was moved or removed .* the same command again"):
        self_train("tiny", recipe(), data, options)
    assert not run.exists() and (away / "events.jsonl").exists()
    monkeypatch.setattr(SelfTraining, "_propose", propose)
    away.rename(run)
    assert self_train("tiny", recipe(), data, options).is_file()


def test_a_record_is_written_into_no_link_or_pipe(tmp_path):
    (tmp_path / "victim").write_text("mine")
    for name, make in (("a", lambda path: path.symlink_to(tmp_path / "victim")), ("b", os.mkfifo)):
        (tmp_path / name).mkdir()
        make(tmp_path / name / "events.jsonl")
        with pytest.raises(OSError, match=r"link|regular"):
            Record(tmp_path / name)
    assert (tmp_path / "victim").read_text() == "mine"


# -- places that cannot be a run's folder --------------------------------------------------------------------------


def test_out_that_cannot_be_a_runs_folder_is_told_before_any_work(data, tmp_path):
    (tmp_path / "file").write_text("mine")
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "mine.txt").write_text("mine")
    for out, message in {
        tmp_path / "file": f"{tmp_path / 'file'} is a file",
        tmp_path / "file" / "run": f"{tmp_path / 'file'} is a file",
        tmp_path / ("x" * 300): "file name too long",
        tmp_path / "full": "not empty and not a run's folder",
        Path("/proc/run"): "cannot be made",
    }.items():
        said = refusal("run", RECIPE, "--data", data.root, "--local", "--store", tmp_path / "store", "--out", out)
        assert message in said and "--out" in said
        assert not list((tmp_path / "store").glob("*")), "nothing was trained"
    assert (tmp_path / "file").read_text() == "mine" and len(list((tmp_path / "full").iterdir())) == 1


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")
def test_out_that_cannot_be_written(tmp_path):
    (tmp_path / "run").mkdir(mode=0o500)
    with pytest.raises(RunError, match="cannot be written"):
        claimed(tmp_path / "run", DOCUMENT).__enter__()


@pytest.mark.parametrize("name", ["events.jsonl", "rounds.json", "round-1", "round-1/labels.parquet", ".lock"])
def test_a_run_does_not_write_through_links(tmp_path, name):
    victim, out = tmp_path / "victim", write(tmp_path / "run")
    victim.mkdir()
    (out / name).parent.mkdir(exist_ok=True)
    (out / name).symlink_to(victim)
    with pytest.raises(RunError, match=r"link|opened"):
        claimed(out, DOCUMENT).__enter__()
    assert not list(victim.iterdir())


@pytest.mark.parametrize(
    ("name", "folder"),
    [
        ("x/../../../up", "x-..-..-..-up-seed0"),
        ("x" * 5000, "x" * 200),
        ("\0", "seed0"),
        ("..", "seed0"),
        ("-é b", "é-b"),
    ],
)
def test_the_default_folder_lies_below_runs(name, folder):
    found = folder_name(f"{name}-seed0" if name != "-é b" else name, "run")
    assert found == folder and len(Path("runs", found).parts) == 2


# -- shapes --------------------------------------------------------------------------------------------------------

GOOD = DOCUMENT | {"dataset": {"classes": ["a"]}}
SHAPES = {
    "a list": ("[1, 2]", "RunInfo|valid dictionary"),
    "a number": ("7", "valid dictionary"),
    "empty": ("", "not a JSON file"),
    "truncated": (json.dumps(GOOD)[:-9], "not a JSON file"),
    "binary": (b"\xff\x00\x01", "line 1"),
    "nothing": ("{}", "3 problems"),
    "recipe a text": (json.dumps(GOOD | {"recipe": "x"}), "recipe: "),
    "tracking a text": (json.dumps(GOOD | {"tracking": "x"}), "tracking: "),
    "classes a number": (json.dumps(GOOD | {"dataset": {"classes": 3}}), "dataset.classes"),
    "driver without its number": (json.dumps(GOOD | {"driver": {"host": "x"}}), "driver.pid"),
    "nested": ("[" * 100_000, "nested too deeply"),
    "a key twice": ('{"seed": 0, "seed": 1}', "appears twice"),
    "a long integer": (json.dumps(GOOD)[:-1] + ', "points": 1, "best_round": 1' + "0" * 500 + "}", "best_round"),
}


@pytest.mark.parametrize("shape", SHAPES)
def test_run_json_of_another_shape_is_one_error_that_names_it(shape, data, tmp_path):
    content, message = SHAPES[shape]
    folder = write(tmp_path / "run")
    (folder / "run.json").write_bytes(content if isinstance(content, bytes) else content.encode())
    before = (folder / "run.json").read_bytes()
    for command in (
        ["report", folder],
        ["detect", folder, "--data", data.root, "--out", tmp_path / "o.json", "--local", "--store", tmp_path / "store"],
        ["run", RECIPE, "--data", data.root, "--local", "--store", tmp_path / "store", "--out", folder],
    ):
        said = refusal(*command)
        assert f"{folder / 'run.json'}: " in said and any(m in said for m in message.split("|")), said
    assert (folder / "run.json").read_bytes() == before


@pytest.mark.parametrize("name", ["run.json", "rounds.json", "events.jsonl"])
def test_pipes_folders_and_links_out_are_not_read(name, data, tmp_path):
    (tmp_path / "elsewhere").write_text(json.dumps(DOCUMENT))
    for number, make in enumerate((os.mkfifo, os.mkdir, lambda path: path.symlink_to(tmp_path / "elsewhere"))):
        folder = write(tmp_path / f"run{number}")
        (folder / name).unlink(missing_ok=True)
        make(folder / name)
        assert f"{folder / name}: " in refusal("report", folder)
        if name == "events.jsonl":
            assert f"{folder / name}: " in refusal("ui", "--replay", folder)


def test_rounds_and_events_of_other_shapes(data, finished, tmp_path):
    folder = write(tmp_path / "run", **json.loads((finished / "run" / "run.json").read_text()))
    for content, message in {"{}": "valid list", '[{"round": 0, "model": "../../x"}]': "0.model", "[1]": "0: "}.items():
        (folder / "rounds.json").write_text(content)
        assert message in refusal("report", folder)
    (folder / "rounds.json").write_text('[{"round": 1, "train_map": {"average": 1e308}, "change": NaN}, {"round": -7}]')
    events = [
        {"kind": "stage", "name": "a/train", "fingerprint": "1", "round": 1e400},
        {"kind": "epoch", "name": "a/train", "epoch": 1, "metrics": {"loss": float("inf")}},
        {"kind": "epoch", "name": "a/train", "epoch": 2, "metrics": {"loss": 1e308}},
        {"kind": "failures", "name": ["x"], "failures": {"v": {"a": 1}}},
        {"kind": "warning", "text": "lone \ud800 and \x1b[2J"},
        {"kind": ["x"], "name": {}},
        [],
    ]
    lines = [json.dumps(event) for event in events] + ['{"epoch": 1' + "0" * 500, "[" * 50_000, "x" * 3_000_000]
    (folder / "events.jsonl").write_text("\n".join(lines))
    text = write_report(folder, data=data).read_text()
    assert "lines cannot be read" in text and "lone \\ud800" in text


def test_detect_of_a_recipe_of_another_version(data, finished, tmp_path):
    document = json.loads((finished / "run" / "run.json").read_text())
    document["recipe"]["detector"]["flux"] = 1
    folder = write(tmp_path / "run", **document)
    said = refusal("detect", folder, "--data", data.root, "--out", tmp_path / "o.json", "--local")
    assert "not a recipe of this version" in said and "flux" in said and "Traceback" not in said


# -- what a folder names is not opened -----------------------------------------------------------------------------


def test_nothing_that_a_folder_names_is_asked_or_made(data, finished, tmp_path, monkeypatch):
    """Its store, dataset and MLflow are a server that listens; nobody connects."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("TAD_STORE", raising=False)
    with socket.create_server(("127.0.0.1", 0)) as server:
        server.setblocking(False)
        at = f"127.0.0.1:{server.getsockname()[1]}"
        document = json.loads((finished / "run" / "run.json").read_text())
        document["dataset"]["root"] = f"s3://bucket/data?endpoint_override={at}&scheme=http"
        document |= {"store": f"s3://bucket/store?endpoint_override={at}&scheme=http", "best_round": 1}
        document["scores"] = {"train": "/etc", "test": f"http://{at}/" + "0" * 24}
        folder = write(tmp_path / "run", **document)
        rows = json.loads((finished / "run" / "rounds.json").read_text())
        (folder / "rounds.json").write_text(json.dumps([*rows, rows[0] | {"round": 1}]))
        start = {"time": 1.0, "kind": "start", "experiment": "x", "tracking": f"http://{at}"}
        (folder / "events.jsonl").write_text(json.dumps(start) + "\n")
        assert Run.open(folder).info.keys_of_scores() == {"test": "0" * 24}
        assert CliRunner().invoke(tad, ["report", str(folder)]).exit_code == 0
        assert CliRunner().invoke(tad, ["report", str(folder), "--data", str(data.root)]).exit_code == 0
        said = refusal("detect", folder, "--data", data.root, "--out", tmp_path / "o.json", "--local")
        assert "if you trust it, add --store 's3://bucket/store?" in said
        said = refusal("ui", "--replay", folder)
        assert (
            f"was tracked in http://{at}, and without --tracking it would go to sqlite:///{tmp_path}/mlflow.db" in said
        )
        assert f"`tad ui --tracking http://{at} --replay {folder}`" in said
        with pytest.raises(BlockingIOError):
            server.accept()
    assert {path.name for path in tmp_path.iterdir()} == {"run"}


def test_a_link_out_of_a_round_is_noted_and_not_read(data, finished, tmp_path):
    folder = write(tmp_path / "run", **json.loads((finished / "run" / "run.json").read_text()))
    (folder / "rounds.json").write_text((finished / "run" / "rounds.json").read_text())
    (folder / "round-0").symlink_to(finished / "run" / "round-0")
    text = write_report(folder, data=data).read_text()
    assert "leads out of the run" in text and 'id="timelines"' not in text


# -- tracking ------------------------------------------------------------------------------------------------------


def test_a_run_that_is_resumed_without_mlflow_keeps_where_it_was_tracked(data, finished, tmp_path):
    document = json.loads((finished / "run" / "run.json").read_text())
    kept = {"uri": "sqlite:////nowhere/mlflow.db", "run_id": "0" * 32}
    run = write(tmp_path / "run", **document | {"state": "running", "driver": None, "tracking": kept})
    self_train("tiny", recipe(), data, Options(run, finished / "store", local=True))
    after = json.loads((run / "run.json").read_text())
    assert after["state"] == "finished" and after["tracking"] == kept
