"""The report and the figures, on run folders written through the real record."""

from __future__ import annotations

import json
import re
import time
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from click.testing import CliRunner
from PIL import Image

from distributed.run.record import Record
from tad.commands.report import report as command
from tad.data.dataset import Dataset
from tad.data.segments import Segments
from tad.errors import DataError
from tad.evaluation.evaluator import evaluate
from tad.evaluation.ground_truth import ground_truth
from tad.report.figures import RECALLS, figures_of_round, precision_recall_of, precisions, sample_videos
from tad.report.html import number, percent, seconds, write_report
from tad.report.run import Run
from tad.report.style import INK, class_colours, plain, svg
from tad.report.timeline import LANES, Timeline, _lanes, timeline_figure
from tad.report.view import View

CLASSES = ["HighJump", "LongJump", "PoleVault", "Shotput", "Diving"]
KEYS = {"train": "0a" * 12, "test": "0b" * 12}
HOSTILE = '<script>alert("$x^{")</script>'


def make_dataset(
    folder: Path, train: int = 4, test: int = 3, classes: list[str] = CLASSES, truth: bool = True, seed: int = 0
) -> Dataset:
    """A dataset without features: activations come from the run's folder."""
    rng = np.random.default_rng(seed)
    folder.mkdir(parents=True)
    manifest = {
        "name": "synthetic",
        "classes": classes,
        "subsets": {"training": "train", "validation": "test"},
        "grid": {"fps": 25.0, "stride": 16, "window": 16, "dim": 8},
    }
    (folder / "dataset.yaml").write_text(yaml.safe_dump(manifest))
    database, points = {}, ["video_id,label,time"]
    for i in range(train + test):
        video, subset = f"video_{i:04d}", "training" if i < train else "validation"
        seconds = float(rng.uniform(60, 260))
        annotations, at = [], 3.0
        mine = rng.choice(len(classes), size=min(len(classes), int(rng.integers(1, 4))), replace=False)
        while at < seconds - 20:
            length = float(np.exp(rng.normal(1.5, 0.6)))
            name = classes[int(rng.choice(mine))]
            annotations.append({"segment": [at, at + length], "label": name})
            if i < train:
                points.append(
                    f'{video},"{name.replace(chr(34), chr(34) * 2)}",{at + rng.uniform(0.2, 0.8) * length:.3f}'
                )
            at += length + float(rng.exponential(14.0)) + 1.0
        database[video] = {
            "subset": subset,
            "duration": seconds,
            "fps": 30.0,
            "annotations": annotations if truth else [],
        }
    (folder / "annotations.json").write_text(json.dumps({"database": database}))
    (folder / "points.csv").write_text("\n".join(points) + "\n")
    return Dataset.open(folder)


def found_near(truth: Segments, data: Dataset, role: str, jitter: float, extra: int, seed: int) -> Segments:
    """Detections around ground truth, and `extra` wrong ones in each video, with lower scores on the whole."""
    rng = np.random.default_rng(seed)
    length = truth.end - truth.start
    start = np.maximum(0, truth.start + rng.normal(0, jitter, len(truth)) * length)
    end = np.maximum(start + 0.2, truth.end + rng.normal(0, jitter, len(truth)) * length)
    good = truth.replace(start=start, end=end, score=rng.beta(5, 3, len(truth)), source="actionformer/detect@1")
    videos = [v for v in data.videos(role) for _ in range(extra)]  # type: ignore[arg-type]
    start = np.array([rng.uniform(0, data.duration(v) - 12) for v in videos])
    bad = (
        Segments.of(
            videos,
            start,
            start + np.exp(rng.normal(1.5, 0.7, len(videos))).clip(0.3, 11),
            list(rng.choice(data.classes, len(videos))),
            rng.beta(2, 6, len(videos)),
        )
        if videos
        else Segments.empty()
    )
    return Segments.concat([good, bad])


def quality(value: float, points: int) -> dict[str, Any]:
    return {
        "mean_tiou": value,
        "share": {"0.3": value + 0.2, "0.5": value, "0.7": value - 0.2},
        "points": points,
        "missing": 3,
    }


def make_run(folder: Path, data: Dataset, rounds: int = 3, select: str = "points", state: str = "finished") -> Path:
    """A run's folder as `tad run` leaves it, with detections that get better round by round."""
    root = folder / "run"
    record = Record(root)
    truth = {role: ground_truth(data, role) for role in ("train", "test")}  # type: ignore[arg-type]
    # Where the dataset has no ground truth, things are put somewhere all the same.
    basis = {role: segments if len(segments) else _anywhere(data, role) for role, segments in truth.items()}
    points = sum(len(data.points(v).time) for v in data.videos("train"))
    document = {
        "recipe_name": "pser",
        "recipe": {"rounds": rounds, "labeler": {"method": "pser", "bag": {"scales": [0.5, 1.0]}}},
        "dataset": {
            "name": data.name,
            "root": str(data.root),
            "classes": data.classes,
            "points": points,
            "videos": {r: len(data.videos(r)) for r in ("train", "test") if data.videos(r)},
        },  # type: ignore[arg-type]
        "seed": 3,
        "select": select,
        "state": state,
        "started": "2025-01-02T03:04:05+00:00",
        "seconds": 4321.0,
        "best_round": max(1, rounds - 1) if state == "finished" else None,
        "versions": {"torch": "2.9.0", "ray": None},
        "tracking": {"uri": "sqlite:///mlflow.db", "run_id": "0123abcd"},
        "command": "tad run pser --data there",
        "scores": {role: _activations(folder / "store" / KEYS[role], data, role, basis[role]).name for role in basis},
    }
    record.save("run.json", document)
    rows = []
    for r in range(rounds + 1):
        (root / f"round-{r}").mkdir(exist_ok=True)
        maps: dict[str, Any] = {}
        for role in ("train", "test"):
            if not data.videos(role):  # type: ignore[arg-type]
                continue
            found = found_near(basis[role], data, role, 0.35 / (r + 1), 8, seed=r)
            name = "proposals" if r == 0 else "detections"
            found.to_parquet(root / f"round-{r}" / f"{name}{'-test' if role == 'test' else ''}.parquet")
            if len(truth[role]):
                maps[role] = evaluate(found, truth[role]).to_json()
        if r:
            labels = found_near(basis["train"], data, "train", 0.3 / r, 0, seed=50 + r)
            labels.to_parquet(root / f"round-{r}" / "labels.parquet")
        for i, name in enumerate(["snippet/train"] if r == 0 else ["pser/train", "actionformer/train"]):
            tags = {"fingerprint": f"{name}{r}", "role": "train", "round": str(r)}
            with record.stage(name, {}, tags, 20, "epoch"):
                for epoch in range(20):
                    record.epoch(name, epoch, {"loss": (2 + i) * float(np.exp(-epoch / 8)) + 0.3 / (r + 1)})
        measured = len(truth["train"]) > 0
        rows.append(
            {
                "round": r,
                "seconds": 100.0 + r,
                "labels": len(labels) if r else None,
                "quality": quality(0.5 + 0.04 * r, points) if r and measured else None,
                "seed_quality": quality(0.45 + 0.03 * r, points) if r and measured else None,
                "change": 0.7 + 0.05 * r if r > 1 else None,
                "scores": {"points": 0.3 + 0.1 * r, "dev_map": None},
                "train_map": maps.get("train"),
                "test_map": maps.get("test"),
                "selected": state == "finished" and r == max(1, rounds - 1),
            }
        )
        record.save("rounds.json", rows)
    record.warn("3 points lie in no proposal")
    return root


def _anywhere(data: Dataset, role: str) -> Segments:
    videos = data.videos(role)  # type: ignore[arg-type]
    start = [5.0 + i % 7 for i in range(len(videos))]
    return Segments.of(videos, start, [s + 6 for s in start], data.classes[0]) if videos else Segments.empty()


def _activations(folder: Path, data: Dataset, role: str, truth: Segments) -> Path:
    rng = np.random.default_rng(0)
    by_video = truth.by_video()
    for key in ("cas", "background"):
        (folder / key).mkdir(parents=True)
    for video in data.videos(role):  # type: ignore[arg-type]
        length = int(data.duration(video) * 25 / 16)
        cas = rng.uniform(0, 0.15, (length, len(data.classes))).astype(np.float32)
        time_of_row = data.grid(video, length).from_position(np.arange(length, dtype=float))
        mine = by_video.get(video, Segments.empty())
        for (start, end), c in zip(mine.spans, mine.label_index(data.classes), strict=True):
            cas[(time_of_row >= start) & (time_of_row <= end), c] = rng.uniform(0.5, 0.95)
        np.save(folder / "cas" / f"{video}.npy", cas)
        np.save(folder / "background" / f"{video}.npy", (1 - cas.max(axis=1)).astype(np.float32))
    return folder


def written(root: Path, data: Dataset) -> str:
    """The page as `tad run` writes it at its end."""
    scores = {role: root.parent / "store" / key for role, key in KEYS.items()}
    return write_report(root, data=data, scores=scores).read_text(encoding="utf-8")  # type: ignore[arg-type]


class Page(HTMLParser):
    """Parses a page strictly enough to see scripts, unclosed elements and outside references."""

    VOID = frozenset({"meta", "br", "link", "img", "input", "hr"})

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.open: list[str] = []
        self.attributes: list[tuple[str, str, str | None]] = []
        self.text = ""
        self.feed(text)
        self.close()
        assert not self.open, f"unclosed: {self.open}"

    def handle_starttag(self, tag, attrs):
        self.tags.append(tag)
        self.attributes += [(tag, k, v) for k, v in attrs]
        if tag not in self.VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag, attrs):
        self.tags.append(tag)
        self.attributes += [(tag, k, v) for k, v in attrs]

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        self.text += data


@pytest.fixture(scope="module")
def data(tmp_path_factory) -> Dataset:
    return make_dataset(tmp_path_factory.mktemp("report") / "data")


@pytest.fixture(scope="module")
def small(tmp_path_factory) -> Dataset:
    """Few videos, for pages that are looked at in one respect only."""
    return make_dataset(tmp_path_factory.mktemp("report") / "data", train=2, test=1)


@pytest.fixture(scope="module")
def run(data, tmp_path_factory) -> Path:
    return make_run(tmp_path_factory.mktemp("report"), data)


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
    assert parsed.tags.count("svg") == 1 + 3 + 4 + 1 + 1 + 1  # rounds; timelines (test, train); curves; lengths; losses


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


def test_activations_that_are_gone_leave_the_curve_out(data, run):
    opened = Run.open(run)
    view = View.open(opened, data, 1, "test", run.parent / "store" / KEYS["test"])
    video = data.videos("test")[0]
    curve = view.timelines([video])[0].curve
    assert curve is not None and curve.actionness.max() <= 1 and set(curve.cas) <= set(CLASSES)
    assert curve.time[0] == pytest.approx(8 / 25)  # the centre of the first 16 frames
    for scores in (None, Path("/nowhere")):
        assert View.open(opened, data, 1, "test", scores).timelines([video])[0].curve is None


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


def test_coverage_is_the_mean_best_tiou_of_the_same_class(data):
    video, other = data.videos("test")[:2]
    truth = Segments.of([video, video, other], [0.0, 20.0, 0.0], [10.0, 30.0, 4.0], ["Diving", "Diving", "Shotput"])
    found = Segments.of([video, video, other], [0.0, 20.0, 0.0], [5.0, 30.0, 4.0], ["Diving", "Shotput", "Diving"])
    assert View(data, 1, "test", truth=truth, confident=found).coverage() == {video: 0.25, other: 0.0}


def test_curves_enclose_ap(data, run):
    view = View.open(Run.open(run), data, 2, "test")
    ap = evaluate(view.detections, view.truth, [0.5])
    curves = precisions(view)
    assert sorted(curves) == ap.classes
    for name, value in zip(ap.classes, ap.ap[:, 0], strict=True):
        assert np.trapezoid(curves[name], RECALLS) == pytest.approx(value, abs=0.03)
    mean = precision_recall_of([view]).axes[0].lines[-1]
    assert mean.get_ydata() == pytest.approx(100 * np.mean(list(curves.values()), axis=0))


def test_lanes_do_not_overlap_while_they_last():
    rng = np.random.default_rng(0)
    start = rng.uniform(0, 100, 30)
    segments = Segments.of("v", start, start + 8, "a")
    lanes = _lanes(segments)
    assert set(lanes) <= set(range(LANES))
    for lane in range(LANES - 1):
        mine = np.sort(start[lanes == lane])
        crowded = np.array([((start <= t) & (start + 8 > t)).sum() for t in mine])
        assert all(gap >= 8 or crowd > LANES for gap, crowd in zip(np.diff(mine), crowded[1:], strict=True))


def test_figures_of_a_round_are_png_files_and_the_same_each_time(small, tmp_path):
    run = make_run(tmp_path, small, rounds=2)
    written = figures_of_round(run, small, 2)
    assert [p.name for p in written] == [f"timeline-{v}.png" for v in sample_videos(small)] + [
        "precision-recall.png",
        "lengths.png",
    ]
    first = [p.read_bytes() for p in written]
    assert all(Image.open(p).size[0] > 500 for p in written)
    assert [p.read_bytes() for p in figures_of_round(run, small, 2)] == first


def test_sample_videos_are_spread_and_fixed(data):
    assert len(sample_videos(data)) == 4
    assert sample_videos(data)[0] == data.videos("train")[0] and sample_videos(data)[-1] == data.videos("train")[-1]


def test_svg_takes_the_pages_colours_and_repeats_no_id(data, run):
    view = View.open(Run.open(run), data, 1, "test")
    drawings = [
        svg(timeline_figure(t, class_colours(data.classes)), t.describe()) for t in view.timelines(data.videos("test"))
    ]
    ids = [i for text in drawings for i in re.findall(r'\bid="([^"]+)"', text)]
    assert ids and len(ids) == len(set(ids))
    assert all("var(--ink)" in text and INK not in text for text in drawings)


def test_a_timeline_without_anything():
    empty = Timeline("v", 10.0, truth=Segments.empty(), points=[], detections=Segments.empty())
    assert svg(timeline_figure(empty, {}), empty.describe()).count("none</text>") == 3
    assert "no segments" in Timeline("v", 10.0).describe()
    assert svg(timeline_figure(Timeline("v", 10.0), {}), "nothing").startswith("<svg")


def test_numbers_as_text():
    assert (percent(0.4567), percent(None), percent(float("nan"))) == ("45.7", "–", "–")
    assert (number(0.5), number(None)) == ("0.500", "–")
    assert (seconds(5), seconds(75), seconds(7261), seconds(None)) == ("5.0 s", "1 min 15 s", "2 h 01 min", "–")
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
