"""Media made for the tests. What is read of them is checked by soundfile, scipy and formulas."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest

WriteAudio = Callable[..., Path]
WriteVideo = Callable[..., Path]


@pytest.fixture
def clips() -> Path:
    """The folder of real clips."""
    root = os.environ.get("MEPR_REAL_DATA")
    if not root:
        pytest.skip("MEPR_REAL_DATA is not set: no real clips here")
    return Path(root) / "clips"


@pytest.fixture(scope="session")
def write_audio() -> WriteAudio:
    """Encodes `[n]` or `[channels, n]`, float in [-1, 1], into a file."""

    def write(
        path: Path,
        samples: np.ndarray,
        rate: int,
        codec: str,
        *,
        layout: str = "mono",
        bit_rate: int | None = None,
        block: int = 65536,
        options: dict[str, str] | None = None,
    ) -> Path:
        with av.open(str(path), "w", options=options or {}) as container:
            stream = container.add_stream(codec, rate=rate, layout=layout)
            if bit_rate:
                stream.bit_rate = bit_rate
            for start in range(0, samples.shape[-1], block):
                part = np.atleast_2d(samples)[:, start : start + block]
                container.mux(stream.encode(audio_frame(part, rate, layout, start)))
            container.mux(stream.encode(None))
        return path

    return write


def audio_frame(samples: np.ndarray, rate: int, layout: str, position: int) -> Any:
    """A frame of 16-bit samples at its place in time."""
    packed = np.round(samples.T.reshape(1, -1) * 32767).astype(np.int16)
    frame = av.AudioFrame.from_ndarray(packed, format="s16", layout=layout)
    frame.sample_rate = rate
    frame.pts = position
    frame.time_base = Fraction(1, rate)
    return frame


@pytest.fixture(scope="session")
def write_video() -> WriteVideo:
    """Encodes pictures uint8 `[H, W, 3]` into a file."""

    def write(
        path: Path,
        images: Iterable[np.ndarray],
        *,
        codec: str = "mpeg4",
        rate: int = 25,
        key_frames: int = 12,
        stamps: list[int] | None = None,
        turned: tuple[int, bool, bool] | None = None,
        options: dict[str, str] | None = None,
        container_options: dict[str, str] | None = None,
    ) -> Path:
        images = list(images)
        with av.open(str(path), "w", options=container_options or {}) as container:
            stream = container.add_stream(codec, rate=rate)
            stream.height, stream.width = images[0].shape[:2]
            stream.pix_fmt = "rgb8" if codec == "gif" else "yuv420p"
            stream.codec_context.gop_size = key_frames
            stream.bit_rate = 4_000_000  # or levels of grey are lost
            stream.options = options or {}
            if turned:
                stream.set_display_rotation(*turned)
            for number, image in enumerate(images):
                frame = av.VideoFrame.from_ndarray(image, format="rgb24")
                frame.pts = stamps[number] if stamps else number
                container.mux(stream.encode(frame))
            container.mux(stream.encode(None))
        return path

    return write


@pytest.fixture(scope="session")
def numbered() -> Callable[..., list[np.ndarray]]:
    """Pictures whose grey level tells their number: `20 + 4 * number`."""

    def make(count: int, height: int = 48, width: int = 64) -> list[np.ndarray]:
        return [np.full((height, width, 3), 20 + 4 * number, np.uint8) for number in range(count)]

    return make


@pytest.fixture(scope="session")
def number_of() -> Callable[[np.ndarray], int]:
    """The number that a decoded picture tells."""
    return lambda image: round((float(image.mean()) - 20) / 4)


@pytest.fixture(scope="session")
def voice() -> Callable[..., np.ndarray]:
    """Something like speech: `[n]` with harmonics and pauses, never the same twice in a row."""

    def make(seconds: float, rate: int, seed: int = 0) -> np.ndarray:
        time_s = np.arange(round(seconds * rate)) / rate
        pitch = 120 + 30 * np.sin(2 * np.pi * 0.7 * time_s)
        phase = 2 * np.pi * np.cumsum(pitch) / rate
        harmonics = sum(np.sin(k * phase) / k for k in range(1, 12))
        envelope = 0.5 - 0.5 * np.cos(2 * np.pi * 1.3 * time_s)
        noise = np.random.default_rng(seed).standard_normal(len(time_s))
        return 0.15 * envelope * harmonics + 0.01 * noise

    return make
