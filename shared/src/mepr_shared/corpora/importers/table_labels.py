"""Labels of a table: which form they have, and that every value can be."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from mepr_shared.corpora.columns import label_matrix
from mepr_shared.corpora.importers.table_values import Cells
from mepr_shared.errors import DataError
from mepr_shared.labels import EMOTION_KINDS, EMOTIONS, TRAITS, EmotionScale, emotion_name


@dataclass(frozen=True)
class Emotions:
    """`values [N, 7]` float32 (NaN rows unlabelled) and how they are stated."""

    values: np.ndarray
    scale: EmotionScale


def emotions(
    cells: Cells,
    fields: Mapping[str, str],
    kind: str | None,
    maximum: float | None,
    present_above: float,
) -> Emotions | None:
    """The emotion labels of a table, or None where it has no such column.

    Raises:
        DataError: a value out of range or partly missing, an unknown name, an unclear kind.
    """
    named = [name for name in EMOTIONS if f"emotion.{name}" in fields]
    if "emotion" in fields and named:
        raise DataError(
            f"{cells.where}: emotions are given twice, as 'emotion' and as 'emotion.{named[0]}'"
        )
    if not named and "emotion" not in fields:
        return None
    if named:
        values = _emotion_columns(cells, fields, named)
    elif cells.is_list(fields["emotion"]):
        values = _lists(cells, fields["emotion"], "emotion", len(EMOTIONS))
    else:
        if kind not in (None, "single_label"):
            raise DataError(f"a column of emotion names is single_label, not {kind}")
        values, kind = _emotion_names(cells, fields["emotion"]), "single_label"
    missing = np.isnan(values)
    for row in np.flatnonzero(missing.any(axis=1) & ~missing.all(axis=1)):
        blank = EMOTIONS[int(np.flatnonzero(missing[row])[0])]
        raise cells.error(int(row), f"emotion.{blank}", "is missing; give all emotions or none")
    kind = kind or _kind(values, cells.where)
    if maximum is None:
        if kind == "intensity":
            raise DataError(
                f"{cells.where}: intensities need their largest possible value",
                hint="--emotion-max 3 for a scale from 0 to 3",
            )
        maximum = 1.0
    refuse_outside(cells, values, [f"emotion.{name}" for name in EMOTIONS], maximum)
    scale = EmotionScale(kind, float(maximum), float(present_above))  # type: ignore[arg-type]
    _check_sums(cells, values, scale)
    return Emotions(values.astype(np.float32), scale)


def traits(cells: Cells, fields: Mapping[str, str]) -> np.ndarray | None:
    """`[N, 5]` float32 trait labels, NaN where missing, or None without such a column.

    Raises:
        DataError: a value outside [0, 1].
    """
    named = [name for name in TRAITS if f"traits.{name}" in fields]
    if "traits" in fields and named:
        raise DataError(f"{cells.where}: traits are given twice, as a list and as columns")
    if "traits" in fields:
        if not cells.is_list(fields["traits"]):
            raise DataError(
                f"{cells.where}: column {fields['traits']!r} does not hold lists of five values",
                hint="--map traits.openness=COLUMN ... for a column per trait",
            )
        values = _lists(cells, fields["traits"], "traits", len(TRAITS))
    elif named:
        values = np.full((len(cells), len(TRAITS)), np.nan)
        for name in named:
            column = f"traits.{name}"
            values[:, TRAITS.index(name)] = cells.numbers(fields[column], column)
    else:
        return None
    refuse_outside(cells, values, [f"traits.{name}" for name in TRAITS], 1.0)
    return values.astype(np.float32)


def refuse_outside(cells: Cells, values: np.ndarray, names: Sequence[str], maximum: float) -> None:
    """Refuse the first value of `[N, K]` outside [0, maximum], by row and field."""
    outside = (values < 0) | (values > maximum)
    for row, column in np.argwhere(outside):
        raise cells.error(
            int(row), names[column], f"is {values[row, column]:g}, outside [0, {maximum:g}]"
        )


def _emotion_columns(cells: Cells, fields: Mapping[str, str], named: Sequence[str]) -> np.ndarray:
    missing = [name for name in EMOTIONS[1:] if name not in named]
    if missing:
        raise DataError(
            f"{cells.where} lacks columns for {', '.join(missing)}",
            hint="--map emotion.NAME=COLUMN; only neutral may be left out",
        )
    columns = {n: cells.numbers(fields[f"emotion.{n}"], f"emotion.{n}") for n in named}
    if "neutral" not in columns:
        others = np.stack([columns[name] for name in EMOTIONS[1:]])
        none = (others == 0).all(axis=0).astype(float)
        columns["neutral"] = np.where(np.isnan(others).all(axis=0), np.nan, none)
    return np.stack([columns[name] for name in EMOTIONS], axis=1)


def _emotion_names(cells: Cells, column: str) -> np.ndarray:
    values = np.full((len(cells), len(EMOTIONS)), np.nan)
    for row, name in enumerate(cells.texts(column, "emotion")):
        if name is not None:
            try:
                index = EMOTIONS.index(emotion_name(name))
            except DataError as error:
                raise cells.error(row, "emotion", f"is {name!r}: {error.hint}") from None
            values[row] = np.eye(len(EMOTIONS))[index]
    return values


def _lists(cells: Cells, column: str, field: str, width: int) -> np.ndarray:
    lengths = [None if v is None else len(v) for v in cells.table[column].to_pylist()]
    for row, length in enumerate(lengths):
        if length not in (None, width):
            raise cells.error(row, field, f"has {length} values, not {width}")
    return label_matrix(cells.table[column], width).astype(np.float64)


def _kind(values: np.ndarray, where: str) -> str:
    known = values[~np.isnan(values).any(axis=1)]
    if np.isin(known, (0, 1)).all():
        return "single_label" if (known.sum(axis=1) == 1).all() else "multi_label"
    if ((known >= 0) & (known <= 1)).all() and np.allclose(known.sum(axis=1), 1, atol=1e-3):
        return "distribution"
    raise DataError(
        f"{where}: emotion values are neither 0/1 nor shares that sum to 1",
        hint=f"say what they are: --emotion-kind {'|'.join(EMOTION_KINDS)} (and --emotion-max)",
    )


def _check_sums(cells: Cells, values: np.ndarray, scale: EmotionScale) -> None:
    if scale.is_multi_label:
        return
    one_hot = np.isin(values, (0, 1)).all(axis=1) & (values.sum(axis=1) == 1)
    good = one_hot if scale.kind == "single_label" else values.sum(axis=1) > 0
    for row in np.flatnonzero(~good & ~np.isnan(values).any(axis=1)):
        raise cells.error(int(row), "emotion", f"is no {scale.kind}: {values[row].tolist()}")
