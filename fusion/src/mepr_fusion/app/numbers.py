"""Panels of numbers: what moves each output, how it adds up, where attention goes."""

from __future__ import annotations

import html
from collections.abc import Sequence

import numpy as np

from mepr_fusion.analyze.attribution import GROUPS
from mepr_fusion.app.clip_attribution import Panel
from mepr_fusion.app.figures import colour, signed, words_of
from mepr_fusion.app.parts import note, section, table
from mepr_fusion.app.service import AppResult
from mepr_shared.labels import EMOTIONS

_SHORT = {
    "emotion_embedding": "emotion features",
    "trait_embedding": "trait features",
    "emotion_prediction": "own emotion",
    "trait_prediction": "own traits",
}


def heatmap(result: AppResult) -> str:
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
    return section(
        "attribution",
        "What moves each output",
        f'{scale}<div class="panels">{drawn}</div>{note(how)}',
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


def contributions(result: AppResult) -> str:
    found = result.explanation.attribution
    panel, target = found.chosen, words_of(found.target)
    rows = [["empty recording", f"{panel.baseline:.3f}", *[""] * len(GROUPS)]]
    for name, values in zip(found.modalities, panel.values.tolist(), strict=True):
        rows.append([name, signed(sum(values)), *map(signed, values)])
    rows.append(["rounding", signed(panel.residual), *[""] * len(GROUPS)])
    rows.append([target, f"{panel.value:.3f}", *[""] * len(GROUPS)])
    drawn = table(
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
    return section("contributions", "Where the number comes from", drawn + note(said), wide=True)


def attention(result: AppResult) -> str:
    weights, names = result.explanation.attention, list(result.modalities)
    parts = []
    if "graph" in weights:
        rows = [
            [name, *(f"{value:.2f}" for value in row)]
            for name, row in zip(names, weights["graph"].tolist(), strict=True)
            if sum(row) > 0
        ]
        caption = "Graph attention: how much each modality (row) takes from each (column)"
        parts.append(table(caption, ["", *names], rows))
    for task in ("emotion", "traits"):
        if task in weights:
            rows = [
                [f"query {number + 1}", *(f"{value:.2f}" for value in row)]
                for number, row in enumerate(weights[task].tolist())
            ]
            caption = f"Task query ({task}): how much it takes from each modality"
            parts.append(table(caption, ["", *names], rows))
    how = (
        "Attention says where information is taken from, not what it does to the answer: for that, "
        "see the contributions."
    )
    body = "".join(parts) or "<p>This model has no attention.</p>"
    return section("attention", "Attention weights", body + note(how))


def _present(result: AppResult) -> np.ndarray:
    found = result.explanation.attribution
    return np.array([name in found.frames for name in found.modalities])


def _baseline_words(baseline: dict[str, str]) -> str:
    kinds: dict[str, list[str]] = {}
    for name, words in baseline.items():
        kinds.setdefault(words, []).append(name)
    return "; ".join(f"every frame of {', '.join(names)}: {w}" for w, names in kinds.items())
