"""The page of a run: its sections, numbers and words, whatever the run's folder lacks; and the command."""

from __future__ import annotations

import json
import re
import shutil
import time
from pathlib import Path

import pytest
from click.testing import CliRunner

from tad.commands.report import report as command
from tad.data.dataset import Dataset
from tad.data.segments import Segments
from tad.errors import DataError
from tad.report.figures import figures_of_round
from tad.report.html import number, percent, seconds, write_report
from tad.report.style import plain
from tad.words import flat
from tests.support.page import Page
from tests.support.run_folder import KEYS, make_dataset, make_run

HOSTILE = '<script>alert("$x^{")</script>'


def written(root: Path, data: Dataset) -> str:
    """The page as `tad run` writes it at its end."""
    scores = {role: root.parent / "store" / key for role, key in KEYS.items()}
    return write_report(root, data=data, scores=scores).read_text(encoding="utf-8")  # type: ignore[arg-type]


@pytest.fixture(scope="module")
def page(run, data) -> str:
    return written(run, data)


def test_the_page_has_every_section_and_no_reference_to_the_outside(page):
    parsed = Page(page)
    sections = [v for tag, k, v in parsed.attributes if tag == "h2" and k == "id"]
    assert sections == [
        "rounds",
        "timelines",
        "curves",
        "classes",
        "reliability",
        "lengths",
        "training",
        "stages",
        "warnings",
        "settings",
        "meaning",
    ]
    outside = [v for _, k, v in parsed.attributes if k in ("src", "href", "xlink:href") and not v.startswith("#")]
    assert not outside and "script" not in parsed.tags and "@import" not in page
    assert not re.findall(r"url\((?!#)", page)
    # rounds; timelines (test, train); curves; reliability; lengths; losses
    assert parsed.tags.count("svg") == 1 + 3 + 4 + 1 + 1 + 1 + 1


def test_the_page_is_accessible(page):
    parsed = Page(page)
    assert ("html", "lang", "en") in parsed.attributes
    assert any(tag == "meta" and v == "viewport" for tag, _, v in parsed.attributes)
    assert parsed.tags.count("th") == sum(1 for tag, k, _ in parsed.attributes if tag == "th" and k == "scope")
    labels = [v for tag, k, v in parsed.attributes if tag == "svg" and k == "aria-label"]
    assert len(labels) == parsed.tags.count("svg") == len(set(labels))


def test_headline_and_tables_hold_the_runs_numbers(page, run):
    rows = json.loads((run / "rounds.json").read_text())
    best = next(r for r in rows if r["selected"])
    text = re.sub(r"\s+", " ", Page(page).text)
    assert f"{100 * best['test_map']['average']:.1f} %" in text
    assert f"Best round: {best['round']}, selected by the points score" in text
    for row in rows:
        for value in row["test_map"]["mAP"].values():
            assert f"{100 * value:.1f}" in text
    assert "0.580" in text and "1 h 12 min" in text and "3 points lie in no proposal" in text
    assert "labeler.bag.scales" in text and "[0.5, 1.0]" in text
    assert "leak" not in text


def test_selecting_on_test_videos_is_said_to_leak(small, tmp_path):
    root = make_run(tmp_path, small, rounds=1, select="test")
    for path in root.glob("round-*/*.parquet"):
        path.unlink()
    text = written(root, small)
    assert 'id="timelines"' not in text and "mAP [%] on the test videos" in text
    assert "These numbers leak" in text and "read once" not in text


def test_names_of_classes_videos_and_settings_are_escaped(tmp_path):
    data = make_dataset(tmp_path / "data", train=2, test=1, classes=[HOSTILE, "a & b", "x\u202e$y_{"])
    root = make_run(tmp_path, data, rounds=1)
    document = json.loads((root / "run.json").read_text())
    document["recipe"]["<b>"] = "</td><img src=x onerror=alert(1)>"
    document["recipe_name"] = "</title><script>1</script>"
    document["command"] = "tad \x1b]0;title\x07\x9b2J"  # a terminal that shows the page would obey
    (root / "run.json").write_text(json.dumps(document))
    path = root / "round-1" / "detections-test.parquet"
    bad = Segments.of(["../../etc/passwd", "<script>"], [0.0, 1.0], [5.0, 6.0], "<script>", 1.0)
    Segments.concat([Segments.from_parquet(path), bad]).to_parquet(path)
    text = written(root, data)
    assert "<script" not in text and "<img" not in text and "<b>" not in text
    parsed = Page(text)
    assert r"tad \x1b]0;title\x07\x9b2J" in parsed.text
    assert HOSTILE in parsed.text and "onerror=alert(1)" in parsed.text
    assert len(figures_of_round(root, data, 1)) == 4


def test_a_run_that_has_just_started(small, tmp_path):
    root = make_run(tmp_path, small, rounds=1, state="running")
    (root / "rounds.json").unlink()
    text = written(root, small)
    assert "Not finished" in text and "No round is complete yet" in text and 'id="training"' in text


def test_a_failed_run_without_test_detections_shows_the_training_videos(small, tmp_path):
    root = make_run(tmp_path, small, rounds=2, state="failed")
    for path in root.glob("round-*/*-test.parquet"):
        path.unlink()
    rows = json.loads((root / "rounds.json").read_text())
    (root / "rounds.json").write_text(json.dumps([r | {"test_map": None} for r in rows]))
    with (root / "events.jsonl").open("a") as file:
        file.write(
            json.dumps({"kind": "failures", "name": "snippet/score", "failures": {"video_0001": "empty <file>"}})
        )
        file.write('\n{"kind": "epo')  # killed while writing
    text = written(root, small)
    assert "Failed" in text and "on the training videos" in text and "mAP [%] on the test" not in text
    assert "stage snippet/score failed for video video_0001: empty &lt;file&gt;" in text


def test_options_that_were_derived_have_their_reasons(page, run, data, tmp_path):
    text = re.sub(r"\s+", " ", Page(page).text)
    assert text.count("actionformer/train, round 1: options derived from the data") == 1
    assert re.search("width ?64 ?about half of 128 <channels>", text) and re.search("lr ?0.0008 ?as narrow", text)
    odd = tmp_path / "odd"
    shutil.copytree(run, odd)
    events = (odd / "events.jsonl").read_text().replace('"options": {"width": [64, ', '"options": {"width": [64, 1, ')
    (odd / "events.jsonl").write_text(events.replace('"kind": "derived"', '"kind": "derived", "options": 3', 1))
    assert "options derived from the data" in written(odd, data)


def test_without_ground_truth_videos_are_ranked_by_detections(tmp_path):
    data = make_dataset(tmp_path / "data", train=2, test=1, truth=False)
    root = make_run(tmp_path, data, rounds=1)
    text = written(root, data)
    assert text.count("they have no ground truth") == 2 and "confident detections</figcaption>" in text
    assert 'id="classes"' not in text and 'id="curves"' not in text
    assert not any("precision" in path.name for path in figures_of_round(root, data, 1))


def test_without_test_videos(tmp_path):
    data = make_dataset(tmp_path / "data", train=2, test=0)
    text = written(make_run(tmp_path, data, rounds=1), data)
    assert "mAP on training videos" in text and "test videos</span>" not in text


def test_with_empty_detections_and_labels(small, tmp_path):
    root = make_run(tmp_path, small, rounds=1)
    for path in root.glob("round-1/*.parquet"):
        Segments.empty().to_parquet(path)
    text = written(root, small)
    assert "coverage 0.00" in text and "detections (none)" in text
    assert len(figures_of_round(root, small, 1)) == 4


def test_a_missing_dataset_or_a_broken_file_is_noted(small, tmp_path):
    root = make_run(tmp_path, small, rounds=1)
    (root / "round-1" / "detections-test.parquet").write_bytes(b"PAR1 half a file")
    text = written(root, small)
    assert "Figures of the test videos are left out" in text and 'id="timelines"' in text


def test_without_the_dataset_its_figures_are_left_out_and_the_option_is_named(small, tmp_path):
    """What run.json names is not opened, though it is there."""
    root = make_run(tmp_path, small, rounds=1)
    text = write_report(root).read_text()
    assert "tad report RUN --data DATASET --store STORE" in text and 'id="timelines"' not in text
    assert 'id="rounds"' in text and 'id="training"' in text
    other = make_dataset(tmp_path / "other", train=2, test=1, classes=["a", "b"])
    text = write_report(root, data=other).read_text()
    assert "are not those of the run" in text and 'id="timelines"' not in text


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda p: p / "absent", "no such folder"),
        (lambda p: p, "holds no run.json"),
        (lambda p: _write(p, "run.json", "[1"), "run.json: not a JSON file"),
        (lambda p: _write(p, "run.json", "[]"), "not what `tad run` writes"),
        (lambda p: _write(p, "run.json", "{}"), "3 problems"),
        (lambda p: _write(p, "rounds.json", '[{"seconds": 1}, {"round": "x"}]'), "2 problems"),
    ],
)
def test_foreign_folders_are_refused(make, message, tmp_path, data):
    make_run(tmp_path / "good", data, rounds=0)
    with pytest.raises(DataError, match=re.escape(message)):
        write_report(make(tmp_path))


def _write(folder: Path, name: str, text: str) -> Path:
    valid = {"run.json": (folder / "good" / "run" / "run.json").read_text()}
    for file, content in (valid | {name: text}).items():
        (folder / file).write_text(content)
    return folder


def test_numbers_as_text():
    assert (percent(0.4567), percent(None), percent(float("nan"))) == ("45.7", "–", "–")
    assert (number(0.5), number(None)) == ("0.500", "–")
    assert (seconds(5), seconds(75), seconds(7261), seconds(None)) == ("5.0 s", "1 min 15 s", "2 h 01 min", "–")
    assert flat({"a": {"b": 1, "c": {}}, "d": [1]}) == {"a.b": 1, "a.c": {}, "d": [1]}
    assert plain("a\nb\x00c") == "a b c" and len(plain("x" * 99)) == 28


def test_a_large_run_stays_small_and_quick(tmp_path):
    data = make_dataset(tmp_path / "data", train=100, test=100, classes=[f"class {i}" for i in range(20)])
    root = make_run(tmp_path, data, rounds=1)
    start = time.process_time()
    path = root / "report.html"
    written(root, data)
    assert time.process_time() - start < 10
    assert path.stat().st_size < 3_000_000


def test_the_command(small, tmp_path):
    root, out = make_run(tmp_path, small, rounds=0), tmp_path / "deep" / "page.html"
    result = CliRunner().invoke(command, [str(root), "--out", str(out)])
    assert result.exit_code == 0 and f"report: {out}" in result.output
    assert out.read_text().startswith("<!DOCTYPE html>") and "proposals" in out.read_text()
    result = CliRunner().invoke(command, [str(tmp_path)])
    assert isinstance(result.exception, DataError) and "run.json" in str(result.exception)
    arguments = [str(root), "--data", str(small.root), "--store", str(tmp_path / "store")]
    assert CliRunner().invoke(command, arguments).exit_code == 0
    text = (root / "report.html").read_text()
    assert 'id="timelines"' in text and "actionness" in text
