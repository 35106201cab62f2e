"""`tad ui --replay`: sends MLflow what it does not know yet of a run."""

from __future__ import annotations

from pathlib import Path

from distributed.engine.record import Record, events_of
from distributed.run.run_folder import locked
from distributed.tracking.address import address, reason
from distributed.tracking.database import TrackingStore
from distributed.tracking.follow import replay_command
from distributed.tracking.mirror import Mirror
from tad.data.remote import redacted
from tad.errors import RunError
from tad.files import cause


def replay(folder: Path, uri: str | None) -> int:
    """Sends what MLflow does not know yet of a run or a study, and closes what a killed run left open.

    The folder may be somebody else's: it cannot choose the server, and only files below it are sent.

    Args:
        uri: where to; None: MLFLOW_TRACKING_URI, or mlflow.db in the current folder.

    Returns:
        How many events were sent.

    Raises:
        RunError: there is no record, or it was tracked elsewhere and `uri` is None; the store is away; the run is still
            going on.
    """
    full, sent = address(uri), 0
    paths = sorted(folder.glob("events*.jsonl"))  # each driver of a study has its own
    if not paths:
        raise RunError(f"{folder / 'events.jsonl'}: no such file; nothing waits to be sent to MLflow")
    for path in paths:
        try:
            told = [event for _, _, event in events_of(path) if event.get("kind") in ("start", "end")]
        except OSError as error:
            raise RunError(f"{path}: cannot be read: {cause(error)}") from error
        starts = [event for event in told if isinstance(event.get("experiment"), str)]
        if not starts:
            raise RunError(f"{path}: tells nothing for MLflow; a run of an earlier version wrote it")
        theirs = [str(event["tracking"]) for event in starts if event.get("tracking")][-1:]
        if uri is None and theirs and theirs != [full]:
            raise RunError(
                f"{path}: was tracked in {redacted(theirs[0])}, and without --tracking it would go to {full}. If you "
                f"trust that store, send it there with `{replay_command(folder, theirs[0])}`"
            )
        with locked(folder):
            store, record = TrackingStore(full, starts[0]["experiment"]), Record(folder, name=path.name)
            if told[-1]["kind"] == "start" and (folder / "run.json").exists():  # a study may go on elsewhere
                record.event("end", status="KILLED")
            mirror = Mirror(store, record)
            try:
                sent += mirror.catch_up()
            except Exception as error:
                raise RunError(f"{path}: {mirror.left()} events still wait ({reason(error)}); is {full} up?") from error
    return sent
