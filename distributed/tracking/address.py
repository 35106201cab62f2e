"""Where MLflow may be: which addresses are accepted, and whether something that can be used is there."""

from __future__ import annotations

import logging
import os
import sqlite3
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from tad.data.remote import redacted
from tad.errors import RunError, first_line

INSTEAD = "`--tracking none` runs without MLflow, `--tracking sqlite:///mlflow.db` keeps it in a local file"

# A dead server costs seconds, not MLflow's default of four minutes. MLflow itself never retries: a creation that
# timed out may have been carried out, so only the mirror, which looks for the token first, may try again.
ENVIRONMENT = {
    "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "0",
    "MLFLOW_HTTP_REQUEST_TIMEOUT": "5",
    "MLFLOW_LOGGING_LEVEL": "WARNING",
    "MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT": "true",
    "MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR": "false",
    "MLFLOW_DISABLE_TELEMETRY": "true",
}


def mlflow() -> Any:
    """The mlflow package, set to fail fast and to keep its log lines off the console.

    Raises:
        RunError: it is not installed.
    """
    for name, value in ENVIRONMENT.items():
        os.environ.setdefault(name, value)
    try:
        Path.home()
    except RuntimeError:  # a container's user without a name; MLflow needs some path, and writes nothing there
        os.environ["HOME"] = "/nonexistent"
    try:
        import mlflow as package
    except ImportError as error:
        raise RunError(
            f"MLflow cannot be imported ({error}); install it with `pip install mlflow`, or {INSTEAD}"
        ) from (error)
    for name in ("alembic", "mlflow.store.db.utils"):
        logging.getLogger(name).setLevel(logging.WARNING)
    logging.getLogger("urllib3.connectionpool").setLevel(logging.ERROR)
    return package


def address(uri: str | None) -> str:
    """The full form of a store's address; None: `mlflow.db` in the current folder, or MLFLOW_TRACKING_URI if set.

    Raises:
        RunError: MLflow could not write there, or not safely.
    """
    uri = uri or os.environ.get("MLFLOW_TRACKING_URI") or "sqlite:///mlflow.db"
    if uri.startswith("sqlite:"):
        if not uri.startswith("sqlite:///") or uri in ("sqlite:///", "sqlite:///:memory:"):
            raise RunError(f"{uri}: name a file: sqlite:///mlflow.db (here) or sqlite:////folder/mlflow.db (elsewhere)")
        path = Path(uri.removeprefix("sqlite:///")).expanduser().resolve()
        if "?" in str(path) or "%" in str(path):
            raise RunError(f"{path}: SQLite addresses cannot hold ? or %; keep the database in another folder")
        return f"sqlite:///{path}"
    shown = redacted(uri)
    try:
        parts = urlsplit(uri)
    except ValueError:
        raise RunError(f"{shown}: not an address of an MLflow server (http://HOST:PORT); {INSTEAD}") from None
    if parts.scheme in ("http", "https"):
        if "@" in uri or parts.query or parts.fragment:
            raise RunError(
                f"{shown}: leave user, password and options out of the address and set MLFLOW_TRACKING_USERNAME and "
                "MLFLOW_TRACKING_PASSWORD, or MLFLOW_TRACKING_TOKEN"
            )
        return uri.rstrip("/")
    if parts.scheme in ("", "file"):
        raise RunError(
            f"{shown}: MLflow no longer writes to folders (`mlflow migrate-filestore` converts an old one); {INSTEAD}"
        )
    raise RunError(f"{shown}: not an address of an MLflow server (http://HOST:PORT) or SQLite file; {INSTEAD}")


def sqlite_path(uri: str) -> Path | None:
    """The file of a full local address, None for a server."""
    return Path(uri.removeprefix("sqlite:///")) if uri.startswith("sqlite:///") else None


def reach(uri: str) -> None:
    """Asks a server for a sign of life.

    Raises:
        RunError: none came within 3 s, or it refuses the host name of the address.
    """
    import requests

    verify: bool | str = os.environ.get("MLFLOW_TRACKING_SERVER_CERT_PATH") or (
        os.environ.get("MLFLOW_TRACKING_INSECURE_TLS", "").lower() not in ("true", "1")
    )
    try:
        status = requests.get(f"{uri}/health", timeout=3, verify=verify).status_code
        if status == 200:  # for any host name; the rest is answered to those that the server was told of
            status = requests.get(f"{uri}/api/3.0/mlflow/server-info", timeout=3, verify=verify).status_code
    except requests.RequestException as error:
        raise RunError(
            f"{uri}: no MLflow server answers there ({reason(error)}); start it, mend the address, "
            f"or do without: {INSTEAD}"
        ) from error
    if status == 403:
        raise RunError(
            f"{uri}: the server refuses this host name (403); start it with `mlflow server --allowed-hosts "
            f"{urlsplit(uri).netloc}` (MLFLOW_SERVER_ALLOWED_HOSTS), or use a name that it knows"
        )
    if status >= 500:
        raise RunError(f"{uri}: the MLflow server is not ready (HTTP {status}); try again, or do without: {INSTEAD}")


def check_file(path: Path) -> None:
    """Opens a database file for writing once; MLflow itself would try for a minute.

    Raises:
        RunError: the file is no database and cannot become one.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        connection = sqlite3.connect(path, timeout=10)
        try:
            connection.execute("BEGIN IMMEDIATE")
            connection.rollback()
        finally:
            connection.close()
    except (OSError, sqlite3.Error) as error:
        what = "is a folder, not a database file" if path.is_dir() else f"cannot be used as MLflow's database: {error}"
        raise RunError(f"{path}: {what}; give another file: --tracking sqlite:////FOLDER/mlflow.db") from error


def reason(error: BaseException) -> str:
    """The innermost of a chain of errors, in one short line."""
    while (inner := error.__cause__ or error.__context__) is not None:
        error = inner
    return first_line(error)
