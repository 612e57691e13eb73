"""Pretrained encoder -> frames `[T, D]` per clip of a media file."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import numpy as np

from mepr_audio.augment import vary
from mepr_audio.encoders import RATE, FrameEncoder, open_encoder
from mepr_audio.plugin import AudioEncoderSettings
from mepr_audio.preprocess import FramePool, Piece, pieces
from mepr_shared.errors import ConfigError
from mepr_shared.media.problem import MediaProblem
from mepr_shared.media.waveform import SILENT_PEAK, Waveform, read_waveform, stream_waveform
from mepr_shared.plugin import ClipFeatures, ClipInput
from mepr_shared.train.loop import uses_bf16

# Raise this when the same settings would give other features than before.
SCHEMA = 1
# Clips up to this length are held in memory and batched with others; longer ones are streamed.
HELD_S = 180.0
DECODERS = 2
LEAST_FILLED = 0.85


@dataclass(frozen=True)
class _Work:
    """One encoder input: samples, what was measured of its clip, whose it is, what is kept."""

    piece: Piece
    level: Any
    clip: int


class AudioExtractor:
    """Frames of any Wav2Vec2-like or Whisper encoder, or log-mel frames.

    Args:
        encoder: the loaded encoder.
        spec: what determines the features (see `mepr_shared.plugin.Extractor`).
        settings: the `[encoder]` table.
    """

    batch_clips = 64

    def __init__(
        self, encoder: FrameEncoder, spec: Mapping[str, Any], settings: AudioEncoderSettings
    ) -> None:
        self.encoder = encoder
        self.spec = spec
        self.settings = settings
        hop = encoder.grid.hop
        self.size = int(settings.chunk_s * RATE) // hop
        self.overlap = int(settings.overlap_s * RATE) // hop
        self.hop_s = hop * settings.pool / RATE

    @classmethod
    def open(cls, settings: AudioEncoderSettings, *, device: str) -> AudioExtractor:
        """Load the encoder that the settings name.

        Raises:
            ConfigError: the weights cannot be had, or a setting does not fit them.
        """
        opened = open_encoder(
            settings, device=device, bf16=uses_bf16(settings.precision, device.split(":")[0])
        )
        _check(settings, opened.encoder)
        spec = {
            "encoder": settings.id,
            "revision": opened.revision,
            "weights_sha256": opened.weights_sha256,
            "settings": {
                "needs": settings.needs,
                "kind": settings.kind,
                "layers": list(settings.layers),
                "pool": settings.pool,
                "chunk_s": settings.chunk_s,
                "overlap_s": settings.overlap_s,
                "shortest_s": settings.shortest_s,
                "speed": settings.speed,
                "noise_db": settings.noise_db,
            },
            "schema": SCHEMA,
        }
        return cls(opened.encoder, spec, settings)

    def cost(self, clip: ClipInput) -> float:
        """Seconds of the segment, or the size of the file."""
        if clip.end_s is not None:
            return clip.end_s - (clip.start_s or 0.0)
        try:
            return clip.media.stat().st_size / (4 * RATE) if clip.media else 0.0
        except OSError:
            return 0.0

    def extract(self, clips: Sequence[ClipInput]) -> list[ClipFeatures]:
        """Frames of each clip; a status where there is nothing to hear.

        The frames of a clip longer than `HELD_S` are a stream, encoded while it is read.
        """
        with ThreadPoolExecutor(DECODERS) as pool:  # decoding releases the interpreter
            waves = list(pool.map(self._read, clips))
        work: list[_Work] = []
        for index, (clip, wave) in enumerate(zip(clips, waves, strict=True)):
            if wave is not None and wave.samples is not None:
                samples = vary(
                    wave.samples,
                    RATE,
                    speed=self.settings.speed,
                    noise_db=self.settings.noise_db,
                    key=clip.sample_id,
                )
                work += self._cut([samples], self.encoder.measure([samples]), index)
        frames = self._encode(work)
        return [
            self._stream(clip) if wave is None else self._features(wave, frames.get(index, []))
            for index, (clip, wave) in enumerate(zip(clips, waves, strict=True))
        ]

    def _read(self, clip: ClipInput) -> Waveform | None:
        """A clip's samples; None where it is too long to be held."""
        if clip.media is None:
            return Waveform(None, RATE, "no_media", "the corpus names no media file")
        wave = read_waveform(
            clip.media,
            start_s=clip.start_s,
            end_s=clip.end_s,
            shortest_s=self.settings.shortest_s,
            longest_s=HELD_S + 1,
        )
        return None if wave.duration_s > HELD_S else wave

    def _features(self, wave: Waveform, parts: list[np.ndarray]) -> ClipFeatures:
        if wave.samples is None:
            return ClipFeatures(None, wave.status, wave.reason)
        if not parts:
            needed = self.encoder.grid.receptive / RATE
            reason = f"{wave.duration_s:.3f} s of audio, the encoder needs {needed:.3f} s"
            return ClipFeatures(None, "too_short", reason)
        pool = FramePool(self.settings.pool)
        pooled = [pool.add(np.concatenate(parts)), pool.finish()]
        frames = np.concatenate([part for part in pooled if part is not None])
        return ClipFeatures(frames, wave.status, wave.reason, hop_s=self.hop_s)

    def _cut(self, chunks: Any, level: Any, clip: int) -> Iterator[_Work]:
        for piece in pieces(chunks, self.encoder.grid, size=self.size, overlap=self.overlap):
            yield _Work(piece, level, clip)

    def _encode(self, work: Sequence[_Work]) -> dict[int, list[np.ndarray]]:
        """Kept frames of every piece, by clip, in order of time."""
        order = sorted(range(len(work)), key=lambda i: -len(work[i].piece.samples))
        encoded: dict[int, np.ndarray] = {}
        for batch in self._batches(work, order):
            inputs = [(work[i].piece.samples, work[i].level) for i in batch]
            for i, frames in zip(batch, self.encoder.encode(inputs), strict=True):
                encoded[i] = frames[work[i].piece.keep_from : work[i].piece.keep_to]
        found: dict[int, list[np.ndarray]] = {}
        for i, item in enumerate(work):
            found.setdefault(item.clip, []).append(encoded[i])
        return found

    def _batches(self, work: Sequence[_Work], order: Sequence[int]) -> Iterator[list[int]]:
        """Pieces of like length, at most `batch_s` padded seconds at a time.

        The shortest is at least `LEAST_FILLED` of the longest: padding is computed for nothing.
        """
        batch: list[int] = []
        for i in order:
            length = len(work[i].piece.samples)
            longest = len(work[batch[0]].piece.samples) if batch else length
            full = longest * (len(batch) + 1) > self.settings.batch_s * RATE
            full |= length < LEAST_FILLED * longest
            if batch and (full or (self.encoder.equal_lengths and length != longest)):
                yield batch
                batch = []
            batch.append(i)
        if batch:
            yield batch

    def _stream(self, clip: ClipInput) -> ClipFeatures:
        """Features whose frames come chunk by chunk, in memory that does not grow with the clip."""
        features = ClipFeatures(None, hop_s=self.hop_s)
        features.stream = self._streamed(clip, features)
        return features

    def _streamed(self, clip: ClipInput, features: ClipFeatures) -> Iterator[np.ndarray]:
        assert clip.media is not None
        media, start_s, end_s = clip.media, clip.start_s, clip.end_s
        try:
            # First pass: level and spread of the whole clip. Second pass: the frames.
            first = _Loudest(stream_waveform(media, start_s=start_s, end_s=end_s))
            level = self.encoder.measure(first)
            if first.peak < SILENT_PEAK:
                features.status = "no_audio"
                features.reason = "the audio is silent throughout"
                return
            waveform = stream_waveform(media, start_s=start_s, end_s=end_s)
        except MediaProblem as problem:
            features.status, features.reason = problem.status, problem.reason
            return
        pool = FramePool(self.settings.pool)
        group: list[_Work] = []
        most = max(1, int(self.settings.batch_s / self.settings.chunk_s))
        for work in self._cut(self._varied(waveform, clip), level, 0):
            group.append(work)
            if len(group) == most:
                yield pool.add(np.concatenate(self._encode(group)[0]))
                group = []
        if group:
            yield pool.add(np.concatenate(self._encode(group)[0]))
        rest = pool.finish()
        if rest is not None:
            yield rest
        if waveform.problem:
            features.status, features.reason = "partial", waveform.problem

    def _varied(self, waveform: Any, clip: ClipInput) -> Iterator[np.ndarray]:
        for number, chunk in enumerate(waveform):
            yield vary(
                chunk,
                RATE,
                speed=self.settings.speed,
                noise_db=self.settings.noise_db,
                key=f"{clip.sample_id}/{number}",
            )


class _Loudest:
    """Passes chunks on and remembers the largest sample."""

    def __init__(self, chunks: Any) -> None:
        self.chunks = chunks
        self.peak = 0.0

    def __iter__(self) -> Iterator[np.ndarray]:
        for chunk in self.chunks:
            self.peak = max(self.peak, float(np.abs(chunk).max(initial=0.0)))
            yield chunk


def _check(settings: AudioEncoderSettings, encoder: FrameEncoder) -> None:
    if encoder.longest_s is not None and settings.chunk_s > encoder.longest_s:
        raise ConfigError(
            f"encoder.chunk_s = {settings.chunk_s:g}: {settings.id} reads at most "
            f"{encoder.longest_s:g} s at once"
        )
    if not 0 <= settings.overlap_s < settings.chunk_s or settings.chunk_s < 1:
        raise ConfigError(
            f"encoder.chunk_s = {settings.chunk_s:g} with overlap_s = {settings.overlap_s:g}",
            hint="pieces are at least 1 s long and overlap by less than their length",
        )
    if settings.pool < 1:
        raise ConfigError(f"encoder.pool = {settings.pool}: it takes 1 or more")
    if settings.speed <= 0:
        raise ConfigError(f"encoder.speed = {settings.speed:g}: it takes a number above 0")
