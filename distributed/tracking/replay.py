"""What a run that has ended left undone in MLflow: operations that wait in its folder, and MLflow runs still open."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

from distributed.run.run_folder import locked
from distributed.tracking.address import address
from distributed.tracking.database import TrackingStore
from distributed.tracking.mlflow_tracker import found_run, replay_command
from distributed.tracking.outbox import Outbox, Spool
from tad.data.remote import redacted
from tad.errors import RunError
from tad.report.run import RunInfo, read_info


class Replayed(NamedTuple):
    """How many operations were sent, and how many MLflow runs were still open and are now KILLED."""

    sent: int
    closed: int


def replay(run_folder: Path, uri: str | None, warn: Callable[[str], None]) -> Replayed:
    """Sends the operations that wait in a run's folder, and closes what a killed process left open.

    The folder may be somebody else's: it cannot choose the server, and only files below RUN/spool are sent.

    Args:
        uri: where to, as in `connect`.

    Raises:
        RunError: none wait and no MLflow run is known, or they are another store's, the store is still away, or the run
            is still going on.
    """
    spool, info = Spool(run_folder), _tracked(run_folder)
    if spool.store is not None:
        theirs, experiment = spool.store["uri"], spool.store["experiment"]
        what = f"{spool.path}: its operations wait for"
    elif info is not None and info.tracking is not None and info.tracking.uri is not None:
        theirs, experiment = info.tracking.uri, info.dataset.name
        what = f"{run_folder / 'run.json'}: it was tracked in"
    else:
        raise RunError(f"{spool.path}: no such file; nothing waits to be sent to MLflow")
    full = address(uri)
    if theirs != full:
        raise RunError(
            f"{what} {redacted(theirs)}, and you named {full}. If you trust that store, "
            f"send them there with `{replay_command(run_folder, theirs)}`"
        )
    with locked(run_folder):
        outbox = Outbox(TrackingStore(full, experiment), run_folder, warn)
        count = len(outbox.spool)
        if left := outbox.finish():
            raise RunError(f"{spool.path}: {left} of {count} operations still wait; is {full} up?")
        run_id = info.tracking.run_id if info is not None and info.tracking is not None else None
        return Replayed(count, _close(outbox.store, run_id) if run_id is not None else 0)


def _tracked(run_folder: Path) -> RunInfo | None:
    """run.json, if there is one."""
    return read_info(run_folder) if (run_folder / "run.json").exists() else None


def _close(store: TrackingStore, run_id: str) -> int:
    """Ends a parent run and those below it that are still running, as KILLED; how many."""
    if not re.fullmatch(r"[0-9a-f]{32}", run_id):  # of a folder that somebody else wrote
        return 0
    try:
        run = found_run(store, run_id) or found_run(store, store.id(run_id))
    except LookupError:  # neither an MLflow run nor the token of one
        return 0
    if run is None:
        return 0
    running = [one.info.run_id for one in [run, *store.children(run.info.run_id)] if one.info.status == "RUNNING"]
    for one in reversed(running):
        store.client.set_terminated(one, "KILLED")
    return len(running)
