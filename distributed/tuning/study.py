"""The Optuna study of a search: where it is stored, whether it is the right one, and what it may take from another."""

from __future__ import annotations

import contextlib
import errno
import hashlib
import json
import warnings
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import optuna
from filelock import FileLock
from optuna.trial import TrialState

from distributed.engine.precision import Precision
from search_spaces.space import Space
from tad.data.remote import redacted
from tad.errors import RunError, TadError, first_line
from tad.files import cause, regular

PASSWORDS = "its password in PGPASSWORD or ~/.pgpass, not in the URL"
"""For PostgreSQL; other users of the machine see the commands that run."""
FULL_OR_FORBIDDEN = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EROFS, errno.EACCES, errno.EPERM, errno.EIO)
"""What a disk may say at any write."""


def open_storage(place: str | Path) -> optuna.storages.RDBStorage:
    """A database by its URL, or an SQLite file by its path; such a file is made where it is missing.

    Raises:
        RunError: it cannot be reached or used, or the driver for it is not installed. No message shows a password.
    """
    from sqlalchemy import URL, make_url
    from sqlalchemy.exc import ArgumentError

    try:
        address = URL.create("sqlite", database=str(place)) if isinstance(place, Path) else make_url(place)
    except (ArgumentError, ValueError):
        raise RunError(
            "--storage: not the URL of a database; for instance sqlite:////folder/study.db or "
            f"postgresql://user@host/name ({PASSWORDS}); @ : / ? # % in names are written %40 and so on"
        ) from None
    options: dict[str, Any] = {"pool_pre_ping": True}
    guard: Any = contextlib.nullcontext()
    secrets = [address.password, *(v for v in address.query.values() if isinstance(v, str))]
    with told(f"{shown(address)}: the study's storage", "mend it, or give --storage", secrets):
        if address.drivername.startswith("sqlite"):
            if not address.database or address.database == ":memory:":
                raise RunError(f"{shown(address)}: name a file: sqlite:////folder/study.db")
            if isinstance(place, str) and "?" in place:
                raise RunError(f"{shown(address)}: options are not used; the ? of a file's name is written %3F")
            path = Path(address.database).expanduser().resolve()
            path.parent.mkdir(parents=True, exist_ok=True)
            address = URL.create("sqlite", database=str(path))
            options = {"connect_args": {"timeout": 60}}  # seconds that a writer waits for another
            # Two that make the tables at once leave half of them.
            guard = FileLock(path.with_name(f".{path.name}.lock"))
        with guard:
            return optuna.storages.RDBStorage(_exact(address), engine_kwargs=options)


def read_storage(path: Path) -> optuna.storages.RDBStorage:
    """The study's file of somebody else: nothing is written, neither into it nor beside it.

    Raises:
        RunError: it cannot be read.
    """
    from sqlalchemy import URL

    address = URL.create("sqlite", database=path.resolve().as_uri(), query={"mode": "ro", "uri": "true"})
    with told(f"{path}: the study's storage", "give the folder of a whole study"):
        regular(path)
        return optuna.storages.RDBStorage(_exact(address), skip_table_creation=True)


def _exact(address: Any) -> str:
    """The text of a URL, by which Optuna opens it; it must not lead to another place."""
    from sqlalchemy import make_url

    text: str = address.render_as_string(hide_password=False)
    if make_url(text) != address or "{" in text:  # braces are a template of Optuna's
        raise RunError(f"{shown(address)}: a database of this name cannot be opened; choose another name")
    return text


def shown(address: Any) -> str:
    """An SQLAlchemy URL for messages: without password and options, which may hold one."""
    return str(address.set(query={}).render_as_string(hide_password=True)) + ("?***" if address.query else "")


@contextlib.contextmanager
def told(name: str, remedy: str, secrets: Sequence[str | None] = ()) -> Iterator[None]:
    """Whatever goes wrong with a storage is one line that names it and shows no secret."""
    try:
        yield
    except TadError:
        raise
    except ImportError as error:
        raise RunError(f"{name} cannot be used: the Python package for it is missing: {error}; install it") from None
    except Exception as error:  # SQLAlchemy's, the database's own and the file system's
        reason = redacted(first_line(error))
        for secret in filter(None, secrets):
            reason = reason.replace(secret, "***")
        raise RunError(f"{name} cannot be used: {reason}; {remedy}") from None


@contextlib.contextmanager
def in_one_sentence(place: Path | str) -> Iterator[None]:
    """A storage or disk that fails in the middle of a search (it is full, the server is gone) ends it in order.

    Args:
        place: of the study's storage: a URL or a path.

    Raises:
        RunError: instead of Optuna's and SQLAlchemy's errors, and of the file system's.
    """
    from sqlalchemy.exc import SQLAlchemyError

    try:
        yield
    except (optuna.exceptions.StorageInternalError, SQLAlchemyError) as error:
        reason = redacted(first_line(getattr(error, "orig", None) or error.__cause__ or error))
        name = f"{redacted(str(place))}: the study's storage failed: {reason}"
    except OSError as error:
        if error.errno not in FULL_OR_FORBIDDEN:
            raise
        name = f"{error.filename or place}: {cause(error)}"
    else:
        return
    raise RunError(f"{name}; once it is mended, the same command goes on")


def join(
    storage: optuna.storages.BaseStorage, name: str, identity: Mapping[str, str], directions: list[str]
) -> optuna.Study:
    """The study of this name, made where there is none.

    Args:
        identity: what a study is about, by name; another's study is refused.
        directions: "maximize" or "minimize" for each number that a trial ends with.

    Raises:
        RunError: the study of this name is about something else; tells what.
    """
    study = optuna.create_study(storage=storage, study_name=name, directions=directions, load_if_exists=True)
    if "identity" not in study.user_attrs:
        if study.trials:
            raise RunError(f"study {name}: not one of `tad tune`; give another name with --study")
        study.set_user_attr("identity", dict(identity))
    earlier: Mapping[str, str] = study.user_attrs["identity"]
    differ = [key for key in identity if earlier.get(key) != identity[key]]
    if [d.name.lower() for d in study.directions] != directions:
        differ.append("number of objectives")
    if differ:
        raise RunError(
            f"study {name}: is another search: its {', '.join(differ)} differ{'s' if len(differ) == 1 else ''}. Give "
            "this one another name with --study, or repeat the earlier command; finished stages are shared either way"
        )
    return study


def keep_precision(study: optuna.Study, precision: Precision) -> None:
    """Notes the precision of a study's trials, or compares it: scores of two precisions are not alike.

    Raises:
        RunError: earlier trials had another one.
    """
    earlier = study.user_attrs.get("precision", "fp32" if study.trials else precision)
    if earlier != precision:
        raise RunError(f"study {study.study_name}: its trials have precision {earlier}; give --precision {earlier}")
    study.set_user_attr("precision", precision)


def best_of(storage: optuna.storages.BaseStorage, name: str, space: Space, most: int = 5) -> list[dict[str, Any]]:
    """The best parameters of another study that this space has, too, best first; to be tried here once more.

    Its scores are not taken over: they may be those of another recipe or other data.

    Raises:
        RunError: no such study, or none of its parameters lies in this space.
    """
    known = {s.study_name for s in optuna.get_all_study_summaries(storage, include_best_trial=False)}
    if name not in known:
        there = ", ".join(sorted(known)) or "none"
        raise RunError(f"--warm-start {name}: no such study; in the storage: {there}. Give its folder, or --storage")
    study = optuna.load_study(study_name=name, storage=storage)
    done = [t for t in study.get_trials(deepcopy=False) if t.state == TrialState.COMPLETE and t.values]
    sign = -1 if study.directions[0].name == "MAXIMIZE" else 1
    found: list[dict[str, Any]] = []
    for trial in sorted(done, key=lambda t: (sign * t.values[0], t.number)):
        params = _inside(trial.params, space)
        if params and params not in found:
            found.append(params)
    if not found:
        raise RunError(f"--warm-start {name}: none of its finished trials has a parameter of this space")
    return found[:most]


def _inside(params: Mapping[str, Any], space: Space) -> dict[str, Any]:
    """Those parameters that the space suggests, at values within its ranges."""
    scratch = optuna.create_study()
    scratch.enqueue_trial(dict(params))
    trial = scratch.ask()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of values out of range, which is what is looked for
        with contextlib.suppress(ValueError):  # a choice that is none any more
            space.suggest(trial)
    good = {}
    for key, distribution in trial.distributions.items():
        if key in params and distribution._contains(distribution.to_internal_repr(params[key])):
            good[key] = params[key]
    return good


def digest(document: Any) -> str:
    """A short hash of plain values."""
    return hashlib.sha256(json.dumps(document, sort_keys=True).encode()).hexdigest()[:16]
