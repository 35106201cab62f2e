"""URIs of datasets and stores: no credentials in them or in what is written of them; keys of buckets as paths."""

from __future__ import annotations

import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import ClassVar
from urllib.parse import parse_qs, urlsplit
from xml.sax.saxutils import escape

import pytest

from tad.data.dataset import Dataset
from tad.data.remote import below, checked, redacted
from tad.errors import DataError


@pytest.mark.parametrize(
    "uri",
    [
        "s3://KEYID:HUSH@bucket/a",
        "s3://KEYID@bucket/a",
        "s3://KEYID:HUSH HUSH\nHUSH@bucket/a",
        "s3://KEYID:HUSH",
        "s3://KEYID:HUSH@bucket?secret_key=HUSH",
        "s3://KEYID:HUSH/HUSH@bucket/a",
        "s3://KEYID:HUSH?HUSH@bucket/a",
        "s3://KEYID:HUSH@HUSH@bucket/a",
        "s3://bucket/a?access_key=KEYID&secret_key=HUSH",
        "s3://bucket/a?endpoint_override=HUSH.org",
        "s3://bucket?scheme=http&endpoint_override=HUSH",
        "gs://user:HUSH@bucket/a",
        "abfs://account:HUSH@container/a",
        "s3://bucket/a#HUSH",
        "file:///tmp/a?HUSH",
    ],
)
def test_credentials_and_options_in_a_uri_are_refused_and_not_shown(uri, tmp_path, monkeypatch):
    monkeypatch.setenv("TAD_CACHE", str(tmp_path / "cache"))
    for use in (checked, Dataset.open):
        with pytest.raises(DataError, match=r"AWS_ACCESS_KEY_ID.*AWS_PROFILE.*AWS_ENDPOINT_URL") as error:
            use(uri)
        assert "must not hold" in str(error.value)
        assert not any(part in str(error.value) for part in ("HUSH", "KEYID"))
    assert not (tmp_path / "cache").exists()


@pytest.mark.parametrize(
    "uri",
    [
        "s3://bucket/a@b:c/d",
        "gs://bucket",
        "gs://anonymous@bucket/a",
        "file:///tmp/a@b:c",
        "abfss://container@account.dfs.core.windows.net/a",
        "hdfs://user@name:8020/a",
    ],
)
def test_other_uris_stay_as_they_are(uri):
    assert checked(uri) == uri


@pytest.mark.parametrize(
    ("text", "right"),
    [
        ("no dataset at s3://KEY:SECRET@bucket/a, see docs", "no dataset at s3://***@bucket/a, see docs"),
        ("postgresql://u:pa@ss/w@host:5432/db", "postgresql://***@host:5432/db"),
        ("postgresql+psycopg2://u:12/3@host/db?password=x", "postgresql+psycopg2://***@host/db?***"),
        ('{"a": "s3://K:S@b?x=1", "b": "c@d"}', '{"a": "s3://***@b?***", "b": "c@d"}'),
        ("no dataset at s3://b/a#SECRET, see docs", "no dataset at s3://b/a#*** see docs"),
        ("https://u:p@h/p#t?y x", "https://***@h/p#*** x"),
        ("sqlite:////home/a#b/mlflow.db?x=1", "sqlite:////home/a#b/mlflow.db?***"),
        ("sqlite:////home/a#b/mlflow.db", None),
        ("file:///data/take#2", None),
        ("s3://b/a?key=x and https://u@h/p?token=y", "s3://b/a?*** and https://***@h/p?***"),
        ("s3://b/features/a@b.npy: missing? http://127.0.0.1:5000/x", None),
        ("sqlite:////home/a@b:c/mlflow.db", None),
        ("abfss://container@account/a", None),
        ("mail me@here.org: what?", None),
    ],
)
def test_redacted_text_keeps_all_but_users_passwords_and_queries(text, right):
    assert redacted(text) == (text if right is None else right)
    assert redacted(redacted(text)) == redacted(text)


class Hostile(BaseHTTPRequestHandler):
    """An S3 server that lists the keys that the test wants."""

    keys: ClassVar[list[str]] = []

    def do_GET(self) -> None:
        prefix = parse_qs(urlsplit(self.path).query).get("prefix", [""])[0]
        rows = "".join(
            f"<Contents><Key>{escape(prefix + key)}</Key><Size>3</Size>"
            "<LastModified>2026-01-01T00:00:00.000Z</LastModified></Contents>"
            for key in self.keys
        )
        body = f"<ListBucketResult><IsTruncated>false</IsTruncated>{rows}</ListBucketResult>".encode()
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def hostile(tmp_path, monkeypatch):
    server = ThreadingHTTPServer(("127.0.0.1", 0), Hostile)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    monkeypatch.setenv("AWS_ENDPOINT_URL", f"http://127.0.0.1:{server.server_port}")
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.setenv(name, "x")
    monkeypatch.setenv("AWS_DEFAULT_REGION", "us-east-1")
    monkeypatch.setenv("TAD_CACHE", str(tmp_path / "cache"))
    yield
    server.shutdown()
    server.server_close()


@pytest.mark.parametrize("key", ["..", "../../x.npy", "a\\b.npy", "x" * 256, "a\tb"])
def test_keys_of_a_bucket_that_would_leave_the_cache_are_refused_by_name(hostile, tmp_path, monkeypatch, key):
    monkeypatch.setattr(Hostile, "keys", [key])
    with pytest.raises(DataError, match=r"^the object .* of the bucket cannot be a file below .*cache") as error:
        Dataset.open("s3://bucket/data")
    assert key.rpartition("/")[2][:20] in str(error.value).encode().decode("unicode_escape")
    assert not [path for path in tmp_path.rglob("*") if path.is_file()]


@pytest.mark.parametrize(
    "key", ["", "a//b", "/etc/x", "a/../b", "./a", "a\0", "a\nb", "a\\b", "a\udc80", "a/" + "x" * 256]
)
def test_a_key_is_no_path_out_of_its_folder(tmp_path, key):
    with pytest.raises(DataError, match="cannot be a file below"):
        below(tmp_path, key)


def test_other_keys_are_paths(tmp_path):
    for key in ("points.csv", "features/-AbC_.npy", "parts/000000.parquet", "..a/b.. c"):
        assert below(tmp_path, key) == tmp_path / key
