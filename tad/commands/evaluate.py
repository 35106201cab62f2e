"""`tad evaluate` and `tad quality`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from tad.commands.options import FILE, FOLDER
from tad.commands.say import say
from tad.commands.threshold import Threshold, reliability_lines, score_rows, threshold_lines, thresholds

if TYPE_CHECKING:
    from tad.data.detections import Detections
    from tad.evaluation.evaluator import Evaluation
    from tad.evaluation.operating_point import OperatingPoint
    from tad.evaluation.quality_by_point import Quality
    from tad.evaluation.subset import Subset

OUT = click.Path(path_type=Path)


class TIoUs(click.ParamType):
    """0.1:0.7:0.1 (both ends included) or a list 0.5,0.75,0.95."""

    name = "tious"

    def get_metavar(self, param: click.Parameter, ctx: click.Context | None = None) -> str:
        return "LOW:HIGH:STEP|LIST"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> tuple[float, ...]:
        if isinstance(value, tuple):
            return value
        try:
            numbers = [float(part) for part in value.replace(":", ",").split(",")]
            if ":" in value:
                low, high, step = numbers
                count = int((high - low) / step + 1e-6) + 1 if 1e-3 <= step <= 1 else 0
                numbers = [round(low + k * step, 10) for k in range(count)]
        except (ValueError, OverflowError):
            numbers = []
        tious = tuple(numbers)
        if not tious or not all(0 < t <= 1 for t in tious) or len(set(tious)) < len(tious):
            self.fail(
                f"{value!r}: give LOW:HIGH:STEP such as 0.5:0.95:0.05, or a list such as 0.5,0.75; thresholds are "
                "distinct and in (0, 1], a step is at least 0.001",
                param,
                ctx,
            )
        return tious


@click.command()
@click.argument("detections", type=FILE, metavar="DETECTIONS.json|.parquet|.csv")
@click.option("--data", type=FOLDER, help="Dataset folder.")
@click.option("--annotations", type=FILE, help="A bare ActivityNet-style annotation file, in place of --data.")
@click.option("--subset", required=True, help="Role (train, dev, test) with --data, or a subset's name in the file.")
@click.option("--tiou", "tious", type=TIoUs(), default="0.1:0.7:0.1", show_default=True, help="tIoU thresholds.")
@click.option(
    "--protocol",
    type=click.Choice(["anet", "hrpro", "actionformer", "opentad", "gaufuse", "thumos14"]),
    default="anet",
    show_default=True,
    help="What is left out before matching; see below.",
)
@click.option(
    "--ignore", multiple=True, metavar="VIDEO", help="Leave out a video; with --annotations, may be repeated."
)
@click.option(
    "--classes",
    type=FILE,
    help="Class list, where DETECTIONS name classes by ids: a name a line (the first is 0), lines `ID NAME`, or CSV "
    "with id,key  [default: the dataset's classes, or the label_id of the annotation file]",
)
@click.option(
    "--task", type=click.Choice(["verb", "noun", "action"]), help="EPIC-KITCHENS challenge: which label counts."
)
@click.option(
    "--threshold",
    type=Threshold(),
    help="Also precision, recall and F1 at tIoU 0.5 of the detections that count: those of at least this score; or of "
    "their class's threshold in the operating point of RUN; auto: of the run in whose folder DETECTIONS lie.",
)
@click.option("--json", "out", type=OUT, help="Write the result as JSON; precisions are fractions 0..1.")
def evaluate(
    detections: Path,
    data: Path | None,
    annotations: Path | None,
    subset: str,
    tious: tuple[float, ...],
    protocol: str,
    ignore: tuple[str, ...],
    classes: Path | None,
    task: Any,
    threshold: float | str | Path | None,
    out: Path | None,
) -> None:
    """mAP of DETECTIONS against the ground truth of a subset.

    DETECTIONS are ActivityNet results, ActionFormer's columns, lists by video or the EPIC-KITCHENS challenge's as JSON;
    Parquet or CSV with video_id, start, end, label, score; or the THUMOS toolkit's lines (.txt). Times are seconds.

    They are matched as the ActivityNet evaluator does it. The protocols differ in what they leave out first:

    \b
      anet          nothing
      hrpro         detections that meet an ambiguous interval, in whole seconds
      actionformer  ground truth below 1 ms, and copies (same class, ends within 1 ms)
      opentad       ground truth of length <= 0, and copies
      gaufuse       detections that meet an ambiguous interval, in whole snippets;
                    tIoU is measured in whole snippets, too
      thumos14      detections that meet an ambiguous interval and find nothing;
                    matching and AP are those of the THUMOS toolkit

    In all of them, segments that reach beyond their video stay as they are; detections of a class that the ground
    truth does not have, and detections in videos of other subsets, are left out; detections in unknown videos and
    detections of no length are false positives. Ambiguous intervals come from the dataset (--data).

    Below mAP stands how reliable scores are: of the detections with scores in each tenth of 0 to 1, the share that is
    right at tIoU 0.5, and how far it lies from the score on the average (expected calibration error).
    """
    from tad.commands.output_file import file_to_write
    from tad.data.class_list import label_ids, read_classes
    from tad.data.dataset import Dataset
    from tad.data.detections import Detections
    from tad.errors import DataError
    from tad.evaluation.subset import Subset
    from tad.files import read_json

    if (data is None) == (annotations is None):
        raise click.UsageError("give either --data DIR or --annotations FILE")
    if threshold is not None and protocol == "thumos14":
        raise click.UsageError("--threshold goes with a protocol that matches by score; thumos14 does not")
    run = threshold if isinstance(threshold, Path) else None
    out = file_to_write(out, "--json", [detections, data, annotations, classes, run]) if out is not None else None
    names = read_classes(classes) if classes is not None else None
    if data is not None:
        if ignore:
            raise click.UsageError("--ignore goes with --annotations; a dataset lists its ignored videos itself")
        dataset = Dataset.open(data)
        target = Subset.of_dataset(dataset, subset)
        names = names or dict(enumerate(dataset.classes))
    else:
        assert annotations is not None
        target = Subset.of_file(annotations, subset, ignore)
        names = names or label_ids(read_json(annotations)) or None
    limit = thresholds(threshold, detections) if threshold is not None else None
    found = Detections.from_file(detections, names, task)
    say(f"{detections}: {found.form}, {_count(len(found), 'row')}")
    if not found.scored:
        say("note: no row has a score; all count as 1, and equal scores are taken by video, start and end")
    try:
        result = target.evaluate(found, tious, protocol)
    except DataError as error:
        raise DataError(f"{detections}: {error}") from error
    say("\n".join(evaluation_lines(result)))
    document = result.to_json() | _by_score(target, found, protocol, limit)
    for doubt in target.doubts(found):
        say(f"note: {doubt}")
    if protocol in ("hrpro", "gaufuse", "thumos14") and not target.ambiguous:
        say(f"note: protocol {protocol} leaves out ambiguous intervals, but none are given")
    _write(out, document)


def _by_score(target: Subset, found: Detections, protocol: str, limit: float | OperatingPoint | None) -> dict[str, Any]:
    """Says what the detections from a score on are worth, and how reliable scores are; the same as JSON."""
    from tad.evaluation.operating_point import TIOU
    from tad.evaluation.reliability import reliability, to_json

    judged = target.judge(found, TIOU, protocol)
    document: dict[str, Any] = {}
    if limit is not None:
        if isinstance(limit, float):
            limits, origin = [limit] * len(judged.classes), f"scores of at least {limit:g}"
        else:
            limits, origin = limit.of(judged.classes).tolist(), f"thresholds chosen on {limit.origin}"
        document["threshold"] = score_rows(judged, limits)
        say("\n".join(["", *threshold_lines(document["threshold"], origin)]))
    bins = reliability(judged) if found.scored else None
    if bins is not None:
        document["reliability"] = to_json(bins)
        say("\n".join(["", *reliability_lines(bins)]))
    elif found.scored:
        say("note: scores lie outside 0 to 1, so nothing is said of how reliable they are")
    return document


@click.command()
@click.argument("labels", type=FILE, metavar="LABELS.json|.parquet")
@click.option("--data", type=FOLDER, required=True, help="Dataset folder with points and full annotations.")
@click.option("--subset", type=click.Choice(["train", "dev", "test"]), default="train", show_default=True, help="Role.")
@click.option("--json", "out", type=OUT, help="Write the result as JSON; shares are fractions 0..1.")
def quality(labels: Path, data: Path, subset: Any, out: Path | None) -> None:
    """Quality of pseudo-labels: the tIoU of each point's pseudo-label with the point's own ground truth.

    A point's pseudo-label is the row of LABELS that names it ("point", within 1 ms); where no row does, the best-scored
    row without a point that contains it. A point without one counts as tIoU 0.

    Where the videos have no points, the quality of each pseudo-label: the tIoU with the nearest action of its video,
    and whether that has its class. Training videos that are fully labelled do not count.
    """
    from tad.commands.output_file import file_to_write
    from tad.data.dataset import Dataset
    from tad.data.labels import unlike
    from tad.data.segments import Segments
    from tad.errors import DataError
    from tad.evaluation.quality_by_label import instance_quality
    from tad.evaluation.quality_by_point import label_quality

    out = file_to_write(out, "--json", [labels, data]) if out is not None else None
    dataset = Dataset.open(data)
    segments = Segments.from_file(labels, dict(enumerate(dataset.classes)))
    if not len(segments):
        raise DataError(f"{labels}: holds no pseudo-labels")
    strange = [unlike(name, dataset.classes) for name in segments.codes("label")[1] if name not in dataset.classes]
    if strange:
        raise DataError(f"{labels}: classes that dataset.yaml does not have: {', '.join(strange[:5])}")
    by_instance = None if dataset.pointed(subset) else instance_quality(segments, dataset, subset)
    if by_instance is not None:
        lines, document = instance_lines(by_instance), by_instance
    else:
        try:
            result = label_quality(segments, dataset, subset)
        except DataError as error:
            raise DataError(f"{labels}: {error}") from error
        lines, document = quality_lines(result), result.to_json()
    say("\n".join(lines))
    _write(out, document)


def evaluation_lines(result: Evaluation) -> list[str]:
    """The printed table: mAP by threshold, averages, AP by class; percent."""
    from tad.errors import printable
    from tad.evaluation.evaluator import tiou_key

    names = [printable(c) for c in result.classes]
    width = max(8, *map(len, names))
    keys = [tiou_key(t) for t in result.tious]
    lines = [
        f"protocol {result.protocol}: {_count(result.counts['videos'], 'video')}, "
        f"{_count(result.counts['ground_truth'], 'ground-truth segment')}, "
        f"{_count(result.counts['detections'], 'detection')}, {_count(len(result.classes), 'class', 'classes')}"
    ]
    left_out = {
        "ground_truth_left_out": "ground-truth segments left out (empty or copies)",
        "detections_ambiguous": "detections left out, they meet ambiguous intervals"
        + (" (but for those that find something)" if result.protocol == "thumos14" else ""),
        "detections_of_unknown_classes": "detections left out, their classes are not in the ground truth",
        "detections_in_other_videos": "detections left out, they are in videos outside this subset",
        "detections_in_unknown_videos": "detections in videos that the annotations do not know: false positives",
        "detections_empty": "detections of no length (start >= end): false positives",
        "detections_before_start": "detections begin before 0 s: scored as they are",
    }
    lines += [f"  {result.counts[k]} {text}" for k, text in left_out.items() if result.counts.get(k)]

    def row(name: str, values: Any) -> str:
        return f"{name:<{width}}" + "".join(f"{100 * v:7.2f}" for v in values)

    lines += ["", f"{'AP %':<{width}}" + "".join(f"{k:>7}" for k in [*keys, "mean"])]
    lines += [row(c, [*result.ap[i], result.ap[i].mean()]) for i, c in enumerate(names)]
    lines += [row("mAP", [*result.mean_ap, result.average]), ""]
    lines += [f"average mAP {name}: {100 * value:.2f}" for name, value in result.averages.items()]
    return lines


def quality_lines(result: Quality) -> list[str]:
    """The printed table: all points, by length of the ground truth, by class."""
    from tad.errors import printable

    summary = result.to_json()
    groups = {"all": summary} | {f"{name} s": value for name, value in summary["per_length"].items()}
    groups |= {printable(name): value for name, value in summary["per_class"].items()}
    width = max(map(len, groups))
    head = ("points", "missing", "tIoU", ">=0.3", ">=0.5", ">=0.7", "log2 len", "prec", "recall")
    lines = [f"{'':<{width}}" + "".join(f"{h:>9}" for h in head)]
    for name, g in groups.items():
        cells = [g["mean_tiou"], *(_percent(v) for v in g["share"].values())]
        cells += [g["log2_length_ratio"], g["precision"], g["recall"]]
        text = [str(g["points"]), str(g["missing"])]
        text += [c if isinstance(c, str) else "-" if c is None else f"{c:.3f}" for c in cells]
        lines.append(f"{name:<{width}}" + "".join(f"{t:>9}" for t in text))
    time = summary["time"]
    lines += ["", f"time: precision {time['precision']:.3f}, recall {time['recall']:.3f} (unions per video and class)"]
    left_out = {
        "outside": "points lie in no ground-truth segment of their class: not scored",
        "unpointed": "ground-truth segments have no point",
        "unmatched": "pseudo-labels answer to no scored point",
    }
    return lines + [f"{summary[k]} {text}" for k, text in left_out.items() if summary[k]]


def instance_lines(result: dict[str, Any]) -> list[str]:
    """The printed lines of `instance_quality`."""
    mean = "-" if result["mean_tiou"] is None else f"{result['mean_tiou']:.3f}"
    return [
        f"{result['labels']:,} pseudo-labels of videos with {_count(result['actions'], 'action')}",
        f"class of the nearest action {_percent(result['class_accuracy'])}, mean tIoU with it {mean}",
        f"right (class, tIoU >= 0.5) {_percent(result['hits'])}; actions found {_percent(result['recall'])}",
    ]


def _percent(value: float | None) -> str:
    return "-" if value is None else f"{100 * value:.1f} %"


def _count(number: int, one: str, many: str | None = None) -> str:
    return f"{number:,} {one if number == 1 else many or one + 's'}"


def _write(out: Path | None, document: dict[str, Any]) -> None:
    from tad.files import write_json

    if out is not None:
        write_json(out, document)
        say(f"written: {out}")
