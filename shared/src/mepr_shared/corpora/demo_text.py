"""The sentences of the demo corpus. Frozen with the generator: see `demo.GENERATOR_VERSION`.

Every sentence says one thing only: an emotion, or one trait at one of five levels. No sentence
occurs in two banks, so that the text determines the content exactly and the best possible
prediction can be computed.
"""

from __future__ import annotations

from mepr_shared.labels import TRAITS

PEOPLE = ("my sister", "our neighbour", "a colleague", "my old friend", "my cousin", "the teacher")
PLACES = ("at the station", "in the kitchen", "at the office", "in the garden", "on the bus")
DAYS = ("yesterday", "this morning", "last week", "on Sunday", "in the evening")

# Emotion -> sentences with {who}, {where}, {when}.
EMOTION_SENTENCES = {
    "neutral": (
        "I met {who} {where} {when} and we talked about the timetable.",
        "{when} I sorted the papers and {who} wrote down the address.",
        "The meeting {where} took about an hour, and {who} took notes.",
        "{when} I bought bread and milk and then went home.",
        "I told {who} {where} which form has to be filled in.",
        "The shop opens at nine, so {who} and I waited {where} {when}.",
    ),
    "anger": (
        "I was furious when {who} lied to me {where} {when}.",
        "{when} {who} insulted me {where} and I shouted back in rage.",
        "It makes me so angry that {who} broke the promise again {when}.",
        "I slammed the door {when} because {who} would not stop cheating.",
        "How dare {who} treat me like that {where}, I am outraged.",
        "I am sick and tired of {who} yelling at me {where}.",
    ),
    "disgust": (
        "The rotten food {where} was revolting and {who} felt ill.",
        "{when} I found mould in the cup {where}, it was disgusting.",
        "The stench {where} made {who} gag {when}.",
        "It was gross how {who} spat on the floor {where}.",
        "I could not touch that slimy, filthy towel {where} {when}.",
        "{who} left maggots in the bin {where}, I nearly vomited.",
    ),
    "fear": (
        "I was terrified when {who} vanished {where} {when}.",
        "{when} I heard steps behind me {where} and froze in fear.",
        "My hands were shaking because a stranger followed {who} {where}.",
        "I am scared that something horrible will happen to {who}.",
        "{who} and I panicked {where} when the lights went out {when}.",
        "I had a nightmare and I am afraid of going {where} alone.",
    ),
    "happiness": (
        "I was so happy when {who} surprised me with a hug {where}.",
        "{when} we laughed and danced {where}, it was wonderful.",
        "What a joy it was to celebrate with {who} {when}.",
        "I am delighted that {who} got married {when}, I cannot stop smiling.",
        "We had a lovely, cheerful picnic with {who} {when}.",
        "I feel so glad and grateful for the time with {who} {where}.",
    ),
    "sadness": (
        "I cried {where} when {who} passed away {when}.",
        "{when} I sat {where} alone and felt heartbroken.",
        "I miss {who} so much, everything feels empty and hopeless.",
        "It is so sad that {who} left me {when}, I keep weeping.",
        "I was miserable and lonely {where} after the funeral {when}.",
        "My heart is heavy with grief since {who} fell ill {when}.",
    ),
    "surprise": (
        "I could not believe my eyes when {who} appeared {where} {when}.",
        "{when} {who} suddenly turned up {where}, I was astonished.",
        "Wow, I never expected {who} to win the lottery {when}.",
        "I was stunned when {who} told me the unexpected news {where}.",
        "Out of nowhere a deer stood {where}, {who} gasped in amazement.",
        "What, {who} bought a castle {when}, that is incredible.",
    ),
}

# Trait -> what somebody high and somebody low on it does.
TRAIT_BEHAVIOUR = {
    "openness": (
        (
            "read poetry and visit art galleries",
            "try strange food in foreign countries",
            "dream up new ideas and theories",
            "explore philosophy and unusual music",
        ),
        (
            "eat the same plain dinner as ever",
            "avoid museums and anything artistic",
            "stick to the old ways and refuse change",
            "find abstract ideas a waste of time",
        ),
    ),
    "conscientiousness": (
        (
            "plan my work and finish it before the deadline",
            "keep my desk tidy and my notes in order",
            "double-check every detail of a task",
            "get up early and follow my schedule",
        ),
        (
            "leave my chores undone and my room a mess",
            "forget appointments and lose my keys",
            "put off the work until it is too late",
            "skip the instructions and do sloppy work",
        ),
    ),
    "extraversion": (
        (
            "go to parties and talk to everybody there",
            "tell stories in front of a big crowd",
            "invite lots of people for a noisy evening",
            "start conversations with strangers",
        ),
        (
            "stay home alone and speak to nobody",
            "keep quiet in the corner of the room",
            "leave early because crowds drain me",
            "hide when guests come to the house",
        ),
    ),
    "agreeableness": (
        (
            "help others and forgive their mistakes",
            "share what I have and comfort people",
            "trust people and look for a compromise",
            "thank everyone and speak kindly of them",
        ),
        (
            "mock people and pick fights with them",
            "take advantage of others for my own gain",
            "criticise everyone and never apologise",
            "refuse to help and push others aside",
        ),
    ),
    "emotional_stability": (
        (
            "stay calm and relaxed under pressure",
            "sleep well and take setbacks lightly",
            "keep a cool head when plans fall through",
            "feel balanced and sure of myself",
        ),
        (
            "worry all night about small things",
            "get nervous and tense before every call",
            "lose my composure over tiny problems",
            "doubt myself and brood over my errors",
        ),
    ),
}

# Level -> frame; 0 names both sides. {high} and {low} are behaviours of the same trait.
LEVEL_FRAMES = {
    2: (
        "I always {high}, that is just who I am.",
        "Without exception I {high}.",
    ),
    1: (
        "I often {high}.",
        "Most of the time I {high}.",
    ),
    0: (
        "Now and then I {high}, but about as often I {low}.",
        "Sometimes I {low}, sometimes I {high}.",
    ),
    -1: (
        "I often {low}.",
        "Most of the time I {low}.",
    ),
    -2: (
        "I always {low}, that is just who I am.",
        "Without exception I {low}.",
    ),
}
LEVELS = tuple(sorted(LEVEL_FRAMES))


def emotion_sentences(emotion: str) -> list[str]:
    """Every sentence that says `emotion`, its slots filled in all ways."""
    return [
        _capital(frame.format(who=who, where=where, when=when))
        for frame in EMOTION_SENTENCES[emotion]
        for who in PEOPLE
        for where in PLACES
        for when in DAYS
    ]


def trait_sentences(trait: str, level: int) -> list[str]:
    """Every sentence that says that the speaker is at `level` (-2 .. 2) of `trait`."""
    high, low = TRAIT_BEHAVIOUR[trait]
    filled = (
        frame.format(high=h, low=lower)
        for frame in LEVEL_FRAMES[level]
        for h in high
        for lower in low
    )
    return list(dict.fromkeys(filled))


def banks() -> dict[tuple[str, int], list[str]]:
    """Content -> sentences: `(emotion, 0)` and `(trait, level)`."""
    found = {(emotion, 0): emotion_sentences(emotion) for emotion in EMOTION_SENTENCES}
    for trait in TRAITS:
        found.update({(trait, level): trait_sentences(trait, level) for level in LEVELS})
    return {key: list(dict.fromkeys(sentences)) for key, sentences in found.items()}


def _capital(text: str) -> str:
    return text[0].upper() + text[1:]
