"""`tad ui` as a process."""

from __future__ import annotations

import re
import socket

import pytest

from tad.errors import RunError
from tests.support.tracked_run import Page, group_is_empty

pytest_plugins = ["tests.support.tracked"]


def test_ui_shows_runs_and_artifacts_and_stops(start, database, tmp_path):
    tracked = start()
    (tracked.record.folder / "figure.svg").write_text("<svg/>")
    tracked.record.artifact(tracked.record.folder / "figure.svg", "figures")
    tracked.finish()
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        # A folder of somebody else, with modules that the page's processes must not take for their own.
        (folder := tmp_path / "theirs").mkdir()
        for name in ("mlflow", "uvicorn", "flask", "multiprocessing", "pickle", "yaml"):
            (folder / f"{name}.py").write_text(f"open({str(tmp_path / 'run-by-mistake')!r}, 'w')")
        page = Page(tracked.uri, folder, port)
    try:
        assert re.fullmatch(r"http://127\.0\.0\.1:\d+", page.url) and int(page.url.split(":")[-1]) > port
        assert b"<title>MLflow</title>" in page.get("")
        assert page.get(f"get-artifact?run_uuid={tracked.follower.run_id()}&path=figures/figure.svg") == b"<svg/>"
    finally:
        page.stop()
    assert page.process.returncode == 0
    assert not (tmp_path / "run-by-mistake").exists()
    assert group_is_empty(page.server)


def test_ui_without_a_page_to_start(database, tmp_path):
    from click.testing import CliRunner

    from tad.commands.ui import ui

    with pytest.raises(RunError, match=r"no such database.*tad run"):
        CliRunner().invoke(ui, ["--tracking", f"sqlite:///{tmp_path}/none.db"], catch_exceptions=False)
    assert "has the page already" in CliRunner().invoke(ui, ["--tracking", "http://lab:5000"]).output
    with pytest.raises(RunError, match="cannot be served there"):
        arguments = ["--tracking", f"sqlite:///{database}", "--host", "192.0.2.1"]
        CliRunner().invoke(ui, arguments, catch_exceptions=False)
