"""The answer in plain language, with how far it can be trusted."""

from __future__ import annotations

from mepr_fusion.app.figures import words_of
from mepr_fusion.app.service import AppResult, total_contribution
from mepr_fusion.predict.prediction import EmotionAnswer, Prediction, TraitScore
from mepr_shared.labels import TRAITS

CLEAR, LEANING = 0.7, 0.45
RESPONSIBLE = (
    "This is apparent personality: how strangers would judge the person from this recording alone. "
    "It is not a diagnosis and no statement about who the person is. Emotions are those shown, "
    "not those felt. Inferring emotions at work and in education is prohibited in the European "
    "Union."
)


def headline(result: AppResult) -> str:
    """One sentence with the main result."""
    prediction = result.prediction
    if prediction.emotion:
        return _emotion(prediction.emotion)
    return _traits(prediction) or "The model gives no answer to this recording."


def sentences(result: AppResult) -> list[str]:
    """What follows the headline, in order."""
    prediction = result.prediction
    said = [_traits(prediction) if prediction.emotion else "", _reasons(result), _missing(result)]
    return [sentence for sentence in said if sentence]


def cautions(result: AppResult) -> list[str]:
    """What a reader must know before the numbers are used."""
    found = list(result.prediction.warnings)
    far = result.explanation.unfamiliar
    if far:
        listed = ", ".join(
            f"{name} ({result.explanation.distance[name]:.1f} times the usual distance)"
            for name in far
        )
        found.insert(
            0,
            f"This recording is unlike the training data in {listed}: "
            "the answer may be far off, more than the intervals say.",
        )
    return found


def _emotion(emotion: EmotionAnswer) -> str:
    ranked = sorted(emotion.probabilities.items(), key=lambda pair: -pair[1])
    (first, top), (second, next_best) = ranked[:2]
    if emotion.output == "sigmoid":
        named = ", ".join(f"{name} ({emotion.probabilities[name]:.0%})" for name in emotion.present)
        return f"The recording shows {named}, as far as the model can tell."
    others = f"{first} ({top:.0%}) before {second} ({next_best:.0%})"
    if top >= CLEAR:
        return f"The recording most likely shows {first} (probability {top:.0%})."
    if top >= LEANING:
        return f"The recording leans towards {others}; that is a preference, not a certainty."
    return f"No emotion stands out: {others}. Take this as undecided."


def _traits(prediction: Prediction) -> str:
    if not prediction.traits:
        return ""
    high = [words_of(n) for n, t in prediction.traits.items() if _side(t) > 0]
    low = [words_of(n) for n, t in prediction.traits.items() if _side(t) < 0]
    parts = []
    if high:
        parts.append(f"above the middle of the scale in {_and(high)}")
    if low:
        parts.append(f"below it in {_and(low)}" if high else f"below the middle in {_and(low)}")
    level = prediction.interval_level
    held = f" (intervals hold {level:.0%} of the errors on validation clips)" if level else ""
    if not parts:
        return (
            "None of the five apparent traits is distinguishable from the middle of the scale: "
            f"every interval contains it{held}."
        )
    rest = len(TRAITS) - len(high) - len(low)
    others = f"; the other {rest} cannot be told from it" if rest else ""
    return f"Strangers would probably judge the person {' and '.join(parts)}{others}{held}."


def _side(trait: TraitScore) -> int:
    """1 or -1 where the whole interval lies on one side of the middle."""
    low = trait.score if trait.low is None else trait.low
    high = trait.score if trait.high is None else trait.high
    return int(low > 0.5) - int(high < 0.5)


def _reasons(result: AppResult) -> str:
    totals = total_contribution(result)
    target = words_of(result.explanation.attribution.target)
    rising = [n for n, v in sorted(totals.items(), key=lambda pair: -pair[1]) if v > 0.002]
    falling = [n for n, v in sorted(totals.items(), key=lambda pair: pair[1]) if v < -0.002]
    parts = []
    if rising:
        parts.append(f"{_and(rising[:2])} speak{'s' * (len(rising[:2]) == 1)} for {target} most")
    if falling:
        verb = f"speak{'s' * (len(falling[:2]) == 1)}"
        parts.append(f"{_and(falling[:2])} {verb} against {'it' if rising else target}")
    if not parts:
        return f"No modality moves {target} noticeably from where an empty recording is."
    text = ", ".join(parts)
    return text[0].upper() + text[1:] + "."


def _missing(result: AppResult) -> str:
    usable = ("ok", "partial")
    missing = [
        f"{name} ({answer.reason or answer.status.replace('_', ' ')})"
        for name, answer in result.prediction.modalities.items()
        if answer.status not in usable
    ]
    return f"Not used: {'; '.join(missing)}." if missing else ""


def _and(words: list[str]) -> str:
    return words[0] if len(words) == 1 else ", ".join(words[:-1]) + " and " + words[-1]
