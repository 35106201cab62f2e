"""One role at a time from the command line: tad label, tad detect, tad demo's options."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path

import numpy as np
import pytest

from distributed.run.session import Options, self_train
from tad.cli import main
from tad.data.segments import Segments
from tad.recipe.recipe import load_recipe
from tests.support.tiny import RECIPE, tiny_dataset


@pytest.fixture(autouse=True)
def elsewhere(tmp_path, monkeypatch):
    """The commands write their record to runs/ of the current folder."""
    monkeypatch.chdir(tmp_path)


def tad(*arguments) -> None:
    with pytest.raises(SystemExit) as ended:
        main([str(a) for a in arguments])
    assert ended.value.code == 0


def refused(capsys, *arguments) -> str:
    with pytest.raises(SystemExit) as ended:
        main([str(a) for a in arguments])
    assert ended.value.code == 1
    return capsys.readouterr().err


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    folder = tmp_path_factory.mktemp("roles")
    data = tiny_dataset(folder / "data", videos=6, classes=2, dim=12)
    recipe = load_recipe(RECIPE, ["rounds=1"])
    self_train("tiny", recipe, data, Options(folder / "run", folder / "store", local=True))
    return folder


def test_detect_gives_what_the_run_gave(run, tmp_path):
    out = tmp_path / "detections.parquet"
    tad("detect", run / "run", "--data", run / "data", "--out", out, "--local", "--store", run / "store")
    ours, theirs = Segments.from_file(out), Segments.from_file(run / "run" / "round-1" / "detections-test.parquet")
    assert ours.replace(source="").digest() == theirs.replace(source="").digest()


def test_detect_in_a_folder_that_cannot_be_written(run, tmp_path):
    (tmp_path / "runs").write_text("in the way, as a read-only file system would be")
    out = tmp_path / "detections.json"
    tad("detect", run / "run", "--data", run / "data", "--out", out, "--local", "--store", run / "store")
    assert len(Segments.from_file(out))


def test_detect_refuses_features_that_do_not_fit_unless_told_not_to_check(run, tmp_path, capsys):
    shutil.copytree(run / "data", tmp_path / "data")
    path = next((tmp_path / "data" / "features").glob("test_*.npy"))
    np.save(path, np.zeros((1, 12), np.float32))
    words = ["detect", run / "run", "--data", tmp_path / "data", "--out", tmp_path / "o.json", "--local", "--store"]
    assert f"features/{path.name}: feature length: 1 rows, " in refused(capsys, *words, run / "store")
    tad(*words, run / "store", "--no-check")
    assert len(Segments.from_file(tmp_path / "o.json"))


def test_detect_refuses_what_does_not_fit(run, tmp_path, capsys):
    rest = ("--out", tmp_path / "x.json", "--local", "--store", run / "store")
    other = tiny_dataset(tmp_path / "other", videos=4, classes=3, dim=12)
    assert "its classes are not those of" in refused(capsys, "detect", run / "run", "--data", other.root, *rest)
    wrong = refused(capsys, "detect", run / "run", "--data", run / "data", "--round", 7, *rest)
    assert "no detector of round 7; there are the rounds [1]" in wrong
    assert "not a run's folder" in refused(capsys, "detect", tmp_path, "--data", run / "data", *rest)


def test_detect_looks_for_models_only_where_it_is_told_to(run, tmp_path, capsys, monkeypatch):
    rest = ("detect", run / "run", "--data", run / "data", "--out", tmp_path / "x.parquet", "--local")
    for more in ([], ["--store", tmp_path / "none"]):
        said = refused(capsys, *rest, *more)
        assert f"if you trust it, add --store {run / 'store'}" in said
    assert not list(tmp_path.iterdir()), "no folder is made for a mistake"
    monkeypatch.setenv("TAD_STORE", str(run / "store"))
    tad(*rest)
    assert len(Segments.from_file(tmp_path / "x.parquet"))


def test_a_file_that_cannot_be_written_is_told_before_the_work(run, tmp_path, capsys):
    (tmp_path / "file").write_text("mine")
    os.mkfifo(tmp_path / "pipe")
    for out, message in {
        tmp_path: "is a folder, not a file",
        tmp_path / "file" / "x.json": "it lies below a file",
        tmp_path / ("x" * 300): "file name too long",
        tmp_path / "pipe": "is a named pipe",
        Path("/dev/null"): "is a device",
        Path("/proc/x.json"): "cannot be written",
    }.items():
        arguments = ("--data", run / "data", "--out", out, "--local", "--store", run / "store")
        for command in (("detect", run / "run"), ("label", "pser-seed", "--proposals", run / "none.json")):
            said = refused(capsys, *command, *arguments)
            assert f"error: --out {out}: " in said and message in said and "choose another" in said
    assert (tmp_path / "file").read_text() == "mine"


def test_a_file_that_a_command_reads_is_not_replaced(run, tmp_path, capsys):
    more = ("--data", run / "data", "--local", "--store", run / "store")
    proposals = run / "run" / "round-0" / "proposals.parquet"
    for command, out in (
        (("detect", run / "run"), run / "run" / "run.json"),
        (("detect", run / "run"), run / "data" / "points.csv"),
        (("label", "pser-seed", "--proposals", proposals), proposals),
    ):
        before = out.read_bytes()
        assert "replaces none of its files; choose another" in refused(capsys, *command, *more, "--out", out)
        assert out.read_bytes() == before


@pytest.mark.parametrize("method", ["pser-seed", "pser"])
def test_label_applies_a_labeler_to_any_proposals(run, tmp_path, method):
    proposals = Segments.from_file(run / "run" / "round-0" / "proposals.parquet")
    (tmp_path / "proposals.json").write_text(json.dumps(proposals.to_results_json()))
    out = tmp_path / "labels.json"
    more = ["--set", "heads.epochs=2"] if method == "pser" else []
    tad(
        "label",
        method,
        "--data",
        run / "data",
        "--proposals",
        tmp_path / "proposals.json",
        "--out",
        out,
        *more,
        "--local",
        "--store",
        tmp_path / "store",
    )
    seeds = Segments.from_file(run / "run" / "round-1" / "seeds.parquet")
    labels = Segments.from_file(out)
    assert len(labels) == len(seeds)
    if method == "pser-seed":
        assert labels.spans == pytest.approx(seeds.spans)


def test_label_refuses_proposals_of_other_videos_and_classes(run, tmp_path, capsys):
    rest = ("--data", run / "data", "--out", tmp_path / "x.json", "--local", "--store", tmp_path / "store")
    Segments.of("elsewhere", [0.0], [1.0], "jump").to_json_file(tmp_path / "a.json")
    said = refused(capsys, "label", "pser-seed", "--proposals", tmp_path / "a.json", *rest)
    assert "none of its 1 videos is a training video" in said and "elsewhere" in said
    Segments.of("train_0000", [0.0], [1.0], "cartwheel").to_json_file(tmp_path / "b.json")
    assert "unknown classes cartwheel" in refused(
        capsys, "label", "pser-seed", "--proposals", tmp_path / "b.json", *rest
    )


def test_seeds_of_real_proposals(shared, tmp_path):
    """The seed rule on a published method's proposals for the 200 THUMOS14 training videos."""
    from tad.data.dataset import Dataset
    from tad.evaluation.quality_by_point import label_quality

    data = tmp_path / "thumos14"
    tad("import", "hrpro", shared("data", "thumos14"), data)
    found = {}
    for name, more in (("default", []), ("faithful", ["--set", "faithful=true"])):
        out = tmp_path / f"{name}.parquet"
        tad(
            "label",
            "pser-seed",
            "--data",
            data,
            "--proposals",
            shared("data", "potloc", "base_proposals.json"),
            "--out",
            out,
            *more,
            "--local",
            "--store",
            tmp_path / "store",
        )
        found[name] = label_quality(Segments.from_file(out), Dataset.open(data)).to_json()
    assert found["default"]["mean_tiou"] == pytest.approx(0.625, abs=0.002)
    assert found["faithful"]["mean_tiou"] == pytest.approx(0.618, abs=0.002)
    assert found["default"]["missing"] == 0
