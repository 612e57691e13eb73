"""`MODEL_CARD.md` of a run, in the form that Hugging Face reads.

Form: https://huggingface.co/docs/hub/model-cards (Mitchell et al. 2019, "Model cards for model
reporting"). The licence of a model is its owner's to choose, so none is stated.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from mepr_fusion.evaluate import Evaluation
from mepr_fusion.report.blocks import plain
from mepr_fusion.report.run_sections import dropped_text
from mepr_fusion.report.score_sections import STAGE3, answers_of
from mepr_fusion.report.words import headline, verdict
from mepr_shared.labels import EMOTIONS, TRAITS
from mepr_shared.train.run_report import score_cell

# Licences of the encoders that the packages name as defaults, as their model pages state them.
LICENCES = {
    "audeering/wav2vec2-large-robust-12-ft-emotion-msp-dim": "CC BY-NC-SA 4.0: research only",
    "BAAI/bge-small-en-v1.5": "MIT",
    "openai/clip-vit-base-patch32": "MIT (code); see its page for the intended use",
}
TAGS = ("emotion-recognition", "personality-traits", "multimodal", "multi-task", "mepr")


def model_card(evaluation: Evaluation, records: Sequence[Mapping[str, Any]]) -> str:
    """The card's text: YAML front matter and Markdown.

    Args:
        evaluation: of the run.
        records: of `report.report_records`.
    """
    run, joined = evaluation.run, evaluation.joined
    settings, metrics = run.config["settings"], run.metrics
    said = verdict(records, metrics, joined.modalities)
    parts = [
        *_front_matter(evaluation, records),
        f"# MEPR stage 3: {plain(', '.join(joined.modalities))}",
        "",
        f"**{plain(said[0])}** {plain(said[1])}",
        "",
        "## Intended use",
        "",
        f"For research: it estimates emotions ({', '.join(EMOTIONS)}) and apparent Big-Five "
        f"traits ({', '.join(TRAITS).replace('_', ' ')}; scores in [0, 1]) from the exports of "
        "other models, one per modality. Any non-empty subset of its modalities is enough.",
        "",
        "## What it is not",
        "",
        "- The traits are *apparent* personality: how strangers judged a person in a short clip. "
        "They are no diagnosis, and no measure of character, ability or suitability.",
        "- Not for decisions about people: hiring, admission, credit, insurance, policing.",
        "- Emotion inference at work and in education is prohibited in the European Union since "
        "February 2025 (AI Act, Article 5(1)(f)).",
        "",
        "## Training data",
        "",
        *_data(evaluation),
        "",
        "## Modalities and their encoders",
        "",
        *_encoders(evaluation),
        "",
        "## Results",
        "",
        *_results(records),
        "",
        "## Limitations",
        "",
        *_limitations(evaluation, records),
        "",
        "## How it was made",
        "",
        f"- Seed {settings['fit']['seed']}; epoch {metrics['best_epoch']} of {metrics['epochs']}, "
        f"chosen on validation; configurations tried: {metrics['configurations_tried']}.",
        "- Versions: " + ", ".join(f"{k} {v}" for k, v in run.config["versions"].items()) + ".",
        "- Exports: "
        + ", ".join(f"`{place}` `{key}`" for place, key in sorted(run.config["exports"].items())),
        "",
        "## How to load it",
        "",
        "```python",
        "from pathlib import Path",
        "",
        "from mepr_fusion.evaluate import Evaluation",
        "from mepr_shared.train.runs import Run",
        "",
        'evaluation = Evaluation(Run.load(Path("RUN")))  # model, and the samples it was made of',
        'outputs = evaluation.outputs("fusion", evaluation.joined.select(split="val"))',
        "```",
        "",
    ]
    return "\n".join(parts)


def _front_matter(evaluation: Evaluation, records: Sequence[Mapping[str, Any]]) -> Iterator[str]:
    """YAML whose values are written as JSON, which is YAML that needs no quoting rules."""
    yield from ("---", "# license: yours to choose, within the licences of encoders and corpora")
    yield "library_name: mepr-fusion"
    yield "tags: " + json.dumps([*TAGS, *evaluation.joined.modalities])
    yield "datasets: " + json.dumps(list(evaluation.joined.corpora))
    scores = [
        (record, task, score)
        for record in records
        for task in ("emotion", "traits")
        if (score := headline(task, record[task]))
    ]
    yield "metrics: " + json.dumps(sorted({score for _, _, score in scores}))
    yield "model-index:"
    yield "- name: mepr-stage3"
    yield "  results:" + ("" if scores else " []")
    for record, task, score in scores:
        yield "  - task: " + json.dumps({"type": "other", "name": task})
        data = {"type": record["corpus"], "name": record["corpus"], "split": record["split"]}
        yield "    dataset: " + json.dumps(data)
        yield "    metrics:"
        yield "    - " + json.dumps({"type": score, "value": record[task][score]})
    yield from ("---", "")


def _data(evaluation: Evaluation) -> Iterator[str]:
    joined, samples = evaluation.joined, evaluation.run.metrics["samples"]
    yield "| corpus | version | licence | emotion labels | training | validation | test |"
    yield "|---|---|---|---|---:|---:|---:|"
    for corpus in evaluation.inputs.corpora:
        counts = samples[corpus.name]
        cells = [
            corpus.name,
            corpus.meta.version,
            corpus.meta.licence or "not stated",
            corpus.meta.scale.kind.replace("_", " "),
            *(str(counts.get(split, 0)) for split in ("train", "val", "test")),
        ]
        yield "| " + " | ".join(map(plain, cells)) + " |"
    yield ""
    yield plain(dropped_text(evaluation.run.metrics["dropped"]))
    hidden = evaluation.run.config["settings"].get("hidden_labels")
    if hidden:
        yield f"Training did not see {hidden:.0%} of its labels."
    yield f"Samples with several modalities: {int((joined.present.sum(axis=1) > 1).sum())}."


def _encoders(evaluation: Evaluation) -> Iterator[str]:
    yield "| modality | corpus | stage | encoder | revision | licence | export |"
    yield "|---|---|---|---|---|---|---|"
    for (modality, corpus), export in sorted(evaluation.inputs.exports.items()):
        manifest = export.manifest
        encoder = manifest.model.encoder
        name = encoder.id if encoder else "not stated"
        stated = manifest.model.config.get("licence") or LICENCES.get(name)
        cells = [
            modality,
            corpus,
            manifest.stage,
            name,
            (encoder.revision if encoder else None) or "-",
            str(stated or "not stated in the export"),
        ]
        yield "| " + " | ".join(map(plain, cells)) + f" | `{export.export_id}` |"


def _results(records: Sequence[Mapping[str, Any]]) -> Iterator[str]:
    yield "| corpus | split | task | score | " + STAGE3 + " | constant | best modality alone |"
    yield "|---|---|---|---|---:|---:|---:|"
    for record in records:
        for task in ("emotion", "traits"):
            score = headline(task, record[task])
            if score is None:
                continue
            rows = answers_of(record)
            best = (record["best_single"] or {}).get(task)
            alone = "-"
            if best:
                found = score_cell(rows[best["modality"]].get(task), score)
                alone = f"{best['modality']} {found}"
            cells = [
                *(record["corpus"], record["split"], task, score),
                score_cell(record[task], score),
                score_cell(rows["constant"].get(task), score),
                alone,
            ]
            yield "| " + " | ".join(map(plain, cells)) + " |"
    yield ""
    yield "Intervals: 95 %, bootstrap over sources. All rows are in `report.html`."


def _limitations(evaluation: Evaluation, records: Sequence[Mapping[str, Any]]) -> Iterator[str]:
    joined = evaluation.joined
    for index, modality in enumerate(joined.modalities):
        share = 1 - float(joined.present[:, index].mean())
        if share > 0:
            yield f"- {plain(modality)} is missing for {share:.0%} of the samples."
    for record in records:
        unseen = record.get("unseen_sources")
        if unseen is not None and unseen["n"] < record["n"]:
            yield (
                f"- {plain(record['corpus'])} {record['split']}: {record['n'] - unseen['n']} of "
                f"{record['n']} samples come from sources that training has seen."
            )
    in_sample = sorted(
        {
            modality
            for (modality, _), export in evaluation.inputs.exports.items()
            if export.manifest.train_rows == "in_sample"
        }
    )
    if in_sample:
        yield (
            f"- The exports of {plain(', '.join(in_sample))} are in-sample: their models had "
            "learned from the training rows themselves, so what stage 3 saw there was more certain "
            "than what it sees elsewhere."
        )
    yield (
        "- Labels are the judgements of a few annotators of certain countries and languages; "
        "errors may differ between groups of people (`mepr-fusion evaluate --by group_...`)."
    )
    for warning in evaluation.run.metrics["warnings"]:
        yield f"- {plain(warning)}"
