"""mepr-text is a modality like any other."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from mepr_shared.corpora.demo import make_demo
from mepr_shared.plugin import ClipInput
from mepr_shared.testing.conformance import ModalityConformance
from mepr_text.plugin import TEXT


class TestText(ModalityConformance):
    modality = TEXT
    import_name = "mepr_text"

    @classmethod
    def good_clips(cls) -> list[ClipInput]:
        texts = ("Hello.", "I am so happy that you are here with us today!", "word " * 700)
        return [ClipInput(str(i), text=text) for i, text in enumerate(texts)]

    @classmethod
    def bad_clips(cls) -> list[tuple[ClipInput, str]]:
        return [
            (ClipInput("none"), "no_text"),
            (ClipInput("empty", text=""), "no_text"),
            (ClipInput("blank", text=" \n\t "), "no_text"),
        ]

    @classmethod
    def make_corpora(cls, folder: Path) -> tuple[Path, Path]:
        make_demo(folder, clips=120, seed=1)
        return folder / "demo_emotion.parquet", folder / "demo_traits.parquet"

    def test_predict_answers_for_every_text(
        self, workspace: dict[str, Path], capsys: pytest.CaptureFixture[str]
    ) -> None:
        capsys.readouterr()
        self.cli("predict", "What a day!", "", "--run", str(workspace["run"]), "--json")
        first, second = (json.loads(line) for line in capsys.readouterr().out.splitlines())
        assert first["status"] == "ok"
        assert len(first["emotion"]["probabilities"]) == 7
        assert all(0 <= score <= 1 for score in first["traits"].values())
        assert (second["status"], second["emotion"], second["traits"]) == ("no_text", None, None)
