"""The result page: one section per question, as HTML that needs nothing else."""

from __future__ import annotations

import html
import json
from collections.abc import Iterator, Sequence
from urllib.parse import quote

import numpy as np

from mepr_fusion.app import download
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
from mepr_fusion.app.service import AppResult
from mepr_fusion.app.style import DOCUMENT, STYLE
from mepr_fusion.app.summary import RESPONSIBLE, cautions, headline, sentences
from mepr_fusion.attribution import GROUPS
from mepr_fusion.clip_attribution import Panel
from mepr_fusion.explain_prediction import FAR, KeyFrame
from mepr_shared.labels import EMOTIONS

POLICY = "default-src 'none'; img-src data:; style-src 'unsafe-inline'"
_SHORT = {
    "emotion_embedding": "emotion features",
    "trait_embedding": "trait features",
    "emotion_prediction": "own emotion",
    "trait_prediction": "own traits",
}


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
        yield _section("emotions", "Emotions", bars + _note(bold))
    if prediction.traits:
        level = prediction.interval_level
        lines = (
            f"Lines: intervals that held {level:.0%} of the errors on validation clips."
            if level
            else "No intervals: the bundle knows too few validation errors."
        )
        yield _section(
            "traits", "Apparent traits, 0 to 1", trait_bars(prediction.traits) + _note(lines)
        )
    if prediction.windows:
        shown = "Darker is higher. Below, the window in which the target is highest is explained."
        drawn = (
            '<div class="scroll" tabindex="0" role="region" aria-label="timeline">'
            f'<div class="broad">{timeline(prediction.windows)}</div></div>'
        )
        yield _section("timeline", "Over time", drawn + _note(shown), wide=True)
    yield _key_frames(result)
    yield _speech(result)
    yield _heatmap(result)
    yield _contributions(result)
    yield _attention(result)
    yield _inputs(result)


def _summary(result: AppResult) -> str:
    said = "".join(f"<p>{html.escape(sentence)}</p>" for sentence in sentences(result))
    warned = "".join(f'<p class="warn">{html.escape(line)}</p>' for line in cautions(result))
    return _section(
        "summary",
        "In short",
        f'<p class="lead">{html.escape(headline(result))}</p>{said}{warned}{_note(RESPONSIBLE)}',
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
    return _section("key-frames", "Key frames", body + f'<p class="note">{how}</p>')


def _frame(frame: KeyFrame, number: int, target: str) -> str:
    if frame.picture is None:
        return ""
    name = html.escape(frame.modality)
    words = f"{name} at {frame.time_s:.1f} s, {signed(frame.contribution)} to {target}"
    image = f'<img src="{picture_url(frame.picture)}" alt="{words}">'
    place = f"frame-{name}-{number}"
    way = "up" if frame.contribution >= 0 else "down"
    return (
        f'<figure><button type="button" popovertarget="{place}" title="{words}">{image}</button>'
        f"<figcaption>{frame.time_s:.1f} s "
        f'<span class="{way}">{signed(frame.contribution)}</span></figcaption>'
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
        parts.append(_note(line))
    if explanation.parts and any(p.voice is not None for p in explanation.parts):
        rows = [
            [f"{p.start_s:.1f}\u2013{p.end_s:.1f}\u00a0s", p.text, signed(p.voice or 0.0)]
            for p in explanation.parts
        ]
        head = ["speech", "words", f"its sound to {target}"]
        parts.append(_table("Stretches of speech", head, rows, labels=2))
    return _section("speech", "Sound and words", "".join(parts))


def _heatmap(result: AppResult) -> str:
    found = result.explanation.attribution
    panels = list(found.panels.values())
    shown = [
        p
        for p in panels
        if p.target not in EMOTIONS or p.target == _emotion_of(panels, found.target)
    ]
    most = max(float(np.abs(panel.values).max()) for panel in shown)
    absent = ~_present(result)
    drawn = "".join(_heat(panel, found.modalities, absent, most) for panel in shown)
    scale = (
        '<div class="scale" role="img" aria-label="colour scale, white at zero"></div>'
        f'<div class="ends"><span>{signed(-most)}</span><span>0</span>'
        f"<span>{signed(most)}</span></div>"
    )
    how = (
        "Integrated gradients through all stages, in points of probability or score: how far each "
        "input moves the output from that of an empty recording "
        f"({html.escape(_baseline_words(found.baseline))}). One scale for all panels."
    )
    return _section(
        "attribution",
        "What moves each output",
        f'{scale}<div class="panels">{drawn}</div>{_note(how)}',
        wide=True,
    )


def _emotion_of(panels: Sequence[Panel], target: str) -> str | None:
    emotions = [panel.target for panel in panels if panel.target in EMOTIONS]
    return target if target in EMOTIONS else next(iter(emotions), None)


def _heat(panel: Panel, modalities: Sequence[str], absent: np.ndarray, most: float) -> str:
    head = "".join(f'<th scope="col">{_SHORT[group]}</th>' for group in GROUPS)
    rows = []
    for name, values, gone in zip(modalities, panel.values, absent, strict=True):
        cells = []
        for group, value in zip(GROUPS, values.tolist(), strict=True):
            label = f"{name}, {_SHORT[group]}, to {words_of(panel.target)}: "
            if gone:
                cells.append(f'<td class="none" title="{html.escape(label)}absent">\u00b7</td>')
                continue
            back, strong = colour(value, most)
            exact = f"{value:+.6f}".replace("-", "\u2212")
            cells.append(
                f'<td{" class=strong" * strong} style="background:{back}" '
                f'title="{html.escape(label)}{exact}">{signed(value)}</td>'
            )
        rows.append(f'<tr><th scope="row">{html.escape(name)}</th>{"".join(cells)}</tr>')
    said = f"{words_of(panel.target)}: {panel.baseline:.3f} \u2192 {panel.value:.3f}"
    return (
        f'<div class="scroll" tabindex="0" role="region" aria-label="contributions to '
        f'{words_of(panel.target)}"><table class="heat"><caption>{said}</caption><thead><tr>'
        f"<th></th>{head}</tr></thead><tbody>{''.join(rows)}</tbody></table></div>"
    )


def _contributions(result: AppResult) -> str:
    found = result.explanation.attribution
    panel, target = found.chosen, words_of(found.target)
    rows = [["empty recording", f"{panel.baseline:.3f}", *[""] * len(GROUPS)]]
    for name, values in zip(found.modalities, panel.values.tolist(), strict=True):
        rows.append([name, signed(sum(values)), *map(signed, values)])
    rows.append(["rounding", signed(panel.residual), *[""] * len(GROUPS)])
    rows.append([target, f"{panel.value:.3f}", *[""] * len(GROUPS)])
    table = _table(
        f"From an empty recording to {target}",
        ["", "sum", *(_SHORT[group] for group in GROUPS)],
        rows,
        total=len(rows) - 1,
    )
    check = result.explanation.deletion
    said = (
        f"The parts add up to the output within {found.completeness:.2%} of the difference. "
        f"Check on this recording: taking out the {check.count} frames and tokens that carry it "
        f"moves the output by {check.top:.3f}, taking out as many at random by {check.random:.3f}."
    )
    return _section("contributions", "Where the number comes from", table + _note(said), wide=True)


def _attention(result: AppResult) -> str:
    weights, names = result.explanation.attention, list(result.modalities)
    parts = []
    if "graph" in weights:
        rows = [
            [name, *(f"{value:.2f}" for value in row)]
            for name, row in zip(names, weights["graph"].tolist(), strict=True)
            if sum(row) > 0
        ]
        caption = "Graph attention: how much each modality (row) takes from each (column)"
        parts.append(_table(caption, ["", *names], rows))
    for task in ("emotion", "traits"):
        if task in weights:
            rows = [
                [f"query {number + 1}", *(f"{value:.2f}" for value in row)]
                for number, row in enumerate(weights[task].tolist())
            ]
            caption = f"Task query ({task}): how much it takes from each modality"
            parts.append(_table(caption, ["", *names], rows))
    how = (
        "Attention says where information is taken from, not what it does to the answer: for that, "
        "see the contributions."
    )
    body = "".join(parts) or "<p>This model has no attention.</p>"
    return _section("attention", "Attention weights", body + _note(how))


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
                f"{own[0]} {own[1]:.2f}" if own else "\u2013",
                far or "\u2013",
            ]
        )
    table = _table(
        "Modalities", ["", "what was found", "alone it says", "distance"], rows, labels=2
    )
    spent = ", ".join(f"{n} {s:.1f}" for n, s in prediction.seconds.items() if s >= 0.05)
    facts = (
        f"Distance: root mean square of the standardised features that stage 3 reads, about 1 in "
        f"training; beyond {FAR:g} (at most a quarter of the training clips) it is marked. "
        f"Read as a clip of {prediction.corpus}. Bundle {prediction.bundle}. Seconds: {spent}."
    )
    return _section("inputs", "What was read", table + _note(facts))


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
    return _section(
        "downloads", "Download", f'<div class="links">{"".join(links)}</div>', wide=True
    )


def _present(result: AppResult) -> np.ndarray:
    found = result.explanation.attribution
    return np.array([name in found.frames for name in found.modalities])


def _baseline_words(baseline: dict[str, str]) -> str:
    kinds: dict[str, list[str]] = {}
    for name, words in baseline.items():
        kinds.setdefault(words, []).append(name)
    return "; ".join(f"every frame of {', '.join(names)}: {w}" for w, names in kinds.items())


def _section(name: str, title: str, body: str, *, wide: bool = False) -> str:
    place = f"mepr-{name}"
    return (
        f'<section id="{place}" aria-labelledby="{place}-title"{" class=wide" * wide}>'
        f'<h2 id="{place}-title">{html.escape(title)}</h2>{body}</section>'
    )


def _note(text: str) -> str:
    return f'<p class="note">{html.escape(text, quote=False)}</p>'


def _up(word: str) -> str:
    return f'<span class="up">+ {word}</span>'


def _down(word: str) -> str:
    return f'<span class="down">\u2212 {word}</span>'


def _table(
    caption: str,
    head: Sequence[str],
    rows: Sequence[Sequence[str]],
    *,
    labels: int = 1,
    total: int | None = None,
) -> str:
    """A table that scrolls by itself where it is too wide."""

    def cell(tag: str, column: int, text: str) -> str:
        style = ' class="label"' if column < labels else ""
        return f"<{tag}{style}>{html.escape(text)}</{tag}>"

    top = "".join(cell("th", column, text) for column, text in enumerate(head))
    body = "".join(
        f"<tr{' class=total' * (number == total)}>"
        + "".join(cell("td", column, text) for column, text in enumerate(row))
        + "</tr>"
        for number, row in enumerate(rows)
    )
    said = html.escape(caption)
    return (
        f'<div class="scroll" tabindex="0" role="region" aria-label="{said}"><table>'
        f"<caption>{said}</caption><thead><tr>{top}</tr></thead><tbody>{body}</tbody></table></div>"
    )
