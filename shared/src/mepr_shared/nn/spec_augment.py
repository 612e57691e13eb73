"""SpecAugment (Park et al. 2019) on features: spans of frames and of dimensions are blanked."""

from __future__ import annotations

from torch import Tensor, nn

from mepr_shared.errors import require


class SpecAugmentedEncoder(nn.Module):
    """A sequence encoder that sees masked features in training, and all of them in eval mode.

    Blanked values are 0: the mean, where features are standardised before.

    Args:
        encoder: `[B, T, D]`, `[B, T]` -> `[B, T, H]`.
        time_mask: longest span of frames, at most a fifth of the batch's length.
        feature_mask: longest span of neighbouring dimensions.
    """

    def __init__(self, encoder: nn.Module, *, time_mask: int, feature_mask: int) -> None:
        super().__init__()
        self.encoder = encoder
        self.time_mask, self.feature_mask = time_mask, feature_mask
        torchaudio = require("torchaudio", extra="mepr-shared[augment]")
        self._mask_spans = torchaudio.functional.mask_along_axis_iid

    def forward(self, x: Tensor, mask: Tensor) -> Tensor:
        """`x [B, T, D]`, `mask [B, T]` (True = valid) -> `[B, T, H]`."""
        if self.training:
            spectra = x[:, None]  # torchaudio's [B, channel, axis 2, axis 3]
            if self.time_mask:
                spectra = self._mask_spans(spectra, self.time_mask, 0.0, axis=2, p=0.2)
            if self.feature_mask:
                spectra = self._mask_spans(spectra, self.feature_mask, 0.0, axis=3)
            x = spectra[:, 0]
        return self.encoder(x, mask)
