"""Mamba blocks (Gu & Dao 2023) and an encoder built of them."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn
from torch.nn import functional

from mepr_shared.nn.backend import selective_scan
from mepr_shared.nn.convolution import causal_conv_silu
from mepr_shared.nn.layers import InputProjection
from mepr_shared.nn.masks import (
    check_mask,
    is_right_padded,
    put_steps,
    reverse_order,
    take_steps,
    valid_first,
    zero_masked,
)
from mepr_shared.nn.workers import over_batch


class Mamba(nn.Module):
    """One Mamba block `[B, T, H]` -> `[B, T, H]`, causal in T.

    Parameter names, shapes and initial values are those of `mamba_ssm.Mamba`, so that a state
    dict moves between the two unchanged. It takes no mask: see `MambaEncoder`.

    Args:
        width: H.
        state_size: N, states per channel.
        expand: inner width over H.
        conv_width: steps the depthwise convolution sees.
    """

    def __init__(
        self, width: int, *, state_size: int = 16, expand: int = 2, conv_width: int = 4
    ) -> None:
        super().__init__()
        inner = expand * width
        dt_rank = math.ceil(width / 16)
        self.in_proj = nn.Linear(width, 2 * inner, bias=False)
        self.conv1d = nn.Conv1d(inner, inner, conv_width, groups=inner, padding=conv_width - 1)
        self.x_proj = nn.Linear(inner, dt_rank + 2 * state_size, bias=False)
        self.dt_proj = nn.Linear(dt_rank, inner)
        # S4D-real: A = -1, -2, ... -N for every channel.
        states = torch.arange(1, state_size + 1, dtype=torch.float32)
        self.A_log = nn.Parameter(states.log().repeat(inner, 1))
        # As in mamba_ssm: decay of these would pull the state towards forgetting at one rate.
        self.A_log._no_weight_decay = True  # type: ignore[attr-defined]
        self.D = nn.Parameter(torch.ones(inner))
        self.out_proj = nn.Linear(inner, width, bias=False)
        _initialise_dt(self.dt_proj)

    def forward(self, x: Tensor) -> Tensor:
        """`x [B, T, H]` -> `[B, T, H]`; step t depends on steps up to t only."""
        assert self.conv1d.bias is not None  # built with one
        return over_batch(
            _mamba,
            x,
            self.in_proj.weight,
            self.conv1d.weight,
            self.conv1d.bias,
            self.x_proj.weight,
            self.dt_proj.weight,
            self.dt_proj.bias,
            self.A_log,
            self.D,
            self.out_proj.weight,
        )


def _mamba(
    x: Tensor,
    in_proj: Tensor,
    conv_weight: Tensor,
    conv_bias: Tensor,
    x_proj: Tensor,
    dt_weight: Tensor,
    dt_bias: Tensor,
    A_log: Tensor,
    D: Tensor,
    out_proj: Tensor,
) -> Tensor:
    """The block (Gu & Dao 2023, figure 3) as a function of its input `[B, T, H]` and weights."""
    inner, gate = functional.linear(x, in_proj).chunk(2, dim=-1)
    inner = causal_conv_silu(inner, conv_weight, conv_bias)
    sizes = [dt_weight.shape[1], A_log.shape[1], A_log.shape[1]]
    dt, B, C = functional.linear(inner, x_proj).split(sizes, dim=-1)
    dt = functional.linear(dt, dt_weight, dt_bias)
    # exp(A_log) loses the slowest decays in half precision.
    A = -torch.exp(A_log.to(torch.promote_types(A_log.dtype, torch.float32)))
    return functional.linear(selective_scan(inner, dt, A, B, C, D, gate), out_proj)


class MambaLayer(nn.Module):
    """`x + dropout(mamba(norm(x)))`; in the bidirectional form the sum of a forward and a
    backward block, each with its own weights."""

    def __init__(
        self,
        width: int,
        *,
        state_size: int,
        expand: int,
        conv_width: int,
        bidirectional: bool,
        dropout: float,
    ) -> None:
        super().__init__()
        sizes = {"state_size": state_size, "expand": expand, "conv_width": conv_width}
        self.norm = nn.LayerNorm(width)
        self.forward_block = Mamba(width, **sizes)
        self.backward_block = Mamba(width, **sizes) if bidirectional else None
        self.dropout = nn.Dropout(dropout)

    def forward(self, x: Tensor, reverse: Tensor | None) -> Tensor:
        """`x [B, T, H]`, padded on the right -> `[B, T, H]`.

        `reverse [B, T]` is the order that turns each clip around within its own length; only the
        bidirectional form reads it.
        """
        normed = self.norm(x)
        mixed = self.forward_block(normed)
        if self.backward_block is not None and reverse is not None:
            mixed = mixed + take_steps(self.backward_block(take_steps(normed, reverse)), reverse)
        return x + self.dropout(mixed)


class MambaEncoder(nn.Module):
    """`x [B, T, D]`, `mask [B, T]` -> `[B, T, H]`; masked steps come out as zeros.

    A masked step is cut out before the layers, so the result on the others is that of the clip
    without it: the state neither sees it nor decays over it. Padding on the right needs no
    cutting, since a causal block never looks there.

    Args:
        input_width: D.
        width: H.
        layers: number of residual layers.
        dropout: on each layer's output.
        input_dropout: on the input features.
        state_size, expand, conv_width: see `Mamba`.
        bidirectional: every layer adds a second block, with weights of its own, that reads the
            clip from its last valid step to its first.
    """

    def __init__(
        self,
        *,
        input_width: int,
        width: int,
        layers: int,
        dropout: float,
        input_dropout: float = 0.0,
        state_size: int = 16,
        expand: int = 2,
        conv_width: int = 4,
        bidirectional: bool = False,
    ) -> None:
        super().__init__()
        self.width = width
        self.bidirectional = bidirectional
        self.project = InputProjection(input_width, width, input_dropout=input_dropout)
        self.layers = nn.ModuleList(
            MambaLayer(
                width,
                state_size=state_size,
                expand=expand,
                conv_width=conv_width,
                bidirectional=bidirectional,
                dropout=dropout,
            )
            for _ in range(layers)
        )
        self.norm = nn.LayerNorm(width)

    def forward(self, x: Tensor, mask: Tensor) -> Tensor:
        """Raises `DataError` for a clip with every step masked."""
        check_mask(x, mask)
        x = zero_masked(x, mask)
        if is_right_padded(mask):
            return self._encode(x, mask)
        order = valid_first(mask)[:, : int(mask.sum(dim=1).max())]
        encoded = self._encode(take_steps(x, order), mask.gather(1, order))
        return put_steps(encoded, order, x.shape[1])

    def _encode(self, x: Tensor, mask: Tensor) -> Tensor:
        hidden = self.project(x)
        reverse = reverse_order(mask) if self.bidirectional else None
        for layer in self.layers:
            hidden = layer(hidden, reverse)
        return zero_masked(self.norm(hidden), mask)


@torch.no_grad()
def _initialise_dt(dt_proj: nn.Linear) -> None:
    """Step sizes log-uniform in [1e-3, 1e-1] at the start (Gu & Dao 2023, section 3.6)."""
    scale = dt_proj.in_features**-0.5
    nn.init.uniform_(dt_proj.weight, -scale, scale)
    low, high = math.log(1e-3), math.log(1e-1)
    dt = torch.exp(torch.rand(dt_proj.out_features) * (high - low) + low).clamp(min=1e-4)
    # softplus(bias) = dt
    dt_proj.bias.copy_(dt + torch.log(-torch.expm1(-dt)))
