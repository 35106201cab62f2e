"""The papers' ablations: every switch is reachable, on any dataset, and the tables tell gains seed by seed."""

from __future__ import annotations

import pytest

from benchmarks.studies.papers import tables
from benchmarks.studies.papers.__main__ import main
from benchmarks.studies.papers.rows import PAPERS, WAYS, chosen
from benchmarks.studies.real import tables as real_tables
from benchmarks.studies.real.data import labelled
from tad.files import read_json, write_json
from tad.recipe.recipe import load_recipe
from tests.support.called import called
from tests.support.tiny import tiny_dataset

SAME = {("potloc:levels-2", "potloc:attention-labels-sampled")}
"""Two levels above the finest are what the recipe has."""


def command(*words):
    return called(main, *words)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("papers") / "mine"
    tiny_dataset(folder, videos=30)
    return folder


@pytest.mark.parametrize("paper", PAPERS, ids=lambda paper: paper.name)
def test_every_row_is_a_recipe_that_fits_its_labels(paper, folder):
    work = folder.parent / "work"
    for labels in paper.labels:
        data = labelled(str(folder), labels, "test", work)
        for name, way in paper.ways.items():
            recipe = load_recipe(way.recipe, way.overrides)
            known = labelled(str(folder), "full", "test", work) if recipe.labeler.method == "full" else data
            assert not recipe.problems(known), name


def test_no_two_rows_are_the_same_recipe():
    seen = {}
    for name, way in WAYS.items():
        content = load_recipe(way.recipe, way.overrides).model_dump_json()
        assert content not in seen or (name, seen[content]) in SAME, (name, seen[content])
        seen[content] = name


@pytest.mark.parametrize("paper", PAPERS, ids=lambda paper: paper.name)
def test_tables_name_ways_and_every_way_is_in_a_table(paper):
    for table in paper.tables:
        lines = {line.way for line in table.lines}
        assert {way for step in table.steps for way in (step.way, step.against)} <= lines
        assert all(len(line.figures) <= len(paper.labels) for line in table.lines)
    assert {line.way for table in paper.tables for line in table.lines} == paper.ways.keys()


def invented(labels, way, seed, value):
    return {
        "dataset": "shrec22",
        "labels": labels,
        "way": way,
        "seed": seed,
        "part": "dev",
        "map": {"0.1": 90.0, "0.3": value, "0.7": value - 2, "mean": 0.0},
        "labels_quality": {"judged": "points", "count": 5, "matched": 4, "unmatched": 3, "mean_tiou": 0.625},
        "seconds": 7.0,
        "commit": "abc",
    }


def test_tables_tell_gains_by_seed_beside_the_paper_s(tmp_path):
    found = [invented("full40", "apl:fixed", seed, 60 + seed) for seed in (0, 1, 2)]
    found += [invented("full40", "apl:alqa", seed, 62 + 3 * seed) for seed in (0, 2)]
    found.append(invented("points", "hrpro:base", 0, 60))
    (tmp_path / "dev").mkdir()
    for i, result in enumerate(found):
        write_json(tmp_path / "dev" / f"{i}.json", result)
    text = tables.markdown(tables.read(tmp_path))
    ladder = text[text.index("### apl, Table 3") : text.index("### apl, Table 4")]
    assert "shrec22, full40, dev videos" in ladder
    assert "| threshold .3 | `apl:fixed` | **60.0** | 59.0, 60.0, 61.0 | 0.625 | 7 | 48.8 | 7 | abc |" in ladder
    assert "| ALQA | `alqa` over `fixed` | **+4.0** | +2.0, +6.0 | 2 of 2 | +3.8 |" in ladder
    assert "ICD" not in ladder  # no result of it
    assert "### apl, Table 4" in text and "diou" not in text
    # HR-Pro's mean begins at .1, APL's at .3.
    assert f"| base | `hrpro:base` | **{(90 + 60 + 58) / 3:.1f}** |" in text
    with pytest.raises(SystemExit, match="no results"):
        real_tables.read(tmp_path)  # they are no rows of the benchmark's own tables


def test_rows_run_on_a_dataset_folder_and_are_kept(tmp_path):
    tiny_dataset(tmp_path / "mine")
    words = ("--out", tmp_path, "--data", tmp_path / "mine", "--seeds", 0, "--only")
    made = command(*words, "mine/points/potloc:base", "*/potloc:convolutions-truth-sampled")
    assert made.returncode == 0, made.stderr
    assert "0 results are there, 2 to do; code " in made.stdout
    trained = [line for line in made.stderr.splitlines() if line.startswith("snippet/train: ")]
    assert sum("already there" not in line for line in trained) == 1  # ground truth teaches the detector alone
    base, taught = (
        read_json(tmp_path / "test" / f"mine-points-potloc:{way}-seed-0.json")
        for way in ("base", "convolutions-truth-sampled")
    )
    assert [base["dataset"], base["part"], base["reads"]] == ["mine", "test", 1]
    assert list(base["map"]) == [f"0.{n}" for n in range(1, 8)] + ["mean"]
    assert base["labels_quality"] is None
    assert taught["labels_quality"]["mean_tiou"] == pytest.approx(1)
    assert "2 results are there, 0 to do" in command(*words, "*/potloc:base", "*:convolutions-truth-sampled").stdout
    shown = command("--table", tmp_path)
    assert "### potloc, Table 2, what supervises the detector, and sampling: mine, points, test videos" in shown.stdout


def test_the_benchmark_s_test_videos_do_not_judge(tmp_path):
    (tmp_path / "shrec22").mkdir()
    for words in (("--list",), ("--out", tmp_path)):
        refused = command("--data", tmp_path / "shrec22", *words)
        assert refused.returncode == 1 and "do not judge these rows; give --data shrec22" in refused.stderr


def test_the_list_tells_the_commands():
    shown = command("--list", "--only", "shrec22/full40/apl:diou").stdout
    assert shown.startswith("shrec22/full40/apl:diou: tad run apl-small --rounds 1 --set ")
    assert "--set 'detector.training.quality.branches=diou'" in shown
    with pytest.raises(SystemExit, match="matches no row"):
        chosen("shrec22", ["*/hrpro:nothing"])
