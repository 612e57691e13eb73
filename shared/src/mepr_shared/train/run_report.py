"""`report.md` and figures of a stage-1 or stage-2 run."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from mepr_shared.labels import EMOTIONS
from mepr_shared.train.figures import save_confusion, save_curves, save_trait_scatter
from mepr_shared.train.runs import Run

EMOTION_SCORES = ("uar", "mwacc", "macro_f1", "weighted_f1")
TRAIT_SCORES = ("macc", "ccc", "ccc_flat", "r2")


def write_run_report(
    run: Run,
    evaluations: Sequence[Mapping[str, Any]],
    trait_pairs: tuple[np.ndarray, np.ndarray] | None,
) -> None:
    """Write `figures/*.png` and `report.md`.

    Args:
        evaluations: one validation record per corpus, from `evaluate_run`.
        trait_pairs: labels and scores `[N, 5]` of the validation clips with traits.
    """
    figures = run.path / "figures"
    figures.mkdir(exist_ok=True)
    save_curves(run.log, figures / "curves.png")
    pictures = ["![loss and validation scores over epochs](figures/curves.png)"]
    for record in evaluations:
        emotion = record["emotion"]
        if emotion and emotion.get("confusion"):
            name = f"confusion-{record['corpus']}.png"
            save_confusion(emotion["confusion"], EMOTIONS, figures / name)
            pictures.append(f"![confusion matrix on {record['corpus']}](figures/{name})")
    if trait_pairs is not None and len(trait_pairs[0]):
        save_trait_scatter(*trait_pairs, figures / "traits.png")
        pictures.append("![predicted against labelled traits](figures/traits.png)")
    metrics, config = run.metrics, run.config
    title = f"{config['modality']}, {run.kind}" + (
        f", {config['task']}" if "task" in config else ""
    )
    lines = [
        f"# {title}",
        "",
        f"Encoder `{config['encoder'].get('encoder')}`; "
        f"corpora {', '.join(c['name'] for c in config['corpora'])}; "
        f"epoch {metrics['best_epoch']} of {metrics['epochs']} chosen on validation; "
        f"seed {config['settings']['fit']['seed']}; "
        f"configurations tried: {config['settings'].get('configurations_tried', 1)}.",
        "",
        *score_table(evaluations),
        "",
        "Intervals: 95 %, bootstrap over sources. The constant row predicts the training split's "
        "majority emotion and mean traits.",
        "",
        *dropped_lines(evaluations),
        *pictures,
        "",
    ]
    (run.path / "report.md").write_text("\n".join(lines), "utf-8")


def score_table(evaluations: Sequence[Mapping[str, Any]]) -> list[str]:
    """Markdown table of the headline scores, with the constant baseline under each row."""
    columns = (*EMOTION_SCORES, *TRAIT_SCORES)
    lines = [
        "| corpus | split | n | row | " + " | ".join(columns) + " |",
        "|---|---|---|---|" + "---|" * len(columns),
    ]
    for record in evaluations:
        for row, tasks in (("model", record), ("constant", record["baseline"])):
            cells = [score_cell(tasks.get("emotion"), name) for name in EMOTION_SCORES]
            cells += [score_cell(tasks.get("traits"), name) for name in TRAIT_SCORES]
            lines.append(
                f"| {record['corpus']} | {record['split']} | {record['n']} | {row} | "
                + " | ".join(cells)
                + " |"
            )
    return lines


def dropped_lines(evaluations: Sequence[Mapping[str, Any]]) -> list[str]:
    """What was left out, per corpus, with reasons."""
    return [
        f"Dropped from {record['corpus']} {record['split']}: {record['n_dropped']}"
        + (
            f" ({', '.join(f'{k} {v}' for k, v in record['dropped'].items())})"
            * bool(record.get("dropped"))
        )
        + "\n"
        for record in evaluations
    ]


def score_cell(scores: Mapping[str, Any] | None, name: str) -> str:
    """One score with its interval where there is one; `-` where it is undefined."""
    if not scores or scores.get(name) is None:
        return "-"
    interval = (scores.get("ci") or {}).get(name)
    return f"{scores[name]:.4f}" + (f" [{interval[0]:.3f}, {interval[1]:.3f}]" if interval else "")
