"""Corpora, stage-2 runs and exports over toy modalities, made in a second; for tests."""

from __future__ import annotations

import dataclasses
import wave
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

from mepr_shared.config import to_dict
from mepr_shared.contract.frames import FrameStore
from mepr_shared.corpora.index import Corpus, CorpusMeta
from mepr_shared.extract.engine import extract_together
from mepr_shared.labels import EMOTIONS, EmotionScale
from mepr_shared.plugin import Extractor, Modality
from mepr_shared.testing.toy_modalities import WIDTH, ToyModality
from mepr_shared.train.checkpoint import save_weights
from mepr_shared.train.export_run import export_run
from mepr_shared.train.models import model_from_config
from mepr_shared.train.runs import Run
from mepr_shared.train.settings import CrossTaskSettings, ModelSettings

CLIPS = 40


def sound(path: Path, seconds: float = 0.2, seed: int = 0) -> Path:
    """A WAV file of noise, 8 kHz mono."""
    samples = np.random.default_rng(seed).normal(0, 3000, round(8000 * seconds))
    with wave.open(str(path), "wb") as file:
        file.setnchannels(1)
        file.setsampwidth(2)
        file.setframerate(8000)
        file.writeframes(samples.astype("<i2").tobytes())
    return path


def toy_corpus(
    folder: Path, name: str, *, multi_label: bool = False, traits: bool = True
) -> Corpus:
    """Clips with sound and text, some without; 20 train, 14 validate, 6 test."""
    random = np.random.default_rng(len(name))
    (folder / name).mkdir(parents=True, exist_ok=True)
    media = [
        str(sound(folder / name / f"{number:02d}.wav", seed=number)) if number % 5 else None
        for number in range(CLIPS)
    ]
    emotion = np.eye(len(EMOTIONS), dtype=np.float32)[random.integers(0, 7, CLIPS)]
    if multi_label:
        emotion = (random.random((CLIPS, 7)) < 0.4).astype(np.float32)
        emotion[:, 0] = emotion[:, 1:].sum(axis=1) == 0
    columns: dict[str, Any] = {
        "sample_id": [f"{name}{number:02d}" for number in range(CLIPS)],
        "source_id": [f"{name}-{number // 2}" for number in range(CLIPS)],
        "split": ["train"] * 20 + ["val"] * 14 + ["test"] * 6,
        "media": media,
        "text": [f"words of clip {number}" if number % 4 else None for number in range(CLIPS)],
        "emotion": emotion,
    }
    if traits:
        columns["traits"] = random.uniform(0.2, 0.8, (CLIPS, 5)).astype(np.float32)
    scale = EmotionScale("multi_label" if multi_label else "single_label")
    return Corpus.build(CorpusMeta(name, scale), columns).write(folder / f"{name}.parquet")


def toy_run(
    path: Path,
    modality: Modality,
    *,
    task: str | None = None,
    seed: int = 0,
    extractor: Extractor | None = None,
    width: int = WIDTH,
) -> Run:
    """A run with random weights: of stage 2, or with a task of stage 1.

    Args:
        extractor: the encoder it is for; the modality's own with default settings where None.
        width: of its features.
    """
    model = to_dict(ModelSettings(width=8, heads=2, feedforward=16))
    stage1 = {"settings": {"model": model}, "pretrained": None}
    opened = extractor or modality.open_extractor(modality.encoder_settings(), device="cpu")
    config: dict[str, Any] = {
        "modality": modality.name,
        "input_width": width,
        "encoder": dict(opened.spec),
        "corpora": [],
        "settings": {"model": model, "fit": {"seed": seed}},
    }
    if task:
        config["task"] = task
    else:
        config["settings"]["model"] = to_dict(CrossTaskSettings(width=8, heads=2))
        config["stage1"] = {"emotion": stage1, "traits": stage1}
    run = Run.create(path, kind="stage1" if task else "stage2", config=config)
    torch.manual_seed(seed)
    save_weights(model_from_config(run.config).state_dict(), run.path / "weights.safetensors")
    shift = np.linspace(-0.5, 0.5, 7).tolist()
    reading = {"prior_shift": shift, "temperature": 1.3, "thresholds": None}
    metrics: dict[str, Any] = {"val": {"score": 0.0}}
    if task != "traits":
        metrics["emotion_outputs"] = {
            "softmax": {"kind": "softmax", **reading},
            "sigmoid": {"kind": "sigmoid", **reading, "thresholds": [0.4] * 7},
            "default": "softmax",
        }
    run.finish(metrics)
    return run


def toy_exports(
    folder: Path, corpora: Sequence[Corpus], modalities: Sequence[ToyModality], **tasks: str
) -> dict[str, Run]:
    """Stores, runs and exports below a folder; gives the runs by modality.

    Args:
        tasks: modality -> the one task that it knows.
    """
    pairs: list[tuple[Modality, Extractor]] = [
        (m, m.open_extractor(m.encoder_settings(), device="cpu")) for m in modalities
    ]
    runs = {
        m.name: toy_run(
            folder / m.name / ("stage1" if m.name in tasks else "stage2"),
            m,
            task=tasks.get(m.name),
            seed=number,
        )
        for number, m in enumerate(modalities)
    }
    for corpus in corpora:
        extract_together(pairs, corpus, folder / "store")
        for modality in modalities:
            export_run(
                runs[modality.name],
                corpus,
                FrameStore.find(folder / "store", corpus.name, modality.name),
                folder / "exports",
                distribution="mepr-shared",
                module="mepr_shared",
            )
    for modality in modalities:
        modality.encoded.clear()
    return runs


def renamed(modality: ToyModality, **changes: Any) -> ToyModality:
    """Another modality, with lists of its own."""
    return dataclasses.replace(modality, encoded=[], heard=[], **changes)
