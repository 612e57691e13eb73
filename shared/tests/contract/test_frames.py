"""A frame store gives back what was put in, and refuses what cannot be right."""

from __future__ import annotations

import multiprocessing
import pickle
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.numpy import load_file

from mepr_shared.contract.frames import FrameStore, FrameStoreWriter, store_key
from mepr_shared.errors import ContractError

SPEC = {"encoder": {"id": "an/encoder", "revision": "1"}, "window": 256}


def clip(frames: int, width: int = 4, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).standard_normal((frames, width), dtype=np.float32)


def small_store(root: Path, part_bytes: int = 300) -> FrameStore:
    with FrameStoreWriter(root, "demo", "text", SPEC, part_bytes=part_bytes) as writer:
        for number in range(12):
            writer.add(f"clip-{number:02d}", input_sha256="a", frames=clip(number, seed=number))
        writer.add("silent", input_sha256="b", frames=None, status="no_text", reason="empty")
    return FrameStore.open(writer.path)


@settings(max_examples=25, deadline=None)
@given(
    clips=st.dictionaries(
        st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=8),
        st.one_of(st.none(), st.integers(0, 9)),
        max_size=9,
    ),
    width=st.integers(1, 5),
    part_bytes=st.integers(1, 900),
    data=st.data(),
)
def test_what_goes_in_comes_out(
    clips: dict[str, int | None], width: int, part_bytes: int, data: st.DataObject
) -> None:
    values = {
        name: None if frames is None else clip(frames, width, seed)
        for seed, (name, frames) in enumerate(clips.items())
    }
    masks = {
        name: np.array(data.draw(st.lists(st.booleans(), min_size=frames, max_size=frames)), bool)
        for name, frames in clips.items()
        if frames and data.draw(st.booleans())
    }
    with tempfile.TemporaryDirectory() as folder:
        writer = FrameStoreWriter(folder, "demo", "text", SPEC, part_bytes=part_bytes)
        with writer:
            for name, frames in values.items():
                status = "ok" if frames is not None else "no_text"
                mask = masks.get(name)
                writer.add(name, input_sha256="a", frames=frames, status=status, mask=mask)
        store = FrameStore.open(writer.path)
        assert store.sample_ids == sorted(clips)
        names = sorted(clips)[::-1]
        rows = store.row_of(names)
        batch, valid = store.batch(rows)
        longest = max((frames or 0 for frames in clips.values()), default=0)
        assert batch.dtype == np.float32
        assert batch.shape[:2] == valid.shape == (len(names), longest)
        for place, name in enumerate(names):
            frames = values[name]
            if frames is None or not len(frames):
                expected = np.empty((0, store.width), np.float16)
            else:
                expected = frames.astype(np.float16)
            count = len(expected)
            np.testing.assert_array_equal(store.read(rows[place]), expected)
            np.testing.assert_array_equal(batch[place, :count], expected)
            assert not batch[place, count:].any()
            mask = masks.get(name, np.ones(count, dtype=bool))
            np.testing.assert_array_equal(valid[place], np.pad(mask, (0, longest - count)))


def test_a_large_batch_filled_by_two_threads_equals_its_clips(tmp_path: Path) -> None:
    with FrameStoreWriter(tmp_path, "demo", "text", SPEC, part_bytes=1 << 20) as writer:
        for number in range(40):
            writer.add(f"{number:02d}", input_sha256="", frames=clip(20 + number, 256, number))
    store = FrameStore.open(writer.path)
    rows = np.random.default_rng(0).permutation(40)
    batch, mask = store.batch(rows)
    for place, row in enumerate(rows):
        length = 20 + row
        expected = clip(length, 256, row).astype(np.float16).astype(np.float32)
        np.testing.assert_array_equal(batch[place, :length], expected)
        assert not batch[place, length:].any()
        assert mask[place].sum() == length


def test_ids_that_are_not_there_have_row_minus_one(tmp_path: Path) -> None:
    store = small_store(tmp_path)
    assert store.row_of(["nobody", "silent"]).tolist() == [-1, 12]
    assert store.status[12] == "no_text"
    assert store.status_reason[12] == "empty"


def test_a_long_clip_is_written_as_chunks(tmp_path: Path) -> None:
    frames = clip(30)
    with FrameStoreWriter(tmp_path, "demo", "audio", SPEC, part_bytes=64) as writer:
        with writer.open_clip("long", input_sha256="a") as stream:
            for start in range(0, 30, 7):
                chunk = frames[start : start + 7]
                stream.append(chunk, time_s=np.arange(start, start + len(chunk)) / 50)
            stream.row.hop_s = 0.02
            stream.row.status, stream.row.status_reason = "partial", "the end is damaged"
        writer.add("short", input_sha256="a", frames=clip(1))
    store = FrameStore.open(writer.path)
    np.testing.assert_array_equal(store.read(0), frames.astype(np.float16))
    times = store.frame_times(0)
    assert times is not None
    np.testing.assert_allclose(times, np.arange(30) / 50, rtol=1e-6)
    assert (store.hop_s[0], store.status[0]) == (0.02, "partial")


def test_scores_are_kept(tmp_path: Path) -> None:
    with FrameStoreWriter(tmp_path, "demo", "face", SPEC) as writer:
        scores = np.array([0.5, 1.0], dtype=np.float32)
        writer.add("a", input_sha256="", frames=clip(2), score=0.75, frame_score=scores)
        writer.add("b", input_sha256="", frames=clip(3), start_s=1.5)
    store = FrameStore.open(writer.path)
    np.testing.assert_array_equal(store.frame_scores(0), scores)
    assert store.frame_scores(1) is None
    assert (store.score[0], store.start_s[1]) == (0.75, 1.5)
    assert np.isnan([store.score[1], store.start_s[0]]).all()


def test_parts_are_plain_safetensors_of_half_precision(tmp_path: Path) -> None:
    store = small_store(tmp_path)
    parts = sorted(store.path.glob("part-*.safetensors"))
    assert len(parts) > 3
    tensors = [load_file(part)["frames"] for part in parts]
    assert {str(tensor.dtype) for tensor in tensors} == {"float16"}
    expected = np.concatenate([clip(n, seed=n) for n in range(12)]).astype(np.float16)
    np.testing.assert_array_equal(np.concatenate(tensors), expected)


@pytest.mark.parametrize("bad", [np.nan, np.inf, 65520.0])
def test_a_value_that_is_not_finite_as_half_is_refused_with_its_sample(
    tmp_path: Path, bad: float
) -> None:
    frames = clip(3)
    frames[1, 2] = bad
    writer = FrameStoreWriter(tmp_path, "demo", "text", SPEC)
    with pytest.raises(ContractError, match=r"'culprit'.*not finite"), writer:
        writer.add("good", input_sha256="a", frames=clip(2))
        writer.add("culprit", input_sha256="a", frames=frames)
    with FrameStoreWriter(tmp_path, "demo", "text", SPEC) as resumed:
        assert resumed.done == {"good": "a"}
        resumed.add("culprit", input_sha256="a", frames=clip(3))
    store = FrameStore.open(resumed.path)
    np.testing.assert_array_equal(store.read(1), clip(2).astype(np.float16))


@pytest.mark.parametrize(
    ("frames", "status", "message"),
    [
        (clip(2, 5), "ok", "5 wide, the store's are 4"),
        (np.zeros(4, np.float32), "ok", r"\[T, D\]"),
        (np.zeros((2, 4), np.int64), "ok", "int64"),
        (clip(2), "okay", "did you mean 'ok'"),
    ],
)
def test_wrong_input_is_refused(
    tmp_path: Path, frames: np.ndarray, status: str, message: str
) -> None:
    writer = FrameStoreWriter(tmp_path, "demo", "text", SPEC)
    with pytest.raises(ContractError, match=message), writer:
        writer.add("first", input_sha256="", frames=clip(1))
        writer.add("second", input_sha256="", frames=frames, status=status)


def test_a_per_frame_list_of_another_length_is_refused(tmp_path: Path) -> None:
    writer = FrameStoreWriter(tmp_path, "demo", "text", SPEC)
    with pytest.raises(ContractError, match="mask has 2 values for 3 frames"), writer:
        writer.add("a", input_sha256="", frames=clip(3), mask=np.ones(2, bool))


def test_a_store_pickles_and_is_read_in_another_process(tmp_path: Path) -> None:
    store = small_store(tmp_path)
    expected = store.batch([3, 5])[0]
    assert len(pickle.dumps(store)) < 10_000
    for method in ("fork", "spawn"):
        with multiprocessing.get_context(method).Pool(1) as pool:
            np.testing.assert_array_equal(pool.apply(store.batch, ([3, 5],))[0], expected)


def test_key_follows_the_spec_and_not_its_order() -> None:
    assert store_key({"a": 1, "b": 2}) == store_key({"b": 2, "a": 1})
    assert store_key({"a": 1}) != store_key({"a": 2})
    assert len(store_key({})) == 16


def test_find_needs_exactly_one(tmp_path: Path) -> None:
    with pytest.raises(ContractError, match=r"no features of text.*run extract"):
        FrameStore.find(tmp_path, "demo", "text")
    first = small_store(tmp_path)
    assert FrameStore.find(tmp_path, "demo", "text").key == first.key
    other = {"encoder": "another", "window": 1}
    with FrameStoreWriter(tmp_path, "demo", "text", other) as writer:
        writer.add("a", input_sha256="", frames=clip(1))
    with pytest.raises(ContractError) as error:
        FrameStore.find(tmp_path, "demo", "text")
    assert first.key in str(error.value)
    assert writer.key in str(error.value)
    assert FrameStore.find(tmp_path, "demo", "text", encoder="an/encoder").key == first.key
    assert FrameStore.find(tmp_path, "demo", "text", key=writer.key).spec == other
    with pytest.raises(ContractError, match="from encoder 'third'"):
        FrameStore.find(tmp_path, "demo", "text", encoder="third")


def test_two_writers_do_not_meet(tmp_path: Path) -> None:
    script = f"""
from mepr_shared.contract.frames import FrameStoreWriter
FrameStoreWriter({str(tmp_path)!r}, "demo", "text", {SPEC!r})
"""
    command = [sys.executable, "-c", script]
    with FrameStoreWriter(tmp_path, "demo", "text", SPEC):
        done = subprocess.run(command, check=False, capture_output=True, text=True)
    assert "ContractError: another process is writing" in done.stderr
    subprocess.run(command, check=True)
