"""Arrays of Python objects: what numpy writes is read; whatever else a pickle could do is refused."""

from __future__ import annotations

import contextlib
import os
import pickle
import pickletools
import struct
import sys
import tracemalloc

import numpy as np
import pytest

from tad.errors import DataError
from tad.prepare.object_arrays import load, text

RNG = np.random.default_rng(0)


def write(path, pickled: bytes, shape: tuple[int, ...] = (1,)):
    with path.open("wb") as file:
        header = {"descr": "|O", "fortran_order": False, "shape": shape}
        np.lib.format.write_array_header_1_0(file, header)
        file.write(pickled)
    return path


def objects(*items):
    array = np.empty(len(items), dtype=object)
    for i, item in enumerate(items):
        array[i] = item
    return array


KINDS = {
    "features": objects(
        RNG.random((5, 2048)).astype("f4"), RNG.random((7, 9)), np.asfortranarray(RNG.random((3, 4)).astype("f2"))
    ),
    "lists": objects(["x", b"y"], [[0.5, np.float64(1.5)], (1, 2)], [None, True, 3**50], []),
    "numpy text": objects(np.str_("q"), np.array(["a", "bc"]), np.array([b"a"]), np.bytes_(b"z")),
    "bytes": np.array([b"ab", b"c" * 5000], dtype=object),
    "text": np.array(["caf\u00e9", "d" * 5000], dtype=object),
    "square": np.array([[1, 2], [3, 4]], dtype=object),
    "big-endian": objects(np.arange(5, dtype=">i4")),
    "one": np.array("one", dtype=object),
    "none": np.array([], dtype=object),
}


def same(a, b):
    if isinstance(a, np.ndarray):
        assert a.shape == b.shape and (a.dtype.hasobject or a.dtype == b.dtype)
        for x, y in zip(a.ravel(), b.ravel(), strict=True):
            same(x, y)
    elif isinstance(a, list | tuple):
        assert type(a) is type(b) and len(a) == len(b)
        for x, y in zip(a, b, strict=True):
            same(x, y)
    else:
        assert a == b


@pytest.mark.parametrize("protocol", range(5))
@pytest.mark.parametrize("kind", KINDS)
def test_what_numpy_writes(tmp_path, kind, protocol):
    array = KINDS[kind]
    same(array, load(write(tmp_path / "x.npy", pickle.dumps(array, protocol=protocol), array.shape)))


def test_plain_files(tmp_path):
    np.save(tmp_path / "text.npy", np.array(["a", "b"]))
    np.save(tmp_path / "numbers.npy", np.arange(3))
    np.save(tmp_path / "empty.npy", np.zeros((0, 3)))
    np.save(tmp_path / "objects.npy", KINDS["lists"], allow_pickle=True)
    assert load(tmp_path / "text.npy").tolist() == ["a", "b"] and load(tmp_path / "numbers.npy").tolist() == [0, 1, 2]
    assert load(tmp_path / "empty.npy").shape == (0, 3) and load(tmp_path / "objects.npy")[0] == ["x", b"y"]


def test_texts_of_python_2(tmp_path):
    """An array as Python 2 wrote it: module and bytes are `str` of that time."""
    inner = b"U\x05jumpsU\x04kick"
    pickled = (
        b"\x80\x02cnumpy.core.multiarray\n_reconstruct\nq\x01cnumpy\nndarray\nq\x02K\x00\x85U\x01b\x87Rq\x03(K\x01K\x02\x85"
        b"cnumpy\ndtype\nq\x04U\x02O8K\x00K\x01\x87Rq\x05(K\x03U\x01|NNNJ\xff\xff\xff\xffJ\xff\xff\xff\xffK?tb\x89]q\x06("
        + inner
        + b"etb."
    )
    found = load(write(tmp_path / "x.npy", pickled, (2,)))
    assert [text(item) for item in found] == ["jumps", "kick"]


def test_large_arrays_stay_in_the_file(tmp_path):
    array = objects(*(np.full((1000, 500), i, dtype="f4") for i in range(10)))
    path = write(tmp_path / "x.npy", pickle.dumps(array, protocol=3), array.shape)
    tracemalloc.start()
    found = load(path)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert [int(item[0, 0]) for item in found] == list(range(10)) and peak < path.stat().st_size / 3


# -- attacks -----------------------------------------------------------------------------------------------------------


class Calls:
    """A value that a real unpickler makes by calling a function."""

    def __init__(self, function, *arguments):
        self.call = function, arguments

    def __reduce__(self):
        return self.call


class State:
    def __reduce__(self):
        return object, (), {"a": 1}


def gadget(module: str, name: str, *rest: bytes) -> bytes:
    return f"c{module}\n{name}\n".encode() + b"".join(rest)


FROM = b"cnumpy.core.multiarray\n_reconstruct\n"
NEW = FROM + b"cnumpy\nndarray\nK\x00\x85C\x01b\x87R"
"""An array that is not built yet."""
DTYPE = b"cnumpy\ndtype\n"
ATTACKS = {
    "os.system": pickle.dumps(Calls(os.system, "touch PWNED")),
    "os.system, text": pickle.dumps(Calls(os.system, "touch PWNED"), protocol=0),
    "nested": pickle.dumps(objects([[Calls(os.system, "touch PWNED")]])),
    "exec": pickle.dumps(Calls(exec, "open('PWNED', 'w')")),
    "getattr": pickle.dumps(Calls(getattr, "a", "upper")),
    "numpy's own runner": gadget("numpy.testing._private.utils", "runstring", b"X\x05\x00\x00\x00PWNED}\x86R."),
    "numpy load": gadget("numpy", "load", b"X\x05\x00\x00\x00PWNED\x85R."),
    "numpy fromfile": gadget("numpy", "fromfile", b"X\x05\x00\x00\x00PWNED\x85R."),
    "dotted name": gadget("numpy.core.multiarray", "_reconstruct.__globals__", b"."),
    "stack global": b"\x80\x04\x8c\x02os\x8c\x06system\x93\x8c\x04true\x85R.",
    "stack global, no text": b"\x80\x04K\x01K\x02\x93.",
    "inst": b"(S'touch PWNED'\nios\nsystem\n.",
    "obj": b"(cos\nsystem\nS'touch PWNED'\no.",
    "newobj": b"cnumpy\nndarray\n)\x81.",
    "persistent": b"Pevil\n.",
    "binary persistent": b"K\x01Q.",
    "extension": b"\x82\x01.",
    "out-of-band buffer": b"\x97.",
    "dict": b"}.",
    "state": pickle.dumps(State()),
    "a function as the value": DTYPE + b".",
    "a function in a list": b"]" + DTYPE + b"a.",
    "a type as the value": DTYPE + b"C\x02f4\x85R.",
    "a call of a number": b"K\x01)R.",
    "a call of an array": NEW + b")R.",
    "a call of ndarray": b"cnumpy\nndarray\n(K\x01tR.",
    "a subclass": FROM + DTYPE + b"K\x00\x85C\x01b\x87R.",
    "records": DTYPE + b"C\x05f4,O8\x85R.",
    "structured type": DTYPE + b"](C\x01aC\x02f4\x86e\x85R.",
    "times": DTYPE + b"C\x02M8\x85R.",
    "fields": DTYPE + b"C\x02f4\x85R(K\x03C\x01<NC\x01aNtb.",
    "another coding": b"c_codecs\nencode\nX\x01\x00\x00\x00aX\x05\x00\x00\x00idna2\x86R.",
    "an array that is never built": NEW + b".",
    "an array in itself": NEW + b"q\x01(K\x01K\x01\x85" + DTYPE + b"C\x02O8\x85R\x89](h\x01etb.",
    "more values than bytes": NEW + b"(K\x01M\xff\xff\x85" + DTYPE + b"C\x02f4\x85R\x89C\x04abcdtb.",
    "a shape below 0": NEW + b"(K\x01J\xff\xff\xff\xff\x85" + DTYPE + b"C\x02f4\x85R\x89C\x00tb.",
    "a shape of 10^18": NEW + b"(K\x01\x8a\x08\x00\x00\x64\xa7\xb3\xb6\xe0\x0d\x85" + DTYPE + b"C\x02O8\x85R\x89]tb.",
    "text of 4 GB": b"X\xff\xff\xff\xfeabc.",
    "bytes of 2^62": b"\x8e\x00\x00\x00\x00\x00\x00\x00\x40abc.",
    "a number of 2 GB": b"\x8b\xff\xff\xff\x7f\x01.",
    "a number of 10,000 digits": b"I" + b"9" * 10_000 + b"\n.",
    "no value": b".",
    "no end": b"K\x01",
    "no steps": b"",
    "a memo that is not there": b"h\x07.",
    "no mark": b"K\x01t.",
    "below the mark": b"K\x01(\x85.",
    "append to a number": b"K\x01K\x02a.",
    "20,000 lists in lists": b"]" * 20_000 + b"a" * 19_999 + b".",
    "another shape": pickle.dumps(objects(1, 2)),
    "no array": pickle.dumps(["a"]),
}


@pytest.mark.parametrize("name", ATTACKS)
def test_attacks(tmp_path, monkeypatch, name):
    """Refused in one sentence; nothing is imported, called or written, and memory stays small."""
    monkeypatch.chdir(tmp_path)
    path = write(tmp_path / "x.npy", ATTACKS[name])
    modules = set(sys.modules)
    tracemalloc.start()
    with pytest.raises(DataError, match=r"x\.npy: (holds|is damaged)"):
        load(path)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 40 << 20 and [p.name for p in tmp_path.iterdir()] == ["x.npy"]
    assert set(sys.modules) - modules <= {"pickletools"}


def test_a_list_within_itself_is_no_text(tmp_path):
    found = load(write(tmp_path / "x.npy", NEW + b"(K\x01K\x01\x85" + DTYPE + b"C\x02O8\x85R\x89](]q\x02h\x02aetb."))
    with pytest.raises(ValueError, match="list in place of text"):
        text(found[0])


def test_what_refers_to_itself_to_grow(tmp_path):
    """A text that is turned into bytes, and a list that is made an array, 100,000 times: 5 to 10 bytes each."""
    long = b"X" + struct.pack("<I", 100_000) + b"a" * 100_000
    first = b"c_codecs\nencode\nq\x01" + long + b"X\x06\x00\x00\x00latin1\x86q\x02R"
    texts = b"](" + first + b"h\x01h\x02R" * 20_000 + b"e."
    with pytest.raises(DataError, match="grows far beyond the size of the file"):
        load(write(tmp_path / "texts.npy", texts))
    state = b"(K\x01M\xe8\x03\x85" + DTYPE + b"C\x02O8\x85R\x89](" + b"N" * 1000 + b"etq\x02"
    first = FROM + b"q\x01cnumpy\nndarray\nK\x00\x85C\x01b\x87q\x03R" + state + b"b"
    arrays = b"](" + first + b"h\x01h\x03Rh\x02b" * 20_000 + b"e."
    with pytest.raises(DataError, match="grows far beyond the size of the file"):
        load(write(tmp_path / "arrays.npy", arrays))


def test_random_damage(tmp_path):
    """A byte that is changed anywhere gives an array or a refusal, never another exception."""
    good = pickle.dumps(KINDS["lists"], protocol=2)
    for _ in range(300):
        bad = bytearray(good)
        bad[RNG.integers(len(bad))] = RNG.integers(256)
        with contextlib.suppress(DataError):
            load(write(tmp_path / "x.npy", bytes(bad), (4,)))


@pytest.mark.parametrize(
    ("content", "says"),
    [
        (b"", "is no .npy file"),
        (b"\x93NUMPY", "is damaged, or no .npy file"),
        (b"\x93NUMPY\x01\x00\xff\xff{", "is damaged, or no .npy file"),
        (b"\x93NUMPY\x09\x00", "is damaged, or no .npy file"),
        (b"PK\x03\x04", "is a zip archive"),
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:1\n", "is a Git LFS pointer"),
    ],
)
def test_no_npy(tmp_path, content, says):
    (tmp_path / "x.npy").write_bytes(content)
    with pytest.raises(DataError, match=f"x.npy: {says}"):
        load(tmp_path / "x.npy")


def test_every_step_of_pickle_is_known_or_refused(tmp_path):
    """No step of any protocol is left to chance: with an empty stack each is an error or STOP's."""
    for opcode in pickletools.opcodes:
        with pytest.raises(DataError):
            load(write(tmp_path / "x.npy", opcode.code.encode("latin-1") + b"\x00\n\x00\n."))
