"""mepr-face is a modality like any other."""

from __future__ import annotations

import tempfile
from pathlib import Path

import pytest

from mepr_face.plugin import FACE
from mepr_shared.plugin import ClipInput
from mepr_shared.testing.conformance import ModalityConformance

pytest.importorskip("skimage", reason="needs mepr-shared[demo]")
from mepr_shared.testing.pictures import (
    empty_clips,
    person_clips,
    picture_corpora,
    unreadable_clips,
)

MEDIA = tempfile.TemporaryDirectory(prefix="mepr-face-")
FOLDER = Path(MEDIA.name)


class TestFace(ModalityConformance):
    modality = FACE
    import_name = "mepr_face"

    @classmethod
    def good_clips(cls) -> list[ClipInput]:
        return person_clips(FOLDER)

    @classmethod
    def bad_clips(cls) -> list[tuple[ClipInput, str]]:
        return [*unreadable_clips(FOLDER), *empty_clips(FOLDER, "no_face")]

    @classmethod
    def make_corpora(cls, folder: Path) -> tuple[Path, Path]:
        return picture_corpora(folder)
