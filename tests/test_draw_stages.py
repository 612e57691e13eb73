"""The README's figure is the one that `tools/draw_stages.py` draws."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from matplotlib.image import imread


def test_the_figure_is_current_and_small(workspace: Path, tmp_path: Path, command) -> None:
    drawn = tmp_path / "stages.png"
    command("python", workspace / "tools/draw_stages.py", drawn)
    shipped = workspace / "tools/figures/stages.png"
    assert shipped.stat().st_size < 200_000
    first, second = imread(shipped), imread(drawn)
    assert first.shape == second.shape
    # Anti-aliasing may differ by a shade between builds of the font renderer.
    assert np.abs(first - second).mean() < 1e-3, "run `python tools/draw_stages.py`"
    assert first.std() > 0.05  # something is drawn
