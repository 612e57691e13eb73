"""The CMU SDK's HDF5 files: a broken or hostile one is one line, and reads nothing else."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from mepr_shared.corpora.importers import csd, mosei
from mepr_shared.errors import DataError

h5py = pytest.importorskip("h5py", reason="mepr-shared[csd] is not installed")

HEADER = "id,segment_id,start,end,sentiment,happy,sad,anger,surprise,disgust,fear,split\n"


@pytest.fixture
def words(tmp_path: Path) -> Path:
    path = tmp_path / "words.csd"
    with h5py.File(path, "w") as file:
        group = file.create_group("words/data/v")
        group.create_dataset("features", data=np.array([[b"hi"]] * 50, "S32"), compression="gzip")
        group["intervals"] = np.arange(100, dtype=np.float32).reshape(50, 2)
    return path


def refusal(path: Path) -> str:
    with pytest.raises(DataError) as caught:
        list(csd.sequences(path))
    (line,) = str(caught.value).splitlines()
    assert path.name in line
    return line


def test_a_sound_file(words: Path) -> None:
    (found,) = csd.sequences(words)
    assert (found.video, found.features.shape, found.intervals.shape) == ("v", (50, 1), (50, 2))
    assert found.intervals[1].tolist() == [2, 3]
    assert list(csd.sequences(words, {"other"})) == []


@pytest.mark.parametrize("share", [0, 0.01, 0.3, 0.7, 0.99])
def test_a_truncated_file(words: Path, share: float) -> None:
    data = words.read_bytes()
    words.write_bytes(data[: int(share * len(data))])
    refusal(words)


def test_damaged_values(words: Path) -> None:
    with h5py.File(words, "r") as file:
        chunk = file["words/data/v/features"].id.get_chunk_info(0)
    data = bytearray(words.read_bytes())
    start, size = chunk.byte_offset, chunk.size
    data[start : start + size] = b"\xff" * size
    words.write_bytes(data)
    refusal(words)


def test_a_folder_in_place_of_the_file(tmp_path: Path) -> None:
    folder = tmp_path / "x.csd"
    folder.mkdir()
    refusal(folder)


@pytest.mark.parametrize("kind", ["external link", "soft link", "external data", "virtual data"])
def test_nothing_outside_the_file_is_read(tmp_path: Path, words: Path, kind: str) -> None:
    path = tmp_path / "pointing.csd"
    secret = tmp_path / "secret.txt"
    secret.write_bytes(b"secret" * 100)
    with h5py.File(path, "w") as file:
        group = file.create_group("words/data/v")
        group["intervals"] = np.zeros((10, 2))
        if kind == "external link":
            group["features"] = h5py.ExternalLink(str(words), "/words/data/v/features")
        elif kind == "soft link":
            group["features"] = h5py.SoftLink("/words/data/v/intervals")
        elif kind == "external data":
            group.create_dataset("features", (10, 1), "S32", external=[(str(secret), 0, 320)])
        else:
            layout = h5py.VirtualLayout((10, 1), "S32")
            layout[:] = h5py.VirtualSource(str(words), "words/data/v/features", (50, 1))[:10]
            group.create_virtual_dataset("features", layout)
    assert "not followed" in refusal(path)


def test_a_claimed_size_is_not_allocated(tmp_path: Path) -> None:
    path = tmp_path / "huge.csd"
    with h5py.File(path, "w") as file:
        group = file.create_group("words/data/v")
        group["intervals"] = np.zeros((1, 2))
        group.create_dataset("features", (10**12, 1), "S32", chunks=(1000, 1))
    assert "larger than" in refusal(path)


@pytest.mark.parametrize(
    ("features", "intervals"),
    [
        (np.zeros((3, 1)), np.zeros((3, 2))),
        (np.full((3, 2), b"a"), np.zeros((3, 2))),
        (np.full((3, 1), b"a"), np.zeros((2, 2))),
        (np.full((3, 1), b"a"), np.full((3, 2), b"a")),
        (np.bytes_(b"a"), np.zeros((1, 2))),
    ],
    ids=["numbers", "two words a row", "too few times", "times in words", "no array"],
)
def test_words_of_another_form(tmp_path: Path, features, intervals) -> None:
    labels = tmp_path / "labels.csv"
    labels.write_text(HEADER + "v,0,0,2,1,0,0,0,0,0,0,train\n")
    path = tmp_path / "words.csd"
    with h5py.File(path, "w") as file:
        group = file.create_group("words/data/v")
        group["features"], group["intervals"] = features, intervals
    with pytest.raises(DataError, match=r"words.csd, words/data/v") as caught:
        mosei.read(labels, transcripts=path)
    assert len(str(caught.value).splitlines()) == 1
