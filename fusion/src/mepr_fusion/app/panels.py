"""The result page: one section per question, as HTML that needs nothing else."""

from __future__ import annotations

import html
import json
from collections.abc import Iterator
from urllib.parse import quote

from mepr_fusion.app import download
from mepr_fusion.app.explanation import FAR, KeyFrame
from mepr_fusion.app.figures import (
    colour,
    emotion_bars,
    picture_url,
    signed,
    timeline,
    trait_bars,
    waveform,
    words_of,
)
from mepr_fusion.app.numbers import attention, contributions, heatmap
from mepr_fusion.app.parts import note, section, table
from mepr_fusion.app.service import AppResult
from mepr_fusion.app.style import DOCUMENT, STYLE
from mepr_fusion.app.summary import RESPONSIBLE, cautions, headline, sentences

POLICY = "default-src 'none'; img-src data:; style-src 'unsafe-inline'"


def page(result: AppResult) -> str:
    """The sections for the app, downloads among them."""
    sections = [*_sections(result), _downloads(result)]
    return f'<style>{STYLE}</style><div class="mepr">{"".join(sections)}</div>'


def report(result: AppResult) -> str:
    """The same as a document of its own, without downloads."""
    title = html.escape(f"Emotions and apparent traits: {result.prediction.input.name}")
    return (
        '<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f'<meta http-equiv="Content-Security-Policy" content="{POLICY}">\n'
        f'<link rel="icon" href="data:,">\n<title>{title}</title>\n'
        f"<style>{DOCUMENT}{STYLE}</style>\n</head>\n<body>\n<main><h1>{title}</h1>\n"
        f'<div class="mepr alone">{"".join(_sections(result))}</div>\n</main>\n</body>\n</html>\n'
    )


def _sections(result: AppResult) -> Iterator[str]:
    prediction = result.prediction
    yield _summary(result)
    if prediction.emotion:
        bold = (
            "Bold: what is decided. Decisions weight rare emotions as in training, so that they "
            "may differ from the longest bar."
        )
        bars = emotion_bars(prediction.emotion)
        yield section("emotions", "Emotions", bars + note(bold))
    if prediction.traits:
        level = prediction.interval_level
        lines = (
            f"Lines: intervals that held {level:.0%} of the errors on validation clips."
            if level
            else "No intervals: the bundle knows too few validation errors."
        )
        yield section(
            "traits", "Apparent traits, 0 to 1", trait_bars(prediction.traits) + note(lines)
        )
    if prediction.windows:
        shown = "Darker is higher. Below, the window in which the target is highest is explained."
        drawn = (
            '<div class="scroll" tabindex="0" role="region" aria-label="timeline">'
            f'<div class="broad">{timeline(prediction.windows)}</div></div>'
        )
        yield section("timeline", "Over time", drawn + note(shown), wide=True)
    yield _key_frames(result)
    yield _speech(result)
    yield heatmap(result)
    yield contributions(result)
    yield attention(result)
    yield _inputs(result)


def _summary(result: AppResult) -> str:
    said = "".join(f"<p>{html.escape(sentence)}</p>" for sentence in sentences(result))
    warned = "".join(f'<p class="warn">{html.escape(line)}</p>' for line in cautions(result))
    return section(
        "summary",
        "In short",
        f'<p class="lead">{html.escape(headline(result))}</p>{said}{warned}{note(RESPONSIBLE)}',
        wide=True,
    )


def _key_frames(result: AppResult) -> str:
    explanation = result.explanation
    target = words_of(explanation.attribution.target)
    parts = []
    for name, frames in explanation.key_frames.items():
        shown = "".join(_frame(frame, number, target) for number, frame in enumerate(frames))
        if shown:
            parts.append(f'<h3>{html.escape(name)}</h3><div class="frames">{shown}</div>')
    body = "".join(parts) or "<p>No modality that looks had anything to look at.</p>"
    how = (
        f"The frames that move {target} most, with sign: {_up('raise')} it or {_down('lower')} it. "
        "Select one to enlarge it."
    )
    return section("key-frames", "Key frames", body + f'<p class="note">{how}</p>')


def _frame(frame: KeyFrame, number: int, target: str) -> str:
    if frame.picture is None:
        return ""
    name = html.escape(frame.modality)
    moved = signed(frame.contribution, 4)
    words = f"{name} at {frame.time_s:.1f} s, {moved} to {target}"
    image = f'<img src="{picture_url(frame.picture)}" alt="{words}">'
    place = f"frame-{name}-{number}"
    way = "up" if frame.contribution >= 0 else "down"
    return (
        f'<figure><button type="button" popovertarget="{place}" title="{words}">{image}</button>'
        f"<figcaption>{frame.time_s:.1f} s "
        f'<span class="{way}">{moved}</span></figcaption>'
        f'<div popover id="{place}">{image}<p>{words}</p>'
        f'<button type="button" popovertarget="{place}" popovertargetaction="hide">Close</button>'
        f"</div></figure>"
    )


def _speech(result: AppResult) -> str:
    transcript, explanation = result.prediction.transcript, result.explanation
    target = words_of(explanation.attribution.target)
    voices = {(p.start_s, p.end_s): p.voice for p in explanation.parts}
    marked = []
    for start, end, text in transcript.segments:
        voice = voices.get((start, end))
        said = f"{start:.1f} to {end:.1f} s: {text}"
        if voice is not None:
            said += f" (its sound: {signed(voice)} to {target})"
        marked.append((start, end, said))
    parts = [waveform(result.sound, marked) if result.sound else "<p>There is no sound.</p>"]
    source = {"asr": "Heard by " + str(transcript.model), "given": "Given", "srt": "From subtitles"}
    if explanation.words:
        most = max(abs(word.contribution) for word in explanation.words)
        spans = []
        for word in explanation.words:
            back, strong = colour(word.contribution, most)
            label = f"{word.text}: {signed(word.contribution)} to {target}"
            spans.append(
                f'<span{" class=strong" * strong} style="background:{back}" '
                f'title="{html.escape(label)}">{html.escape(word.text)}</span>'
            )
        parts.append(f'<p class="words" aria-label="transcript">{" ".join(spans)}</p>')
    elif transcript.text:
        parts.append(f'<p aria-label="transcript">{html.escape(transcript.text)}</p>')
    else:
        reason = transcript.reason or "no words were found"
        parts.append(f"<p>No transcript: {html.escape(reason)}.</p>")
    if transcript.text:
        language = f", language {transcript.language}" if transcript.language else ""
        sure = "" if transcript.confidence is None else f", confidence {transcript.confidence:.2f}"
        line = f"{source.get(transcript.source or '', '')}{language}{sure}."
        if explanation.words:
            line += f" Colour: what a word contributes to {target}; the sum is in the table below."
        parts.append(note(line))
    if explanation.parts and any(p.voice is not None for p in explanation.parts):
        rows = [
            [
                f"{p.start_s:.1f}\u2060\u2013\u2060{p.end_s:.1f}\u00a0s",
                p.text,
                signed(p.voice or 0.0),
            ]
            for p in explanation.parts
        ]
        head = ["speech", "words", f"its sound to {target}"]
        parts.append(table("Stretches of speech", head, rows, labels=2))
    return section("speech", "Sound and words", "".join(parts))


def _inputs(result: AppResult) -> str:
    prediction, explanation = result.prediction, result.explanation
    rows = []
    for name, answer in prediction.modalities.items():
        distance = explanation.distance.get(name)
        far = "" if distance is None else f"{distance:.2f}" + " \u26a0 unlike" * (distance > FAR)
        own = (
            max(answer.emotion.probabilities.items(), key=lambda p: p[1])
            if answer.emotion
            else None
        )
        rows.append(
            [
                name,
                answer.status.replace("_", " ") + (f": {answer.reason}" if answer.reason else ""),
                f"{own[0]}\u00a0{own[1]:.2f}" if own else "\u2013",
                far or "\u2013",
            ]
        )
    drawn = table("Modalities", ["", "what was found", "alone it says", "distance"], rows, labels=2)
    spent = ", ".join(f"{n} {s:.1f}" for n, s in prediction.seconds.items() if s >= 0.05)
    facts = (
        "Distance: root mean square of the standardised frames, or of the features that stage 3 "
        "reads where these are farther off; about 1 in training. "
        f"Beyond {FAR:g} (at most a quarter of the training clips) it is marked. "
        f"Read as a clip of {prediction.corpus}. Bundle {prediction.bundle}. Seconds: {spent}."
    )
    return section("inputs", "What was read", drawn + note(facts))


def _downloads(result: AppResult) -> str:
    stem = download.stem(result)
    links = []
    for suffix, kind, content, words in (
        ("json", "application/json", json.dumps(download.record(result), indent=1), "JSON"),
        ("csv", "text/csv", download.table(result), "CSV"),
        ("html", "text/html", report(result), "HTML report"),
    ):
        address = f"data:{kind};charset=utf-8,{quote(content)}"
        links.append(
            f'<a href="{address}" download="{html.escape(stem)}.{suffix}" '
            f'id="download-{suffix}">{words}</a>'
        )
    return section("downloads", "Download", f'<div class="links">{"".join(links)}</div>', wide=True)


def _up(word: str) -> str:
    return f'<span class="up">+ {word}</span>'


def _down(word: str) -> str:
    return f'<span class="down">\u2212 {word}</span>'
