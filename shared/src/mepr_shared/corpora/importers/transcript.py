"""Transcripts from files: their encoding, transcribers' marks, broken characters.

A transcript made at prediction time has neither, so an encoder should not learn from them.
"""

from __future__ import annotations

import re
from pathlib import Path

from mepr_shared.errors import DataError

# Square brackets hold either a mark ("[inaudible 00:00:16]") or the transcriber's guess at an
# unclear word ("[sport 00:30]"): the guess is speech and stays, without brackets and time.
_BRACKET = re.compile(r"\[([^\[\]]*)\]")
_ROUND = re.compile(r"\(([^()]*)\)")
_TIME = re.compile(r"(?<![\d:])\d{1,2}(?::\d{2}){1,3}(?![\d:])")
# Outside brackets "8:30" is speech; only what begins at hour 00 and has three parts is a code.
_BARE_TIME = re.compile(r"(?<![\d:])00(?::\d{2}){2,3}(?![\d:])")
_MARK_WORDS = frozenset(
    {"inaudible", "unintelligible", "indistinct", "crosstalk", "phonetic", "music", "silence"}
    | {"noise", "laughter", "laughs", "laughing", "applause", "cheering", "background"}
)
_FOREIGN = re.compile(r"\bforeign(?:\s+lan\w*)?\b", re.IGNORECASE)
# Round brackets are sounds and gestures ("(laughs)", "Mm-hmm (affirmative)"), but a few are
# spelling guesses ("(fanta-sci)"): words that describe a sound are dropped, the others stay.
_SOUND = re.compile(
    r"\b(?:affirmative|negative|sings?|singing|laughs?|laughing|laughter|shouts?|shouting|coughs?|"
    r"coughing|sighs?|sighing|noises?|sounds?|music|cheers?|cheering|claps?|clapping|applause|"
    r"whispers?|whispering|screams?|screaming|gasps?|sniffs?|crying|chuckles?|giggles?|beeps?|"
    r"humming|hums?|mumbles?|mumbling|nods|nodding|gestures|"
    r"points at|thumbs up|air quotes|silence|inaudible|crosstalk|phonetic|unintelligible)\b",
    re.IGNORECASE,
)
# A hesitation in round brackets ("(umm)") is no guess at a word.
_HESITATION = re.compile(r"\s*(?:u+h*m+|u+h+|e+r+m*|h+m+|stutters?|stuttering)\s*", re.IGNORECASE)
# A mark leaves this behind until the punctuation around it has been mended.
_GONE = "\x00"
_MEND = (
    (re.compile(r"^[\s\x00]*\x00[\s\x00,.;:!?\-]*"), ""),  # "[mark], we ask" -> "we ask"
    (
        re.compile(r"(?<=[.!?,;:])[\s\x00]*\x00\s*[.,;:](?!\.)"),
        "",
    ),  # "Korea. [mark]. As" -> "Korea. As"
    (re.compile(r"[\s\x00]*\x00[\s\x00]*(?=[,.;:!?\-](?!\.\.))"), ""),  # "my [mark]." -> "my."
    (re.compile(r"[\s\x00]+"), " "),
)
_STRAY = re.compile(r"[\[\]]")
# UTF-8 read as cp1252 and written again: "â€™" for an apostrophe, "Ã©" for e acute.
_DOUBLE_ENCODED = re.compile(r"â€[\u0080-\u2122]|[ÂÃ][\u0080-\u00bf\u0152-\u2122]")


def read_text(path: Path) -> str:
    """The text of a file in UTF-8 or, where it is none, in cp1252.

    Raises:
        DataError: the file cannot be read.
    """
    try:
        data = path.read_bytes()
    except OSError as error:
        raise DataError(f"cannot read {path}: {error.strerror}") from None
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError:
        return data.decode("cp1252", "replace")


def strip_marks(text: str) -> tuple[str, int]:
    """A transcript without marks and time codes.

    Returns:
        the text and how many marks were changed or taken out. A text of marks alone is "".
    """
    count = 0

    def square(match: re.Match[str]) -> str:
        words = _FOREIGN.sub(" ", _TIME.sub(" ", match.group(1))).split()
        guess = " ".join(w for w in words if w.lower().strip(",.;") not in _MARK_WORDS)
        return _spaced(match, guess) if guess else _GONE

    def sound(match: re.Match[str]) -> str:
        content = match.group(1)
        gone = _SOUND.search(content) or _HESITATION.fullmatch(content)
        return _GONE if gone else match.group(0)

    for pattern, replace in ((_BRACKET, square), (_ROUND, sound), (_BARE_TIME, lambda _: _GONE)):
        changed = [m for m in pattern.finditer(text) if replace(m) != m.group(0)]
        count += len(changed)
        text = pattern.sub(replace, text)
    text = _STRAY.sub(_GONE, text)
    for pattern, replacement in _MEND:
        text = pattern.sub(replacement, text)
    text = text.strip()
    return (text if re.search(r"\w", text) else ""), count


def _spaced(match: re.Match[str], guess: str) -> str:
    # Brackets hold words apart where the transcriber left no space.
    before, after = match.string[: match.start()][-1:], match.string[match.end() :][:1]
    return (" " if before.isalnum() else "") + guess + (" " if after.isalnum() else "")


def repair_characters(text: str) -> str:
    """Undo the two usual encoding accidents of subtitle files.

    Control characters 0x80-0x9f are cp1252 punctuation read as latin1; "â€™" and the like are
    UTF-8 read as cp1252.
    """
    text = _DOUBLE_ENCODED.sub(_decode_again, text)
    return "".join(_CP1252.get(character, character) for character in text)


def _decode_again(match: re.Match[str]) -> str:
    try:
        return b"".join(map(_cp1252_byte, match.group(0))).decode("utf-8")
    except UnicodeError:  # not an accident after all
        return match.group(0)


def _cp1252_byte(character: str) -> bytes:
    # Bytes that cp1252 leaves unassigned come out of careless decoders as control characters.
    return bytes([ord(character)]) if ord(character) < 0x100 else character.encode("cp1252")


_CP1252 = {
    chr(code): bytes([code]).decode("cp1252")
    for code in range(0x80, 0xA0)
    if code not in (0x81, 0x8D, 0x8F, 0x90, 0x9D)  # unassigned
}
