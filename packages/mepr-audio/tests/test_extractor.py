"""From media files to frames: long clips, bad clips, varied copies."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from mepr_audio.augment import vary
from mepr_audio.encoder import HELD_S, AudioExtractor
from mepr_audio.plugin import AudioEncoderSettings
from mepr_shared.contract.frames import FrameStore
from mepr_shared.corpora.index import Corpus, CorpusMeta
from mepr_shared.errors import ConfigError
from mepr_shared.extract.engine import extract_corpus
from mepr_shared.plugin import ClipInput
from mepr_shared.train.predict import collected

RATE = 16_000
KINDS = ("wav2vec2-layer", "wav2vec2-stable", "logmel", "whisper")


def opened(models: dict[str, Path], name: str, **settings) -> AudioExtractor:
    chosen = AudioEncoderSettings(str(models.get(name, name)), **settings)
    return AudioExtractor.open(chosen, device="cpu")


def cosine(a: np.ndarray, b: np.ndarray) -> float:
    """Mean over frames."""
    norms = np.linalg.norm(a, axis=1) * np.linalg.norm(b, axis=1)
    return float(((a * b).sum(axis=1) / norms).mean())


@pytest.mark.parametrize("name", ["wav2vec2-layer", "wav2vec2-stable", "logmel"])
def test_chunked_equals_unchunked(models, voice, write_wav, name: str) -> None:
    clip = ClipInput("long", media=write_wav(voice(60.0)))
    (whole,) = opened(models, name, chunk_s=100).extract([clip])
    (cut,) = opened(models, name, chunk_s=20).extract([clip])
    assert whole.frames is not None and cut.frames is not None
    assert whole.frames.shape == cut.frames.shape
    assert cosine(whole.frames, cut.frames) >= 0.999


@pytest.mark.parametrize("name", KINDS)
def test_streamed_equals_held(models, voice, write_wav, name: str, monkeypatch) -> None:
    clip = ClipInput("long", media=write_wav(voice(47.3)))
    extractor = opened(models, name, chunk_s=10, pool=3, batch_s=20)
    (held,) = extractor.extract([clip])
    monkeypatch.setattr("mepr_audio.encoder.HELD_S", 5.0)
    (long,) = extractor.extract([clip])
    assert long.frames is None and long.stream is not None
    streamed = collected(long)
    assert (streamed.status, streamed.hop_s) == (held.status, held.hop_s)
    np.testing.assert_allclose(streamed.frames, held.frames, atol=2e-3)


def test_a_long_clip_reaches_the_store(models, voice, write_wav, tmp_path, monkeypatch) -> None:
    monkeypatch.setattr("mepr_audio.encoder.HELD_S", 5.0)
    media = [write_wav(voice(t, i), f"{i}.wav") for i, t in enumerate((12.0, 1.0))]
    silent = write_wav(np.zeros(8 * RATE, np.float32), "silent.wav")
    columns = {
        "sample_id": ["a", "b", "c"],
        "split": ["train"] * 3,
        "source_id": ["a", "b", "c"],
        "media": [str(path) for path in (*media, silent)],
    }
    corpus = Corpus.build(CorpusMeta("long"), columns)
    from mepr_audio.plugin import AUDIO

    extractor = opened(models, "logmel")
    summary = extract_corpus(AUDIO, extractor, corpus, tmp_path / "store")
    store = FrameStore.open(summary.store)
    assert store.lengths.tolist() == [1200, 100, 0]
    assert store.status.tolist() == ["ok", "ok", "no_audio"]
    assert store.hop_s[0] == pytest.approx(0.01)
    (held,) = extractor.extract([ClipInput("b", media=media[1])])
    np.testing.assert_allclose(store.read(1), held.frames, atol=2e-3)


def test_group_norm_clips_do_not_see_each_other(models, voice, write_wav) -> None:
    extractor = opened(models, "wav2vec2-group")
    clips = [
        ClipInput(str(i), media=write_wav(voice(t, i), f"{i}.wav"))
        for i, t in enumerate((0.8, 1.1, 0.8))
    ]
    for clip, together in zip(clips, extractor.extract(clips), strict=True):
        (alone,) = extractor.extract([clip])
        np.testing.assert_allclose(together.frames, alone.frames, atol=1e-4)


def test_segments_are_parts_of_the_file(models, voice, write_wav) -> None:
    wave = voice(3.0)
    extractor = opened(models, "whisper")
    whole = ClipInput("whole", media=write_wav(wave))
    part = replace(whole, sample_id="part", start_s=1.0, end_s=2.2)
    cut = ClipInput("cut", media=write_wav(wave[RATE : int(2.2 * RATE)], "cut.wav"))
    found = extractor.extract([whole, part, cut])
    np.testing.assert_allclose(found[1].frames, found[2].frames, atol=1e-4)


def test_pool_averages_and_the_hop_says_so(models, voice, write_wav) -> None:
    clip = ClipInput("clip", media=write_wav(voice(1.0)))
    (full,) = opened(models, "logmel").extract([clip])
    (pooled,) = opened(models, "logmel", pool=4).extract([clip])
    assert (full.hop_s, pooled.hop_s) == (0.01, 0.04)
    np.testing.assert_allclose(pooled.frames[0], full.frames[:4].mean(axis=0), atol=1e-5)


@pytest.mark.parametrize("name", KINDS)
def test_bad_media_have_a_status_and_a_reason(models, write_wav, tmp_path, name: str) -> None:
    text = tmp_path / "text.wav"
    text.write_text("no sound here\n" * 50)
    empty = tmp_path / "empty.mp4"
    empty.touch()
    loop = tmp_path / "loop.wav"
    loop.symlink_to(loop)
    short = write_wav(np.full(int(0.05 * RATE), 0.1, np.float32), "short.wav")
    good = write_wav(np.sin(np.arange(RATE) / 9).astype(np.float32), "good one\nü.wav")
    cases = [
        (ClipInput("text", media=text), "decode_error"),
        (ClipInput("empty", media=empty), "decode_error"),
        (ClipInput("gone", media=tmp_path / "gone.wav"), "no_media"),
        (ClipInput("loop", media=loop), "no_media"),
        (ClipInput("folder", media=tmp_path), "no_media"),
        (ClipInput("none"), "no_media"),
        (ClipInput("short", media=short), "too_short"),
        (ClipInput("silent", media=write_wav(np.zeros(RATE, np.float32), "z.wav")), "no_audio"),
        (ClipInput("beyond", media=good, start_s=9.0), "too_short"),
        (ClipInput("good", media=good), "ok"),
    ]
    found = opened(models, name).extract([clip for clip, _ in cases])
    for features, (clip, status) in zip(found, cases, strict=True):
        assert features.status == status, (clip.sample_id, features.reason)
        assert (features.frames is None) == (status != "ok")
        assert bool(features.reason) == (status != "ok")
        assert "\n" not in features.reason


def test_speed_and_noise_make_other_features_that_are_the_same_again(
    models, voice, write_wav
) -> None:
    clip = ClipInput("clip", media=write_wav(voice(2.0)))
    plain = opened(models, "logmel")
    varied = opened(models, "logmel", speed=1.25, noise_db=20.0)
    assert plain.spec != varied.spec
    (usual,), (other,), (again,) = (x.extract([clip]) for x in (plain, varied, varied))
    assert len(other.frames) == round(len(usual.frames) / 1.25)
    np.testing.assert_array_equal(other.frames, again.frames)


def test_vary_changes_pitch_and_keeps_to_the_noise_level() -> None:
    tone = np.sin(2 * np.pi * 400 * np.arange(RATE) / RATE).astype(np.float32)
    fast = vary(tone, RATE, speed=1.2, noise_db=0.0, key="a")
    spectrum = np.abs(np.fft.rfft(fast))
    assert np.argmax(spectrum) * RATE / len(fast) == pytest.approx(480, abs=2)
    noisy = vary(tone, RATE, speed=1.0, noise_db=20.0, key="a")
    ratio = 10 * np.log10((tone**2).mean() / ((noisy - tone) ** 2).mean())
    assert ratio == pytest.approx(20, abs=0.5)
    assert vary(tone, RATE, speed=1.0, noise_db=0.0, key="a") is tone


@pytest.mark.parametrize(
    ("settings", "problem"),
    [
        ({"chunk_s": 31.0}, "at most 30 s at once"),
        ({"chunk_s": 4.0, "overlap_s": 4.0}, "overlap"),
        ({"pool": 0}, "pool = 0"),
        ({"speed": 0.0}, "speed = 0"),
    ],
)
def test_impossible_settings_are_refused(models, settings, problem: str) -> None:
    with pytest.raises(ConfigError, match=problem):
        opened(models, "whisper", **settings)


def test_clips_that_are_held_fit_into_memory() -> None:
    """A full batch of the longest held clips, as float32 samples."""
    assert AudioExtractor.batch_clips * HELD_S * RATE * 4 < 1 << 30
