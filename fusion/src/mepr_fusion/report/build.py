"""The report of a stage-3 run: `report.html`, which is complete by itself, and `report.md`."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from mepr_fusion.evaluate import Evaluation
from mepr_fusion.report.baseline_store import linear_model_of
from mepr_fusion.report.blocks import Report, to_markdown
from mepr_fusion.report.html import to_html
from mepr_fusion.report.model_card import model_card
from mepr_fusion.report.rivals import with_rivals
from mepr_fusion.report.run_sections import run_sections
from mepr_fusion.report.score_sections import answered, answers_of, coverage_rows, score_sections
from mepr_fusion.report.words import verdict
from mepr_shared.train.run_report import EMOTION_SCORES, TRAIT_SCORES
from mepr_shared.train.runs import Run, replace_file

COLUMNS = (*EMOTION_SCORES, *TRAIT_SCORES)
HTML, MARKDOWN, CARD = "report.html", "report.md", "MODEL_CARD.md"


def write_report(
    evaluation: Evaluation,
    *,
    splits: Sequence[str] = ("val",),
    records: Sequence[Mapping[str, Any]] | None = None,
) -> Path:
    """Write `report.html`, `report.md` with `figures/*.png`, and `MODEL_CARD.md` into the run.

    Args:
        splits: which splits are scored. `test` only where somebody asks for it: looking at it
            while choosing is how results become too good.
        records: of `report_records`, where they are known already.

    Returns:
        The path of `report.md`; the others lie beside it.
    """
    run = evaluation.run
    records = report_records(evaluation, splits) if records is None else records
    report = build_report(evaluation, records)
    figures = run.path / "figures"
    figures.mkdir(exist_ok=True)
    for picture in report.pictures():
        replace_file(figures / f"{picture.name}.png", partial(_put, picture.png))
    _write(run, HTML, to_html(report))
    _write(run, CARD, model_card(evaluation, records))
    _write(run, MARKDOWN, to_markdown(report))
    return run.path / MARKDOWN


def report_records(evaluation: Evaluation, splits: Sequence[str]) -> list[dict[str, Any]]:
    """`Evaluation.scores` of the splits, with the linear baseline and all paired differences."""
    linear = linear_model_of(evaluation.run, evaluation.joined)
    return [
        with_rivals(evaluation, record, linear)
        for split in splits
        for record in evaluation.scores(split)
    ]


def build_report(evaluation: Evaluation, records: Sequence[Mapping[str, Any]]) -> Report:
    """What the report says, before it is written in some form."""
    run, metrics = evaluation.run, evaluation.run.metrics
    modalities = evaluation.joined.modalities
    settings = run.config["settings"]
    facts = [
        ("Corpora", ", ".join(evaluation.joined.corpora)),
        ("Modalities", ", ".join(modalities)),
        ("Epoch chosen", f"{metrics['best_epoch']} of {metrics['epochs']}"),
        ("Seed", str(settings["fit"]["seed"])),
        ("Configurations tried", str(metrics["configurations_tried"])),
        *((name, _said(settings[key])) for name, key in _CHOICES.items() if key in settings),
        *((("Trained on", str(metrics["device"])),) if "device" in metrics else ()),
    ]
    linear = linear_model_of(run, evaluation.joined)
    return Report(
        _TITLES.get(str(settings.get("mode")).rpartition(">")[2], _TITLES["multitask"]),
        *verdict(records, metrics, modalities),
        facts,
        [*score_sections(evaluation, records), *run_sections(evaluation, linear)],
    )


_TITLES = {
    "multitask": "Stage 3: emotions and apparent traits from all modalities",
    "emotion": "Stage 3: emotions from all modalities",
    "traits": "Stage 3: apparent traits from all modalities",
}
_CHOICES = {"Mode": "mode", "Weighting": "weighting", "Semi-supervised": "ssl"}


def score_rows(records: Iterable[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """The table of scores as records: stage 3, constant, each row that answers."""
    rows = []
    for record in records:
        for name, tasks in answers_of(record).items():
            values = {
                score: (tasks.get(task) or {}).get(score)
                for task, scores in (("emotion", EMOTION_SCORES), ("traits", TRAIT_SCORES))
                for score in scores
            }
            head = {"corpus": record["corpus"], "split": record["split"], "n": answered(tasks)}
            rows.append({**head, "row": name, **values})
    return rows


def coverage_lines(coverage: Iterable[Mapping[str, Any]]) -> list[str]:
    """The table of coverage in Markdown."""
    lines = ["| corpus | split | modality | samples | by status |", "|---|---|---|---|---|"]
    return lines + ["| " + " | ".join(row) + " |" for row in coverage_rows(coverage)]


def _said(value: Any) -> str:
    return ("on" if value else "off") if isinstance(value, bool) else str(value)


def _write(run: Run, name: str, text: str) -> None:
    replace_file(run.path / name, partial(_put, text.encode("utf-8")))


def _put(content: bytes, path: Path) -> None:
    path.write_bytes(content)
