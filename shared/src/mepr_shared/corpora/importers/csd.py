"""The CMU SDK's computational sequences (`.csd`): HDF5 with features and times per video.

`<root>/data/<video>/{features [n, d], intervals [n, 2]}`. HDF5 can point into other files and claim
any size: neither is followed.
"""

from __future__ import annotations

from collections.abc import Container, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from mepr_shared.errors import DataError, require

MAX_BYTES = 64 << 20


@dataclass(frozen=True)
class VideoSequence:
    """What a file holds for one video.

    Attributes:
        video: its id.
        features: `[n, d]` of the file's type.
        intervals: `[n, 2]` float64, start and end in s.
        where: file and place, for messages.
    """

    video: str
    features: np.ndarray
    intervals: np.ndarray
    where: str


def sequences(path: Path, videos: Container[str] | None = None) -> Iterator[VideoSequence]:
    """All videos of a file, or those asked for, one at a time.

    Raises:
        DataError: no HDF5 file, a broken one, or not of this form.
        MissingDependency: without h5py.
    """
    h5py = require("h5py", extra="mepr-shared[csd]")
    try:
        with h5py.File(path, "r") as file:
            root, data = _data(file, path, h5py)
            for video in data:
                if videos is None or video in videos:
                    where = f"{path.name}, {root}/data/{video}"
                    yield _sequence(_own(data, video, h5py, where), video, where, h5py)
    # Broken files come as all of these, from whichever part of HDF5 stumbles first.
    except (OSError, RuntimeError, LookupError, ValueError, TypeError) as error:
        message = (str(error) or type(error).__name__).splitlines()[0]
        raise DataError(f"{path} is not a readable HDF5 file: {message}") from None


def _data(file: Any, path: Path, h5py: Any) -> tuple[str, Any]:
    groups = {name: _own(file, name, h5py, path.name) for name in file}
    roots = [
        name
        for name, group in groups.items()
        if isinstance(group, h5py.Group)
        and "data" in group
        and isinstance(_own(group, "data", h5py, path.name), h5py.Group)
    ]
    if len(roots) != 1:
        raise DataError(
            f"{path} is no computational sequence: expected one group with 'data', "
            f"found {list(groups)}"
        )
    return roots[0], groups[roots[0]]["data"]


def _sequence(group: Any, video: str, where: str, h5py: Any) -> VideoSequence:
    if not isinstance(group, h5py.Group) or not {"features", "intervals"} <= set(group):
        raise DataError(f"{where} has no features and intervals")
    features, intervals = (
        _array(_own(group, key, h5py, where), f"{where}/{key}", h5py)
        for key in ("features", "intervals")
    )
    if intervals.dtype.kind not in "fiu" or intervals.shape != (len(features), 2):
        raise DataError(
            f"{where}: features {features.shape} and intervals {intervals.shape}, "
            "expected [n, d] and [n, 2]"
        )
    return VideoSequence(video, features, intervals.astype(np.float64), where)


def _own(group: Any, key: str, h5py: Any, where: str) -> Any:
    """A member that lies in this file; a link may name any file of the reader's machine."""
    if not isinstance(group.get(key, getlink=True), h5py.HardLink):
        raise DataError(f"{where}: {key!r} is a link to elsewhere, not followed")
    return group[key]


def _array(dataset: Any, where: str, h5py: Any) -> np.ndarray:
    if not isinstance(dataset, h5py.Dataset) or not dataset.shape:
        raise DataError(f"{where} is no array")
    if dataset.external or dataset.is_virtual:
        raise DataError(f"{where} keeps its values in another file, not followed")
    if dataset.size * dataset.dtype.itemsize > MAX_BYTES:
        raise DataError(f"{where} is larger than {MAX_BYTES >> 20} MiB, not read")
    return np.asarray(dataset)
