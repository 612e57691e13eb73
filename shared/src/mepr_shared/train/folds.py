"""Fold models for out-of-fold exports: the training again without one group of sources each."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from mepr_shared.config import build
from mepr_shared.contract.frames import FrameStore
from mepr_shared.corpora.index import Corpus
from mepr_shared.errors import ConfigError
from mepr_shared.plugin import Modality
from mepr_shared.train.runs import Run
from mepr_shared.train.settings import Stage1Settings, Stage2Settings
from mepr_shared.train.stages import HeldOut, train_stage1, train_stage2


def train_folds(
    run: Run,
    modality: Modality,
    corpora: Sequence[Corpus],
    stores: Sequence[FrameStore],
    folds: int,
    *,
    device: str = "cpu",
    say: Callable[[str], None] = lambda text: None,
) -> list[Run]:
    """Train the run's recipe K times, each time without the sources of one group.

    The fold runs lie in `RUN/folds-K/k/{stage1-emotion,stage1-traits,stage2}` and are reused.
    They are trained without varied copies of the clips, if the full run had any.

    Args:
        run: the full stage-2 run, or a stage-1 run that is exported by itself.
        corpora, stores: all that the run and its stage-1 runs were trained on.
        folds: K, at least 2.
        say: is told which fold is trained.

    Raises:
        ConfigError: fewer than 2 folds, or a training corpus is not given.
    """
    if folds < 2:
        raise ConfigError(f"--folds {folds}: out-of-fold rows need at least 2 folds")
    runs = []
    for fold in range(folds):
        say(f"fold {fold + 1} of {folds}")
        folder = run.path / f"folds-{folds}" / str(fold)
        parts: dict[str, Any] = {"held_out": HeldOut(fold, folds), "device": device, "resume": True}
        if run.kind == "stage1":
            task = run.config["task"]
            used = _used(run.config["corpora"], corpora, stores, run)
            settings = build(Stage1Settings, run.config["settings"])
            path = folder / f"stage1-{task}"
            runs.append(train_stage1(modality, task, *used, settings, path, **parts))
            continue
        stage1 = {}
        for task, origin in run.config["stage1"].items():
            settings = build(Stage1Settings, origin["settings"])
            used = _used(origin["corpora"], corpora, stores, run)
            stage1[task] = train_stage1(
                modality, task, *used, settings, folder / f"stage1-{task}", **parts
            )
        runs.append(
            train_stage2(
                modality,
                stage1["emotion"],
                stage1["traits"],
                *_used(run.config["corpora"], corpora, stores, run),
                build(Stage2Settings, run.config["settings"]),
                folder / "stage2",
                **parts,
            )
        )
    return runs


def _used(
    wanted: Sequence[dict[str, Any]],
    corpora: Sequence[Corpus],
    stores: Sequence[FrameStore],
    run: Run,
) -> tuple[list[Corpus], list[FrameStore]]:
    given = {corpus.name: (corpus, store) for corpus, store in zip(corpora, stores, strict=True)}
    missing = [entry["name"] for entry in wanted if entry["name"] not in given]
    if missing:
        raise ConfigError(
            f"out-of-fold rows of {run.path} need all corpora it was trained on; missing: "
            + ", ".join(missing),
            hint="give each with --corpus",
        )
    pairs = [given[entry["name"]] for entry in wanted]
    return [corpus for corpus, _ in pairs], [store for _, store in pairs]
