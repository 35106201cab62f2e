"""Feature files that are no features, damaged or made to do harm: refused in one sentence that names the file."""

from __future__ import annotations

import os
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from tad.errors import DataError
from tests.support.brought import bring, matrix, put


@pytest.mark.parametrize(
    ("array", "message"),
    [
        (np.ones((3, 4), bool), r"true or false \(bool\)"),
        (np.ones((3, 4), np.uint8), r"integers \(uint8\)"),
        (np.ones((3, 4), np.int64), r"integers \(int64\)"),
        (np.ones((3, 4), np.complex64), r"complex numbers \(complex64\)"),
        (np.full((3, 4), "x"), "text"),
        (np.full((3, 4), b"x"), "text"),
        (np.zeros((3, 4), [("t", "f4")]), "records"),
        (np.zeros((3, 4), "M8[s]"), "M"),
        (np.ones(4, np.float32), r"shape \[4\], expected \[T, D\]"),
        (np.ones((), np.float32), r"shape \[\], expected"),
        (np.ones((3, 4, 7, 7), np.float32), r"shape \[3, 4, 7, 7\], expected"),
        (np.ones((0, 4), np.float32), r"is empty: shape \[0, 4\]"),
    ],
    ids=lambda value: None if isinstance(value, str) else f"{value.dtype.kind}{value.ndim}",
)
@pytest.mark.parametrize("kind", [".npy", ".npz"])
def test_what_cannot_be_features_is_refused_by_name(tmp_path, array, message, kind):
    put(tmp_path / "src" / f"a{kind}", array)
    with pytest.raises(DataError, match=rf"a\{kind}.*{message}"):
        bring(tmp_path / "src", tmp_path / "out", videos=("a",))
    assert not (tmp_path / "out").exists()


class Evil:
    def __init__(self, marker: Path) -> None:
        self.marker = marker

    def __reduce__(self) -> Any:
        return os.mkdir, (str(self.marker),)


def test_nothing_is_unpickled(tmp_path):
    evil = np.array([[Evil(tmp_path / "ran")]], dtype=object)
    (tmp_path / "src").mkdir()
    np.save(tmp_path / "src" / "a.npy", evil, allow_pickle=True)
    with pytest.raises(DataError, match="Python objects, which are never unpacked"):
        bring(tmp_path / "src", tmp_path / "1", videos=("a",))
    np.savez(tmp_path / "src" / "b.npz", feats=evil, allow_pickle=True)
    with pytest.raises(DataError, match="Python objects"):
        bring(tmp_path / "src", tmp_path / "2", videos=("b",), pattern="{id}.npz", key="feats")
    for name, new in (("c.pt", True), ("d.pth", False)):
        torch.save({"feats": Evil(tmp_path / "ran")}, tmp_path / "src" / name, _use_new_zipfile_serialization=new)
        with pytest.raises(DataError, match="holds more than tensors, which could run code"):
            bring(tmp_path / "src", tmp_path / "3", videos=(name[0],), pattern=f"{{id}}{Path(name).suffix}")
    assert not (tmp_path / "ran").exists()


def test_an_hdf5_file_leads_to_no_other_file(tmp_path):
    h5py = pytest.importorskip("h5py", reason="HDF5 files need h5py")
    (tmp_path / "src").mkdir()
    put(tmp_path / "secret.h5", matrix("a"))
    layout = h5py.VirtualLayout(shape=(9, 4), dtype="f4")
    layout[:] = h5py.VirtualSource(tmp_path / "secret.h5", "feats", shape=(9, 4))
    cases = {
        "external": lambda file: file.__setitem__("feats", h5py.ExternalLink(str(tmp_path / "secret.h5"), "/feats")),
        "soft": lambda file: file.__setitem__("feats", h5py.SoftLink("/x")),
        "virtual": lambda file: file.create_virtual_dataset("feats", layout),
        "raw": lambda file: file.create_dataset(
            "feats", (9, 4), "f4", external=[(str(tmp_path / "secret.h5"), 0, h5py.h5f.UNLIMITED)]
        ),
        "unwritten": lambda file: file.create_dataset("feats", (10**9, 10**3), "f4", chunks=(1000, 1000)),
    }
    for name, make in cases.items():
        with h5py.File(tmp_path / "src" / "a.h5", "w") as file:
            make(file)
        with pytest.raises(DataError, match=r"link|other files|bytes are there"):
            bring(tmp_path / "src", tmp_path / name, videos=("a",))
        assert not (tmp_path / name).exists()


def test_what_is_no_regular_file_is_refused_without_waiting(tmp_path):
    (tmp_path / "src").mkdir()
    os.mkfifo(tmp_path / "src" / "a.npy")
    (tmp_path / "src" / "b.npy").symlink_to("/dev/zero")
    with pytest.raises(DataError, match=r"(?s)a.npy: is a named pipe.*b.npy: is a device"):
        bring(tmp_path / "src", tmp_path / "out")


def bomb(path: Path) -> None:
    """100 MB of zeros in a file of 100 KB."""
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive, archive.open("feats.npy", "w") as file:
        np.lib.format.write_array_header_1_0(file, {"descr": "<f4", "fortran_order": False, "shape": (25_000, 1_000)})
        for _ in range(100):
            file.write(bytes(10**6))


def header(shape: str) -> bytes:
    text = f"{{'descr': '<f4', 'fortran_order': False, 'shape': {shape}, }}".ljust(117) + "\n"
    return b"\x93NUMPY\x01\x00" + len(text).to_bytes(2, "little") + text.encode() + bytes(64)


@pytest.mark.parametrize(
    ("name", "write", "message"),
    [
        ("a.npy", lambda p: p.write_bytes(b""), "not a plain .npy file"),
        ("a.npy", lambda p: p.write_bytes(b"\x93NUMPY\x01\x00v\x00{"), "not a plain .npy file"),
        ("a.npy", lambda p: p.write_bytes(header("(10, 4)")), "it is cut off: 192 bytes, 288 expected"),
        ("a.npy", lambda p: p.write_bytes(header(f"({10**30}, 16)")), "it is cut off"),
        ("a.npy", lambda p: p.write_bytes(header("(-5, 16)")), "its header is damaged"),
        ("a.npy", lambda p: np.savez(p.open("wb"), x=np.ones(3)), "not a plain .npy file"),
        ("a.npz", lambda p: p.write_bytes(b"PK\x03\x04"), "not a plain .npz file"),
        ("a.npz", bomb, "more than 200 times"),
        ("a.pt", lambda p: p.write_bytes(b"\x80\x02."), "not a plain .pt file|more than tensors"),
        ("a.pt", lambda p: torch.save([1, 2], p), "no plain tensor"),
        ("a.pt", lambda p: torch.save(torch.ones(1, 1).expand(10**9, 1000), p), "cut off or damaged"),
        ("a.pt", lambda p: torch.save(torch.eye(4).to_sparse(), p), "no plain tensor"),
    ],
)
def test_damaged_and_hostile_files_end_in_one_sentence(tmp_path, name, write, message):
    (tmp_path / "src").mkdir()
    write(tmp_path / "src" / name)
    with pytest.raises(DataError, match=rf"{name}.*({message})"):
        bring(tmp_path / "src", tmp_path / "out", videos=("a",))


def test_damage_behind_the_header_is_found_when_it_is_read(tmp_path):
    put(tmp_path / "src" / "a.npz", np.random.default_rng(0).normal(size=(9, 400)).astype(np.float32))
    content = bytearray((tmp_path / "src" / "a.npz").read_bytes())
    content[len(content) // 2] ^= 255
    (tmp_path / "src" / "a.npz").write_bytes(content)
    with pytest.raises(DataError, match=r"a.npz: not a plain .npz file"):
        bring(tmp_path / "src", tmp_path / "out", videos=("a",))
