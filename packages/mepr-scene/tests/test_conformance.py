"""mepr-scene is a modality like any other."""

from __future__ import annotations

import tempfile
import wave
from pathlib import Path

import pytest

from mepr_scene.plugin import SCENE
from mepr_shared.plugin import ClipInput
from mepr_shared.testing.conformance import ModalityConformance

pytest.importorskip("skimage", reason="needs mepr-shared[demo]")
from mepr_shared.testing.pictures import person_clips, picture_corpora, unreadable_clips

MEDIA = tempfile.TemporaryDirectory(prefix="mepr-scene-")
FOLDER = Path(MEDIA.name)


def sound(path: Path) -> Path:
    """A file without pictures."""
    with wave.open(str(path), "wb") as file:
        file.setnchannels(1)
        file.setsampwidth(2)
        file.setframerate(8000)
        file.writeframes(bytes(8000))
    return path


class TestScene(ModalityConformance):
    modality = SCENE
    import_name = "mepr_scene"

    @classmethod
    def good_clips(cls) -> list[ClipInput]:
        return person_clips(FOLDER)

    @classmethod
    def bad_clips(cls) -> list[tuple[ClipInput, str]]:
        return [
            *unreadable_clips(FOLDER),
            (ClipInput("sound", media=sound(FOLDER / "sound.wav")), "no_video"),
        ]

    @classmethod
    def make_corpora(cls, folder: Path) -> tuple[Path, Path]:
        return picture_corpora(folder)
