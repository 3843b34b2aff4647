"""Numbers from outside are looked at before they are narrowed; what a file says it holds, before it is read."""

import io
import os
import struct
import zipfile

import numpy as np
import pytest
from helpers import read_all

from percept_jax.data.readers import sequence_files
from percept_jax.errors import DataError, PerceptError, UsageError


def save(path, **arrays):
    rng = np.random.default_rng(0)
    known = {"x_train": rng.normal(size=(20, 5, 2)), "y_train": np.arange(20) % 4, "x_test": rng.normal(size=(8, 5, 2)),
             "y_test": np.arange(8) % 4}  # fmt: skip
    np.savez(path, **{name: array for name, array in (known | arrays).items() if array is not None})
    return f"npz:{path}"


def load(name, tmp_path):
    return read_all(name, tmp_path)


def labels(*special, kind=np.int64):
    found = (np.arange(20) % 4).astype(kind)
    found[3 : 3 + len(special)] = special
    return found


TOKENS = np.arange(100).reshape(20, 5) % 7


@pytest.mark.parametrize(("arrays", "said"), [
    ({"y_train": labels(2**32)}, r"y_train\[3\] is 4294967296, not from 0 to 19"),
    ({"y_train": labels(2**32 + 1)}, "4294967297"),
    ({"y_train": labels(10**6)}, "1000000, not from 0"),
    ({"y_train": labels(10**9)}, "1000000000, not from 0"),
    ({"y_train": labels(2**63, kind=np.uint64)}, "9223372036854775808"),
    ({"y_train": labels(-1)}, "is -1, not from 0"),
    ({"y_test": labels(2**40)[:8]}, r"y_test\[3\] is 1099511627776"),
    ({"y_test": np.array([0, 1, 2, 3, 4, 0, 1, 2])}, "test has a class '4' that train does not have"),
    ({"y_train": labels() + 1, "y_test": np.arange(8) % 4 + 1}, "no 0; labels are 0 to classes - 1"),
    ({"y_train": labels()[:, None], "y_test": None, "x_test": None}, r"make it \[examples\], y_train\[:, 0\]"),
    ({"y_train": labels().astype(str)}, "numpy.unique"),
    ({"y_train": labels().astype("S3")}, "numpy.unique"),
    ({"y_train": labels().astype(float)}, r"y_train.astype\(int\)"),
    ({"y_train": labels()[:-1]}, "there are 20 examples"),
    ({"x_train": np.full((20, 5, 2), 1e300)}, r"x_train\[0, 0, 0\] is 1e\+300, not a finite number that float32 can hold"),
    ({"y_train": np.full((20, 1), -1e300), "y_test": np.zeros((8, 1))}, r"y_train\[0, 0\] is -1e\+300"),
    ({"x_train": np.full((20, 5, 2), np.nan)}, "is nan"),
    ({"x_train": TOKENS + 2**40, "x_test": TOKENS[:8]}, r"x_train\[0, 0\] is 1099511627776, not from 0 to 65535"),
    ({"x_train": TOKENS - 1, "x_test": TOKENS[:8]}, "is -1, not from 0"),
    ({"len_train": np.full(20, 2**40)}, "len_train"),
    ({"classes": np.array(["a", "b"])}, "not from 0 to 1"),
    ({"classes": np.zeros((2, 2))}, "not a name for each class"),
])  # fmt: skip
def test_a_number_that_cannot_be_meant_is_named(tmp_path, arrays, said):
    with pytest.raises(DataError, match=said) as error:
        load(save(tmp_path / "a.npz", **arrays), tmp_path)
    assert str(error.value).startswith(f"{tmp_path / 'a.npz'}: ")
    assert "\n" not in str(error.value)


def test_what_is_beyond_a_sequences_length_changes_nothing(tmp_path):
    lengths = np.arange(20) % 5 + 1
    beyond = np.arange(5) >= lengths[:, None]
    x, y = np.random.default_rng(1).normal(size=(20, 5, 2)), np.arange(100).reshape(20, 5) % 4
    values = x[:, :, :1] * 2
    clean = x.copy()
    clean[beyond] = 0
    x[beyond] = np.nan
    for targets in (y, values):
        dirty = targets.copy()
        dirty[beyond] = 2**40 if targets is y else np.inf
        arrays = {"len_train": lengths, "x_test": None, "y_test": None}
        one = load(save(tmp_path / "a.npz", x_train=clean, y_train=targets, **arrays), tmp_path)
        other = load(save(tmp_path / "b.npz", x_train=x, y_train=dirty, **arrays), tmp_path)
        for feature, column in one.examples.items():
            np.testing.assert_array_equal(column, other.examples[feature])
    x[0, 0, 0] = np.nan
    with pytest.raises(DataError, match=r"x_train\[0, 0, 0\] is nan"):
        load(save(tmp_path / "c.npz", x_train=x, y_train=y, **arrays), tmp_path)


def header(shape, descr="<f8"):
    text = str({"descr": descr, "fortran_order": False, "shape": shape}).encode().ljust(117) + b"\n"
    return b"\x93NUMPY\x01\x00" + struct.pack("<H", len(text)) + text


def zipped(**members):
    content = io.BytesIO()
    with zipfile.ZipFile(content, "w", zipfile.ZIP_DEFLATED) as file:
        for name, data in members.items():
            file.writestr(f"{name}.npy", data)
    return content.getvalue()


BAD = {
    "empty": b"",
    "no zip": b"hello",
    "huge": zipped(x_train=header((10**9, 10**6, 2)) + b"0" * 100),
    "negative": zipped(x_train=header((-1, 5, 2)) + b"0" * 100),
    "bomb": zipped(x_train=header((1 << 27,)) + bytes(1 << 20)),
    "objects": zipped(x_train=header((2,), "|O") + b"cos\nsystem\n"),
    "no array": zipped(x_train=b"not an array"),
    "deep": zipped(x_train=b"\x93NUMPY\x01\x00\xff\xff" + b"(" * 65_535),
    "cut": zipped(x_train=header((2, 2)) + bytes(32))[:-30],
    "strange descr": zipped(x_train=header((2,), "<q99") + bytes(64)),
}


@pytest.mark.parametrize("kind", [*BAD, "npy", "flipped"])
def test_a_bad_file_of_arrays_is_one_line(tmp_path, kind):
    path = tmp_path / "a.npz"
    if kind == "npy":
        with open(path, "wb") as file:
            np.save(file, np.zeros(3))
    elif kind == "flipped":
        save(path)
        content = bytearray(path.read_bytes())
        content[len(content) // 2] ^= 255
        path.write_bytes(content)
    else:
        path.write_bytes(BAD[kind])
    with pytest.raises(DataError) as error:
        load(f"npz:{path}", tmp_path)
    assert str(error.value).startswith(f"{path}: ")
    assert "\n" not in str(error.value)
    with pytest.raises(UsageError):
        sequence_files.read_examples(path)


@pytest.mark.parametrize("content", [b"[" * 1_000_000, b"\xff\xfe", b"", b"{}", b'{"train": 3}', b'{"train": [[["a", 1]]]}'])
def test_a_bad_file_of_sentences_is_one_line(tmp_path, content):
    (tmp_path / "a.json").write_bytes(content)
    with pytest.raises(DataError) as error:
        load(f"tagged:{tmp_path / 'a.json'}", tmp_path)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("kind", ["npz", "tagged", "text"])
def test_a_pipe_or_a_device_is_not_read(tmp_path, kind):
    os.mkfifo(tmp_path / "pipe")
    for path in (tmp_path / "pipe", "/dev/zero", tmp_path):
        with pytest.raises(PerceptError):
            load(f"{kind}:{path}", tmp_path)
