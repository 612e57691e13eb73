"""Export a run: predictions and embeddings of every sample of a corpus.

Usually that of stage 2. A modality with labels for one task alone (a corpus of voices has emotions
and no traits) exports its stage-1 run: the columns of the other task are null.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from mepr_shared.contract import (
    EmotionOutput,
    EncoderRef,
    Export,
    ExportInfo,
    ExportWriter,
    ModelInfo,
)
from mepr_shared.contract.files import sha256_json
from mepr_shared.contract.frames import FrameStore
from mepr_shared.contract.living import find_exports
from mepr_shared.contract.producer import producer
from mepr_shared.corpora.index import Corpus
from mepr_shared.errors import ConfigError, ContractError
from mepr_shared.labels import EmotionScale
from mepr_shared.train.clips import ClipSet, gather
from mepr_shared.train.evaluate_run import emotion_reading
from mepr_shared.train.inference import predict_clips
from mepr_shared.train.models import load_model
from mepr_shared.train.runs import Run
from mepr_shared.train.stages import fold_of


def export_run(
    run: Run,
    corpus: Corpus,
    store: FrameStore,
    out: Path,
    *,
    distribution: str,
    module: str,
    reuse: Export | None = None,
    fold_runs: Sequence[Run] = (),
    device: str = "cpu",
    part_rows: int = 65536,
    on_progress: Callable[[int, int], None] | None = None,
) -> tuple[Path, bool]:
    """Write one export of `corpus`.

    Args:
        distribution, module: the modality package that signs the export.
        reuse: an older export of the same run; unchanged rows are taken over.
        fold_runs: runs of the same kind of which number k held out group k of the sources;
            predictions for the training split then come from the run that never saw their source.
            Embeddings are always the full run's: those of fold models lie in spaces of their own.
        on_progress: called with (samples done, samples).

    Returns:
        the export's folder, and whether it was there already.

    Raises:
        ConfigError: not a finished stage-1 or stage-2 run, or the store is of another encoder.
    """
    if run.kind not in ("stage1", "stage2") or not run.metrics:
        raise ConfigError(
            f"{run.path} is not a finished stage-1 or stage-2 run", hint="train it to its end"
        )
    if run.config["encoder"] != dict(store.spec):
        raise ConfigError(
            f"{run.path} was trained on features of another encoder than {store.path} holds"
        )
    task = run.config.get("task")
    model = load_model(run, device)
    fold_models = [load_model(fold_run, device) for fold_run in fold_runs]
    clips = gather([corpus], [store])
    place = {sample_id: index for index, sample_id in enumerate(clips.sample_ids)}
    info = ExportInfo(
        modality=run.config["modality"],
        stage=run.kind,
        model=model_info(run),
        emotion_output=_emotion_output(run, corpus),
        train_rows="out_of_fold" if fold_runs else "in_sample",
        generated_by=[producer(distribution, module), producer("mepr-shared", "mepr_shared")],
    )
    writer = ExportWriter(
        out,
        corpus=corpus,
        info=info,
        part_rows=part_rows,
        reuse=reuse,
        source_sha256=source_hashes(corpus, store),
    )
    done = 0
    for index, sample_ids in writer.pending():
        usable = [place[s] for s in sample_ids if s in place]
        part = clips.subset(np.array(usable, dtype=np.int64))
        outputs = predict_clips(model, task, part, device=device)
        folds = _training_folds(corpus, part, len(fold_runs))
        for number, fold_model in enumerate(fold_models):
            held_out = np.flatnonzero(folds == number)
            unseen = predict_clips(fold_model, task, part.subset(held_out), device=device)
            for name in ("emotion_logits", "trait_logits"):
                if getattr(unseen, name) is not None:
                    getattr(outputs, name)[held_out] = getattr(unseen, name)
        writer.write_part(index, part_columns(sample_ids, part, outputs, folds, store))
        done += len(sample_ids)
        if on_progress:
            on_progress(done, len(corpus))
    return writer.commit(), writer.already_there


def _training_folds(corpus: Corpus, part: ClipSet, folds: int) -> np.ndarray:
    """`[n]` group of each clip of the training split; -1 elsewhere and without folds."""
    if not folds:
        return np.full(len(part), -1)
    split = dict(zip(corpus.sample_ids, corpus.splits, strict=True))
    training = np.array([split[sample_id] == "train" for sample_id in part.sample_ids], dtype=bool)
    return np.where(training, fold_of(part.source_ids, folds), -1)


def model_info(run: Run) -> ModelInfo:
    """The manifest's account of a run."""
    encoder = run.config["encoder"]
    keys = ("kind", "modality", "task", "settings", "stage1")
    described = {key: run.config[key] for key in keys if key in run.config}
    return ModelInfo(
        config=described,
        config_sha256=sha256_json(described),
        weights_sha256=hashlib.sha256(run.weights_path.read_bytes()).hexdigest(),
        encoder=EncoderRef(str(encoder["encoder"]), str(encoder.get("revision") or "") or None),
        seed=run.config["settings"]["fit"]["seed"],
        dev_metrics=run.metrics["val"],
    )


def part_columns(
    sample_ids: list[str], part: ClipSet, outputs: Any, folds: np.ndarray, store: FrameStore
) -> dict[str, Any]:
    """Columns of one part, aligned with `sample_ids`; samples without features hold nulls.

    Columns of a task that the run does not have are left out.
    """
    rows = store.row_of(sample_ids)
    at = {sample_id: index for index, sample_id in enumerate(part.sample_ids)}
    source = np.array([at.get(s, -1) for s in sample_ids])

    def spread(values: np.ndarray) -> np.ndarray:
        full = np.full((len(sample_ids), values.shape[1]), np.nan, dtype=np.float32)
        full[source >= 0] = values[source[source >= 0]]
        return full

    return {
        "status": store.status[rows].tolist(),
        "status_reason": [store.status_reason[row] for row in rows],
        "fold": [int(folds[i]) if i >= 0 and folds[i] >= 0 else None for i in source],
        **{
            name: spread(values.numpy())
            for name in ("emotion_logits", "trait_scores", "emotion_embedding", "trait_embedding")
            if (values := getattr(outputs, name)) is not None
        },
        "n_frames": store.lengths[rows].tolist(),
        "n_masked": [int((~store.frame_mask(row)).sum()) for row in rows],
        "source_sha256": [store.input_sha256[row] for row in rows],
    }


def newest_export_of(run: Run, corpus: Corpus, out: Path) -> Export | None:
    """The last export of this very run and corpus, for `--update`; None where there is none."""
    modality, info = run.config["modality"], model_info(run)
    same = [
        export
        for export in find_exports(out, corpus.name, modality)
        if export.manifest.model.weights_sha256 == info.weights_sha256
        and export.manifest.model.config_sha256 == info.config_sha256
    ]
    return max(same, key=lambda export: export.manifest.created_at, default=None)


def source_hashes(corpus: Corpus, store: FrameStore) -> dict[str, str]:
    """`sample_id -> hash` of the input that each row is computed from now."""
    rows = store.row_of(corpus.sample_ids)
    if (rows < 0).any():
        first = corpus.sample_ids[int(np.argmin(rows))]
        raise ContractError(
            f"{int((rows < 0).sum())} samples of {corpus.name} are not in {store.path}, "
            f"first {first!r}",
            hint="run extract on this corpus again",
        )
    return {
        sample_id: store.input_sha256[row]
        for sample_id, row in zip(corpus.sample_ids, rows, strict=True)
    }


def _emotion_output(run: Run, corpus: Corpus) -> EmotionOutput | None:
    """How logits are read: as for the corpus's own kind; without emotion labels, as trained."""
    outputs = run.metrics.get("emotion_outputs")
    if outputs is None:
        return None
    labelled = np.isfinite(corpus.emotion_values).any()
    default_scale = EmotionScale(
        "multi_label" if outputs["default"] == "sigmoid" else "single_label"
    )
    reading = emotion_reading(run, corpus.meta.scale if labelled else default_scale)
    return None if reading is None else EmotionOutput(**reading)
