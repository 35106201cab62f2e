"""A secret on the command line or in a URI stands in no file, no database and no output of a run."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from click.testing import CliRunner

import distributed.run.session
from distributed.engine.record import Record, hidden
from distributed.run.session import Options, self_train
from distributed.tracking.address import address
from distributed.tracking.names import flatten
from tad.cli import tad
from tad.errors import RunError, TadError
from tad.recipe.recipe import load_recipe
from tests.support.tiny import RECIPE, tiny_dataset
from tests.support.tracked_run import client

pytest_plugins = ["tests.support.tracked"]

SECRET = "hunter2secret"


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    return tiny_dataset(tmp_path_factory.mktemp("secrets") / "data", videos=4, classes=2, dim=8)


def held_in(folder: Path) -> list[str]:
    """Files below a folder, databases and pictures too, that hold the secret in their bytes."""
    files = [path for path in folder.rglob("*") if path.is_file()]
    assert files
    return [str(path) for path in files if SECRET.encode() in path.read_bytes()]


@pytest.mark.parametrize(
    "uri",
    [
        f"postgresql://u:{SECRET}@host/db",
        f"postgresql+psycopg2://u:{SECRET}/x@host/db",
        f"http://u:{SECRET}@lab:5000",
        f"http://{SECRET}@lab:5000",
        f"https://lab:5000?token={SECRET}",
        f"http://u:{SECRET}@[::1",
        f"ftp://u:{SECRET}@lab",
    ],
)
def test_an_address_of_mlflow_with_a_secret_is_refused_and_not_shown(data, tmp_path, uri, monkeypatch):
    with pytest.raises(RunError) as caught:
        address(uri)
    assert SECRET not in str(caught.value)
    command = ["run", RECIPE, "--data", str(data.root), "--local", "--store", str(tmp_path / "store")]
    command += ["--out", str(tmp_path / "run"), "--tracking", uri]
    monkeypatch.setattr("sys.argv", ["tad", *command])
    result = CliRunner().invoke(tad, command)
    assert isinstance(result.exception, TadError) and SECRET not in result.output + str(result.exception)
    assert held_in(tmp_path) == []
    assert "--tracking" in json.loads((tmp_path / "run" / "run.json").read_text())["command"]


@pytest.mark.parametrize("option", ["--data", "--store"])
@pytest.mark.parametrize("uri", [f"s3://KEY:{SECRET}@b/x", f"s3://b/x?secret_key={SECRET}"])
def test_a_dataset_or_store_with_a_secret_is_refused_and_not_shown(data, tmp_path, option, uri, monkeypatch):
    monkeypatch.setenv("TAD_CACHE", str(tmp_path / "cache"))
    places = {"--data": str(data.root), "--store": str(tmp_path / "store")} | {option: uri}
    command = ["run", RECIPE, "--local", "--out", str(tmp_path / "run")]
    command += [part for pair in places.items() for part in pair]
    result = CliRunner().invoke(tad, command)
    assert isinstance(result.exception, TadError) and "must not hold" in str(result.exception)
    assert SECRET not in result.output + str(result.exception)
    assert not (tmp_path / "run").exists() and not (tmp_path / "cache").exists()


def test_what_a_run_is_told_in_errors_is_kept_nowhere(data, database, tmp_path, monkeypatch, capsys):
    """Whatever address finds its way into an error, a warning, the command or a setting."""
    uri = f"postgresql://ann:{SECRET}@lab/db?key={SECRET}"
    monkeypatch.setattr("sys.argv", ["tad", "run", "tiny", "--x", uri])
    told = distributed.run.session._greet

    def greet(record, document, resources):
        told(record, document, resources)
        record.say(f"at {uri}")
        record.warn(f"slow: {uri}")
        record.event("failures", name="s", failures={"video": f"cannot reach {uri}"})
        with record.stage("s", {"uri": [uri]}, {"where": uri}, 1, "epoch"):
            raise RunError(f"cannot reach {uri}")

    monkeypatch.setattr(distributed.run.session, "_greet", greet)
    recipe = load_recipe(RECIPE, ["rounds=0", f"description='at {uri}'"])
    options = Options(tmp_path / "run", tmp_path / "store", local=True, tracking=f"sqlite:///{database}")
    with pytest.raises(RunError):
        self_train("tiny", recipe, data, options)
    assert held_in(tmp_path) == []
    output = capsys.readouterr()
    assert SECRET not in output.out + output.err and "at postgresql://***@lab/db?***" in output.err
    reader = client(options.tracking)
    experiment = reader.get_experiment_by_name(data.name).experiment_id
    [run] = [r for r in reader.search_runs([experiment]) if r.data.tags.get("where")]
    assert run.data.tags["where"] == "postgresql://***@lab/db?***" == json.loads(run.data.params["uri"])[0]
    assert "postgresql://***@lab/db?***" in (tmp_path / "run" / "report.html").read_text()


def test_nested_values_keep_their_shape(tmp_path):
    document = {"a": [1, None, {"s3://k:w@b": ("s3://k:w@b?q", 2.5)}], "b": "as it is"}
    assert hidden(document) == {"a": [1, None, {"s3://***@b": ["s3://***@b?***", 2.5]}], "b": "as it is"}
    record = Record(tmp_path, quiet=True)
    record.event("warning", text='say "s3://k:w@b?q" twice')
    assert json.loads((tmp_path / "events.jsonl").read_text().splitlines()[-1])["text"] == 'say "s3://***@b?***" twice'
    assert flatten({"store": "s3://k:w@b"}) == {"store": "s3://***@b"}
