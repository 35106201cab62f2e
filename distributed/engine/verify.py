"""Compares artifacts with their digests, without changing anything."""

from __future__ import annotations

import tempfile
from pathlib import Path

from distributed.engine.seals import problem
from distributed.engine.store import Store
from tad.data.artifact import META


def verified(store: Store, key: str) -> tuple[str | None, bool]:
    """Why an artifact is not what was written, or None; and whether it has digests.

    Of a store in a bucket, the bucket's files are read, to a folder that does not stay.
    """
    meta = store.meta(key)
    had_digests = "files" in meta
    if meta.get("fingerprint", key) != key:
        wrong: str | None = f"{META} is that of another artifact, {meta['fingerprint']}"
    elif store.bucket is None:
        wrong = problem(store.root / key, again=True)
    else:
        with tempfile.TemporaryDirectory(prefix=".node-", dir=store.root) as folder:
            store.bucket.download(store.bucket.listed(key), Path(folder))
            wrong = problem(Path(folder), again=True)
    return wrong, had_digests or wrong is not None
