"""The sections of a report that come from scores: tables and figures per corpus and split."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

from mepr_fusion.evaluate import Evaluation
from mepr_fusion.report import figures
from mepr_fusion.report.blocks import Block, Paragraph, Section, Table
from mepr_fusion.report.words import TASK_WORDS, headline, signed
from mepr_shared.train.run_report import EMOTION_SCORES, TRAIT_SCORES, score_cell

STAGE3 = "stage 3"
COUNTS = ("n", "support")
SCORES = {"emotion": EMOTION_SCORES, "traits": TRAIT_SCORES}


def answers_of(record: Mapping[str, Any]) -> dict[str, Mapping[str, Any]]:
    """Row name -> its scores per task: stage 3, constant, every baseline that answers something.

    Modalities without an answer to any labelled sample are left out; coverage counts them.
    """
    others = {name: tasks for name, tasks in record["modalities"].items() if answered(tasks)}
    return {STAGE3: record, "constant": record["baseline"], **others}


def answered(tasks: Mapping[str, Any]) -> int:
    """Labelled samples that a row answers; a modality alone answers fewer than stage 3."""
    return max((tasks.get(task) or {}).get("n", 0) for task in ("emotion", "traits"))


def score_sections(evaluation: Evaluation, records: Sequence[Mapping[str, Any]]) -> list[Section]:
    """Scores, differences, unseen sources, classes and traits."""
    scores: list[Block] = []
    differences: list[Block] = []
    unseen: list[Block] = []
    details: list[Block] = []
    for record in records:
        shown = {task: score for task in SCORES if (score := headline(task, record[task]))}
        if shown:
            scores.append(figures.draw_scores(record, answers_of(record), shown))
        scores.append(_score_table(record))
        differences += list(_difference_tables(record))
        unseen += list(_unseen(record))
        details += list(_details(evaluation, record))
    scores.append(
        Paragraph(
            "Intervals: 95 %, bootstrap over sources; a row with fewer samples could answer only "
            "these. constant: the training split's majority emotion and mean traits. "
            "unimodal_mean: mean of the modalities' predictions. embeddings_linear: logistic and "
            "ridge regression on the embeddings of all modalities. A dash: not defined here.",
            "note",
        )
    )
    differences.append(
        Paragraph(
            "Paired: both answer the same samples, and the same sources are drawn for both. An "
            "interval that includes 0 shows no difference.",
            "note",
        )
    )
    return [
        Section("Scores", scores),
        Section("Stage 3 less what it must beat", differences),
        Section("Sources that training has not seen", unseen),
        Section("Emotions and traits one by one", details),
    ]


def _columns(record: Mapping[str, Any]) -> list[tuple[str, str]]:
    """`(task, score)` of all scores that stage 3 has here."""
    return [(task, score) for task in SCORES for score in _defined(record, task)]


def _defined(record: Mapping[str, Any], task: str) -> list[str]:
    """The scores of a task; UAR only where there is no mWACC, which then is the same."""
    scores = record[task] or {}
    found = [name for name in SCORES[task] if scores.get(name) is not None]
    return [name for name in found if name != "uar" or "mwacc" not in found]


def _place(record: Mapping[str, Any]) -> str:
    return f"{record['corpus']} {record['split']}"


def _score_table(record: Mapping[str, Any]) -> Table:
    columns = _columns(record)
    tasks_here = list(dict.fromkeys(task for task, _ in columns))
    rows = [
        [
            name,
            *(str((tasks.get(task) or {}).get("n", 0)) for task in tasks_here),
            *(score_cell(tasks.get(task), score) for task, score in columns),
        ]
        for name, tasks in answers_of(record).items()
    ]
    head = ["row", *(f"n {task}" for task in tasks_here), *(score for _, score in columns)]
    return Table(f"Scores on {_place(record)}", head, rows, marked=frozenset({0}))


def _difference_tables(record: Mapping[str, Any]) -> Iterator[Block]:
    for task in SCORES:
        rivals = dict(record["differences"][task])
        best = (record["best_single"] or {}).get(task)
        if best and best.get("difference"):
            rivals = {f"the best modality alone ({best['modality']})": best["difference"], **rivals}
        columns = _defined(record, task)
        if rivals and columns:
            rows = [
                [f"less {name}", str(found["n"]), *(signed(found.get(score)) for score in columns)]
                for name, found in rivals.items()
            ]
            caption = f"{_place(record)}, {TASK_WORDS[task]}: stage 3"
            yield Table(caption, ["stage 3", "n", *columns], rows)


def _unseen(record: Mapping[str, Any]) -> Iterator[Block]:
    found = record.get("unseen_sources")
    if found is None:
        return
    if found["n"] == record["n"]:
        yield Paragraph(f"{_place(record)}: no source occurs in training.")
    elif not found["n"]:
        yield Paragraph(f"{_place(record)}: every source occurs in training as well.")
    else:
        columns = _columns(record)
        rows = [
            [name, str(count), *(score_cell(tasks.get(task), score) for task, score in columns)]
            for name, count, tasks in (
                ("all samples", record["n"], record),
                ("unseen sources", found["n"], found),
                ("constant, unseen sources", found["n"], found.get("baseline") or {}),
            )
        ]
        caption = f"{_place(record)}: stage 3 on samples whose source is not in training"
        yield Table(caption, ["samples", "n", *(score for _, score in columns)], rows)


def _details(evaluation: Evaluation, record: Mapping[str, Any]) -> Iterator[Block]:
    emotion, traits = record["emotion"], record["traits"]
    if emotion:
        if emotion.get("confusion"):
            yield figures.draw_confusion(record)
        yield _one_by_one(f"{_place(record)}: each emotion", "emotion", emotion, "per_class")
    if traits:
        rows = evaluation.joined.select(split=record["split"], corpus=record["corpus"])
        said = evaluation.outputs("fusion", rows).trait_scores
        yield figures.draw_traits(record, evaluation.joined.trait_targets[rows], said)
        yield _one_by_one(f"{_place(record)}: each trait", "trait", traits, "per_trait")


def _one_by_one(caption: str, kind: str, scores: Mapping[str, Any], table: str) -> Table:
    entries: Mapping[str, Mapping[str, Any]] = scores[table]
    intervals = (scores.get("ci") or {}).get(table) or {}
    columns = list(dict.fromkeys(name for entry in entries.values() for name in entry))
    rows = [
        [
            row.replace("_", " "),
            *(
                str(int(entry[name] or 0))
                if name in COUNTS
                else score_cell({name: entry.get(name), "ci": intervals.get(row) or {}}, name)
                for name in columns
            ),
        ]
        for row, entry in entries.items()
    ]
    return Table(caption, [kind, *(name.replace("_", " ") for name in columns)], rows)


def coverage_rows(coverage: Iterable[Mapping[str, Any]]) -> list[list[str]]:
    """How many samples each modality has, per corpus and split; the rest by status."""
    table: dict[tuple[str, str, str], dict[str, int]] = defaultdict(dict)
    for entry in coverage:
        key = (entry["corpus"], entry["split"] or "-", entry["modality"])
        table[key][entry["status"]] = entry["samples"]
    return [
        [
            *key,
            str(sum(statuses.values())),
            ", ".join(f"{status} {count}" for status, count in sorted(statuses.items())),
        ]
        for key, statuses in sorted(table.items())
    ]
