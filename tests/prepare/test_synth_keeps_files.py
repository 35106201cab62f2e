"""`tad synth`, `split` and `labels` on folders that hold somebody's files, and with values beyond sense."""

from __future__ import annotations

import os
import shutil

import numpy as np
import pytest

from tad.cli import main
from tad.data.dataset import Dataset
from tad.prepare.output import MARKER
from tests.support.world import killed_after, refused, run, snapshot


def test_synthetic_features_never_replace_real_ones(world, capsys):
    """Nor do they go through a link, or leave dataset.yaml changed when they cannot be written."""
    command = ["synth", "data", "--dim", "6", "--force"]

    def refused_here(message: str) -> None:
        before = snapshot(world)
        with pytest.raises(SystemExit) as end:
            main(command)
        assert end.value.code == 1 and message in capsys.readouterr().err and snapshot(world) == before

    refused_here("features: was not written by `tad synth`")
    shutil.move(world / "data" / "features", world / "real")
    (world / "data" / "features").symlink_to(world / "real")
    refused_here("features: is a link to")
    (world / "data" / "features").unlink()
    (world / "data" / "features").mkdir()
    for path in sorted((world / "real").glob("*.npy")):
        (world / "data" / "features" / path.name).symlink_to(path)
    (world / "data" / "features" / "readme.txt").write_text("mine")
    refused_here("features: was not written by `tad synth`")
    (world / "data" / "features" / "readme.txt").unlink()
    (world / "data" / "synth.json").write_text('{"my": "own"}')
    refused_here("synth.json: was not written by `tad synth`")
    (world / "data" / "synth.json").unlink()
    real = snapshot(world / "real")
    with pytest.raises(SystemExit):
        main(command)
    assert snapshot(world / "real") == real  # the links are replaced, what they lead to stays
    data = Dataset.open(world / "data")
    assert data.manifest.grid.dim == 6 and not data.feature_path("train_0000").is_symlink()
    (world / "data" / "features" / "train_0000.npy").unlink()
    np.save(world / "data" / "features" / "train_0000.npy", np.ones((9, 6), np.float32))
    refused_here("train_0000.npy: was changed")


def test_features_that_are_killed_or_do_not_fit_leave_dataset_yaml(world, capsys):
    shutil.rmtree(world / "data" / "features")
    old = (world / "data" / "dataset.yaml").read_bytes()
    for count in range(14):
        assert killed_after(count, lambda: main(["synth", "data", "--dim", "6"]))
        assert (world / "data" / "dataset.yaml").read_bytes() in (old, old.replace(b"dim: 4", b"dim: 6"))
    with pytest.raises(SystemExit) as end:
        main(["synth", "data", "--dim", "6"])
    assert end.value.code == 0 and Dataset.open(world / "data").features("train_0000").shape[1] == 6


def test_an_import_may_be_given_synthetic_features_and_be_made_again(world, capsys):
    for more in ([], ["--force"]):
        assert run("import epic", "OUT", *more) == 0, capsys.readouterr().err
        with pytest.raises(SystemExit) as end:
            main(["synth", "OUT", "--dim", "4"])
        assert end.value.code == 0, capsys.readouterr().err
    (world / "OUT" / "features" / "mine.npy").write_bytes(b"mine")
    refused("import epic", world, "features/mine.npy: was added", capsys)


def test_features_in_the_output_that_is_to_be_replaced(world, capsys):
    """A dataset links to files of another one; made anew from it, that one would lose them."""
    assert run("import opentad", "copied") == 0
    shutil.copytree("copied", "linked", symlinks=True)
    (world / "linked" / MARKER).unlink()
    for path in (world / "linked" / "features").glob("*.npy"):
        path.unlink()
        path.symlink_to(world / "copied" / "features" / path.name)
    before = snapshot(world)
    with pytest.raises(SystemExit) as end:
        main(["labels", "linked", "copied", "--kind", "none", "--force"])
    assert end.value.code == 1 and "holds what is read" in capsys.readouterr().err
    assert snapshot(world) == before


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["split", "data", "--dev", "nan", "--out", "OUT"], "nan"),
        (["split", "data", "--hide-points", "inf", "--out", "OUT"], "is not in the range"),
        (["split", "data", "--labelled", "1e-300", "--out", "OUT"], "is 0 labelled ones"),
        (["split", "data", "--kfold", str(10**9), "--out", "OUT"], "needs 2 to 4"),
        (["split", "data", "--kfold", "9" * 5000, "--out", "OUT"], "is not a valid integer"),
        (["split", "data", "--kfold", "-2", "--out", "OUT"], "needs 2 to 4"),
        (["split", "data", "--dev", ".4", "--seed", "-1", "--out", "OUT"], "is not in the range"),
        (["split", "data", "--dev", ".4", "--seed", "1" * 400, "--out", "OUT"], "is not in the range"),
        (["labels", "data", "OUT", "--mix", "full=nan,none=0.5"], "must be positive and sum to 1"),
        (["labels", "data", "OUT", "--mix", "full=1e999"], "must be positive and sum to 1"),
        (["labels", "data", "OUT", "--kind", "none", "--videos", "rubbish"], "rubbish: line 2: the byte 0xff is"),
        (["labels", "data", "OUT", "--kind", "none", "--videos", "empty"], "empty: names no video"),
        (["labels", "data", "OUT", "--kind", "none", "--videos", "precious"], "is a directory"),
        (["labels", "data", "OUT", "--kind", "none", "--videos", "pipe"], "pipe: is a named pipe, not a file"),
        (["labels", "data", "OUT", "--kind", "none", "--videos", "others"], "video ../x"),
    ],
)
def test_numbers_and_lists_beyond_sense(arguments, message, world, capsys):
    (world / "rubbish").write_bytes(b"train_0000\n\xff\xfe\x00")
    (world / "empty").write_text("\n")
    (world / "others").write_text("../x\ntrain_0000\n")
    os.mkfifo(world / "pipe")
    names = sorted(p.name for p in world.iterdir())
    with pytest.raises(SystemExit) as end:
        main(arguments)
    said = capsys.readouterr().err
    assert end.value.code in (1, 2) and message in said and "Traceback" not in said
    assert sorted(p.name for p in world.iterdir()) == names


def test_a_list_of_videos_as_spreadsheets_write_it(world):
    (world / "list").write_bytes(b"\xef\xbb\xbftrain_0000\r\ntrain_0002\r\n")
    with pytest.raises(SystemExit) as end:
        main(["labels", "data", "OUT", "--kind", "none", "--videos", "list"])
    data = Dataset.open(world / "OUT")
    assert end.value.code == 0
    assert [v for v in data.videos("train") if data.supervision(v) == "none"] == ["train_0000", "train_0002"]
