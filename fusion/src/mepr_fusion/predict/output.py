"""Predictions as files: one JSON per input, and a table of all of them as CSV and Parquet."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.csv as pc
import pyarrow.parquet as pq

from mepr_fusion.predict.prediction import EmotionAnswer, Prediction, TraitScore
from mepr_shared.contract.files import write_json
from mepr_shared.errors import ContractError
from mepr_shared.labels import EMOTIONS, TRAITS
from mepr_shared.train.runs import replace_file

TABLE, TIMELINE = "predictions", "timeline"


class Output:
    """Collects predictions in a folder, which is made with the first of them.

    Args:
        folder: where they go.
        overwrite: replace those of a former call.

    Raises:
        ContractError: predictions are there and `overwrite` is off.
    """

    def __init__(self, folder: Path, *, overwrite: bool = False) -> None:
        self.folder = folder
        if not overwrite and (folder / f"{TABLE}.parquet").exists():
            raise ContractError(
                f"there are already predictions in {folder}", hint="--overwrite replaces them"
            )
        self._rows: list[dict[str, Any]] = []
        self._windows: list[dict[str, Any]] = []
        self._names: set[str] = set()

    def add(self, prediction: Prediction) -> None:
        """Write one input's JSON, and keep its rows for the tables."""
        self.folder.mkdir(parents=True, exist_ok=True)
        write_json(self.folder / self._name(prediction.input.name), prediction.to_dict())
        self._rows.append(table_row(prediction))
        self._windows += window_rows(prediction)

    def add_error(self, file: Path, error: str) -> None:
        """An input that could not be answered has a row that says why."""
        self._rows.append({"path": str(file), "error": error})

    def finish(self) -> Path:
        """Write the tables; gives that of all inputs."""
        tables = [(TABLE, self._rows, _schema(of_inputs=True))]
        if self._windows:
            tables.append((TIMELINE, self._windows, _schema(of_inputs=False)))
        for name, rows, schema in tables:
            table = pa.Table.from_pylist(rows, schema)
            replace_file(self.folder / f"{name}.parquet", partial(pq.write_table, table))
            replace_file(self.folder / f"{name}.csv", partial(pc.write_csv, table))
        return self.folder / f"{TABLE}.csv"

    def _name(self, name: str) -> str:
        """`clip.mp4.json`; numbered where several inputs have the same name."""
        number, chosen = 1, f"{name}.json"
        while chosen in self._names:
            number += 1
            chosen = f"{name}-{number}.json"
        self._names.add(chosen)
        return chosen


def table_row(prediction: Prediction) -> dict[str, Any]:
    """One input as one row."""
    facts, transcript = prediction.input, prediction.transcript
    return {
        "path": facts.path,
        "sha256": facts.sha256,
        "kind": facts.kind,
        "duration_s": facts.duration_s,
        **_answers(prediction.emotion, prediction.traits),
        "modalities": " ".join(f"{n}={a.status}" for n, a in prediction.modalities.items()),
        "text": transcript.text or None,
        "text_source": transcript.source,
        "language": transcript.language,
        "warnings": "; ".join(prediction.warnings) or None,
        "seconds": prediction.seconds.get("total"),
        "bundle": prediction.bundle,
    }


def window_rows(prediction: Prediction) -> list[dict[str, Any]]:
    """The timeline of one input."""
    return [
        {
            "path": prediction.input.path,
            "start_s": window.start_s,
            "end_s": window.end_s,
            **_answers(window.emotion, window.traits),
            "modalities": " ".join(window.modalities),
            "text": window.text or None,
        }
        for window in prediction.windows
    ]


def _answers(emotion: EmotionAnswer | None, traits: dict[str, TraitScore] | None) -> dict[str, Any]:
    row: dict[str, Any] = {"emotion": " ".join(emotion.present) if emotion else None}
    for name in EMOTIONS:
        row[f"p_{name}"] = emotion.probabilities[name] if emotion else None
    for name in TRAITS:
        trait = traits[name] if traits else None
        row |= {
            name: trait.score if trait else None,
            f"{name}_low": trait.low if trait else None,
            f"{name}_high": trait.high if trait else None,
        }
    return row


def _schema(*, of_inputs: bool) -> pa.Schema:
    text, number = pa.string(), pa.float64()
    numbers = [f"p_{name}" for name in EMOTIONS]
    numbers += [f"{name}{end}" for name in TRAITS for end in ("", "_low", "_high")]
    answers = [("emotion", text), *((name, number) for name in numbers)]
    if not of_inputs:
        times = [("path", text), ("start_s", number), ("end_s", number)]
        return pa.schema([*times, *answers, ("modalities", text), ("text", text)])
    facts = [("path", text), ("sha256", text), ("kind", text), ("duration_s", number)]
    rest = ("modalities", "text", "text_source", "language", "warnings")
    more = [*((name, text) for name in rest), ("seconds", number), ("bundle", text)]
    return pa.schema([*facts, *answers, *more, ("error", text)])
