"""Files that are not what their names say, and files in another unit or spelling than they are read in."""

from __future__ import annotations

import gzip
import json
from pathlib import Path
from typing import Any

from tests.rough.features import FILE, PARQUET, QUALITY
from tests.rough.features import FOREIGN as DETECTIONS
from tests.rough.folders import IMPORT, source
from tests.rough.harness import CHECK, EVALUATE, Case, Edit, accepted, content, in_json, in_yaml, refused, replaced

LFS = b"version https://git-lfs.github.com/spec/v1\noid sha256:4d7a2146\nsize 12345\n"
PAGE = b"<!DOCTYPE html>\n<html><head><title>Quota exceeded</title></head></html>\n"
WRONG: dict[str, tuple[bytes, str]] = {
    "a Git LFS pointer": (LFS, "git lfs pull"),
    "a web page": (PAGE, "web page"),
    "packed with gzip": (gzip.compress(b"x" * 100), "gzip"),
    "a zip archive": (b"PK\x03\x04" + bytes(100), "zip"),
    "zeros": (bytes(5000), "zeros"),
}
PLACES = {
    "data/dataset.yaml": CHECK,
    "data/annotations.json": CHECK,
    "data/points.csv": CHECK,
    FILE: CHECK,
    DETECTIONS: EVALUATE,
    "detections.parquet": PARQUET,
}
TABLE = "video,label,start,end,duration,fps,subset\na,jump,1.5,4,40,25,train\nb,kick,7.25,19.5,20,25,test\n"
CSV = ("import", "csv", "{here}/mine.csv", "{here}/new")


def scaled(factor: float, shift: float = 0.0) -> Any:
    """All segments of a document of annotations or results in another unit."""

    def change(document: dict[str, Any]) -> None:
        for entry in (document.get("database") or document["results"]).values():
            for row in entry["annotations"] if isinstance(entry, dict) else entry:
                row["segment"] = [factor * t + shift for t in row["segment"]]

    return change


def hrpro(name: str) -> Edit:
    """A source of HR-Pro's layout whose lists spell videos like this."""

    def edit(here: Path) -> None:
        row = {"segment": [1.0, 3.0], "label": "jump"}
        database = {v: {"duration": 6.4, "fps": 10, "annotations": [row]} for v in ("a", "b")}
        for file, text in {
            "gt_full.json": json.dumps({"database": database}),
            "split_train.txt": name.format("a"),
            "split_test.txt": name.format("b"),
            "point_labels/p.csv": f"class,video_id,point\njump,{name.format('a')},21\n",
        }.items():
            content(f"lists/{file}", text)(here)

    return edit


def _one_point(here: Path, text: str) -> None:
    assert (here / "new" / "points.csv").read_text() == "video_id,label,time\na,jump,2.1\n"


def _both(here: Path, text: str) -> None:
    database = json.loads((here / "new" / "annotations.json").read_text())["database"]
    assert [database[v]["annotations"][0]["segment"] for v in "ab"] == [[1.5, 4.0], [7.25, 19.5]]


def _says(*words: str) -> Any:
    def look(here: Path, text: str) -> None:
        assert all(word in text for word in words), text

    return look


CASES: list[Case] = [
    *(
        refused("wrong files", f"{place} is {what}", content(place, sign), command, says)
        for place, command in PLACES.items()
        for what, (sign, says) in WRONG.items()
    ),
    refused("wrong files", "imported features are Git LFS pointers", [source, content("src/features/train_0000.npy", LFS)], IMPORT[:-1], "git lfs pull"),
    refused("wrong files", "JSON lines", content(DETECTIONS, '{"a": []}\n{"b": []}\n'), EVALUATE, "json lines"),
    refused("wrong files", "JSON with comments", content(DETECTIONS, '// mine\n{"a": []}'), EVALUATE, "comments"),
    refused("wrong files", "JSON cut off", content(DETECTIONS, '{"a": [{"segment": [1, 2'), EVALUATE, "cut off"),
    refused("units", "annotations in frames", in_json(scaled(25, 1000)), CHECK, "frames or milliseconds"),
    refused("units", "annotations in frames, evaluated", in_json(scaled(25, 1000)), EVALUATE, "frames or milliseconds"),
    refused("units", "imported annotations in milliseconds", [source, in_json(scaled(1000), "src/anet.json")], IMPORT[:-1], "milliseconds"),
    accepted("units", "detections in frames", in_json(scaled(25, 1000), DETECTIONS), EVALUATE, check=_says("frames or milliseconds")),
    accepted("units", "detections in shares", in_json(scaled(0.001), DETECTIONS), EVALUATE, check=_says("shares of the video")),
    *(
        accepted("spellings", f"lists with {name}", hrpro(name), ("import", "hrpro", "{here}/lists", "{here}/new"), check=_one_point)
        for name in ("{}.npy", "{}.mp4", "features/train/{}.npy", "features\\train\\{}.npy", "v_{}")
    ),
    accepted("spellings", "Excel's table", content("mine.csv", "sep=;\r\n" + TABLE.replace(",", ";").replace(".", ",").replace("\n", ";;\r\n")), CSV, check=_both),
    accepted("spellings", "clocks with commas", content("mine.csv", TABLE.replace("1.5,4", '"0:00:01,5",0:04')), CSV, check=_both),
    accepted("spellings", "Windows paths", content("mine.csv", TABLE.replace("a,", "C:\\clips\\a.MP4,", 1)), CSV, check=_both),
    refused("spellings", "a comma between thousands", content("mine.csv", TABLE.replace("1.5", '"1,500"')), CSV, "1,500"),
    accepted("spellings", "a class called background", in_yaml(lambda d: d["classes"].append("Background")), CHECK, check=_says("may be no action")),
    refused("spellings", "quality of classes of another case", replaced(DETECTIONS, '"jump"', '"Jump"'), (*QUALITY, "--subset", "test"), "Jump", "jump"),
    refused("spellings", "--feature-pattern that finds nothing", source, (*IMPORT[:-1], "--feature-pattern", "x_{id}.npy"), "x_{id}.npy", "test_0000"),
    refused("spellings", "no subset in the annotations", [source, in_json(lambda d: [e.pop("subset") for e in d["database"].values()] and None, "src/anet.json")], IMPORT[:-1], "anet.json", "subset"),
]
