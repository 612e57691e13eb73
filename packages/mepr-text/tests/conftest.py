"""What the tests of transcription share: the packaged Whisper, sounds that are no speech, files."""

from __future__ import annotations

import os
import wave
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from mepr_text.asr import Transcriber
from mepr_text.asr_settings import PROFILES

RATE = 16_000
WriteWav = Callable[[Path, np.ndarray], Path]


@pytest.fixture(scope="session")
def transcriber() -> Transcriber:
    """The small profile's Whisper (tiny.en)."""
    return Transcriber.open(PROFILES["small"], threads=1)


@pytest.fixture(scope="session")
def real_data() -> Path:
    """Recordings of people."""
    folder = os.environ.get("MEPR_REAL_DATA")
    if not folder:
        pytest.skip("MEPR_REAL_DATA is not set: no recordings here")
    return Path(folder)


@pytest.fixture(scope="session")
def write_wav() -> WriteWav:
    """Writes float32 samples as a 16 kHz mono WAV file."""

    def write(path: Path, samples: np.ndarray) -> Path:
        path.parent.mkdir(parents=True, exist_ok=True)
        with wave.open(str(path), "wb") as file:
            file.setnchannels(1)
            file.setsampwidth(2)
            file.setframerate(RATE)
            file.writeframes((samples * 32767).astype("<i2").tobytes())
        return path

    return write
