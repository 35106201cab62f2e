"""Options of `tad synth` for what features show of boundaries: each changes what it says, and nothing without them."""

from __future__ import annotations

import json

import click
import numpy as np
import pytest
from click.testing import CliRunner

from tad.cli import tad
from tad.commands import data as commands
from tad.errors import DataError
from tad.evaluation.ground_truth import ground_truth
from tad.prepare.synth import make_dataset, write_features
from tad.prepare.synth_video import jittered
from tad.prepare.synth_world import Cues, Levels, World
from tests.support.digests import digests

RECORDED = ["dim", "seed", "difficulty", "invented"]
CUES = {"jitter": 0.04, "edge_drop": 0.1, "context": 0.1}


def shown(folder, **cues) -> dict[str, float]:
    """What the features of 16 test videos show, by the scores of a ridge that learnt actions on 16 training videos.

    * onset: median distance of the steepest step in scores from the annotated boundary, shares of the length.
    * ends: mean score of the outer 15 % at both ends, that of the background being 0 and that of the middle 1.
    * contrast: mean score of actions less that of the background, which is 1 where all are told apart.
    """
    data = make_dataset(folder, videos=16, test=16, classes=3, dim=48, difficulty=0.0, cues=Cues(**cues))
    rows = {}
    for role in ("train", "test"):
        truth = ground_truth(data, role).by_video()
        rows[role] = [(np.asarray(data.features(v)), data.grid(v), truth[v].spans) for v in data.videos(role)]
    x = np.concatenate([features for features, _, _ in rows["train"]])
    y = np.concatenate([inside(grid, len(features), spans) for features, grid, spans in rows["train"]])
    x = x - x.mean(axis=0)
    weights = np.linalg.solve(x.T @ x + 100 * np.eye(x.shape[1]), x.T @ (y - y.mean()))
    onset, end, middle, action, background = [], [], [], [], []
    for features, grid, spans in rows["test"]:
        score, centre = features @ weights, grid.from_position(np.arange(len(features), dtype=float))
        of_action = inside(grid, len(features), spans)
        action.append(score[of_action])
        background.append(score[~of_action])
        for start, stop in spans:
            along = (centre - start) / (stop - start)
            middle.append(score[(along > 0.35) & (along < 0.65)])
            end.append(score[(along >= 0) & (along < 1) & (np.abs(along - 0.5) > 0.35)])
            for at in (along, 1 - along):
                order = np.argsort(at)
                order = order[np.abs(at[order]) < 0.5]
                if len(order) > 3:
                    onset.append(abs(step(at[order], score[order])))
    floor, top, ends, all_actions = (np.concatenate(v).mean() for v in (background, middle, end, action))
    return {
        "onset": float(np.median(onset)),
        "ends": float((ends - floor) / (top - floor)),
        "contrast": float(all_actions - floor),
    }


def inside(grid, count, spans) -> np.ndarray:
    centre = grid.from_position(np.arange(count, dtype=float))[:, None]
    return ((spans[:, 0] <= centre) & (centre < spans[:, 1])).any(1)


def step(at: np.ndarray, score: np.ndarray) -> float:
    """Where a step up explains most of the scores."""
    gains = []
    for k in range(1, len(at)):
        rise = score[k:].mean() - score[:k].mean()
        gains.append(k * (len(at) - k) * rise * abs(rise))
    k = int(np.argmax(gains))
    return float(at[k] + at[k + 1]) / 2


def test_each_option_changes_what_it_says(tmp_path):
    plain = shown(tmp_path / "plain")
    assert shown(tmp_path / "no jitter", jitter=0.0)["onset"] < plain["onset"]
    assert shown(tmp_path / "jitter", jitter=0.3)["onset"] > 2 * plain["onset"]
    assert shown(tmp_path / "edges", edge_drop=0.0)["ends"] > plain["ends"] + 0.05
    assert shown(tmp_path / "no edges", edge_drop=1.0)["ends"] < plain["ends"] - 0.2
    assert shown(tmp_path / "context", context=1.0)["contrast"] < plain["contrast"] - 0.1
    assert shown(tmp_path / "no context", context=0.0)["contrast"] > plain["contrast"]


def test_jitter_is_the_standard_deviation_of_each_end():
    spans = np.tile([10.0, 14.0], (4000, 1))
    moved = jittered(spans, 0.04, np.random.default_rng(0)) - spans
    assert moved.std(axis=0) == pytest.approx([0.16, 0.16], rel=0.05)
    assert (jittered(spans, 0.0, np.random.default_rng(0)) == spans).all()


def test_what_is_not_given_follows_from_the_difficulty():
    assert Levels.at(0.3, Cues()) == Levels.at(0.3)
    given = Levels.at(0.3, Cues(**CUES))
    same = [name for name in vars(given) if getattr(given, name) == getattr(Levels.at(0.3), name)]
    assert {name: getattr(given, name) for name in CUES} == CUES
    assert set(vars(given)) - set(same) == set(CUES)
    one, other = World(["x", "y"], 0, 0.5, 8), World(["x", "y"], 0, 0.5, 8, Cues(**CUES))
    np.testing.assert_array_equal(one.motion, other.motion)  # classes look alike at both


def test_cues_change_the_features_alone_and_are_recorded(tmp_path):
    small = {"videos": 3, "classes": 2, "dim": 4}
    for name, cues in (("a", Cues()), ("b", Cues(**CUES)), ("c", Cues(jitter=0.04))):
        make_dataset(tmp_path / name, **small, cues=cues)
    a, b, c = (digests(tmp_path / name) for name in "abc")
    for other in (b, c):
        differ = {k for k in a if a[k] != other[k]} - {"dataset.yaml"}  # which holds the folder's name
        assert differ == {k for k in a if k.endswith(".npy")} | {"synth.json"}
    records = [json.loads((tmp_path / name / "synth.json").read_text()) for name in "abc"]
    assert list(records[0]) == RECORDED
    assert records[1] == {**records[0], **CUES}
    assert records[2] == {**records[0], "jitter": 0.04}
    write_features(tmp_path / "b", force=True)  # without options: as the difficulty has it, in the record, too
    same = "dataset.yaml"
    assert {k: v for k, v in digests(tmp_path / "b").items() if k != same} == {k: v for k, v in a.items() if k != same}
    write_features(tmp_path / "b", force=True, cues=Cues(**CUES))
    assert digests(tmp_path / "b") == b
    make_dataset(tmp_path / "b", **small, force=True)
    assert list(json.loads((tmp_path / "b" / "synth.json").read_text())) == RECORDED


@pytest.mark.parametrize("name", CUES)
@pytest.mark.parametrize("level", [-0.01, 1.01, float("nan"), float("inf")])
def test_levels_out_of_range(tmp_path, name, level):
    with pytest.raises(DataError, match=f"{name} {level} must be between 0 and 1"):
        make_dataset(tmp_path / "d", videos=1, classes=1, dim=4, cues=Cues(**{name: level}))
    assert not (tmp_path / "d").exists()
    make_dataset(tmp_path / "d", videos=1, classes=1, dim=4)
    before = digests(tmp_path / "d")
    with pytest.raises(DataError, match=f"{name} {level} must be between 0 and 1"):
        write_features(tmp_path / "d", force=True, cues=Cues(**{name: level}))
    assert digests(tmp_path / "d") == before


def test_the_command_takes_them_and_refuses_others(tmp_path):
    run, folder = CliRunner(), tmp_path / "d"
    given = [str(folder), "--jitter", "0.04", "--edge-drop", "0.1", "--context", "0.1"]
    invented = run.invoke(commands.synth, [*given, "--videos", "2", "--classes", "2", "--dim", "4"])
    assert invented.exit_code == 0, invented.output
    assert {k: v for k, v in json.loads((folder / "synth.json").read_text()).items() if k in CUES} == CUES
    assert run.invoke(commands.synth, [*given, "--jitter", "0.5", "--force"]).exit_code == 0
    assert json.loads((folder / "synth.json").read_text())["jitter"] == 0.5
    for option in ("--jitter", "--edge-drop", "--context"):
        for value in ("-0.1", "1.1", "nan"):
            refused = run.invoke(commands.synth, [str(tmp_path / "new"), option, value])
            assert refused.exit_code == 2 and option in refused.output and not (tmp_path / "new").exists()


def test_the_help_says_what_the_difficulty_gives():
    synth = tad.get_command(click.Context(tad), "synth")
    for name in CUES:
        option = next(p for p in synth.params if p.name == name)
        easy, hard = (getattr(Levels.at(d), name) for d in (0.0, 1.0))
        assert f"[default: by --difficulty, {easy:g} to {hard:g}]" in option.help
