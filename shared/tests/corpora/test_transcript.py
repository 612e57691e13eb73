"""Marks go, words stay."""

from __future__ import annotations

import pytest

from mepr_shared.corpora.importers.transcript import repair_characters, strip_marks


@pytest.mark.parametrize(
    ("said", "kept", "marks"),
    [
        ("[inaudible 00:00:16] and then I will", "and then I will", 1),
        ("but [inaudible 00:00:45]string come", "but string come", 1),
        ("I love [inaudible 00:00:07]. I love", "I love. I love", 1),
        ("in Seoul. [foreign language 00:00:16]. As you know", "in Seoul. As you know", 1),
        ("studying [foreign lanuage inaudible 00:57]", "studying", 1),
        ("[crosstalk 00:00:00]", "", 1),
        ("to do [sport 00:30] every day", "to do sport every day", 1),
        ("hold of a [Glock 43 00:20] here", "hold of a Glock 43 here", 1),
        ("the [Epic 00:00:00:42] program", "the Epic program", 1),
        ("hitting [productional revvers inaudible 00:57]", "hitting productional revvers", 1),
        ('questions. "[Slick moth 00:01] said', 'questions. "Slick moth said', 1),
        ("Malloch [phonetic 00:00:15] amplifiers", "Malloch amplifiers", 1),
        ("Mm-hmm (affirmative), yes (laughs).", "Mm-hmm, yes.", 2),
        ("with club (fanta-sci) tonight", "with club (fanta-sci) tonight", 0),
        ("actually Mac's 00:00:24 Russian Red", "actually Mac's Russian Red", 1),
        ("I wake up at 8:30 or 12:00.", "I wake up at 8:30 or 12:00.", 0),
        ("... and he said ... well", "... and he said ... well", 0),
        ("(singing)", "", 1),
        ("", "", 0),
    ],
)
def test_marks_and_time_codes(said: str, kept: str, marks: int) -> None:
    assert strip_marks(said) == (kept, marks)


@pytest.mark.parametrize(
    ("broken", "mended"),
    [
        ("I\x92m here\x85", "I’m here…"),
        ("itâ€™s â€œhiâ€\x9d Ã©", "it’s “hi” é"),
        ("fiancée, Olé! ’", "fiancée, Olé! ’"),
        ("Â£5 for Ân", "£5 for Ân"),
    ],
)
def test_broken_characters(broken: str, mended: str) -> None:
    assert repair_characters(broken) == mended
