"""URIs of datasets and stores: no credentials in them, and none in what is written of them."""

from __future__ import annotations

import pytest

from tad.data.dataset import Dataset
from tad.data.remote import checked, redacted
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
