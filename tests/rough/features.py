"""Feature files, and files of detections and pseudo-labels."""

from __future__ import annotations

import io
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from tests.rough.harness import (
    CHECK,
    EVALUATE,
    RUN,
    Case,
    Edit,
    accepted,
    content,
    folder_at,
    in_json,
    link_at,
    nothing,
    pipe_at,
    refused,
    removed,
    truncated,
)

FILE = "data/features/train_0000.npy"
NAME = "train_0000"


def array(change: Callable[[np.ndarray], np.ndarray]) -> Edit:
    """The feature file with another array."""

    def edit(here: Path) -> None:
        np.save(here / FILE, change(np.load(here / FILE)), allow_pickle=True)

    return edit


def header(shape: str, descr: str = "<f4", order: str = "False") -> Edit:
    """A .npy file whose header says so; the data stay as they are."""

    def edit(here: Path) -> None:
        data = np.load(here / FILE).tobytes()
        text = f"{{'descr': '{descr}', 'fortran_order': {order}, 'shape': {shape}, }}".encode().ljust(117) + b"\n"
        (here / FILE).write_bytes(b"\x93NUMPY\x01\x00" + struct.pack("<H", len(text)) + text + data)

    return edit


def npz(here: Path) -> None:
    held = io.BytesIO()
    np.savez(held, feats=np.load(here / FILE))
    (here / FILE).write_bytes(held.getvalue())


def features(what: str, edit: Edit, *says: str, command: tuple[str, ...] = RUN) -> Case:
    return refused("features", what, edit, command, NAME, *says)


BAD_ARRAYS: list[tuple[str, Edit, tuple[str, ...]]] = [
    ("missing", removed(FILE), ()),
    ("empty", content(FILE, b""), ()),
    ("truncated", truncated(FILE, 0.5), ()),
    ("cut within its header", truncated(FILE, 40), ()),
    ("text", content(FILE, "1 2 3\n"), ()),
    ("a header of 10^30 rows", header(f"({10**30}, 16)"), ()),
    ("a header of -5 rows", header("(-5, 16)"), ()),
    ("a header of more rows than data", header("(100000, 16)"), ()),
    ("a header that is code", header("(__import__('os').system('true'), 16)"), ()),
    ("a header of an unknown type", header("(10, 16)", descr="<q9"), ()),
    ("0 rows", array(lambda a: a[:0]), ()),
    ("1 row", array(lambda a: a[:1]), ()),
    ("a tenth of the rows", array(lambda a: a[: len(a) // 10]), ()),
    ("10 times the rows", array(lambda a: np.repeat(a, 10, axis=0)), ()),
    ("twice the rows", array(lambda a: np.repeat(a, 2, axis=0)), ()),
    ("another width", array(lambda a: a[:, :8]), ("16",)),
    ("transposed", array(lambda a: np.ascontiguousarray(a.T)), ()),
    ("one axis", array(lambda a: a.reshape(-1)), ()),
    ("three axes", array(lambda a: a[None]), ()),
    ("a scalar", array(lambda a: np.float32(3)), ()),
    ("objects (a pickle)", array(lambda a: np.array([{"a": 1}], dtype=object)), ()),
    ("float64", array(lambda a: a.astype(np.float64)), ("float64",)),
    ("int32", array(lambda a: a.astype(np.int32)), ("int32",)),
    ("bool", array(lambda a: a > 0), ("bool",)),
    ("complex", array(lambda a: a + 1j * a), ("complex",)),
    ("text elements", array(lambda a: a.astype("U8")), ()),
    ("dates", array(lambda a: a.astype("datetime64[s]")), ()),
    ("a record type", array(lambda a: np.zeros(len(a), dtype=[("x", "f4")])), ()),
    ("an .npz under that name", npz, ()),
    ("NaN", array(lambda a: np.where(np.arange(len(a))[:, None] == 3, np.nan, a).astype(np.float32)), ()),
    ("infinite", array(lambda a: np.where(np.arange(len(a))[:, None] == 3, np.inf, a).astype(np.float32)), ()),
    ("a folder", folder_at(FILE), ()),
    ("a named pipe", pipe_at(FILE), ("pipe",)),
    ("/dev/zero", link_at(FILE, "/dev/zero"), ()),
    ("a link to nothing", link_at(FILE, "/nowhere/x.npy"), ()),
    ("a link to itself", link_at(FILE, "train_0000.npy"), ()),
]

FEATURES = [
    *(features(what, edit, *says) for what, edit, says in BAD_ARRAYS),
    *(features(f"{what}, tad check", edit, *says, command=CHECK) for what, edit, says in BAD_ARRAYS),
    refused("features", "the folder is missing", removed("data/features"), RUN, "features"),
    refused("features", "the folder is a file", [removed("data/features"), content("data/features", "x")], RUN, "features"),
    accepted("features", "Fortran order", array(np.asfortranarray), RUN),
    accepted("features", "float16", array(lambda a: a.astype(np.float16)), RUN),
    accepted("features", "one row less", array(lambda a: a[:-1]), RUN),
    accepted("features", "a tenth of the rows with --no-check", array(lambda a: a[: len(a) // 2]), (*RUN, "--no-check")),
    accepted("features", "a file of no video", content("data/features/nobody.npy", b""), RUN),
]


def results(change: Callable[[dict[str, Any]], Any]) -> Edit:
    """detections.json after a change of its results."""
    return in_json(lambda d: change(d["results"]) and None, "detections.json")


def result_row(**fields: Any) -> Edit:
    whole = {"segment": [1.0, 3.0], "label": "jump", "score": 0.5} | fields

    def change(document: dict[str, Any]) -> None:
        document["test_0000"].append({k: v for k, v in whole.items() if v is not ...})

    return results(change)


def table(**columns: Any) -> Edit:
    """detections.parquet with these columns in place of good ones."""

    def edit(here: Path) -> None:
        whole = {
            "video_id": ["test_0000"], "start": [1.0], "end": [3.0], "label": ["jump"], "score": [0.5],
            "point": [float("nan")], "source": ["x"],
        } | columns
        pq.write_table(pa.table({k: v for k, v in whole.items() if v is not None}), here / "detections.parquet")

    return edit


PARQUET = ("evaluate", "{here}/detections.parquet", "--data", "{here}/data", "--subset", "test")
QUALITY = ("quality", "{here}/detections.json", "--data", "{here}/data", "--subset", "test")
LABEL = ("label", "pser-seed", "--proposals", "{here}/done/round-0/proposals.parquet", "--data", "{here}/data", "--local", "--store", "{here}/store", "--out", "{here}/o.json")
LABEL_JSON = (*LABEL[:3], "{here}/detections.json", *LABEL[4:])
FOREIGN = "detections.json"


def segments(what: str, edit: Edit, *says: str, command: tuple[str, ...] = EVALUATE) -> Case:
    return refused("segments file", what, edit, command, "detections", *says)


SEGMENTS = [
    segments("missing", removed(FOREIGN)),
    segments("empty", content(FOREIGN, "")),
    segments("truncated", truncated(FOREIGN, 0.6)),
    segments("binary", content(FOREIGN, bytes(range(256)))),
    segments("a number", content(FOREIGN, "3")),
    segments("a folder", folder_at(FOREIGN), "director"),
    segments("a named pipe", pipe_at(FOREIGN), "pipe"),
    segments("/dev/zero", link_at(FOREIGN, "/dev/zero"), "device"),
    segments("nested 200,000 deep", content(FOREIGN, "[" * 200_000), "deep"),
    segments("results a list", content(FOREIGN, '{"results": []}')),
    segments("a video's rows are no list", results(lambda r: r.update(test_0000={"a": 1})), "test_0000"),
    segments("a row that is a list", results(lambda r: r["test_0000"].append([1, 3])), "test_0000"),
    segments("no segment", result_row(segment=...), "test_0000", "segment"),
    segments("a segment of three numbers", result_row(segment=[1, 2, 3]), "test_0000"),
    segments("a segment of text", result_row(segment=["a", "b"]), "test_0000"),
    segments("a segment of null", result_row(segment=[None, 3]), "test_0000"),
    segments("start NaN", result_row(segment=[float("nan"), 3]), "test_0000"),
    segments("end infinite", result_row(segment=[1, float("inf")]), "test_0000"),
    segments("end 10**400", result_row(segment=[1, 10**400]), "test_0000"),
    segments("no label", result_row(label=...), "test_0000", "label"),
    segments("label null", result_row(label=None), "test_0000", "label"),
    segments("label a list", result_row(label=["jump"]), "test_0000", "label"),
    segments("label a lone surrogate", result_row(label="\ud800"), "test_0000"),
    segments("video a lone surrogate", results(lambda r: r.update({"\ud800": [{"segment": [1, 2], "label": "jump"}]})), "ud800"),
    segments("score a text", result_row(score="high"), "test_0000", "score"),
    segments("score NaN", result_row(score=float("nan")), "test_0000"),
    segments("score infinite", result_row(score=float("inf")), "test_0000"),
    segments("score 10**400", result_row(score=10**400), "test_0000"),
    segments("score null", result_row(score=None), "test_0000"),
    segments("score true", result_row(score=True), "test_0000"),
    segments("key `results` twice", lambda h: (h / FOREIGN).write_text('{"results": {}, "results": {}}'), "results"),
    segments("a video twice", lambda h: (h / FOREIGN).write_text('{"results": {"test_0000": [], "test_0000": []}}'), "test_0000"),
    segments("Parquet: text", content("detections.parquet", "x"), command=PARQUET),
    segments("Parquet: truncated", [table(), truncated("detections.parquet", 0.5)], command=PARQUET),
    segments("Parquet: empty", content("detections.parquet", b""), command=PARQUET),
    accepted("segments file", "Parquet: no column score", table(score=None), PARQUET, check=lambda h, t: _says(t, "score")),
    segments("Parquet: start a text", table(start=["x"]), "start", command=PARQUET),
    segments("Parquet: start a timestamp", table(start=pa.array([0], pa.timestamp("ms"))), "start", command=PARQUET),
    segments("Parquet: start null", table(start=pa.array([None], pa.float64())), "start", command=PARQUET),
    segments("Parquet: start NaN", table(start=[float("nan")]), command=PARQUET),
    segments("Parquet: label a struct", table(label=pa.array([{"a": 1}])), "label", command=PARQUET),
    segments("Parquet: label null", table(label=pa.array([None], pa.string())), "label", command=PARQUET),
    segments("Parquet: video_id a list", table(video_id=pa.array([["a"]])), "video_id", command=PARQUET),
    segments("Parquet: score infinite", table(score=[float("inf")]), command=PARQUET),
    segments("Parquet: a named pipe", pipe_at("detections.parquet"), "pipe", command=PARQUET),
    segments("quality: nested", content(FOREIGN, "[" * 200_000), "deep", command=QUALITY),
    segments("label: nested", content(FOREIGN, "[" * 200_000), "deep", command=LABEL_JSON),
    segments("label: reversed", result_row(segment=[9, 3]), "test_0000", command=LABEL_JSON),
    refused("segments file", "of another name", nothing, ("evaluate", "{here}/x.txt", "--data", "{here}/data", "--subset", "test"), "x.txt"),
    accepted("segments file", "zero length counts as a false positive", result_row(segment=[2, 2]), EVALUATE),
    accepted("segments file", "a negative start", result_row(segment=[-1, 2]), EVALUATE),
    accepted("segments file", "a byte order mark", lambda h: (h / FOREIGN).write_bytes(b"\xef\xbb\xbf" + (h / FOREIGN).read_bytes()), EVALUATE),
    accepted("segments file", "integer classes", in_json(lambda d: _numbered(d), FOREIGN), EVALUATE, check=lambda h, t: _perfect(t)),
    accepted("segments file", "a video that is in no subset", results(lambda r: r.update(nobody=[])), EVALUATE),
    segments("no detection at all", content(FOREIGN, '{"results": {}}'), "no detections"),
    accepted("segments file", "Parquet: an integer column of times", table(start=[1], end=[3]), PARQUET),
    refused("segments file", "--json is a folder", folder_at("o"), (*EVALUATE, "--json", "{here}/o"), "o"),
    refused("segments file", "--json below a file", nothing, (*EVALUATE, "--json", "{here}/detections.json/x"), "detections.json"),
    refused("segments file", "label: --out is a folder", folder_at("o.json"), LABEL, "o.json"),
    refused("segments file", "label: --out below a file", nothing, (*LABEL[:-1], "{here}/detections.json/x.json"), "detections.json"),
]


def _numbered(document: dict[str, Any]) -> None:
    classes = ["jump", "throw", "kick"]
    for rows in document["results"].values():
        for row in rows:
            row["label"] = classes.index(row["label"])


def _says(text: str, word: str) -> None:
    assert word in text, f"nothing is said of {word}"


def _perfect(text: str) -> None:
    assert "100.0" in text, "the same detections by name have mAP 100"


CASES = [*FEATURES, *SEGMENTS]
