"""Log-mel frames: no weights, 80 values every 10 ms."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch
import torchaudio
from torch import Tensor

from mepr_audio.preprocess import FrameGrid

RATE, WINDOW, HOP, BANDS = 16_000, 400, 160, 80
FLOOR = 1e-6  # of a band's power, about the noise of 16-bit samples
# A pass over a long clip works on blocks of so many samples, a multiple of the hop.
BLOCK = 100 * RATE


@dataclass(frozen=True)
class Level:
    """Mean and spread of all log-mel values of a clip."""

    mean: float
    spread: float


class MelSpectrum:
    """Power spectra in mel bands.

    Args:
        bands: number of bands.
        device: where it computes.
    """

    def __init__(self, bands: int, *, device: str) -> None:
        # Slaney's scale and area normalisation, as Whisper and librosa have it.
        filters = torchaudio.functional.melscale_fbanks(
            WINDOW // 2 + 1, 0.0, RATE / 2, bands, RATE, norm="slaney", mel_scale="slaney"
        )
        self.filters = filters.T.contiguous().to(device)
        self.window = torch.hann_window(WINDOW, device=device)

    def __call__(self, samples: np.ndarray) -> Tensor:
        """`[n]` samples -> `[bands, n // 160]` power, frame t centred at sample 160 t."""
        wave = torch.from_numpy(np.ascontiguousarray(samples)).to(self.window.device)
        spectrum = torch.stft(wave, WINDOW, HOP, window=self.window, return_complex=True)
        power = spectrum[:, : len(samples) // HOP].abs().square()
        return self.filters @ power


def blocks(chunks: Iterable[np.ndarray], size: int = BLOCK) -> Iterator[np.ndarray]:
    """The same samples in blocks of `size`; a remainder too short for a window joins the last."""
    held: list[np.ndarray] = []
    count = 0
    for chunk in chunks:
        held.append(chunk)
        count += len(chunk)
        if count >= size + WINDOW:
            joined = np.concatenate(held)
            while len(joined) >= size + WINDOW:
                yield joined[:size]
                joined = joined[size:]
            held, count = [joined], len(joined)
    if count:
        yield np.concatenate(held)


class LogMelEncoder:
    """Log of mel-band power, standardised with the clip's own mean and spread."""

    grid = FrameGrid(HOP, HOP)
    width = BANDS
    longest_s: float | None = None
    equal_lengths = False

    def __init__(self, *, device: str) -> None:
        self.spectrum = MelSpectrum(BANDS, device=device)

    @torch.inference_mode()
    def measure(self, chunks: Iterable[np.ndarray]) -> Level:
        """Mean and spread over the whole clip."""
        count, total, squares = 0, 0.0, 0.0
        for block in blocks(chunks):
            values = self._log(block)
            count += values.numel()
            total += values.sum(dtype=torch.float64).item()
            squares += values.double().square().sum().item()
        mean = total / max(1, count)
        # A clip of one constant value keeps it, instead of a division by nothing.
        return Level(mean, max(1e-3, (squares / max(1, count) - mean * mean)) ** 0.5)

    @torch.inference_mode()
    def encode(self, pieces: Sequence[tuple[np.ndarray, Level]]) -> list[np.ndarray]:
        """`[T, 80]` of each piece."""
        return [
            ((self._log(samples) - level.mean) / level.spread).T.contiguous().cpu().numpy()
            for samples, level in pieces
        ]

    def _log(self, samples: np.ndarray) -> Tensor:
        return self.spectrum(samples).add(FLOOR).log()
