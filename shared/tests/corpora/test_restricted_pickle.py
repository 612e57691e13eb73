"""A pickle from outside gives plain data or nothing."""

from __future__ import annotations

import collections
import os
import pickle
import subprocess
from pathlib import Path

import numpy as np
import pytest

from mepr_shared.corpora.importers import restricted_pickle
from mepr_shared.errors import DataError

PLAIN = {
    "scores": {"a.mp4": 0.5, "b.mp4": np.float64(0.25), "c": np.float32(0.5), "d": np.int64(3)},
    "list": [1, "é", None, True, (2.5, {3}), frozenset("x"), b"\xff\x00"],
    "ordered": collections.OrderedDict(a=np.bool_(True)),
}


@pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))
def test_plain_containers_and_numpy_scalars_are_read(tmp_path: Path, protocol: int) -> None:
    path = tmp_path / "plain.pkl"
    path.write_bytes(pickle.dumps(PLAIN, protocol))
    assert restricted_pickle.load(path) == PLAIN


def test_a_python_2_pickle_of_numpy_scalars_is_read(tmp_path: Path) -> None:
    # What Python 2 wrote for {'a.mp4': numpy.float64(0.5)}: module numpy.core, bytes as a string.
    data = (
        b"(dp0\nS'a.mp4'\np1\ncnumpy.core.multiarray\nscalar\np2\n(cnumpy\ndtype\np3\n"
        b"(S'f8'\np4\nI0\nI1\ntp5\nRp6\n(I3\nS'<'\np7\nNNNI-1\nI-1\nI0\ntp8\nb"
        b"S'\\x00\\x00\\x00\\x00\\x00\\x00\\xe0?'\np9\ntp10\nRp11\ns."
    )
    path = tmp_path / "old.pkl"
    path.write_bytes(data)
    assert restricted_pickle.load(path) == {"a.mp4": 0.5}


class _Call:
    def __init__(self, function, *arguments) -> None:
        self.call = function, arguments

    def __reduce__(self):
        return self.call


@pytest.mark.parametrize(
    ("content", "named"),
    [
        (_Call(os.system, "touch HACKED"), r"\.system"),
        (_Call(subprocess.Popen, ["touch", "HACKED"]), r"\.Popen"),
        (_Call(eval, "1"), r"builtin.*\.eval"),
        (_Call(getattr, {}, "clear"), r"builtin.*\.getattr"),
        (Path("x"), "pathlib"),
        (np.zeros(3), "_reconstruct"),
        (np.array([{}], dtype=object)[0:1], "_reconstruct"),
        (collections.Counter("a"), r"collections\.Counter"),
    ],
)
@pytest.mark.parametrize("protocol", [0, 2, 4])
def test_a_foreign_class_is_refused_by_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, content: object, named: str, protocol: int
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "bad.pkl").write_bytes(pickle.dumps({"a": content}, protocol))
    with pytest.raises(DataError, match=named):
        restricted_pickle.load(tmp_path / "bad.pkl")
    assert not (tmp_path / "HACKED").exists()


@pytest.mark.parametrize(
    "data",
    [
        b"cnumpy\ndtype\n(S'O8'\nI0\nI1\ntR.",  # a type that holds objects
        b"cnumpy.core.multiarray\nscalar\n(S'f8'\nS'12345678'\ntR.",  # a type that is text
        b"cnumpy.core.multiarray\nscalar\n}b.",  # an attempt to change the function
        b"c_codecs\nencode\n(Vabc\nVrot13\ntR.",
    ],
)
def test_the_allowed_names_cannot_be_misused(tmp_path: Path, data: bytes) -> None:
    path = tmp_path / "odd.pkl"
    path.write_bytes(data)
    with pytest.raises(DataError, match="refused"):
        restricted_pickle.load(path)


@pytest.mark.parametrize("data", [b"", b"no pickle", b"PK\x03\x04zip", pickle.dumps(PLAIN)[:-20]])
def test_a_broken_pickle_is_one_line(tmp_path: Path, data: bytes) -> None:
    path = tmp_path / "broken.pkl"
    path.write_bytes(data)
    with pytest.raises(DataError, match=r"broken\.pkl"):
        restricted_pickle.load(path)


def test_size_and_existence(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="No such file"):
        restricted_pickle.load(tmp_path / "absent.pkl")
    path = tmp_path / "large.pkl"
    path.write_bytes(pickle.dumps(b"x" * (2 << 20)))
    with pytest.raises(DataError, match="larger than 1 MiB"):
        restricted_pickle.load(path, max_bytes=1 << 20)
