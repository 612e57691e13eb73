"""What of Whisper's words counts, and what is no speech at all.

Radford et al. 2023, section 4.5: improbable tokens and text that compresses too well are signs of
trouble, and together with the "no speech" token of silence.
"""

from __future__ import annotations

from mepr_text.asr_settings import AsrSettings
from mepr_text.asr_windows import Decoded

NO_SPEECH = "no speech was found"
REPETITION = "the same words again and again"
# Nobody says more characters in a second: a text that repeats itself faster is not real.
FASTEST = 25.0
# Where Whisper is as sure as this that nobody speaks, its words have to be twice as likely: above
# that lie beeps and plucked strings which Silero takes for a voice, and no speech that we know of.
SURE_OF_SILENCE = 0.85


def problem(decoded: Decoded, settings: AsrSettings) -> str:
    """Why the words of a window count for nothing; empty where they count."""
    if not any(character.isalnum() for character in decoded.text):
        return NO_SPEECH
    signs = (decoded.faint, silent(decoded, settings), doubtful(decoded, settings))
    if sum(signs) > 1:
        return NO_SPEECH
    too_fast = len(decoded.text) > FASTEST * decoded.seconds
    unreal = not decoded.finished or (repeats(decoded, settings) and too_fast)
    return REPETITION if unreal else ""


def not_understood(decoded: Decoded, settings: AsrSettings) -> bool:
    """Whether there is speech, but hardly these words: worth a second hearing."""
    return doubtful(decoded, settings) and not silent(decoded, settings)


def better(first: Decoded, second: Decoded, settings: AsrSettings) -> Decoded:
    """The more credible of two hearings of the same window."""
    if repeats(first, settings) or second.log_probability > first.log_probability:
        return second
    return first


def silent(decoded: Decoded, settings: AsrSettings) -> bool:
    """Whether Whisper itself says that nobody speaks."""
    faint_limit = settings.faint_no_speech_above
    return decoded.no_speech > (faint_limit if decoded.faint else settings.no_speech_above)


def doubtful(decoded: Decoded, settings: AsrSettings) -> bool:
    """Whether the words are unlikely or say the same again and again."""
    limit = settings.unlikely_below / (2 if decoded.no_speech > SURE_OF_SILENCE else 1)
    return decoded.log_probability < limit or repeats(decoded, settings)


def repeats(decoded: Decoded, settings: AsrSettings) -> bool:
    """Whether the words say the same again and again, maybe without end."""
    return not decoded.finished or decoded.repetition > settings.repetition_above
