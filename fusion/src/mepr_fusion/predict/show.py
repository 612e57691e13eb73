"""A prediction for people: a compact table with bars."""

from __future__ import annotations

from mepr_fusion.predict.prediction import EmotionAnswer, InputFacts, Prediction, TraitScore

BAR = 24
_EIGHTHS = " ▏▎▍▌▋▊▉"
# Control characters of a file name must not reach the terminal.
_PLAIN = dict.fromkeys([*range(32), *range(127, 160)], "?")


def show(prediction: Prediction) -> str:
    """Text of many lines, without a line break at its end."""
    lines = [_title(prediction.input)]
    if prediction.emotion:
        lines += ["", f"emotion: {', '.join(prediction.emotion.present)}"]
        lines += _emotions(prediction.emotion)
    if prediction.traits:
        level = prediction.interval_level
        around = f" and the interval that holds {level:.0%} of errors" if level else ""
        lines += ["", f"apparent traits, from 0 to 1{around}"]
        lines += [_trait(name, trait) for name, trait in prediction.traits.items()]
    lines += ["", *_modalities(prediction)]
    transcript = prediction.transcript
    if transcript.text:
        source = {"asr": f"heard by {transcript.model}"}.get(transcript.source or "", "given")
        lines += ["", f"transcript ({source}): {_shortened(transcript.text, 300)}"]
    if prediction.windows:
        lines += ["", *_timeline(prediction)]
    lines += [f"note: {warning}" for warning in prediction.warnings]
    parts = [f"{name} {spent:.2f}" for name, spent in prediction.seconds.items() if spent >= 0.005]
    lines += ["", f"seconds: {', '.join(parts)}", prediction.note, ""]
    return "\n".join(lines)


def bar(share: float, width: int = BAR) -> str:
    """A bar that fills `share` in [0, 1] of `width` characters."""
    eighths = round(min(1.0, max(0.0, share)) * width * 8)
    whole, rest = divmod(eighths, 8)
    return ("█" * whole + (_EIGHTHS[rest] if rest else "")).ljust(width)


def _title(facts: InputFacts) -> str:
    parts = [facts.name.translate(_PLAIN), facts.kind]
    if facts.duration_s is not None:
        parts.append(f"{facts.duration_s:.1f} s")
    if facts.width:
        parts.append(f"{facts.width} x {facts.height}")
    if facts.audio_codec is None and facts.kind == "video":
        parts.append("no sound")
    return "  ".join(parts)


def _emotions(emotion: EmotionAnswer) -> list[str]:
    order = sorted(emotion.probabilities.items(), key=lambda pair: -pair[1])
    return [f"  {name:<20} {bar(value)} {value:.2f}" for name, value in order]


def _trait(name: str, trait: TraitScore) -> str:
    around = "" if trait.low is None else f"  [{trait.low:.2f}, {trait.high:.2f}]"
    return f"  {name:<20} {bar(trait.score)} {trait.score:.2f}{around}"


def _modalities(prediction: Prediction) -> list[str]:
    lines = []
    for name, answer in prediction.modalities.items():
        emotion = answer.emotion
        said = "-"
        if emotion:
            said = ", ".join(f"{e} {emotion.probabilities[e]:.2f}" for e in emotion.present)
        lines.append(f"  {name:<8} {answer.status:<12} {said:<18} {answer.reason}".rstrip())
    return lines


def _timeline(prediction: Prediction) -> list[str]:
    lines = [f"timeline of {len(prediction.windows)} windows"]
    for window in prediction.windows:
        said = "nothing to go by"
        if window.emotion:
            emotion = window.emotion
            said = ", ".join(f"{e} {emotion.probabilities[e]:.2f}" for e in emotion.present)
        lines.append(f"  {window.start_s:7.1f} - {window.end_s:7.1f} s  {said}")
    return lines


def _shortened(text: str, most: int) -> str:
    text = text.translate(_PLAIN)
    return text if len(text) <= most else text[: most - 1].rstrip() + "…"
