"""mepr-body is a modality like any other."""

from __future__ import annotations

import tempfile
from pathlib import Path

import pytest

from mepr_body.plugin import BODY
from mepr_shared.plugin import ClipInput
from mepr_shared.testing.conformance import ModalityConformance

pytest.importorskip("skimage", reason="needs mepr-shared[demo]")
from mepr_shared.testing.pictures import (
    empty_clips,
    person_clips,
    picture_corpora,
    unreadable_clips,
)

MEDIA = tempfile.TemporaryDirectory(prefix="mepr-body-")
FOLDER = Path(MEDIA.name)


class TestBody(ModalityConformance):
    modality = BODY
    import_name = "mepr_body"

    @classmethod
    def good_clips(cls) -> list[ClipInput]:
        return person_clips(FOLDER)

    @classmethod
    def bad_clips(cls) -> list[tuple[ClipInput, str]]:
        return [*unreadable_clips(FOLDER), *empty_clips(FOLDER, "no_person")]

    @classmethod
    def make_corpora(cls, folder: Path) -> tuple[Path, Path]:
        return picture_corpora(folder)
