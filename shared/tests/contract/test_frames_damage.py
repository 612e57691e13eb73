"""Crashes, changes and damage of a frame store."""

from __future__ import annotations

import errno
import os
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from mepr_shared.contract.frames import FrameStore, FrameStoreWriter
from mepr_shared.contract.withdraw import withdraw_from_stores
from mepr_shared.errors import ContractError

SPEC = {"encoder": "an/encoder"}
NAMES = [f"clip-{number}" for number in range(9)]


def frames_of(name: str) -> np.ndarray:
    seed = list(name.encode())
    return np.random.default_rng(seed).standard_normal((seed[-1] % 5 + 1, 4), dtype=np.float32)


def write(root: Path, names: list[str] = NAMES, sha256: str = "a") -> FrameStore:
    """What an extraction does: skip what is done, add the rest, close."""
    with FrameStoreWriter(root, "demo", "text", SPEC, part_bytes=300) as writer:
        for name in names:
            if writer.done.get(name) != sha256:
                writer.add(name, input_sha256=sha256, frames=frames_of(name))
    return FrameStore.open(writer.path)


def check(store: FrameStore, names: list[str] = NAMES) -> None:
    assert store.sample_ids == sorted(names)
    for row, name in enumerate(store.sample_ids):
        np.testing.assert_array_equal(store.read(row), frames_of(name).astype(np.float16))
    assert store.damaged_parts() == []


def fail_from(monkeypatch: pytest.MonkeyPatch, step: int) -> Callable[[], int]:
    """Every fsync and rename from number `step` on fails; gives how many there were."""
    calls = 0

    def failing(real: Callable[..., None]) -> Callable[..., None]:
        def call(*arguments: object) -> None:
            nonlocal calls
            calls += 1
            if calls > step:
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
            real(*arguments)

        return call

    for name in ("fsync", "replace", "rename"):
        monkeypatch.setattr(os, name, failing(getattr(os, name)))
    return lambda: calls


def test_a_full_disk_at_any_step_leaves_no_store_and_resume_finishes_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patch:
        steps = fail_from(patch, 10**9)
        write(tmp_path / "whole")
    assert steps() > 20
    for step in range(steps()):
        root = tmp_path / str(step)
        with monkeypatch.context() as patch:
            fail_from(patch, step)
            with pytest.raises(ContractError, match="No space left"):
                write(root)
        # The last call makes the published name durable; up to then there must be no store.
        if step < steps() - 1:
            with pytest.raises(ContractError):
                FrameStore.find(root, "demo", "text")
        check(write(root))


def test_an_interruption_keeps_finished_clips(tmp_path: Path) -> None:
    writer = FrameStoreWriter(tmp_path, "demo", "text", SPEC)
    with pytest.raises(KeyboardInterrupt), writer:
        for name in NAMES[:5]:
            writer.add(name, input_sha256="a", frames=frames_of(name))
        with writer.open_clip("half", input_sha256="a") as clip:
            clip.append(frames_of("half"))
            raise KeyboardInterrupt
    with pytest.raises(ContractError, match="not finished"):
        FrameStore.open(writer.path)
    resumed = FrameStoreWriter(tmp_path, "demo", "text", SPEC)
    assert list(resumed.done) == NAMES[:5]
    resumed.release()
    check(write(tmp_path))


def test_kill_leaves_whole_parts_and_resume_finishes_them(tmp_path: Path) -> None:
    script = f"""
import sys, time
import numpy as np
from mepr_shared.contract.frames import FrameStoreWriter
writer = FrameStoreWriter({str(tmp_path)!r}, "demo", "text", {SPEC!r}, part_bytes=300)
for name in {NAMES!r}:
    seed = list(name.encode())
    random = np.random.default_rng(seed)
    frames = random.standard_normal((seed[-1] % 5 + 1, 4), dtype=np.float32)
    writer.add(name, input_sha256="a", frames=frames)
    print(len(writer.parts), flush=True)
    time.sleep(0.02)
"""
    process = subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.PIPE)
    assert process.stdout is not None
    while int(process.stdout.readline()) < 1:
        pass
    process.send_signal(signal.SIGKILL)
    process.wait()
    process.stdout.close()
    with pytest.raises(ContractError, match="no features"):
        FrameStore.find(tmp_path, "demo", "text")
    resumed = FrameStoreWriter(tmp_path, "demo", "text", SPEC)
    assert 0 < len(resumed.done) < len(NAMES)
    resumed.release()
    check(write(tmp_path))


def test_only_changed_and_new_inputs_are_written_again(tmp_path: Path) -> None:
    write(tmp_path)
    with FrameStoreWriter(tmp_path, "demo", "text", SPEC) as writer:
        assert writer.done == dict.fromkeys(NAMES, "a")
        writer.add("clip-3", input_sha256="b", frames=frames_of("other"))
        writer.add("new", input_sha256="a", frames=frames_of("new"))
    store = FrameStore.open(writer.path)
    assert store.sample_ids == sorted([*NAMES, "new"])
    row = int(store.row_of(["clip-3"])[0])
    np.testing.assert_array_equal(store.read(row), frames_of("other").astype(np.float16))
    assert store.input_sha256[row] == "b"
    row = int(store.row_of(["clip-4"])[0])
    np.testing.assert_array_equal(store.read(row), frames_of("clip-4").astype(np.float16))


def test_nothing_new_leaves_the_parts_alone(tmp_path: Path) -> None:
    before = {path: path.stat().st_mtime_ns for path in write(tmp_path).path.glob("part-*")}
    after = {path: path.stat().st_mtime_ns for path in write(tmp_path).path.glob("part-*")}
    assert before == after


@pytest.mark.parametrize("cut", [1, 40, 250, 10_000])
def test_a_truncated_part_is_found_at_opening_and_extracted_again(tmp_path: Path, cut: int) -> None:
    store = write(tmp_path)
    part = sorted(store.path.glob("part-*"))[1]
    os.truncate(part, max(part.stat().st_size - cut, 0))
    with pytest.raises(ContractError, match=part.name):
        FrameStore.open(store.path)
    check(write(tmp_path))


def test_a_missing_part_is_found_at_opening(tmp_path: Path) -> None:
    store = write(tmp_path)
    min(store.path.glob("part-*")).unlink()
    with pytest.raises(ContractError, match="missing part"):
        FrameStore.open(store.path)
    check(write(tmp_path))


@pytest.mark.parametrize("header", [b"\xff" * 8, (10**7).to_bytes(8, "little"), b"\0" * 8])
def test_a_header_that_lies_is_found_at_opening(tmp_path: Path, header: bytes) -> None:
    store = write(tmp_path)
    part = min(store.path.glob("part-*"))
    part.write_bytes(header + part.read_bytes()[8:])
    with pytest.raises(ContractError, match="damaged"):
        FrameStore.open(store.path)


def test_a_flipped_bit_in_a_part_is_found_by_its_hash(tmp_path: Path) -> None:
    store = write(tmp_path)
    part = sorted(store.path.glob("part-*"))[2]
    data = bytearray(part.read_bytes())
    data[-3] ^= 1
    part.write_bytes(data)
    assert FrameStore.open(store.path).damaged_parts() == [part.name]


def test_a_damaged_index_is_found_at_opening(tmp_path: Path) -> None:
    store = write(tmp_path)
    data = (store.path / "index.parquet").read_bytes()
    for damaged in (data[:-20], data[: len(data) // 2], b"no parquet"):
        (store.path / "index.parquet").write_bytes(damaged)
        with pytest.raises(ContractError, match=r"index\.parquet is damaged"):
            FrameStore.open(store.path)


def test_a_store_of_a_later_format_is_refused_with_the_upgrade_command(tmp_path: Path) -> None:
    store = write(tmp_path)
    manifest = store.path / "manifest.json"
    manifest.write_text(manifest.read_text().replace('"1.0"', '"2.0"'))
    with pytest.raises(ContractError, match="pip install --upgrade mepr-shared"):
        FrameStore.open(store.path)


def test_a_store_moved_to_another_key_is_refused(tmp_path: Path) -> None:
    store = write(tmp_path)
    store.path.rename(store.path.with_name("0" * 16))
    with pytest.raises(ContractError, match="does not describe this folder"):
        FrameStore.open(store.path.with_name("0" * 16))


def test_withdrawn_frames_are_gone_from_the_disk(tmp_path: Path) -> None:
    store = write(tmp_path)
    with FrameStoreWriter(tmp_path, "demo", "text", SPEC) as writer:
        writer.add("clip-2", input_sha256="b", frames=frames_of("newer"))
    secrets = [frames_of(name).astype(np.float16).tobytes() for name in ("clip-2", "newer")]
    kept = frames_of("clip-5").astype(np.float16).tobytes()
    assert withdraw_from_stores(tmp_path, "demo", {"clip-2"}, reason="asked") == [store.path]
    stored = b"".join(path.read_bytes() for path in store.path.glob("part-*"))
    assert not any(secret in stored for secret in secrets)
    assert kept in stored
    after = FrameStore.open(store.path)
    row = int(after.row_of(["clip-2"])[0])
    assert (after.status[row], after.status_reason[row]) == ("withdrawn", "asked")
    assert after.lengths[row] == 0
    others = [name for name in NAMES if name != "clip-2"]
    for name, row in zip(others, after.row_of(others), strict=True):
        np.testing.assert_array_equal(after.read(row), frames_of(name).astype(np.float16))
    assert withdraw_from_stores(tmp_path, "demo", {"clip-2"}, reason="asked") == []


def test_an_unfinished_store_stays_unfinished_after_a_withdrawal(tmp_path: Path) -> None:
    writer = FrameStoreWriter(tmp_path, "demo", "text", SPEC)
    with pytest.raises(KeyboardInterrupt), writer:
        for name in NAMES[:4]:
            writer.add(name, input_sha256="a", frames=frames_of(name))
        raise KeyboardInterrupt
    withdraw_from_stores(tmp_path, "demo", {"clip-1"}, reason="asked")
    with pytest.raises(ContractError, match="not finished"):
        FrameStore.open(writer.path)
    secret = frames_of("clip-1").astype(np.float16).tobytes()
    assert not any(secret in path.read_bytes() for path in writer.path.glob("part-*"))
