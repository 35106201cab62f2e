"""dataset.yaml, annotations.json and the label files."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from tests.rough.harness import (
    CHECK,
    EVALUATE,
    RUN,
    Case,
    Edit,
    accepted,
    appended,
    content,
    folder_at,
    in_json,
    in_yaml,
    link_at,
    nothing,
    pipe_at,
    refused,
    removed,
    replaced,
    truncated,
)

YAML = "data/dataset.yaml"
ANNOTATIONS = "data/annotations.json"
HUGE = 10**400


def manifest(what: str, edit: Edit, *says: str, command: tuple[str, ...] = RUN) -> Case:
    return refused("dataset.yaml", what, edit, command, *(says or ("dataset.yaml",)))


def key(name: str, value: Any) -> Edit:
    def change(document: dict[str, Any]) -> None:
        *groups, last = name.split(".")
        for group in groups:
            document = document[group]
        document[last] = value

    return in_yaml(change)


def without(name: str) -> Edit:
    return in_yaml(lambda d: d.pop(name))


DATASET = [
    manifest("missing", removed(YAML)),
    manifest("empty", content(YAML, "")),
    manifest("a list", content(YAML, "- 1\n")),
    manifest("a number", content(YAML, "7\n")),
    manifest("binary", content(YAML, bytes(range(256)))),
    manifest("another encoding", content(YAML, "name: caf\xe9\n".encode("latin-1")), "dataset.yaml", "utf-8"),
    manifest("not YAML", content(YAML, "name: [\n")),
    manifest("a tab", content(YAML, "name:\tx\n\t- y\n")),
    manifest("a Python object", content(YAML, "name: !!python/object/apply:os.system ['true']\n")),
    manifest("nested 100,000 deep", content(YAML, "[" * 100_000), "dataset.yaml", "deep"),
    manifest("`classes` twice", appended(YAML, "classes: [jump, kick, throw]\n"), "dataset.yaml", "classes"),
    manifest("is a folder", folder_at(YAML), "dataset.yaml", "folder"),
    manifest("is a named pipe", pipe_at(YAML), "dataset.yaml", "pipe"),
    manifest("a link to nothing", link_at(YAML, "nowhere"), "dataset.yaml"),
    manifest("a link to itself", link_at(YAML, "dataset.yaml"), "dataset.yaml"),
    manifest("an unknown key", appended(YAML, "framerate: 25\n"), "dataset.yaml", "framerate"),
    manifest("no name", without("name"), "dataset.yaml", "name"),
    manifest("no classes", without("classes"), "dataset.yaml", "classes"),
    manifest("no grid", without("grid"), "dataset.yaml", "grid"),
    manifest("no subsets", without("subsets"), "dataset.yaml", "subsets"),
    manifest("name empty", key("name", ""), "dataset.yaml", "name"),
    manifest("name a number", key("name", 5), "dataset.yaml", "name"),
    manifest("name with ../", key("name", "x/../../../PWN"), "dataset.yaml", "name"),
    manifest("name of 5,000 letters", key("name", "x" * 5000), "name"),
    manifest("name with NUL", key("name", "a\0b"), "name"),
    manifest("name ..", key("name", ".."), "name"),
    manifest("classes empty", key("classes", []), "classes"),
    manifest("classes a text", key("classes", "jump"), "classes"),
    manifest("a class twice", key("classes", ["jump", "jump", "kick", "throw"]), "classes", "jump"),
    manifest("a class empty", key("classes", ["jump", "", "kick", "throw"]), "classes"),
    manifest("a class of blanks", key("classes", ["jump", "  ", "kick", "throw"]), "classes"),
    manifest("a class with a newline", key("classes", ["jump", "a\nb", "kick", "throw"]), "classes"),
    manifest("a class with an escape code", key("classes", ["jump", "\x1b[2J", "kick", "throw"]), "classes"),
    manifest("a class that is a number", key("classes", ["jump", 7, "kick", "throw"]), "classes"),
    manifest("a subset with a role that is none", key("subsets", {"train": "training", "test": "test"}), "subsets"),
    manifest("subsets that no video has", key("subsets", {"a": "train", "b": "test"}), "subset"),
    manifest("stride 0", key("grid.stride", 0), "stride"),
    manifest("stride negative", key("grid.stride", -16), "stride"),
    manifest("stride infinite", key("grid.stride", float("inf")), "stride"),
    manifest("stride NaN", key("grid.stride", float("nan")), "stride"),
    manifest("stride 1e300", key("grid.stride", 1e300), "stride"),
    manifest("stride a text", key("grid.stride", "16 frames"), "stride"),
    manifest("fps 0", key("grid.fps", 0), "fps"),
    manifest("fps infinite", key("grid.fps", float("inf")), "fps"),
    manifest("fps 1e12", key("grid.fps", 1e12), "fps"),
    manifest("fps another word", key("grid.fps", "auto"), "fps"),
    manifest("fps true", key("grid.fps", True), "fps"),
    manifest("window 0", key("grid.window", 0), "window"),
    manifest("window infinite", key("grid.window", float("inf")), "window"),
    manifest("offset infinite", key("grid.offset", float("inf")), "offset"),
    manifest("offset 1e300", key("grid.offset", 1e300), "offset"),
    manifest("offset NaN", key("grid.offset", float("nan")), "offset"),
    manifest("length 0", key("grid.length", 0), "length"),
    manifest("length 10^12", key("grid.length", 10**12), "length"),
    manifest("length half a row", key("grid.length", 1.5), "length"),
    manifest("dim 0", key("grid.dim", 0), "dim"),
    manifest("dim 10^12", key("grid.dim", 10**12), "dim"),
    manifest("dim another width", key("grid.dim", 32), "16", "32"),
    manifest("dtype float64", key("grid.dtype", "float64"), "dtype"),
    manifest("ignored a text", key("ignored", "train_0000"), "ignored"),
    manifest("ambiguous names a file of elsewhere", key("ambiguous", "/etc/passwd"), "ambiguous", command=EVALUATE),
    manifest("ambiguous leaves the folder", key("ambiguous", "../detections.json"), "ambiguous", command=EVALUATE),
    manifest("ambiguous missing", key("ambiguous", "none.csv"), "none.csv", command=EVALUATE),
    manifest("held_out names a file of elsewhere", key("held_out", "/etc/hostname"), "held_out"),
    manifest("held_out missing", key("held_out", "none.csv"), "none.csv"),
    manifest("native fps, and a video without", [key("grid.fps", "native"), in_json(lambda d: [e.pop("fps", 0) for e in d["database"].values()] and None)], "fps"),
    accepted("dataset.yaml", "a byte order mark", lambda h: (h / YAML).write_bytes(b"\xef\xbb\xbf" + (h / YAML).read_bytes()), RUN),
    accepted("dataset.yaml", "CR LF", lambda h: (h / YAML).write_bytes((h / YAML).read_bytes().replace(b"\n", b"\r\n")), RUN),
    accepted("dataset.yaml", "an alias", appended(YAML, "ambiguous: &x null\nheld_out: *x\n"), RUN),
]


def videos(what: str, change: Any, *says: str, command: tuple[str, ...] = RUN) -> Case:
    return refused("annotations.json", what, in_json(lambda d: change(d["database"])), command, *says)


def first(field: str, value: Any) -> Any:
    def change(database: dict[str, Any]) -> None:
        database["train_0000"][field] = value

    return change


def renamed(new: str) -> Edit:
    """A training video under another id, in every file."""

    def edit(here: Path) -> None:
        for name in ("annotations.json", "points.csv"):
            text = (here / "data" / name).read_text()
            old, shown = ('"train_0000"', json.dumps(new)) if name.endswith("json") else ("train_0000", new)
            (here / "data" / name).write_bytes(text.replace(old, shown).encode("utf-8", "surrogatepass"))
        source = here / "data/features/train_0000.npy"
        if new.isprintable() and new not in ("", "..") and "/" not in new and len(new) < 250:
            source.rename(source.with_name(f"{new}.npy"))

    return edit


def row(segment: Any, label: Any = "jump") -> Any:
    def change(database: dict[str, Any]) -> None:
        database["test_0000"]["annotations"].append({"segment": segment, "label": label})

    return change


def bad_id(what: str, new: str) -> Case:
    return refused("annotations.json", what, renamed(new), RUN, "annotations.json")


VIDEOS = [
    refused("annotations.json", "missing", removed(ANNOTATIONS), RUN, "annotations.json"),
    refused("annotations.json", "empty", content(ANNOTATIONS, ""), RUN, "annotations.json"),
    refused("annotations.json", "a list", content(ANNOTATIONS, "[]"), RUN, "annotations.json", "database"),
    refused("annotations.json", "truncated", truncated(ANNOTATIONS, 0.5), RUN, "annotations.json"),
    refused("annotations.json", "binary", content(ANNOTATIONS, bytes(range(256))), RUN, "annotations.json"),
    refused("annotations.json", "UTF-16", lambda h: (h / ANNOTATIONS).write_text((h / ANNOTATIONS).read_text(), encoding="utf-16"), RUN, "annotations.json", "utf-16"),
    refused("annotations.json", "a folder", folder_at(ANNOTATIONS), RUN, "annotations.json", "folder"),
    refused("annotations.json", "a named pipe", pipe_at(ANNOTATIONS), RUN, "annotations.json", "pipe"),
    refused("annotations.json", "a named pipe, tad check", pipe_at(ANNOTATIONS), CHECK, "annotations.json", "pipe"),
    refused("annotations.json", "/dev/zero", link_at(ANNOTATIONS, "/dev/zero"), RUN, "annotations.json", "device"),
    refused("annotations.json", "nested 200,000 deep", content(ANNOTATIONS, "[" * 200_000), RUN, "annotations.json", "deep"),
    refused("annotations.json", "nested 200,000 deep, tad check", content(ANNOTATIONS, "[" * 200_000), CHECK, "annotations.json", "deep"),
    refused("annotations.json", "no database", content(ANNOTATIONS, "{}"), RUN, "annotations.json", "database"),
    refused("annotations.json", "database a list", content(ANNOTATIONS, '{"database": []}'), RUN, "database"),
    refused("annotations.json", "database empty", content(ANNOTATIONS, '{"database": {}}'), RUN, "annotations.json"),
    videos("a video that is a list", lambda d: d.update(train_0000=[]), "train_0000"),
    videos("a video that is null", lambda d: d.update(train_0000=None), "train_0000"),
    videos("duration missing", lambda d: d["train_0000"].pop("duration") and None, "train_0000", "duration"),
    videos("duration null", first("duration", None), "train_0000"),
    videos("duration a text", first("duration", "a minute"), "train_0000"),
    videos("duration true", first("duration", True), "train_0000"),
    videos("duration true, tad check", first("duration", True), "train_0000", command=CHECK),
    videos("duration 0", first("duration", 0), "train_0000"),
    videos("duration negative", first("duration", -3.5), "train_0000"),
    videos("duration NaN", first("duration", float("nan")), "train_0000"),
    videos("duration infinite", first("duration", float("inf")), "train_0000"),
    videos("duration 10**400", first("duration", HUGE), "train_0000"),
    videos("duration 10**400, tad check", first("duration", HUGE), "train_0000", command=CHECK),
    videos("duration 10 times too long", first("duration", 643.9), "train_0000"),
    videos("duration 10 times too short", first("duration", 6.439), "train_0000"),
    videos("duration 1e15", first("duration", 1e15), "train_0000"),
    videos("duration 1e15, tad synth", first("duration", 1e15), "train_0000", command=("synth", "{here}/data", "--force")),
    videos("fps 0", first("fps", 0), "train_0000"),
    videos("fps a list", first("fps", [30]), "train_0000"),
    videos("fps true", first("fps", True), "train_0000"),
    videos("fps infinite", first("fps", float("inf")), "train_0000"),
    videos("subset missing", lambda d: d["train_0000"].pop("subset") and None, "train_0000", "subset"),
    refused("annotations.json", "a video twice, once for testing", replaced(ANNOTATIONS, '"train_0001"', '"train_0000"'), RUN, "train_0000"),
    refused("annotations.json", "a video twice, tad check", replaced(ANNOTATIONS, '"train_0001"', '"train_0000"'), CHECK, "train_0000"),
    refused("annotations.json", "a key of a video twice", replaced(ANNOTATIONS, '"subset": "train",', '"subset": "train", "subset": "test",'), RUN, "subset"),
    videos("a truth row of text", row(["a", "b"]), "test_0000", command=EVALUATE),
    videos("a truth row of one number", row([1.0]), "test_0000", command=EVALUATE),
    videos("a truth row with NaN", row([float("nan"), 3]), "test_0000", command=EVALUATE),
    videos("a truth row that ends before it begins", row([9.0, 3.0]), "test_0000", command=EVALUATE),
    videos("a truth row of an unknown class", row([1.0, 3.0], "swim"), "test_0000", "swim", command=EVALUATE),
    videos("a truth row of 10**400", row([1, HUGE]), "test_0000", command=EVALUATE),
    videos("a truth row of true", row([True, 3.0]), "test_0000", command=EVALUATE),
    videos("a truth label that is a list", row([1.0, 3.0], ["jump"]), "test_0000", command=EVALUATE),
    videos("annotations a text", first("annotations", "none"), "train_0000", command=CHECK),
    bad_id("an id with ../", "../train"),
    bad_id("an id with a slash", "a/b"),
    bad_id("an id with a NUL", "a\0b"),
    bad_id("an id with a newline", "a\nb"),
    bad_id("an id with an escape code", "a\x1b[2Jb"),
    bad_id("an id that is empty", ""),
    bad_id("an id ..", ".."),
    bad_id("an id with a leading dot", ".hidden"),
    bad_id("an id of 300 letters", "x" * 300),
    bad_id("an id with blanks", "a b"),
    bad_id("an id that is a lone surrogate", "\ud800"),
    accepted("annotations.json", "an id with a leading -", renamed("-0fQLs4Fk3o"), RUN),
    accepted("annotations.json", "an id with a leading -, tad check", renamed("-0fQLs4Fk3o"), CHECK),
    accepted("annotations.json", "an id with a leading _", renamed("_0fQLs4Fk3o"), RUN),
    accepted("annotations.json", "a byte order mark", lambda h: (h / ANNOTATIONS).write_bytes(b"\xef\xbb\xbf" + (h / ANNOTATIONS).read_bytes()), RUN),
    accepted("annotations.json", "ids that differ only in case, tad check warns", renamed("TEST_0000"), CHECK, check=lambda h, t: _holds(t, "test_0000", "case")),
    accepted("annotations.json", "a truth row of zero length is dropped", in_json(lambda d: row([0, 0])(d["database"])), EVALUATE),
    accepted("annotations.json", "a truth row of zero length, tad check warns", in_json(lambda d: row([0, 0])(d["database"])), CHECK, check=lambda h, t: _holds(t, "test_0000")),
    accepted("annotations.json", "a truth row beyond its video is dropped", in_json(lambda d: row([900, 990])(d["database"])), EVALUATE),
    accepted("annotations.json", "more keys than are known", in_json(lambda d: d.update(version="1.3", taxonomy=[])), RUN),
]


def _holds(text: str, *words: str) -> None:
    for word in words:
        assert word.lower() in text.lower(), f"nothing is said of {word!r}"


POINTS = "data/points.csv"


def points(what: str, edit: Edit, *says: str, command: tuple[str, ...] = RUN) -> Case:
    return refused("points.csv", what, edit, command, "points.csv", *says)


def blanks(here: Path) -> None:
    lines = (here / POINTS).read_text().splitlines()
    (here / POINTS).write_text("\n".join([lines[0], *(line.replace(",", " , ") + "  " for line in lines[1:])]) + "\n")


LABEL_FILES = [
    points("empty", content(POINTS, "")),
    refused("points.csv", "the header alone", content(POINTS, "video_id,label,time\n"), RUN, "point"),
    points("no header", replaced(POINTS, "video_id,label,time\n", ""), "header"),
    points("another header", replaced(POINTS, "video_id,label,time", "video,class,second"), "header"),
    points("a column more: it may hold boundaries", replaced(POINTS, "video_id,label,time", "video_id,label,time,end"), "header"),
    points("a field more in one row", appended(POINTS, "train_0000,jump,3.5,9\n"), "line"),
    points("a field less in one row", appended(POINTS, "train_0000,jump\n"), "line"),
    points("semicolons", lambda h: (h / POINTS).write_text((h / POINTS).read_text().replace(",", ";")), "header"),
    points("a field of 200,000 letters", appended(POINTS, "train_0000," + "x" * 200_000 + ",3\n"), "line"),
    points("a field of 200,000 letters, tad check", appended(POINTS, "train_0000," + "x" * 200_000 + ",3\n"), command=CHECK),
    points("an open quote", appended(POINTS, 'train_0000,"jump,3.5\n')),
    points("binary", content(POINTS, bytes(range(256)))),
    points("UTF-16", lambda h: (h / POINTS).write_text((h / POINTS).read_text(), encoding="utf-16"), "utf-16"),
    points("another encoding", appended(POINTS, "train_0000,caf\xe9,3\n".encode("latin-1"))),
    points("is a folder", folder_at(POINTS), "folder"),
    points("is a named pipe", pipe_at(POINTS), "pipe"),
    points("is a named pipe, tad check", pipe_at(POINTS), "pipe", command=CHECK),
    points("an unknown video", appended(POINTS, "nobody,jump,3\n"), "nobody"),
    points("an unknown class", appended(POINTS, "train_0000,swim,3\n"), "swim"),
    points("a time of text", appended(POINTS, "train_0000,jump,soon\n"), "soon"),
    points("a time that is empty", appended(POINTS, "train_0000,jump,\n"), "line"),
    points("a time beyond the video", appended(POINTS, "train_0000,jump,900\n"), "900"),
    points("a time below 0", appended(POINTS, "train_0000,jump,-1\n"), "-1"),
    points("a time NaN", appended(POINTS, "train_0000,jump,nan\n"), "nan"),
    points("a time with a comma for a dot", appended(POINTS, 'train_0000,jump,"3,5"\n'), "3,5"),
    points("a lone surrogate's bytes", appended(POINTS, b"train_0000,\xed\xa0\x80,3\n")),
    accepted("points.csv", "a byte order mark", lambda h: (h / POINTS).write_bytes(b"\xef\xbb\xbf" + (h / POINTS).read_bytes()), RUN),
    accepted("points.csv", "CR LF", lambda h: (h / POINTS).write_bytes((h / POINTS).read_bytes().replace(b"\n", b"\r\n")), RUN),
    accepted("points.csv", "blanks around names", blanks, RUN),
    accepted("points.csv", "empty lines", lambda h: (h / POINTS).write_text((h / POINTS).read_text().replace("\n", "\n\n")), RUN),
]


def label_file(name: str, what: str, text: str | bytes, *says: str, command: tuple[str, ...] = RUN) -> Case:
    return refused(name, what, content(f"data/{name}", text), command, name, *says)


CLASSES = "video_id,label\n"
FULL = "video_id,label,start,end\n"
LABEL_FILES += [
    label_file("labels.csv", "another header", "video,label\ntrain_0000,jump\n", "header"),
    label_file("labels.csv", "an unknown video", CLASSES + "nobody,jump\n", "nobody"),
    label_file("labels.csv", "an unknown class", CLASSES + "train_0000,swim\n", "swim"),
    label_file("labels.csv", "an empty class", CLASSES + "train_0000,\n", "line"),
    label_file("labels.csv", "a field more", CLASSES + "train_0000,jump,kick\n", "line"),
    label_file("labels.csv", "binary", bytes(range(256))),
    label_file("labels.csv", "tad check names it, too", CLASSES + "nobody,jump\n", "nobody", command=CHECK),
    label_file("full_labels.csv", "another header", "video,label\ntrain_0000,jump\n", "header"),
    label_file("full_labels.csv", "an unknown class", FULL + "train_0000,swim,1,3\n", "swim"),
    label_file("full_labels.csv", "a reversed interval", FULL + "train_0000,jump,3,1\n", "train_0000"),
    label_file("full_labels.csv", "beyond the video", FULL + "train_0000,jump,3,900\n", "train_0000"),
    label_file("full_labels.csv", "NaN", FULL + "train_0000,jump,nan,9\n", "train_0000"),
    label_file("full_labels.csv", "text", FULL + "train_0000,jump,a,b\n", "train_0000"),
    label_file("full_labels.csv", "a test video", FULL + "test_0000,jump,1,3\n", "test_0000"),
    label_file("full_labels.csv", "no action and one", FULL + "train_0000,,,\ntrain_0000,jump,1,3\n", "train_0000"),
    label_file("full_labels.csv", "a field less", FULL + "train_0000,jump,1\n", "line"),
    label_file("full_labels.csv", "tad check names it, too", FULL + "test_0000,jump,1,3\n", "test_0000", command=CHECK),
    accepted("labels.csv", "blanks and a mark", content("data/labels.csv", "\ufeff" + CLASSES + " train_0000 , jump \r\n"), RUN),
    accepted("full_labels.csv", "blanks and a mark", content("data/full_labels.csv", "\ufeff" + FULL + " train_0000 , jump , 1, 3 \r\n"), RUN),
    refused("dataset folder", "is not there", nothing, ("check", "{here}/none"), "none"),
    refused("dataset folder", "is a file", nothing, ("check", "{here}/detections.json"), "detections.json"),
    refused("dataset folder", "is a file, tad run", nothing, ("run", "seeds", "--data", "{here}/detections.json", "--local"), "detections.json"),
    refused("dataset folder", "a link to itself", link_at("data", "data"), CHECK, "data"),
]

CASES = [*DATASET, *VIDEOS, *LABEL_FILES]
