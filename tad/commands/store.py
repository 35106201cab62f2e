"""`tad store`: what lies in an artifact store, whether it is whole, and what of it nobody needs."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from tad.commands.options import OUT_FOLDER, store_option
from tad.commands.say import say
from tad.commands.table import table
from tad.words import duration, size

if TYPE_CHECKING:
    from distributed.engine.needs import Needed
    from distributed.engine.store import Store

STORE = store_option("Artifact store: a folder, s3:// or gs://.", "place")
RUNS = click.option(
    "--runs",
    type=OUT_FOLDER,
    multiple=True,
    show_default="runs",
    help="Folder below which runs and searches lie; may be repeated.",
)
DEFAULT = [Path("runs")]
MOST_LINES = 20


@click.group()
def store() -> None:
    """List, check and tidy the artifact store."""


@store.command("list")
@STORE
@RUNS
def list_(place: str, runs: tuple[Path, ...]) -> None:
    """Show what is there.

    For each artifact its stage, size and age, and the runs that need it. Runs that do not lie below --runs are known
    by what is noted in the store.
    """
    from distributed.engine.inventory import entries, locks_held
    from distributed.engine.needs import needed

    opened = _opened(place)
    held, every = locks_held(opened), entries(opened)
    wanted = needed(opened, [folder for folder in runs or DEFAULT if folder.is_dir()]).by
    rows = [["what", "name", "stage", "size", "age", "needed by"]]
    for entry in every:
        if entry.kind == "lock":
            continue
        names = [Path(run).name for run in wanted.get(entry.key, [])]
        by = f"{names[0]}{f' and {len(names) - 1} more' if len(names) > 1 else ''}" if names else "no run"
        if entry.kind in ("set aside", "left over", "not the store's"):
            by = "-"
        elif entry.kind == "in progress" and entry.key in held:
            by = f"{held[entry.key]}, now"
        where = "" if entry.local == (opened.bucket is None) else " (copy here)"
        rows.append([entry.kind + where, entry.name, entry.stage, size(entry.bytes), duration(entry.age), by])
    if len(rows) > 1:
        say("\n".join(table(rows)))
    count = sum(entry.kind == "artifact" and entry.local == (opened.bucket is None) for entry in every)
    say(f"{opened.uri}: {count} artifacts, {size(sum(entry.bytes for entry in every))} in all")


@store.command()
@click.argument("keys", metavar="[FINGERPRINT]...", nargs=-1)
@STORE
def verify(keys: tuple[str, ...], place: str) -> None:
    """Look for damage.

    Reads all artifacts, or those named, and compares each file with its digest. Nothing is changed; the next run that
    needs a damaged one sets it aside and makes it again. The exit status is 1 if any is damaged.
    """
    from distributed.engine.inventory import entries
    from distributed.engine.store import KEY
    from distributed.engine.verify import verified
    from tad.errors import RunError, listing

    opened = _opened(place)
    remote = opened.bucket is not None
    # Whatever has the name of an artifact, also if its description is damaged.
    there = [entry for entry in entries(opened) if KEY.fullmatch(entry.name) and entry.local != remote]
    chosen = [entry for entry in there if not keys or entry.name in keys]
    if missing := sorted(set(keys) - {entry.name for entry in chosen}):
        raise RunError(f"{opened.uri}: no such artifact: {', '.join(missing)}")
    problems, old = [], 0
    for entry in chosen:
        problem, had_digests = verified(opened, entry.name)
        old += not had_digests
        if problem is not None:
            problems.append(f"{entry.name} ({entry.stage or 'unknown stage'}): {problem}")
    say(f"{opened.uri}: {len(chosen)} artifacts read, {size(sum(entry.bytes for entry in chosen))}")
    if old:
        say(f"{old} were made before there were digests, and are not checked")
    if problems:
        raise RunError(f"{opened.uri}: damaged: {listing(problems)}\nThe next run that needs one makes it again")


@store.command()
@STORE
@RUNS
@click.option(
    "--forget",
    metavar="DIR",
    multiple=True,
    help="Folder of runs that are gone for good: what is noted of them counts no more; may be repeated.",
)
@click.option("--yes", is_flag=True, help="Remove it. Without, it is only shown.")
def gc(place: str, runs: tuple[Path, ...], forget: tuple[str, ...], yes: bool) -> None:
    """Remove what nobody needs.

    Shows what no run needs, and with --yes removes it: artifacts that no run asked for, itself or as an input of
    another; work in progress that no run needs or whose artifact is finished; what was set aside as damaged; what
    killed processes left; and copies of remote data in TAD_CACHE that were not read for 30 days. What changed within
    the last hour stays (in a bucket: the last day), and nothing is removed while a stage runs on the store.

    Each run is noted in the store, so those of others count, too, and those that were moved. A run that was removed
    has to be forgotten with --forget; one that lies below --runs is never forgotten.
    """
    from distributed.engine import uses
    from distributed.engine.disk import writing
    from distributed.engine.garbage import find_rubbish, remove
    from distributed.engine.needs import needed
    from tad.errors import RunError

    opened = _opened(place)
    places = {text for folder in forget for text in (folder, str(Path(folder).expanduser().absolute()))}
    folders = runs or [folder for folder in DEFAULT if folder.is_dir()]
    found = needed(opened, folders, places)
    if forget and not found.forgotten:
        there = ", ".join(sorted(map(str, found.elsewhere))) or "none"
        raise RunError(f"--forget {', '.join(forget)}: no run is noted there that lies elsewhere now; noted: {there}")
    rubbish = find_rubbish(opened, found.by)
    if rubbish:
        rows = [["name", "size", "why"], *([item.path, size(item.bytes), item.why] for item in rubbish)]
        say("\n".join(table(rows)))
    _tell_elsewhere(opened, found)
    total = size(sum(item.bytes for item in rubbish))
    if not rubbish:
        say(f"{opened.uri}: nothing to remove")
    elif yes:
        say(f"removed: {size(remove(opened, rubbish))} of {total}")
    else:
        say(f"{total} would be removed; run it again with --yes")
    if yes:
        with writing(opened.root):
            uses.forget(opened, found.forgotten)


def _tell_elsewhere(store: Store, found: Needed) -> None:
    """The runs for whose sake alone artifacts stay, and that do not lie below the folders."""
    from distributed.engine.inventory import entries

    there = {entry.key for entry in entries(store) if entry.kind == "artifact"}
    counts = {str(use): n for use in found.elsewhere if (n := len((use.keys & there) - found.here))}
    if counts:
        say("kept for runs that do not lie below --runs (--forget DIR, if they are gone for good):", err=True)
    for use, n in list(counts.items())[:MOST_LINES]:
        say(f"  {use}: {n} artifact{'s' if n > 1 else ''}", err=True)
    if len(counts) > MOST_LINES:
        say(f"  and {len(counts) - MOST_LINES} more", err=True)


def _opened(place: str) -> Store:
    from distributed.engine.store import Store
    from tad.data.remote import is_uri
    from tad.errors import RunError

    if not is_uri(place) and not Path(place).expanduser().is_dir():
        raise RunError(f"{place}: no such store; name it with --store")
    return Store(place)
