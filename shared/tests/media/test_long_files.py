"""One hour: its end is found without decoding the hour, and streaming it takes a chunk's memory."""

from __future__ import annotations

import subprocess
import sys
import time
from pathlib import Path

import av
import numpy as np
import pytest
import soundfile

from mepr_shared.media import audio_frames
from mepr_shared.media.waveform import RATE, read_waveform

SOURCE_RATE = 8_000
PIECE_S = 36.0
HOUR_S = 3600.0


def piece() -> np.ndarray:
    """What the hour repeats: a tone that rises for 36 s, so that every moment of it is known."""
    time_s = np.arange(round(PIECE_S * SOURCE_RATE)) / SOURCE_RATE
    tone = np.sin(2 * np.pi * (200 * time_s + 10 * time_s**2))
    return np.round(16_000 * tone).astype(np.int16)


@pytest.fixture(scope="module")
def hour(tmp_path_factory: pytest.TempPathFactory, write_audio):
    """Files of one hour, made of one piece's packets over and over."""
    folder = tmp_path_factory.mktemp("hour")

    def make(suffix: str) -> Path:
        path = folder / f"hour.{suffix}"
        if path.exists():
            return path
        if suffix in ("wav", "flac"):
            with soundfile.SoundFile(path, "w", SOURCE_RATE, 1, "PCM_16") as file:
                for _ in range(round(HOUR_S / PIECE_S)):
                    file.write(piece())
            return path
        codec = {"mp3": "libmp3lame", "m4a": "aac"}[suffix]
        short = write_audio(
            folder / f"piece.{suffix}", piece() / 32767, SOURCE_RATE, codec, bit_rate=16_000
        )
        repeat(short, path)
        return path

    return make


def repeat(source: Path, target: Path) -> None:
    """Copy packets until they fill the hour, without encoding them again."""
    with av.open(str(source)) as read, av.open(str(target), "w") as written:
        template = read.streams.audio[0]
        stream = written.add_stream_from_template(template)
        packets = [(bytes(p), p.duration, p.time_base) for p in read.demux(template) if p.size]
        stamp = 0
        while stamp * template.time_base < HOUR_S:
            for data, duration, time_base in packets:
                packet = av.Packet(data)
                packet.pts = packet.dts = stamp
                packet.duration, packet.time_base, packet.stream = duration, time_base, stream
                written.mux(packet)
                stamp += duration


@pytest.mark.parametrize("suffix", ["wav", "flac", "mp3", "m4a"])
def test_the_end_of_an_hour_is_read_at_once(hour, suffix: str, monkeypatch) -> None:
    path = hour(suffix)
    decoded = []
    real = audio_frames.AudioFrames.read

    def counted(self, from_s: float):
        for placed in real(self, from_s):
            decoded.append(placed.frame.samples)
            yield placed

    monkeypatch.setattr(audio_frames.AudioFrames, "read", counted)
    seconds = []
    for _ in range(3):
        decoded.clear()
        started = time.perf_counter()
        read = read_waveform(path, start_s=3590.0, end_s=3595.0)
        seconds.append(time.perf_counter() - started)
        assert (read.status, len(read.samples)) == ("ok", 5 * RATE)
        assert sum(decoded) < 8 * SOURCE_RATE
    assert min(seconds) < 0.3


@pytest.mark.parametrize("suffix", ["wav", "flac"])
def test_what_is_read_there_is_what_was_written_there(hour, suffix: str) -> None:
    begin = 3590.0 % PIECE_S
    reference = hour("wav").with_name("piece.wav")
    soundfile.write(reference, piece(), SOURCE_RATE, subtype="PCM_16")
    expected = read_waveform(reference, start_s=begin, end_s=begin + 5)
    read = read_waveform(hour(suffix), start_s=3590.0, end_s=3595.0)
    np.testing.assert_array_equal(read.samples, expected.samples)


def test_streaming_an_hour_takes_no_more_memory_than_a_minute(hour) -> None:
    """The hour is 230 MB of samples."""
    code = (
        "import resource, sys;"
        "from mepr_shared.media.waveform import stream_waveform;"
        "stream = stream_waveform(sys.argv[1], end_s=float(sys.argv[2]));"
        "print(sum(map(len, stream)), resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)"
    )
    kilobytes = {}
    for seconds in (60, 3600):
        command = [sys.executable, "-c", code, str(hour("flac")), str(seconds)]
        done = subprocess.run(command, capture_output=True, text=True, check=True)
        samples, peak = map(int, done.stdout.split())
        assert samples == seconds * RATE
        kilobytes[seconds] = peak
    assert kilobytes[3600] - kilobytes[60] < 20_000
