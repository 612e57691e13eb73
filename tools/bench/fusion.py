"""Stage 3: cost of a training step, of an epoch, and of joining a million samples.

A step is measured as the loop takes it (semi-supervised, GradNorm, clipping, Adam, teacher) beside
the same objective written out plainly (`tools/plain_fusion.py`) and beside the bare forward,
backward and Adam of the same model; they take turns in one process. The join is over
MEPR_BENCH_JOIN samples (default 50,000; 1,000,000 needs 2 GB of disk and some minutes to prepare),
the limits are those for a million.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

THREADS = 2
WIDTHS = {"audio": 2048, "body": 1024, "face": 1536, "scene": 512, "text": 512}
STEPS, EPOCH_SAMPLES = 96, 22_000
ROUNDS = 5
JOIN_SAMPLES = int(os.environ.get("MEPR_BENCH_JOIN", "50000"))
JOIN_WIDTH = 64
JOIN_SECONDS, JOIN_GIGABYTES, EPOCH_GIGABYTES = 90.0, 6.0, 3.0
OF_PLAIN, OF_BARE = 0.45, 1.8  # limits of a step's cost


def run() -> list[dict[str, Any]]:
    """Rows of times and of peaks of the resident set."""
    step = _in_process("step")
    epoch = _in_process("epoch")
    with tempfile.TemporaryDirectory() as folder:
        _in_process("prepare", folder)
        join = _in_process("join", folder)
        again = _in_process("join", folder)
    share = JOIN_SAMPLES / 1_000_000
    expected = epoch["steps"] * epoch["step"]
    rows = [
        ("step, against the same objective written out plainly", "ms", step["ours"], step["plain"]),
        (f"step, as a share of that, limit {OF_PLAIN}", "", step["of_plain"], OF_PLAIN),
        ("step, against forward, backward and Adam alone", "ms", step["ours"], step["bare"]),
        (f"step, as a multiple of that, limit {OF_BARE}", "", step["of_bare"], OF_BARE),
        ("epoch of 22,000 samples, against steps x step cost", "s", epoch["seconds"], expected),
        ("epoch of 22,000 samples, peak memory", "GB", epoch["gigabytes"], EPOCH_GIGABYTES),
        (f"join of {JOIN_SAMPLES} x 5", "s", join["seconds"], JOIN_SECONDS * share),
        (f"join of {JOIN_SAMPLES} x 5, peak memory", "GB", join["gigabytes"], JOIN_GIGABYTES),
        (f"joined table of {JOIN_SAMPLES} x 5, opened", "s", again["seconds"], join["seconds"]),
    ]
    return [
        {
            "name": f"stage 3: {name}",
            "value": value,
            "unit": unit,
            "reference": reference,
            "ratio": reference / value,
        }
        for name, unit, value, reference in rows
    ]


def _in_process(what: str, *arguments: str) -> dict[str, float]:
    command = [sys.executable, __file__, "--measure", what, *arguments]
    done = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True)
    return json.loads(done.stdout)


def table(samples: int, split: float = 0.1) -> Any:
    """A joined table of random numbers: half of the emotions, a quarter of the traits and a fifth
    of the modalities missing, the last `split` of the samples for validation."""
    import numpy as np

    from mepr_fusion.join import Joined

    random = np.random.default_rng(0)
    present = random.random((samples, len(WIDTHS))) > 0.2
    present[:, 0] |= ~present.any(axis=1)
    emotion = np.eye(7, dtype=np.float32)[random.integers(0, 7, samples)]
    traits = random.random((samples, 5), dtype=np.float32)
    # Every sample has a label of one task at least: the batches then hold 32 samples.
    missing = random.random((samples, 2)) < (0.5, 0.5)
    missing[:, 1] &= ~missing[:, 0]
    emotion[missing[:, 0]], traits[missing[:, 1]] = np.nan, np.nan
    logits = random.standard_normal((samples, len(WIDTHS), 7), dtype=np.float32)
    scores = random.random((samples, len(WIDTHS), 5), dtype=np.float32)
    logits[~present], scores[~present] = np.nan, np.nan
    splits = np.full(samples, "train", dtype=object)
    splits[int(samples * (1 - split)) :] = "val"
    return Joined(
        modalities=tuple(WIDTHS),
        widths={name: (width // 2, width // 2) for name, width in WIDTHS.items()},
        corpora=("random",),
        corpus_of=np.zeros(samples, np.int32),
        rows=np.arange(samples),
        splits=splits,
        source_ids=np.array([f"s{i}" for i in range(samples)], dtype=object),
        features={
            name: random.standard_normal((samples, width), dtype=np.float32)
            for name, width in WIDTHS.items()
        },
        emotion_predictions=logits,
        trait_predictions=scores,
        present=present,
        emotion_targets=emotion,
        trait_targets=traits,
        multi_label=np.zeros(samples, dtype=bool),
        prior_shift=np.zeros((1, 7), np.float32),
    )


def real_task(samples: int) -> tuple[Any, Any]:
    """The task as `train` makes it, and its settings; semi-supervised, with GradNorm."""
    import torch

    from mepr_fusion.data import fit_statistics, resident, standardise
    from mepr_fusion.model import FusionModel
    from mepr_fusion.settings import FusionSemiSettings, FusionSettings
    from mepr_fusion.task import FusionTask
    from mepr_fusion.train import build_objective
    from mepr_shared.labels import EmotionScale
    from mepr_shared.train.settings import FitSettings, TraitLossSettings

    settings = FusionSettings(
        ssl=True,
        weighting="gradnorm",
        semi=FusionSemiSettings(warmup=0),
        trait_loss=TraitLossSettings("mse"),
        fit=FitSettings(
            batch_size=32, optimiser="adam", learning_rate=1e-4, scheduler="none", epochs=1
        ),
    )
    torch.manual_seed(0)
    joined = table(samples)
    model = FusionModel(WIDTHS, width=256, heads=8, dropout=0.2, modality_dropout=0.2)
    data = resident(joined, "cpu")
    fit_statistics(model, data, torch.from_numpy(joined.select(split="train")))
    data = standardise(model, data)
    scales = {"random": EmotionScale()}
    objective = build_objective(settings, joined, joined.emotion_targets)
    return FusionTask(model, data, joined, scales, objective, settings), settings


def measure_step() -> dict[str, float]:
    """Milliseconds per step of the three, medians of interleaved rounds."""
    import torch

    sys.path.insert(0, str(Path(__file__).parents[1]))
    from plain_fusion import PlainModel, PlainTraining

    from mepr_fusion.layers import drop_modalities
    from mepr_shared.train.loop import _train_epoch
    from mepr_shared.train.optim import build_optimiser, build_scheduler

    torch.set_num_threads(THREADS)
    task, settings = real_task(int(STEPS * 32 / 0.9) + 1)
    optimiser = build_optimiser(task.model, settings.fit)
    scheduler = build_scheduler(optimiser, settings.fit, 1)
    plain = PlainTraining(PlainModel(WIDTHS, 256, 8, 0.2))
    bare_model = real_task(64)[0].fusion.train()
    bare_adam = torch.optim.Adam(bare_model.parameters(), lr=1e-4, fused=True)
    rows = torch.from_numpy(task.train_rows).split(32)

    def ours(epoch: int) -> int:
        _train_epoch(task, epoch, optimiser, scheduler, None, settings.fit, "cpu", None)
        return task.steps_per_epoch

    # Once per epoch, whatever its length: it is part of the epoch's figure instead.
    task.teaching.begin_epoch()
    task.teaching.begin_epoch = lambda: None

    def plainly(epoch: int) -> int:
        for part in rows[: STEPS // 4]:
            batch = task.data[part]
            plain.step(batch, drop_modalities(batch.present, 0.2))
        return STEPS // 4

    def bare(epoch: int) -> int:
        for part in rows[: STEPS // 2]:
            batch = task.data[part]
            bare_adam.zero_grad(set_to_none=True)
            present = drop_modalities(batch.present, 0.2)
            trunk = bare_model.trunk(batch.features, present)
            output = bare_model.branches(
                trunk, trunk.shared, trunk.shared, *batch.inputs[1:3], present
            )
            loss = output.emotion_logits.square().mean() + output.trait_scores.square().mean()
            loss.backward()
            bare_adam.step()
        return STEPS // 2

    found: dict[str, list[float]] = {"ours": [], "plain": [], "bare": []}
    for epoch in range(1, ROUNDS + 2):
        for name, steps in (("ours", ours), ("plain", plainly), ("bare", bare)):
            started = time.perf_counter()
            count = steps(epoch)
            found[name].append(1000 * (time.perf_counter() - started) / count)
    # The first round warms up; ratios are of the same round, for the machine may be busy.
    kept = {name: values[1:] for name, values in found.items()}
    medians = {name: statistics.median(values) for name, values in kept.items()}
    for name in ("plain", "bare"):
        pairs = zip(kept["ours"], kept[name], strict=True)
        medians[f"of_{name}"] = statistics.median(mine / other for mine, other in pairs)
    return medians


def measure_epoch() -> dict[str, float]:
    """Seconds and peak of an epoch, and the step cost measured before and after it."""
    import torch

    from mepr_shared.train.loop import _train_epoch
    from mepr_shared.train.optim import build_optimiser, build_scheduler

    torch.set_num_threads(THREADS)
    task, settings = real_task(int(EPOCH_SAMPLES / 0.9) + 1)
    optimiser = build_optimiser(task.model, settings.fit)
    scheduler = build_scheduler(optimiser, settings.fit, 1)
    every, rounds = task.train_rows, []

    def seconds(rows: Any, epoch: int) -> float:
        task.train_rows = rows
        started = time.perf_counter()
        _train_epoch(task, epoch, optimiser, scheduler, None, settings.fit, "cpu", None)
        return time.perf_counter() - started

    short, begin = every[: 32 * STEPS], task.teaching.begin_epoch
    begin()
    task.teaching.begin_epoch = lambda: None
    seconds(short, 1)
    rounds.append(seconds(short, 2) / STEPS)
    task.teaching.begin_epoch = begin
    whole = seconds(every, 3)
    task.teaching.begin_epoch = lambda: None
    rounds.append(seconds(short, 4) / STEPS)
    return {
        "seconds": whole,
        "steps": -(-len(every) // 32),
        "step": statistics.mean(rounds),
        "gigabytes": _peak_gigabytes(),
    }


def prepare(folder: Path) -> dict[str, float]:
    """A corpus of random labels and exports of five modalities under `folder`."""
    import numpy as np

    from mepr_shared.contract import EmotionOutput, ExportInfo, ExportWriter
    from mepr_shared.corpora.index import Corpus, CorpusMeta

    random = np.random.default_rng(0)
    emotion = np.eye(7, dtype=np.float32)[random.integers(0, 7, JOIN_SAMPLES)]
    columns = {
        "sample_id": [f"clip{i:08d}" for i in range(JOIN_SAMPLES)],
        "source_id": [f"source{i // 5:08d}" for i in range(JOIN_SAMPLES)],
        "split": np.array(["train", "train", "val", "test"])[np.arange(JOIN_SAMPLES) // 5 % 4],
        "emotion": emotion,
        "traits": random.random((JOIN_SAMPLES, 5), dtype=np.float32),
    }
    corpus = Corpus.build(CorpusMeta("random"), columns).write(folder / "random.parquet")
    info = {"emotion_output": EmotionOutput("softmax")}
    for modality in WIDTHS:
        info_here = ExportInfo(modality, "stage2", **info)  # type: ignore[arg-type]
        writer = ExportWriter(folder / "exports", corpus=corpus, info=info_here)
        for index, ids in writer.pending():
            gone = random.random(len(ids)) < 0.2
            shapes = {"emotion_logits": 7, "trait_scores": 5}
            shapes |= dict.fromkeys(("emotion_embedding", "trait_embedding"), JOIN_WIDTH // 2)
            values: dict[str, Any] = {
                name: random.random((len(ids), width), dtype=np.float32)
                for name, width in shapes.items()
            }
            for array in values.values():
                array[gone] = np.nan
            status = ["no_media" if absent else "ok" for absent in gone]
            writer.write_part(index, {"status": status, **values})
        writer.commit()
    return {}


def measure_join(folder: Path) -> dict[str, float]:
    """Seconds and peak of `join_once`: the first time it joins, later it opens the table."""
    from mepr_fusion import packed
    from mepr_fusion.inputs import choose
    from mepr_fusion.join import multi_label_by_corpus

    packed.SMALLEST_BYTES = 0
    inputs = choose([folder / "random.parquet"], folder / "exports", {})
    kinds = multi_label_by_corpus(inputs.corpora)
    started = time.perf_counter()
    packed.join_once(inputs, folder / "exports", prior_shift={}, multi_label=kinds)
    return {"seconds": time.perf_counter() - started, "gigabytes": _peak_gigabytes()}


def _peak_gigabytes() -> float:
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith("VmHWM:"):
            return int(line.split()[1]) / 1024**2
    raise OSError("no VmHWM in /proc/self/status")


def main() -> None:
    """Measure one thing and print it as JSON."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--measure", nargs="+", metavar="WHAT", required=True)
    what, *folder = parser.parse_args().measure
    functions: dict[str, Any] = {
        "step": measure_step,
        "epoch": measure_epoch,
        "prepare": prepare,
        "join": measure_join,
    }
    print(json.dumps(functions[what](*map(Path, folder))))


if __name__ == "__main__":
    main()
