"""mepr-scene is a modality like any other."""

from __future__ import annotations

import tempfile
import wave
from pathlib import Path

import pytest
from PIL import Image

from mepr_scene.plugin import SCENE
from mepr_shared.plugin import ClipInput
from mepr_shared.testing.conformance import ModalityConformance

pytest.importorskip("skimage", reason="needs mepr-shared[demo]")
from mepr_shared.testing.pictures import person, person_video, picture_corpora

MEDIA = tempfile.TemporaryDirectory(prefix="mepr-scene-")


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
        folder = Path(MEDIA.name)
        Image.fromarray(next(person(1, seed=3))).save(folder / "picture.png")
        return [
            ClipInput("short", media=person_video(folder / "short.mp4", 0.5, seed=1)),
            ClipInput("long", media=person_video(folder / "long.mp4", 1.5, seed=2)),
            ClipInput("picture", media=folder / "picture.png"),
        ]

    @classmethod
    def bad_clips(cls) -> list[tuple[ClipInput, str]]:
        folder = Path(MEDIA.name)
        (folder / "text.mp4").write_text("words, not pictures")
        return [
            (ClipInput("none"), "no_media"),
            (ClipInput("gone", media=folder / "gone.mp4"), "no_media"),
            (ClipInput("text", media=folder / "text.mp4"), "decode_error"),
            (ClipInput("sound", media=sound(folder / "sound.wav")), "no_video"),
        ]

    @classmethod
    def make_corpora(cls, folder: Path) -> tuple[Path, Path]:
        return picture_corpora(folder)
