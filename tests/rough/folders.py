"""Commands that write folders, importers, and files of the user that must survive."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path
from typing import Any

from tests.rough.harness import Case, Edit, accepted, content, folder_at, in_json, link_at, nothing, refused, replaced

SPLIT = ("split", "{here}/data", "--dev", ".4", "--out", "{here}/new", "--force")
LABELS = ("labels", "{here}/data", "{here}/new", "--kind", "classes", "--force")
KFOLD = ("split", "{here}/data", "--kfold", "2", "--out", "{here}/new", "--force")
SYNTH = ("synth", "{here}/new", "--videos", "4", "--force")
IMPORT = ("import", "opentad", "{here}/src", "{here}/new", "--fps", "25", "--stride", "16", "--force")
EXPORT = (
    "export",
    "opentad",
    "--labels",
    "{here}/done/round-1/labels.parquet",
    "--data",
    "{here}/data",
    "--out",
    "{here}/new",
    "--force",
)
WRITERS = {"split": SPLIT, "kfold": KFOLD, "labels": LABELS, "synth": SYNTH, "import": IMPORT, "export": EXPORT}


def source(here: Path) -> None:
    """The dataset in OpenTAD's layout, whose features are real files."""
    (here / "src/features").mkdir(parents=True)
    document = json.loads((here / "data/annotations.json").read_text())
    for entry in document["database"].values():
        entry["subset"] = {"train": "training", "test": "validation"}[entry["subset"]]
    (here / "src/anet.json").write_text(json.dumps(document))
    (here / "src/category_idx.txt").write_text("jump\nthrow\nkick\n")
    for path in (here / "data/features").iterdir():
        shutil.copy(path, here / "src/features" / path.name)


def at(command: tuple[str, ...], place: str) -> tuple[str, ...]:
    """The command with another place to write to."""
    return tuple(place if a == "{here}/new" else a for a in command)


SITUATIONS: list[tuple[str, Edit, str]] = [
    ("a folder of the user's", content("new/thesis.txt", "mine"), "{here}/new"),
    ("a dataset of the user's", lambda h: shutil.copytree(h / "data", h / "new"), "{here}/new"),
    ("a file", content("new", "mine"), "{here}/new"),
    ("a link to the dataset", link_at("new", "{here}/data"), "{here}/new"),
    ("a link to a folder of the user's", [content("mine/x.txt", "mine"), link_at("new", "{here}/mine")], "{here}/new"),
    ("the dataset itself", nothing, "{here}/data"),
    ("the dataset by another way", nothing, "{here}/data/../data/."),
    ("a parent of the dataset", nothing, "{here}"),
    ("a folder within the dataset", nothing, "{here}/data/features"),
    ("features that are a link to the dataset's", [folder_at("new"), link_at("new/features", "{here}/data/features")], "{here}/new"),
    ("a file of features that is a link", [folder_at("new/features"), link_at("new/features/train_0000.npy", "{here}/data/features/train_0000.npy")], "{here}/new"),
    ("below a file", nothing, "{here}/detections.json/new"),
    ("a name of 300 letters", nothing, "{here}/" + "x" * 300),
]  # type: ignore[assignment]  # fmt: skip


def as_edits(edit: Any) -> tuple[Edit, ...]:
    return tuple(edit) if isinstance(edit, list) else (edit,)


AT_RISK = [
    refused("files at risk", f"{name} --force into {what}", (source, *as_edits(edit)), at(command, place), "error")
    for name, command in WRITERS.items()
    for what, edit, place in SITUATIONS
    if not (name == "synth" and "dataset" in what)  # synth writes features into a dataset: below
]
AT_RISK += [
    refused(
        "files at risk",
        f"{name} without --force into a folder of the user's",
        (source, content("new/thesis.txt", "mine")),
        [a for a in command if a != "--force"],
        "new",
    )
    for name, command in WRITERS.items()
]
AT_RISK += [
    accepted("files at risk", f"{name} into an empty folder", (source, folder_at("new")), command)
    for name, command in WRITERS.items()
]


def real_features(here: Path) -> None:
    """A dataset that was not invented: real features without synth's records."""
    for name in ("synth.json", ".tad-made-by", "features/.tad-made-by"):
        (here / "data" / name).unlink()


def linked_features(here: Path) -> None:
    """An invented dataset whose features are links to somebody's."""
    (here / "mine").mkdir()
    for path in (here / "data/features").iterdir():
        os.replace(path, here / "mine" / path.name)
        path.symlink_to(here / "mine" / path.name)


AT_RISK += [
    refused("files at risk", "synth --force over real features", real_features, ("synth", "{here}/data", "--force"), "features"),
    accepted("files at risk", "synth --force where features are links", linked_features, ("synth", "{here}/data", "--force"), writes=("data/features", "data/synth.json", "data/dataset.yaml", "data/.tad-made-by")),
    refused("files at risk", "synth over features without --force", nothing, ("synth", "{here}/data"), "force"),
]  # fmt: skip

OPTIONS: list[tuple[str, tuple[str, ...], str]] = [
    ("--dev nan", ("split", "{here}/data", "--dev", "nan", "--out", "{here}/new"), "dev"),
    ("--dev 0", ("split", "{here}/data", "--dev", "0", "--out", "{here}/new"), "dev"),
    ("--dev 2", ("split", "{here}/data", "--dev", "2", "--out", "{here}/new"), "dev"),
    ("--kfold 1", ("split", "{here}/data", "--kfold", "1", "--out", "{here}/new"), "fold"),
    ("--kfold 10^9", ("split", "{here}/data", "--kfold", "1000000000", "--out", "{here}/new"), "fold"),
    ("--labelled .0001 --others full", ("split", "{here}/data", "--labelled", ".1", "--others", "full", "--out", "{here}/new"), "others"),
    ("two kinds of split", ("split", "{here}/data", "--kfold", "2", "--dev", ".3", "--out", "{here}/new"), "one of"),
    ("--mix of nonsense", ("labels", "{here}/data", "{here}/new", "--mix", "full=x"), "mix"),
    ("--mix nan", ("labels", "{here}/data", "{here}/new", "--mix", "full=nan"), "full=nan"),
    ("--mix above 1", ("labels", "{here}/data", "{here}/new", "--mix", "full=.8,points=.8"), "full=0.8"),
    ("--kind and --mix", ("labels", "{here}/data", "{here}/new", "--kind", "full", "--mix", "full=.5"), "mix"),
    ("evaluate --tiou nan", ("evaluate", "{here}/detections.json", "--data", "{here}/data", "--subset", "test", "--tiou", "nan"), "tiou"),
    ("evaluate --tiou 2", ("evaluate", "{here}/detections.json", "--data", "{here}/data", "--subset", "test", "--tiou", "2"), "tiou"),
    ("evaluate --tiou 0:1:1e-12", ("evaluate", "{here}/detections.json", "--data", "{here}/data", "--subset", "test", "--tiou", "0:1:1e-12"), "tiou"),
    ("evaluate --subset of no video", ("evaluate", "{here}/detections.json", "--data", "{here}/data", "--subset", "dev"), "dev"),
    ("evaluate --protocol mine", ("evaluate", "{here}/detections.json", "--data", "{here}/data", "--subset", "test", "--protocol", "x"), "protocol"),
    ("import with --fps of text", ("import", "opentad", "{here}/data", "{here}/new", "--fps", "fast"), "fps"),
    ("import with --stride 0", ("import", "opentad", "{here}/data", "{here}/new", "--fps", "25", "--stride", "0"), "stride"),
    ("import with --dim -1", ("import", "opentad", "{here}/data", "{here}/new", "--fps", "25", "--dim", "-1"), "dim"),
    ("import from a folder that is not there", ("import", "hrpro", "{here}/none", "{here}/new"), "none"),
    ("import hrpro from something else", ("import", "hrpro", "{here}/data", "{here}/new"), "gt_full.json"),
    ("import epic from something else", ("import", "epic", "{here}/data", "{here}/new", "--task", "verb"), "csv"),
    ("spaces show: no such", ("spaces", "nothing"), "nothing"),
    ("ui --port 99999", ("ui", "--port", "99999"), "port"),
    ("ui --tracking of nothing", ("ui", "--tracking", "sqlite:///{here}/none/none.db"), "none.db"),
    ("quality of a file that is not there", ("quality", "{here}/x.parquet", "--data", "{here}/data"), "x.parquet"),
    ("submit nothing", ("submit",), "submit"),
    ("jobs without a cluster", ("jobs", "--address", "http://127.0.0.1:9"), "127.0.0.1:9"),
]  # fmt: skip
COMMANDS = [refused("other commands", what, nothing, command, says) for what, command, says in OPTIONS]
COMMANDS += [
    refused("other commands", "labels --videos a file of rubbish", content("v.txt", bytes(range(256))), ("labels", "{here}/data", "{here}/new", "--kind", "full", "--videos", "{here}/v.txt"), "v.txt"),
    refused("other commands", "labels --videos an unknown video", content("v.txt", "nobody\n"), ("labels", "{here}/data", "{here}/new", "--kind", "full", "--videos", "{here}/v.txt"), "nobody"),
    refused("other commands", "labels --videos a folder", folder_at("v.txt"), ("labels", "{here}/data", "{here}/new", "--kind", "full", "--videos", "{here}/v.txt"), "v.txt"),
]  # fmt: skip


def imported(what: str, edit: Edit, *says: str) -> Case:
    return refused("import", what, (source, edit), IMPORT[:-1], *says)


def brings(what: str, edit: Edit, *wanted: str, command: tuple[str, ...] = IMPORT[:-1]) -> Case:
    def check(here: Path, text: str) -> None:
        manifest = (here / "new/dataset.yaml").read_text()
        assert "- jump\n- throw\n- kick" in manifest, "the order of the classes is another one"
        assert (here / "new/features/train_0000.npy").exists(), "no features"
        for word in wanted:
            assert word in manifest + text, f"nothing is said of {word!r}"

    return accepted("import", what, (source, edit), command, check=check)


def moved(old: str, new: str) -> Edit:
    def edit(here: Path) -> None:
        (here / new).parent.mkdir(parents=True, exist_ok=True)
        shutil.move(here / old, here / new)

    return edit


def prefixed(here: Path) -> None:
    for path in list((here / "src/features").iterdir()):
        path.rename(path.with_name(f"v_{path.name}"))


IMPORTS = [
    imported("annotations nested 200,000 deep", content("src/anet.json", "[" * 200_000), "anet.json", "deep"),
    imported("annotations empty", content("src/anet.json", ""), "anet.json"),
    imported("a class list of another encoding", content("src/category_idx.txt", b"jump\ncaf\xe9\n"), "category_idx.txt", "utf-8"),
    imported("a class list that lacks a class", content("src/category_idx.txt", "jump\n"), "kick"),
    brings("a video whose duration is null is left out and counted", in_json(lambda d: d["database"]["train_0001"].update(duration=None), "src/anet.json"), "1 videos without a duration", "train_0001"),
    brings("a video without a duration, whose frames and rate tell it", in_json(lambda d: d["database"]["train_0000"].update(frame=round(d["database"]["train_0000"].pop("duration") * 25), fps=25) and None, "src/anet.json")),
    imported("no training video has a duration", in_json(lambda d: [e.update(duration=None) for e in d["database"].values() if e["subset"] == "training"] and None, "src/anet.json"), "training", "duration"),
    imported("duration 10**400", in_json(lambda d: d["database"]["train_0000"].update(duration=10**400), "src/anet.json"), "train_0000"),
    imported("an id with ../", replaced("src/anet.json", '"train_0000"', '"../x"'), "../x"),
    imported("a video twice", replaced("src/anet.json", '"train_0001"', '"train_0000"'), "train_0000"),
    imported("a truth row that ends before it begins", in_json(lambda d: d["database"]["train_0000"]["annotations"].append({"segment": [9, 2], "label": "jump"}), "src/anet.json"), "train_0000"),
    brings("a truth row of zero length is dropped and counted", in_json(lambda d: d["database"]["train_0000"]["annotations"].append({"segment": [0, 0], "label": "jump"}), "src/anet.json"), "1"),
    brings("features named v_ID.npy", prefixed),
    brings("the class list in annotations/", lambda h: (moved("src/anet.json", "src/annotations/anet.json")(h), moved("src/category_idx.txt", "src/annotations/category_idx.txt")(h))),
    brings("the block list in the feature folder", content("src/features/missing_files.txt", "train_0005\n"), "train_0005"),
    brings("byte order marks", lambda h: [(h / "src" / n).write_bytes(b"\xef\xbb\xbf" + (h / "src" / n).read_bytes()) for n in ("anet.json", "category_idx.txt")]),
    brings("CR LF and blanks", content("src/category_idx.txt", "jump \r\n throw\r\nkick\t\r\n\r\n")),
    brings("ids with a leading -", lambda h: ((h / "src/anet.json").write_text((h / "src/anet.json").read_text().replace('"test_0000"', '"-0fQ_Ls"')), (h / "src/features/test_0000.npy").rename(h / "src/features/-0fQ_Ls.npy"))),
]  # fmt: skip

CASES = [*AT_RISK, *COMMANDS, *IMPORTS]
