"""The transcript of an input: given, from subtitles, or heard."""

from __future__ import annotations

from pathlib import Path

from mepr_fusion.predict.prediction import TranscriptAnswer
from mepr_fusion.predict.subtitles import read_srt
from mepr_shared.errors import MeprError
from mepr_shared.plugin import Modality, ReadsSpeech, SpeechReader

# Where a recogniser is less sure of its words than this, they may be anything.
UNSURE = 0.4
ENGLISH = "en"


class Ears:
    """Turns speech into text with whichever modality can; loaded when first needed.

    Args:
        modality: the modality that reads text; None where it is switched off or not installed.
        model: `small`, `paper`, or a recogniser's id or folder.
        language: code, or `auto`.
        device: where it runs.
    """

    def __init__(
        self, modality: Modality | None, *, model: str, language: str, device: str
    ) -> None:
        self._modality = modality
        self._options = {"model": model, "language": language, "device": device}
        self._reader: SpeechReader | None = None
        self._problem = ""

    def open(self) -> SpeechReader | None:
        """Load the recogniser, once; None where there is none (`hear` says why)."""
        if self._reader is None and not self._problem:
            if not isinstance(self._modality, ReadsSpeech):
                self._problem = "no installed modality turns speech into text"
            else:
                try:
                    self._reader = self._modality.open_speech_reader(**self._options)
                except MeprError as error:  # not installed, no weights: the others can still answer
                    self._problem = str(error)
        return self._reader

    def hear(self, media: Path) -> TranscriptAnswer:
        """What is said in a file."""
        if self._modality is None:
            return TranscriptAnswer(status="switched_off", reason="nothing here reads text")
        reader = self.open()
        if reader is None:
            return TranscriptAnswer(status="no_text", reason=self._problem)
        heard = reader.read(media)
        return TranscriptAnswer(
            text=heard.text,
            source="asr",
            segments=heard.segments,
            language=heard.language,
            language_probability=heard.language_probability,
            confidence=heard.confidence,
            model=str(reader.spec.get("model")),
            status=heard.status,
            reason=heard.reason,
        )


def given_transcript(text: str | None, srt: Path | None) -> TranscriptAnswer | None:
    """The transcript that came with the input; None where none did.

    Raises:
        DataError: subtitles that cannot be read.
    """
    if srt is not None:
        segments = read_srt(srt)
        joined = " ".join(" ".join(part for _, _, part in segments).split())
        return TranscriptAnswer(joined, "srt", segments)
    if text is not None:
        return TranscriptAnswer(" ".join(text.split()), "given")
    return None


def language_warnings(transcript: TranscriptAnswer) -> list[str]:
    """What is to be said of the language that was heard."""
    found = []
    if transcript.source == "asr" and transcript.text:
        language, probability = transcript.language, transcript.language_probability
        if language and language != ENGLISH:
            sure = "" if probability is None else f" (probability {probability:.2f})"
            found.append(
                f"the speech is not English but {language!r}{sure}: models of text that were "
                "trained on English say little about it"
            )
        if (transcript.confidence or 1.0) < UNSURE:
            found.append(
                f"the words were hard to make out (confidence {transcript.confidence:.2f}): "
                "another language than English, noise, or several voices at once?"
            )
    return found
