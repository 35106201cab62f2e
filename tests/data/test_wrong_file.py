"""Files that a failed download or a forgotten unpacking leaves under another's name are told by what they are."""

from __future__ import annotations

import bz2
import gzip
import io
import lzma
import tarfile
import zipfile
from pathlib import Path

import numpy as np
import pytest

from tad.data.result_files import read_columns
from tad.errors import DataError
from tad.files import read_json, read_text
from tad.prepare.check import check
from tad.prepare.feature_arrays import look
from tad.prepare.import_csv import import_csv
from tad.prepare.synth import make_dataset
from tad.wrong_file import wrong_file

LFS = b"version https://git-lfs.github.com/spec/v1\noid sha256:4d7a2146\nsize 12345\n"


def zipped() -> bytes:
    held = io.BytesIO()
    with zipfile.ZipFile(held, "w") as archive:
        archive.writestr("a.txt", "x")
    return held.getvalue()


def tarred() -> bytes:
    held = io.BytesIO()
    with tarfile.open(fileobj=held, mode="w") as archive:
        archive.addfile(tarfile.TarInfo("a.json"))
    return held.getvalue()


WRONG = {
    "lfs": (LFS, "a Git LFS pointer, not the file itself; fetch it with `git lfs pull`"),
    "annex": (b"/annex/objects/MD5E-s13--abc.npy\n", "a git-annex pointer"),
    "page": (b"\n<!DOCTYPE html>\n<html><title>Quota exceeded</title></html>", "a web page or XML"),
    "xml": (b'\xef\xbb\xbf<?xml version="1.0"?><Error><Code>AccessDenied</Code></Error>', "a web page or XML"),
    "gzip": (gzip.compress(b"{}"), "packed with gzip; unpack it first"),
    "bzip2": (bz2.compress(b"{}"), "packed with bzip2; unpack it first"),
    "xz": (lzma.compress(b"{}"), "packed with xz; unpack it first"),
    "zip": (zipped(), "a zip archive"),
    "tar": (tarred(), "a tar archive; unpack it first"),
    "zeros": (bytes(4000), "nothing but zeros"),
}


@pytest.mark.parametrize("kind", WRONG)
@pytest.mark.parametrize("name", ["a.json", "a.csv", "a.txt", "a.npy", "a.npz", "a.pt", "a.h5", "a.parquet"])
def test_readers_say_what_it_is(tmp_path, kind, name):
    content, says = WRONG[kind]
    path = tmp_path / name
    path.write_bytes(content)
    if name in ("a.npz", "a.pt") and kind == "zip":
        return  # they are such archives
    readers = {".json": [read_json, read_columns], ".csv": [read_text, read_columns, look], ".parquet": [read_columns]}
    for read in readers.get(path.suffix, [read_text] if path.suffix == ".txt" else [look]):
        with pytest.raises(DataError) as caught:
            read(path)
        assert str(path) in str(caught.value) and says in str(caught.value), read


@pytest.mark.parametrize(
    "good", [b"", b"{}", b"video,label\n", b"\x00\x01", b"BZh3k1_x\nPAR1\n", b"PAR1_01,1\n", b"name: x\n", "é".encode()]
)
def test_what_can_be_the_file_itself_is_left_alone(good):
    assert wrong_file(good) is None


def test_check_names_the_file_and_says_nothing_that_follows_from_it(tmp_path):
    make_dataset(tmp_path / "d", videos=2, classes=2, dim=4)
    (tmp_path / "d" / "annotations.json").write_bytes(LFS)
    found = [f for f in check(tmp_path / "d") if f.severity == "error"]
    assert [(f.kind, f.where) for f in found] == [("annotations.json", "annotations.json")]
    assert found[0].detail.startswith("is a Git LFS pointer")
    (tmp_path / "d" / "features" / "train_0000.npy").write_bytes(LFS)
    (tmp_path / "d" / "dataset.yaml").write_bytes(LFS)
    details = {f.where: f.detail for f in check(tmp_path / "d")}
    assert details["dataset.yaml"].startswith("is a Git LFS pointer"), "the file is named once"


def test_a_cut_archive_is_no_other_file(tmp_path):
    np.savez(tmp_path / "a.npz", feats=np.zeros((40, 8), np.float32))
    content = (tmp_path / "a.npz").read_bytes()
    (tmp_path / "a.npz").write_bytes(content[:300])
    with pytest.raises(DataError, match=r"a.npz: not a plain .npz file: it is cut off or damaged"):
        look(tmp_path / "a.npz")


def test_an_excel_file_is_no_table(tmp_path):
    (tmp_path / "m.csv").write_bytes(zipped())
    with pytest.raises(DataError, match=r"m.csv: is a zip archive \(as .npz, .pt and spreadsheets are\)"):
        import_csv(tmp_path / "m.csv", tmp_path / "out")
    assert [p.name for p in Path(tmp_path).iterdir()] == ["m.csv"]
