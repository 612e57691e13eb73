"""What a demo clip sounds like: speech-like syllables whose prosody carries the clip's content.

There are no words in it. A clip is two phrases with a pause between them; each syllable is a vowel
behind a noisy closure. Its length says nothing: a faster voice says more syllables.

* The emotion fully: each has a prosody of its own (`EMOTION_PROSODY`; in the directions that
  Juslin & Laukka 2003 found for anger, fear, happiness and sadness; surprise rises steeply, disgust
  is low and creaky with a long last vowel). Of two emotions told of, each has a phrase.
* The trait levels in part (`TRAIT_PROSODY`): with effects smaller than those of the emotions.
* Speakers differ in base pitch by more than the emotions do, and in formants and brightness, so
  that no single measure gives the emotion away.

Frozen like the rest of the generator: the same arguments give the same samples.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from mepr_shared.corpora import demo_voice
from mepr_shared.corpora.demo_voice import FRAME_S, HOP
from mepr_shared.labels import EMOTIONS, TRAITS

SHORTEST_S, LONGEST_S = 1.6, 3.5
PEAK = 0.9  # no sample goes beyond

# What is varied, and how far it varies between clips of the same content.
PROSODY = {
    "pitch": 0.7,  # semitones above the speaker's base
    "range": 0.2,  # semitones of accents, logarithm
    "slope": 1.0,  # semitones from begin to end of a phrase
    "level": 1.5,  # dB of full scale
    "rate": 0.07,  # syllables per second, logarithm
    "tilt": 0.7,  # dB per octave above 500 Hz
    "breath": 0.2,  # noise to pulses, logarithm
    "jitter": 0.2,  # from one period to the next, relative, logarithm
    "tremor": 0.1,  # semitones, at `TREMOR_HZ`
    "creak": 0.05,  # how much weaker and later every second pulse is, 0 .. 1
    "pause": 0.15,  # s, logarithm
    "onset": 0.2,  # s to full level, logarithm
    "unevenness": 0.2,  # of syllable lengths, logarithm of the spread
    "final": 0.1,  # length of a phrase's last syllable, logarithm
}
_LOGARITHMS = ("range", "rate", "breath", "jitter", "pause", "onset", "unevenness", "final")

# Columns as PROSODY; logarithmic ones are given as they are.
EMOTION_PROSODY = {
    "neutral": (0.0, 1.0, -1.5, -25, 4.0, 2.0, 0.06, 0.006, 0.0, 0.0, 0.15, 0.030, 0.15, 1.3),
    "anger": (3.0, 2.2, -6.0, -17, 5.2, -3.0, 0.03, 0.015, 0.0, 0.1, 0.07, 0.010, 0.10, 1.0),
    "disgust": (-3.0, 1.4, -4.0, -24, 3.1, 1.5, 0.08, 0.020, 0.0, 0.8, 0.20, 0.040, 0.20, 3.0),
    "fear": (6.0, 1.2, 0.0, -28, 5.4, 2.0, 0.25, 0.035, 1.3, 0.0, 0.12, 0.020, 0.35, 1.0),
    "happiness": (5.0, 3.2, 1.0, -20, 5.0, 0.0, 0.04, 0.006, 0.0, 0.0, 0.10, 0.020, 0.15, 1.2),
    "sadness": (-2.0, 0.8, -4.0, -31, 2.7, 6.0, 0.30, 0.012, 0.2, 0.1, 0.42, 0.060, 0.20, 1.7),
    "surprise": (2.0, 2.0, 13.0, -21, 4.2, 1.0, 0.08, 0.006, 0.0, 0.0, 0.15, 0.020, 0.15, 1.8),
}
# Per level; logarithmic ones in logarithms.
TRAIT_PROSODY = {
    "openness": {"range": 0.2},
    "conscientiousness": {"unevenness": -0.25},
    "extraversion": {"level": 0.8, "rate": 0.04},
    "agreeableness": {"onset": 0.2, "tilt": 0.5},
    "emotional_stability": {"jitter": -0.3},
}

VOWELS_HZ = np.array(  # of men, Peterson & Barney 1952, table II; the fourth is a common value
    [
        (270.0, 2290.0, 3010.0, 3500.0),
        (530.0, 1840.0, 2480.0, 3500.0),
        (730.0, 1090.0, 2440.0, 3500.0),
        (570.0, 840.0, 2410.0, 3500.0),
        (300.0, 870.0, 2240.0, 3500.0),
    ]
)
ROOM_DB = -58.0  # noise of the room
LEAD_S = 0.1  # of room noise before and after
PHRASES = 2
TREMOR_HZ = 6.0


@dataclass(frozen=True)
class Speaker:
    """Base pitch in Hz, factor on all formants, brightness in dB per octave."""

    pitch_hz: float
    formants: float
    tilt: float

    @classmethod
    def draw(cls, random: np.random.RandomState) -> Speaker:
        """Low and high voices of about one and a half octaves; high ones have higher formants."""
        height = random.random_sample()
        formants = 0.95 + 0.2 * height + 0.04 * random.standard_normal()
        return cls(95 * 2 ** (1.4 * height), formants, random.standard_normal())


@dataclass(frozen=True)
class _Syllables:
    """When each syllable of a clip begins and ends, and how it is said; all `[S]`."""

    start_s: np.ndarray
    end_s: np.ndarray
    phrase: np.ndarray
    accent: np.ndarray
    vowel: np.ndarray

    def at(self, time_s: np.ndarray) -> np.ndarray:
        """The syllable at each time, or in a pause the one before; at the very begin the first."""
        return np.maximum(np.searchsorted(self.start_s, time_s, "right") - 1, 0)


def prosody(told: np.ndarray, levels: np.ndarray) -> np.ndarray:
    """How someone speaks, before chance.

    Args:
        told: `[7]`, 1 at one emotion.
        levels: `[5]` trait levels -2 .. 2.

    Returns:
        `[14]` in the order of `PROSODY`, logarithmic ones as logarithms.
    """
    table = np.array([EMOTION_PROSODY[emotion] for emotion in EMOTIONS], dtype=float)
    table[:, _IS_LOGARITHM] = np.log(table[:, _IS_LOGARITHM])
    effects = [[TRAIT_PROSODY[trait].get(name, 0.0) for name in PROSODY] for trait in TRAITS]
    return told @ table + levels @ np.array(effects)


def speak(
    told: np.ndarray, levels: np.ndarray, speaker: Speaker, random: np.random.RandomState
) -> np.ndarray:
    """A clip of 1.6 to 3.5 s, in whole hundredths.

    Args:
        told: `[7]` 0/1, the emotions told of; at least one.
        levels: `[5]` trait levels -2 .. 2.
        speaker: whose voice it is.
        random: of everything that the content leaves open.

    Returns:
        float32 `[n]` at `RATE`, within `PEAK`.
    """
    duration_s = SHORTEST_S + (LONGEST_S - SHORTEST_S) * random.random_sample()
    frames = int(duration_s / FRAME_S)
    voice = _voice(told, levels, random)
    syllables = _syllables(voice, frames * FRAME_S, random)
    time_s = (np.arange(frames) + 0.5) * FRAME_S
    tracks = _tracks(voice, syllables, speaker, time_s, random)
    sound = demo_voice.synthesise(tracks, random)
    phrase = syllables.phrase[syllables.at(time_s)]
    power = (sound**2).reshape(frames, HOP).mean(axis=1)
    # Each phrase gets the loudness that it shall have, whatever its vowels.
    spoken = tracks.voiced * (phrase == np.arange(PHRASES)[:, None])
    gains = 10 ** (voice["level"] / 20) * np.sqrt(spoken.sum(axis=1) / (spoken @ power))
    room = 10 ** ((ROOM_DB + 3 * random.standard_normal()) / 20)
    sound = demo_voice.per_sample(gains[phrase]) * sound
    sound += room * demo_voice.noise(len(sound), random)
    # Loud peaks are bent, not cut.
    return (sound / np.sqrt(1 + (sound / PEAK) ** 2)).astype(np.float32)


def _voice(
    told: np.ndarray, levels: np.ndarray, random: np.random.RandomState
) -> dict[str, np.ndarray]:
    """`PROSODY` name -> its value in each phrase, with this clip's chance."""
    emotions = np.eye(len(EMOTIONS))[random.permutation(np.flatnonzero(told))]
    chance = np.array(list(PROSODY.values())) * random.standard_normal(len(PROSODY))
    order = [emotions[phrase % len(emotions)] for phrase in range(PHRASES)]
    said = np.array([prosody(emotion, levels) for emotion in order]) + chance
    said[:, _IS_LOGARITHM] = np.exp(said[:, _IS_LOGARITHM])
    voice = {name: said[:, column] for column, name in enumerate(PROSODY)}
    voice["creak"] = np.clip(voice["creak"], 0, 0.9)
    voice["tremor"] = np.maximum(voice["tremor"], 0)
    return voice


def _syllables(
    voice: dict[str, np.ndarray], duration_s: float, random: np.random.RandomState
) -> _Syllables:
    pause_s = min(float(voice["pause"].mean()), 0.3 * duration_s)
    first = 0.4 + 0.2 * random.random_sample()
    begin_s = LEAD_S
    starts, ends, phrases = [], [], []
    for phrase, share in enumerate((first, 1 - first)):
        span_s = share * (duration_s - pause_s - 2 * LEAD_S)
        count = max(2, int(voice["rate"][phrase] * span_s + random.random_sample()))
        lengths = np.exp(voice["unevenness"][phrase] * random.standard_normal(count))
        lengths[-1] *= voice["final"][phrase]
        end_s = begin_s + np.cumsum(lengths) * span_s / lengths.sum()
        starts.append(np.concatenate([[begin_s], end_s[:-1]]))
        ends.append(end_s)
        phrases.append(np.full(count, phrase))
        begin_s += span_s + pause_s
    count = sum(map(len, phrases))
    return _Syllables(
        start_s=np.concatenate(starts),
        end_s=np.concatenate(ends),
        phrase=np.concatenate(phrases),
        accent=random.standard_normal(count),
        vowel=random.randint(len(VOWELS_HZ), size=count),
    )


def _tracks(
    voice: dict[str, np.ndarray],
    syllables: _Syllables,
    speaker: Speaker,
    time_s: np.ndarray,
    random: np.random.RandomState,
) -> demo_voice.Tracks:
    now = syllables.at(time_s)
    start_s, end_s, phrase = syllables.start_s[now], syllables.end_s[now], syllables.phrase[now]
    closure_s = np.minimum(0.05, 0.3 * (end_s - start_s))
    inside = (time_s >= start_s) & (time_s < end_s)
    rise = np.clip((time_s - start_s - closure_s) / voice["onset"][phrase], 0, 1)
    voiced = inside * rise * np.clip((end_s - time_s) / 0.04, 0, 1)
    closed = inside & (time_s < start_s + closure_s)
    semitones = _semitones(voice, syllables, phrase, time_s, random)
    centre_s = (syllables.start_s + syllables.end_s) / 2
    formants = VOWELS_HZ[syllables.vowel].T * speaker.formants
    return demo_voice.Tracks(
        pitch_hz=speaker.pitch_hz * 2 ** (semitones / 12),
        voiced=voiced,
        noise=voice["breath"][phrase] * voiced + 0.1 * closed,
        jitter=voice["jitter"][phrase],
        creak=voice["creak"][phrase],
        tilt=voice["tilt"][phrase] + speaker.tilt,
        formants_hz=np.stack([np.interp(time_s, centre_s, track) for track in formants], axis=1),
    )


def _semitones(
    voice: dict[str, np.ndarray],
    syllables: _Syllables,
    phrase: np.ndarray,
    time_s: np.ndarray,
    random: np.random.RandomState,
) -> np.ndarray:
    """`[F]` above the speaker's base: accents, a line through each phrase, tremor."""
    accents = np.interp(time_s, (syllables.start_s + syllables.end_s) / 2, syllables.accent)
    first = np.searchsorted(syllables.phrase, np.arange(PHRASES))
    last = np.append(first[1:], len(syllables.phrase)) - 1
    begin_s, end_s = syllables.start_s[first][phrase], syllables.end_s[last][phrase]
    place = np.clip((time_s - begin_s) / (end_s - begin_s), 0, 1) - 0.5
    tremor = np.sin(2 * np.pi * (TREMOR_HZ * time_s + random.random_sample()))
    return (
        voice["pitch"][phrase]
        + voice["range"][phrase] * accents
        + voice["slope"][phrase] * place
        + voice["tremor"][phrase] * tremor
    )


_IS_LOGARITHM = np.isin(list(PROSODY), _LOGARITHMS)
