"""Speed and memory of audio: log-mel of RAVDESS, one hour in bounded memory, a wav2vec2-large.

    python tools/bench.py audio

The wav2vec2-large has random weights and is loaded from a folder, the way real ones are. RAVDESS
is measured where MEPR_REAL_DATA points to a folder with its files in `ravdess/flac/`.
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
import wave
from pathlib import Path
from typing import Any

import numpy as np

RATE, ROUNDS = 16_000, 3
HOUR_S, MINUTE_S = 3600, 60
# Clips of a wav2vec2-large batch, in seconds: of like length, as the extractor batches them.
CLIPS_S = (3.4, 3.6, 3.8, 3.9)


def run() -> list[dict[str, Any]]:
    """Rows `name, value, unit, reference, ratio`."""
    rows = []
    real = os.environ.get("MEPR_REAL_DATA")
    if real and (Path(real) / "ravdess/flac").is_dir():
        speed = statistics.median(_in_process("logmel", real)["speed"] for _ in range(ROUNDS))
        rows.append(_row("log-mel of RAVDESS from FLAC", speed, "x real time", 150, speed / 150))
    with tempfile.TemporaryDirectory() as folder:
        for seconds in (MINUTE_S, HOUR_S):
            _speech_like(Path(folder) / f"{seconds}.wav", seconds)
        for kind in ("logmel", "whisper", "wav2vec2"):
            peak = {s: _in_process("memory", kind, folder, str(s)) for s in (MINUTE_S, HOUR_S)}
            more = peak[HOUR_S]["megabytes"] - peak[MINUTE_S]["megabytes"]
            what = f"one hour of {kind} more than one minute"
            rows.append(_row(what, more, "MB", 300, 300 / max(more, 1e-9)))
        seek = _in_process("seek", folder)["seconds"]
        rows.append(_row("5 s from the end of one hour", seek, "s", 0.3, 0.3 / seek))
    rows += _large()
    return rows


def _large() -> list[dict[str, Any]]:
    """Batched in the precision that `auto` chooses here, beside float32 clip by clip."""
    found: dict[str, list[float]] = {"auto": [], "single": []}
    cosine = 1.0
    for _ in range(ROUNDS):
        result = _in_process("large")
        cosine = min(cosine, result["cosine"])
        for which, speeds in found.items():
            speeds.append(result[which])
    auto, single = (statistics.median(speeds) for speeds in found.values())
    return [
        _row("wav2vec2-large, batched", auto, "x real time", 8, auto / 8),
        _row("wav2vec2-large, batched / float32 one by one", auto / single, "", 2.5,
             auto / single / 2.5),
        _row("cosine of the two", cosine, "", 0.999, cosine / 0.999),
    ]  # fmt: skip


def _row(name: str, value: float, unit: str, reference: float, ratio: float) -> dict[str, Any]:
    return {"name": name, "value": value, "unit": unit, "reference": reference, "ratio": ratio}


def _in_process(*words: str) -> dict[str, float]:
    command = [sys.executable, __file__, "--measure", *words]
    return json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout)


def _speech_like(path: Path, seconds: int) -> None:
    random = np.random.default_rng(0)
    time_s = np.arange(10 * RATE) / RATE
    block = 0.3 * np.sin(2 * np.pi * 160 * time_s) * np.sin(9 * time_s)
    with wave.open(str(path), "wb") as file:
        file.setnchannels(1)
        file.setsampwidth(2)
        file.setframerate(RATE)
        for _ in range(seconds // 10):
            samples = block + 0.02 * random.standard_normal(len(block))
            file.writeframes((samples * 32767).astype("<i2").tobytes())


def measure_logmel(real: str) -> dict[str, float]:
    """Times real time of decoding and encoding, clips in batches as the engine gives them."""
    from mepr_audio.plugin import AUDIO, AudioEncoderSettings
    from mepr_shared.plugin import ClipInput

    extractor = AUDIO.open_extractor(AudioEncoderSettings("logmel"), device="cpu")
    files = sorted((Path(real) / "ravdess/flac").glob("*.flac"))
    clips = [ClipInput(file.stem, media=file) for file in files]
    started, frames = time.perf_counter(), 0
    for first in range(0, len(clips), extractor.batch_clips):
        for features in extractor.extract(clips[first : first + extractor.batch_clips]):
            frames += 0 if features.frames is None else len(features.frames)
    return {"speed": frames * 0.01 / (time.perf_counter() - started)}


def measure_memory(kind: str, folder: str, seconds: str) -> dict[str, float]:
    """Peak resident memory of an extraction into a frame store."""
    import resource

    from mepr_audio.plugin import AUDIO, AudioEncoderSettings
    from mepr_shared.corpora.index import Corpus, CorpusMeta
    from mepr_shared.extract.engine import extract_corpus

    columns = {
        "sample_id": ["clip"],
        "split": ["train"],
        "source_id": ["clip"],
        "media": [str(Path(folder) / f"{seconds}.wav")],
    }
    corpus = Corpus.build(CorpusMeta("long"), columns)
    encoder = "logmel" if kind == "logmel" else str(_random_model(kind, Path(folder)))
    # Small batches: a wav2vec2's activations for two minutes of audio dwarf what is looked for.
    settings = AudioEncoderSettings(encoder, batch_s=30)
    extractor = AUDIO.open_extractor(settings, device="cpu")
    with tempfile.TemporaryDirectory() as store:
        summary = extract_corpus(AUDIO, extractor, corpus, Path(store))
        assert dict(summary.statuses) == {"ok": 1}, summary.problems
    return {"megabytes": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024}


def measure_seek(folder: str) -> dict[str, float]:
    """Seconds to read five seconds from the end of one hour, the file's name being all one has."""
    from mepr_shared.media.waveform import read_waveform

    path = Path(folder) / f"{HOUR_S}.wav"
    read_waveform(path, start_s=1.0, end_s=2.0)  # imports PyAV
    times = []
    for _ in range(5):
        started = time.perf_counter()
        found = read_waveform(path, start_s=HOUR_S - 6.0, end_s=HOUR_S - 1.0)
        times.append(time.perf_counter() - started)
        assert found.duration_s == 5.0
    return {"seconds": statistics.median(times)}


def measure_large() -> dict[str, float]:
    """Times real time, batched in automatic precision and clip by clip in float32."""
    from mepr_audio.encoders import open_encoder
    from mepr_audio.plugin import AudioEncoderSettings
    from mepr_shared.train.loop import uses_bf16

    random = np.random.default_rng(0)
    waves = [random.standard_normal(int(s * RATE)).astype(np.float32) * 0.1 for s in CLIPS_S]
    with tempfile.TemporaryDirectory() as folder:
        settings = AudioEncoderSettings(str(_random_model("large", Path(folder))))
        quick = open_encoder(settings, device="cpu", bf16=uses_bf16("auto", "cpu")).encoder
        plain = open_encoder(settings, device="cpu", bf16=False).encoder
    inputs = [(wave, plain.measure([wave])) for wave in waves]
    plain.encode(inputs[:1]), quick.encode(inputs[:1])
    started = time.perf_counter()
    together = quick.encode(inputs)
    middle = time.perf_counter()
    single = [plain.encode([one])[0] for one in inputs]
    ended = time.perf_counter()
    cosines = [
        ((a * b).sum(1) / np.linalg.norm(a, axis=1) / np.linalg.norm(b, axis=1)).mean()
        for a, b in zip(together, single, strict=True)
    ]
    return {
        "auto": sum(CLIPS_S) / (middle - started),
        "single": sum(CLIPS_S) / (ended - middle),
        "cosine": float(min(cosines)),
    }


def _random_model(kind: str, folder: Path) -> Path:
    """A model with random weights, written once by `save_pretrained`."""
    import torch
    from transformers import Wav2Vec2Config, Wav2Vec2Model, WhisperConfig, WhisperModel

    path = folder / kind
    if path.is_dir():
        return path
    torch.manual_seed(0)
    raw: dict[str, Any] = {"feat_extract_norm": "layer", "do_stable_layer_norm": True}
    if kind == "large":
        sizes = {"hidden_size": 1024, "num_attention_heads": 16, "intermediate_size": 4096}
        # 12 of wav2vec2-large-robust's 24 layers, as the published encoder has.
        config = Wav2Vec2Config(**raw, **sizes, num_hidden_layers=12)
        Wav2Vec2Model(config).save_pretrained(path)
    elif kind == "wav2vec2":
        sizes = {"hidden_size": 64, "num_attention_heads": 2, "intermediate_size": 128}
        small = Wav2Vec2Config(**raw, **sizes, num_hidden_layers=2, conv_dim=(32,) * 7)
        Wav2Vec2Model(small).save_pretrained(path)
    else:
        sizes = {"d_model": 384, "encoder_attention_heads": 6, "encoder_ffn_dim": 1536}
        WhisperModel(WhisperConfig(**sizes, encoder_layers=4)).save_pretrained(path)
    return path


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--measure", nargs="+", metavar="WHAT")
    chosen = parser.parse_args().measure
    if chosen:
        print(json.dumps(globals()[f"measure_{chosen[0]}"](*chosen[1:])))
    else:
        for row in run():
            print(json.dumps(row))
