"""Writing a bundle. The same runs give the same bytes, whoever writes them where and when."""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from mepr_fusion.bundle.format import (
    FORMAT,
    FORMAT_VERSION,
    MANIFEST,
    STAGE3,
    Bundle,
    open_bundle,
    seal_of,
)
from mepr_fusion.bundle.sources import Sources, output_of
from mepr_fusion.predict.trait_intervals import trait_intervals
from mepr_shared.contract.files import (
    checked_name,
    disk_errors,
    flush,
    flush_directory,
    rename_directory,
    sha256_file,
    write_json,
)
from mepr_shared.errors import ContractError
from mepr_shared.labels import EMOTIONS, TRAITS
from mepr_shared.train.models import load_model
from mepr_shared.train.runs import Run

CALIBRATION = "calibration.json"
# What attributions are measured from; there is one where the run was analysed.
BASELINE = "attribution_baseline.safetensors"
# Of use while a run is examined, and of no use to who predicts.
_NOT_KEPT = ("coverage", "dropped", "evaluations")


def write_bundle(run: Run, sources: Sources, out: Path, *, overwrite: bool = False) -> Bundle:
    """Put a stage-3 run and the runs behind its modalities into one directory.

    Args:
        run: a finished stage-3 run.
        sources: see `find_sources`.
        out: a new directory, which appears only when it is complete.
        overwrite: replace a bundle that is there.

    Raises:
        ContractError: `out` is there (and is no bundle, or `overwrite` is off), a run is damaged,
            or the disk is full.
    """
    if not run.metrics:
        raise ContractError(
            f"{run.path} is not trained to its end", hint="mepr-fusion train --resume"
        )
    _check_target(out, overwrite=overwrite)
    for unimodal in sources.runs.values():
        load_model(unimodal)  # a damaged run is found before it is shipped
    unfinished = out.with_name(f".{out.name}.partial")
    with disk_errors(out):
        shutil.rmtree(unfinished, ignore_errors=True)
        unfinished.mkdir(parents=True)
        try:
            _fill(unfinished, run, sources)
            if overwrite and out.exists():
                shutil.rmtree(out)
            rename_directory(unfinished, out)
        except BaseException:
            shutil.rmtree(unfinished, ignore_errors=True)
            raise
    return open_bundle(out)


def _check_target(out: Path, *, overwrite: bool) -> None:
    if not out.exists() or (out.is_dir() and not any(out.iterdir())):
        return
    if not (out / MANIFEST).is_file():
        raise ContractError(f"{out} is there and is no bundle", hint="give another --out")
    if not overwrite:
        raise ContractError(f"there is already a bundle in {out}", hint="--overwrite replaces it")


def _fill(folder: Path, run: Run, sources: Sources) -> None:
    files = {STAGE3: run.weights_path}
    for modality, unimodal in sources.runs.items():
        files[f"{checked_name(modality, 'modality')}.safetensors"] = unimodal.weights_path
    if (run.path / BASELINE).is_file():
        files[BASELINE] = run.path / BASELINE
    said = {}
    for name, source in sorted(files.items()):
        shutil.copyfile(source, folder / name)
        with (folder / name).open("rb") as copy:
            flush(copy)
        said[name] = {
            "bytes": (folder / name).stat().st_size,
            "sha256": sha256_file(folder / name),
        }
    content: dict[str, Any] = {
        "format": FORMAT,
        "format_version": FORMAT_VERSION,
        "required_features": [],
        "labels": {"emotion": list(EMOTIONS), "traits": list(TRAITS)},
        "corpus": sources.corpus,
        "stage3": {
            "weights": STAGE3,
            "config": _portable(run.config),
            "metrics": _kept(run.metrics),
            "calibration": _calibration(run),
            "trait_intervals": trait_intervals(run),
            "attribution_baseline": BASELINE if BASELINE in files else None,
        },
        "modalities": {
            name: _modality(name, unimodal, sources) for name, unimodal in sources.runs.items()
        },
        "left_out": sources.left_out,
        "notes": list(sources.notes),
        "files": said,
    }
    # Through JSON once: what is sealed is what will be read.
    content = json.loads(json.dumps(content, allow_nan=False, default=float))
    write_json(folder / MANIFEST, {**content, "sha256": seal_of(content)})
    flush_directory(folder)


def _modality(name: str, run: Run, sources: Sources) -> dict[str, Any]:
    exports = sources.exports[name]
    signed = next((export.manifest.generated_by for export in exports.values()), None)
    return {
        "weights": f"{name}.safetensors",
        "distribution": signed[0].name if signed else f"mepr-{name}",
        "config": _portable(run.config),
        "val": run.metrics["val"],
        "outputs": {corpus: output_of(export) for corpus, export in exports.items()},
        "exports": {corpus: export.export_id for corpus, export in exports.items()},
    }


def _portable(config: Mapping[str, Any]) -> dict[str, Any]:
    """A run's configuration without the places of this machine."""
    kept = {key: value for key, value in config.items() if key != "exports_root"}
    kept["corpora"] = [
        {key: value for key, value in corpus.items() if key != "path"}
        for corpus in config["corpora"]
    ]
    return kept


def _kept(metrics: Mapping[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in metrics.items() if key not in _NOT_KEPT}


def _calibration(run: Run) -> Any:
    """What `calibration.json` of the run says, where there is one.

    Raises:
        ContractError: it is no JSON.
    """
    try:
        return json.loads((run.path / CALIBRATION).read_bytes())
    except FileNotFoundError:
        return None
    except ValueError as error:
        raise ContractError(f"{run.path / CALIBRATION} is damaged: {error}") from None
