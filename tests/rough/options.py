"""Recipes, options, searches and their spaces, studies."""

from __future__ import annotations

import json
import sqlite3
from pathlib import Path

from tests.rough.harness import RUN, Case, Edit, accepted, content, folder_at, link_at, nothing, pipe_at, refused

RECIPE = "recipe.yaml"
OWN = ("run", "{here}/recipe.yaml", *RUN[2:])
BOMB = "a0: &a0 [x]\n" + "".join(f"a{i + 1}: &a{i + 1} [{', '.join([f'*a{i}'] * 10)}]\n" for i in range(9))


def recipe(what: str, edit: Edit, *says: str) -> Case:
    return refused("recipe", what, edit, OWN, *says)


def option(what: str, *options: str, says: tuple[str, ...]) -> Case:
    return refused("options", what, nothing, (*RUN, *options), *says)


def setting(assignment: str, *says: str) -> Case:
    return option(f"--set {assignment}", "--set", assignment, says=says or (assignment.partition("=")[0],))


RECIPES = [
    recipe("missing", nothing, "recipe.yaml"),
    recipe("empty", content(RECIPE, ""), "recipe"),
    recipe("a list", content(RECIPE, "- 1\n"), "recipe", "mapping"),
    recipe("binary", content(RECIPE, bytes(range(256))), "recipe.yaml"),
    recipe("another encoding", content(RECIPE, "description: caf\xe9\n".encode("latin-1")), "recipe.yaml", "utf-8"),
    recipe("not YAML", content(RECIPE, "a: [\n"), "recipe"),
    recipe("a folder", folder_at(RECIPE), "recipe.yaml", "folder"),
    recipe("a named pipe", pipe_at(RECIPE), "recipe.yaml", "pipe"),
    recipe("/dev/zero", link_at(RECIPE, "/dev/zero"), "recipe.yaml", "device"),
    recipe("a link to itself", link_at(RECIPE, "recipe.yaml"), "recipe.yaml"),
    recipe("10^9 items of aliases", content(RECIPE, BOMB), "alias"),
    recipe("an alias that holds itself", content(RECIPE, "proposer: &a {x: *a}\n"), "recipe"),
    recipe("nested 100,000 deep", content(RECIPE, "[" * 100_000), "deep"),
    recipe("a key twice", content(RECIPE, "rounds: 1\nrounds: 2\n"), "rounds"),
    recipe("a Python object", content(RECIPE, "rounds: !!python/object/apply:os.getpid []\n"), "recipe"),
    recipe("an unknown key", content(RECIPE, "round: 1\n"), "round"),
    recipe("an unknown method", content(RECIPE, "proposer: {method: snipet}\n"), "method"),
    recipe("a method that is a list", content(RECIPE, "proposer: {method: [snippet]}\n"), "method"),
    recipe("a role that is a number", content(RECIPE, "proposer: 3\n"), "proposer"),
    refused("recipe", "no such name", nothing, ("run", "psr", *RUN[2:]), "psr", "pser"),
    refused("recipe", "a name with ../", nothing, ("run", "../seeds", *RUN[2:]), "seeds"),
    refused("recipe", "a dataset in its place", nothing, ("run", "{here}/data", *RUN[2:]), "data"),
    refused("recipe", "recipes show: no such name", nothing, ("recipes", "show", "psr"), "psr"),
    accepted("recipe", "a byte order mark and é", content(RECIPE, "\ufeffdescription: café\nproposer: {method: snippet, training: {epochs: 1}}\nlabeler: {method: pser-seed}\ndetector: {method: actionformer, epochs: 1}\nrounds: 0\n"), OWN),
]  # fmt: skip

OPTIONS = [
    *(setting(f"proposer.training.lr={v}") for v in (".inf", ".nan", "-1", "0", "fast", "true", "1e300", "[1]")),
    *(setting(f"detector.training.lr={v}") for v in (".inf", ".nan", "-1", "1e300")),
    *(setting(f"proposer.training.epochs={v}") for v in ("0", "-3", "1.5", ".inf", "1e12", "ten", "null")),
    *(setting(f"proposer.training.batch_size={v}") for v in ("0", "-1", "1000000000000")),
    *(setting(f"proposer.training.width={v}") for v in ("0", "1000000000000")),
    *(setting(f"proposer.training.dropout={v}") for v in ("-0.1", "1.5", ".nan")),
    *(setting(f"proposer.training.ema_decay={v}") for v in ("1.5", "-1", ".inf")),
    *(setting(f"proposer.training.weight_decay={v}") for v in ("-1", ".inf", "1e300")),
    *(
        refused("options", f"--set rounds={v}", nothing, (*RUN[:5], *RUN[7:], "--set", f"rounds={v}"), "rounds")
        for v in ("-1", "1e9", "two", "1000000000")
    ),
    setting("proposer.candidates.cas_thresholds=[]"),
    setting("proposer.candidates.cas_thresholds=[.nan]"),
    setting("proposer.candidates.cas_thresholds=[2, x]"),
    setting("nothing=1", "nothing"),
    setting("proposer.training.lrr=1", "lrr"),
    setting("proposer=1", "proposer"),
    setting("=1", "override"),
    setting("lr", "override"),
    setting("proposer.method.x=1", "method"),
    setting("rounds=[", "rounds"),
    setting("select=best", "select"),
    option("lr 1e30: the loss says so", "--set", "proposer.training.lr=1e30", says=("loss is", "learning rate")),
    option("--rounds -1", "--rounds", "-1", says=("rounds",)),
    option("--rounds x", "--rounds", "x", says=("rounds",)),
    option("--rounds 10^9", "--rounds", "1000000000", says=("rounds",)),
    option("--seed -1", "--seed", "-1", says=("seed",)),
    option("--seed 10^30", "--seed", str(10**30), says=("seed",)),
    option("--seed x", "--seed", "x", says=("seed",)),
    option("--workers 0", "--workers", "0", says=("workers",)),
    option("--workers -2", "--workers", "-2", says=("workers",)),
    option("--workers 10^9", "--workers", "1000000000", says=("workers",)),
    option("--gpus-per-worker nan", "--gpus-per-worker", "nan", says=("gpus",)),
    option("--gpus-per-worker -1", "--gpus-per-worker", "-1", says=("gpus",)),
    option("--placement here", "--placement", "here", says=("placement",)),
    option("--tracking http://", "--tracking", "http://", says=("tracking",)),
    option("--tracking ftp://x", "--tracking", "ftp://x/y", says=("ftp",)),
    option("--tracking a folder", "--tracking", "./mlruns", says=("mlruns",)),
    option("--store s3 with keys", "--store", "s3://KEY:SECRET@bucket/x", says=("AWS_",)),
    option("--store with a query", "--store", "s3://bucket/x?endpoint_override=127.0.0.1:1&scheme=http", says=("endpoint",)),
    option("--store of an unknown scheme", "--store", "gopher://x/y", says=("gopher",)),
    option("--data s3 with keys", "--data", "s3://KEY:SECRET@bucket/x", says=("AWS_",)),
    refused("options", "--data missing", nothing, ("run", "seeds", "--local"), "--data"),
    refused("options", "an unknown option", nothing, (*RUN, "--fast"), "--fast"),
    refused("options", "an unknown command", nothing, ("train",), "train"),
]  # fmt: skip

TUNE = (
    "tune", "seeds", "--space", "{here}/space.py", "--data", "{here}/data", "--objective", "points", "--trials", "1",
    "--set", "rounds=0", "--set", "proposer.training.epochs=1", "--local", "--out", "{here}/study",
    "--store", "{here}/store",
)  # fmt: skip


def space(what: str, text: str | bytes, *says: str) -> Case:
    return refused("search space", what, content("space.py", text), TUNE, *(says or ("space.py",)))


def tuned(what: str, *options: str, says: tuple[str, ...]) -> Case:
    command = list(TUNE)
    command[3] = "thresholds"
    return refused("search", what, nothing, (*command, *options), *says)


def study(what: str, edit: Edit, *says: str) -> Case:
    command = list(TUNE)
    command[3] = "thresholds"
    return refused("study", what, edit, command, *says, writes=("study/",))


def marker(text: str) -> Edit:
    return content("study/study.json", text)


def foreign_database(here: Path) -> None:
    """A study.db that is no Optuna database."""
    marker(json.dumps({"study": "x", "command": "tad tune"}))(here)
    with sqlite3.connect(here / "study" / "study.db") as database:
        database.execute("create table studies (a int)")


SEARCH = [
    refused("search space", "missing", nothing, TUNE, "space.py"),
    space("empty", ""),
    space("syntax error", "def (\n"),
    space("raises", "1 / 0\n", "space.py"),
    space("sys.exit(0)", "import sys\nsys.exit(0)\n"),
    space("sys.exit('bye')", "import sys\nsys.exit('bye')\n"),
    space("KeyboardInterrupt", "raise KeyboardInterrupt\n", "interrupted"),
    space("another encoding", "# caf\xe9\n".encode("latin-1")),
    space("binary", bytes(range(256))),
    space("no parameter", "x = 1\n"),
    space("imports what is not there", "import nothing_like_it\n", "nothing_like_it"),
    refused("search space", "a folder", folder_at("space.py"), TUNE, "space.py"),
    refused("search space", "a named pipe", pipe_at("space.py"), TUNE, "space.py", "pipe"),
    refused("search space", "no such family", nothing, (*TUNE[:3], "thresholdz", *TUNE[4:]), "thresholdz"),
    tuned("--trials 0", "--trials", "0", says=("trials",)),
    tuned("--trials 10^12", "--trials", str(10**12), says=("trials",)),
    tuned("--trials x", "--trials", "x", says=("trials",)),
    tuned("--seed -1", "--seed", "-1", says=("seed",)),
    tuned("--time-budget nan", "--time-budget", "nan", says=("time-budget",)),
    tuned("--time-budget -1", "--time-budget", "-1", says=("time-budget",)),
    tuned("--concurrency 0", "--concurrency", "0", says=("concurrency",)),
    tuned("--objective best", "--objective", "best", says=("objective",)),
    tuned("--objective dev-map without dev videos", "--objective", "dev-map", says=("dev",)),
    tuned("--gpus-per-trial nan", "--gpus-per-trial", "nan", says=("gpus",)),
    tuned("--storage no URL", "--storage", "nowhere", says=("storage",)),
    tuned("--storage an unknown database", "--storage", "oracel://h/x", says=("oracel",)),
    tuned("--storage in memory", "--storage", "sqlite://", says=("file",)),
    tuned("--storage with a password that fails", "--storage", "postgresql://u:GEHEIM@127.0.0.1:1/x", says=("127.0.0.1",)),
    tuned("--warm-start no such study", "--warm-start", "nothing", says=("nothing",)),
    tuned("--warm-start a folder without a study", "--warm-start", "{here}/data", says=("data",)),
    refused("search", "--warm-start a truncated study.json", content("old/study.json", '{"study": "x'), (*TUNE[:3], "thresholds", *TUNE[4:], "--warm-start", "{here}/old"), "study.json"),
    refused("search", "--warm-start a list as study.json", content("old/study.json", "[]"), (*TUNE[:3], "thresholds", *TUNE[4:], "--warm-start", "{here}/old"), "study.json"),
    study("study.json truncated", marker('{"study": "x'), "study.json"),
    study("study.json empty", marker(""), "study.json"),
    study("study.json a list", marker("[]"), "study.json"),
    study("study.json without its name", marker("{}"), "study.json"),
    study("study.json of another type", marker('{"study": 3, "command": []}'), "study.json"),
    study("study.json is a folder", folder_at("study/study.json"), "study.json"),
    study("study.json is a named pipe", [folder_at("study"), pipe_at("study/study.json")], "study.json"),
    study("study.db is text", [marker('{"study": "seeds-data-points-seed0", "command": ""}'), content("study/study.db", "x" * 5000)], "study"),
    study("study.db of something else", foreign_database, "study"),
    study("--out holds other files", content("study/notes.txt", "mine"), "study"),
    study("--out is a file", content("study", "mine"), "study"),
    refused("study", "--out below a file", nothing, (*TUNE[:3], "thresholds", *TUNE[4:-4], "--out", "{here}/detections.json/s", *TUNE[-2:]), "detections.json"),
    *(
        accepted("study", f"--out with {c} in its name", nothing, (*TUNE[:3], "thresholds", *TUNE[4:-4], "--out", "{here}/q" + c + "a", *TUNE[-2:]), check=lambda h, t, c=c: _made(h / f"q{c}a" / "study.db"))
        for c in "?%#& ä'"
    ),
]  # fmt: skip


def _made(path: Path) -> None:
    assert path.is_file(), f"{path} is missing"


SYNTH = [
    refused("synth", f"{option} {value}", nothing, ("synth", "{here}/new", option, value), option.strip("-"))
    for option, value in [
        ("--videos", "1000000000"), ("--videos", "0"), ("--videos", "-1"), ("--test", "1000000000"), ("--dev", "1000000000"),
        ("--classes", "0"), ("--classes", "1000000000"), ("--dim", "0"), ("--dim", "-5"), ("--dim", "1000000000000"),
        ("--seed", "-1"), ("--difficulty", "nan"), ("--difficulty", "2"),
    ]
]  # fmt: skip

CASES = [*RECIPES, *OPTIONS, *SEARCH, *SYNTH]
