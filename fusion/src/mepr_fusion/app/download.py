"""What can be taken away: everything as JSON, the numbers as CSV."""

from __future__ import annotations

import csv
import io
import re
from pathlib import Path
from typing import Any

from mepr_fusion.analyze.attribution import GROUPS
from mepr_fusion.app.service import AppResult
from mepr_fusion.predict.output import table_row
from mepr_fusion.predict.prediction import Prediction


def record(result: AppResult) -> dict[str, Any]:
    """Prediction and explanation as plain JSON values."""
    return {
        "prediction": portable(result.prediction),
        "explanation": result.explanation.to_dict(),
    }


def portable(prediction: Prediction) -> dict[str, Any]:
    """A prediction as plain JSON values, without the place of an upload.

    (Gradio's client would also try to fetch whatever has a `path`.)
    """
    found = prediction.to_dict()
    del found["input"]["path"]
    return found


def table(result: AppResult) -> str:
    """CSV of `output, part, value`: the row of `predict`, then the contributions."""
    with io.StringIO(newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["output", "part", "value"])
        for name, value in table_row(result.prediction).items():
            shown = result.prediction.input.name if name == "path" else value
            writer.writerow(["prediction", name, _safe(shown)])
        found = result.explanation.attribution
        for target, panel in found.panels.items():
            writer.writerow([target, "baseline", panel.baseline])
            for modality, values in zip(found.modalities, panel.values.tolist(), strict=True):
                for group, value in zip(GROUPS, values, strict=True):
                    writer.writerow([target, f"{modality}: {group}", value])
            writer.writerow([target, "value", panel.value])
        return file.getvalue()


def stem(result: AppResult) -> str:
    """File name of downloads, without suffix."""
    name = Path(result.prediction.input.name).stem
    return "mepr-" + (re.sub(r"[^\w.-]+", "_", name).strip("_.") or "clip")


def _safe(value: Any) -> Any:
    """A text that no spreadsheet takes for a formula."""
    if isinstance(value, str) and value[:1] in ("=", "+", "-", "@", "\t", "\r"):
        return "'" + value
    return value
