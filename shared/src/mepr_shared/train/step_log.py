"""What every step of an epoch said: kept on the device, written as one table."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import torch
from torch import Tensor


class StepLog:
    """Named scalars of every step; a value is read from the device when the epoch is over."""

    def __init__(self) -> None:
        self.names: tuple[str, ...] = ()
        self.rows: list[Tensor] = []
        self.skipped = 0

    def add(self, terms: Mapping[str, Tensor]) -> None:
        """One step; the names are those of the first."""
        self.names = self.names or tuple(terms)
        self.rows.append(torch.stack([terms[name].detach().float() for name in self.names]))

    def table(self) -> dict[str, np.ndarray]:
        """Name -> `[steps]` values, NaN where a step had none."""
        if not self.rows:
            return {}
        values = torch.stack(self.rows).cpu().numpy()
        return {name: values[:, index] for index, name in enumerate(self.names)}

    def means(self) -> dict[str, float]:
        """Mean of every term over the steps that had it, and the number of skipped steps.

        A term that no step had is left out: JSON has no NaN.
        """
        known = {name: values[~np.isnan(values)] for name, values in self.table().items()}
        means = {name: float(values.mean()) for name, values in known.items() if len(values)}
        return {**means, "skipped_steps": self.skipped}

    def write(self, path: Path) -> None:
        """The table as Parquet, a column per term."""
        path.parent.mkdir(exist_ok=True)
        columns = {name: pa.array(values) for name, values in self.table().items()}
        pq.write_table(pa.table(columns), path)
