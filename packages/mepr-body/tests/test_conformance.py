"""mepr-body is a modality like any other."""

from __future__ import annotations

import tempfile
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from mepr_body.plugin import BODY
from mepr_shared.plugin import ClipInput
from mepr_shared.testing.conformance import ModalityConformance

pytest.importorskip("skimage", reason="needs mepr-shared[demo]")
from mepr_shared.testing.pictures import person, person_video, picture_corpora

MEDIA = tempfile.TemporaryDirectory(prefix="mepr-body-")


class TestBody(ModalityConformance):
    modality = BODY
    import_name = "mepr_body"

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
        Image.fromarray(np.full((90, 120, 3), 128, np.uint8)).save(folder / "grey.png")
        Image.fromarray(np.zeros((1, 1, 3), np.uint8)).save(folder / "pixel.png")
        return [
            (ClipInput("none"), "no_media"),
            (ClipInput("gone", media=folder / "gone.mp4"), "no_media"),
            (ClipInput("text", media=folder / "text.mp4"), "decode_error"),
            (ClipInput("grey", media=folder / "grey.png"), "no_person"),
            (ClipInput("pixel", media=folder / "pixel.png"), "no_person"),
        ]

    @classmethod
    def make_corpora(cls, folder: Path) -> tuple[Path, Path]:
        return picture_corpora(folder)
