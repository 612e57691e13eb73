"""The published state dict (`.pt`) as a stage-3 run, without running what a pickle may hold."""

from __future__ import annotations

import re
import tempfile
import warnings
import zipfile
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from mepr_fusion.published.model import MODALITIES, PublishedModel
from mepr_fusion.settings import CONFIGS, FusionSettings
from mepr_shared import config
from mepr_shared.contract.files import sha256_file
from mepr_shared.errors import ContractError, DataError, MeprError
from mepr_shared.labels import EMOTIONS, TRAITS
from mepr_shared.train.checkpoint import save_weights
from mepr_shared.train.runs import Run

# The published file has 10 MB. A pickled tensor can claim any size, so values are counted too.
MAX_BYTES = 1 << 30
MAX_VALUES = MAX_BYTES // 4

# Heads leave no trace in the shapes.
HEADS = 8

_PROJECTOR = re.compile(r"projectors\.([^.]+)\.")
_INPUT_WEIGHT = "projectors.{}.0.proj.0.weight"


def import_published(
    path: Path, run_path: Path, *, trait_guide: bool = True, heads: int = HEADS
) -> Run:
    """Write a stage-3 run that answers as the published model with these weights does.

    Args:
        path: a bare state dict, as `torch.save(model.state_dict(), path)` writes it.
        run_path: a directory that does not exist yet; nothing is left there after an error.
        trait_guide: blend in the file's trait guide bank. The released configuration does not.
        heads: attention heads the weights were trained with.

    Raises:
        MeprError: there is something at `run_path`.
        DataError: no such file, or too large.
        ContractError: damaged, other objects than tensors, or not this model's parameters.
    """
    if run_path.exists() and not (run_path.is_dir() and not any(run_path.iterdir())):
        raise MeprError(f"there is already something in {run_path}", hint="give another --run")
    state = read_state_dict(path)
    widths, width = check_state(state, path, heads)
    model = PublishedModel(widths, width=width, heads=heads, trait_guide=trait_guide)
    model.load_state_dict(state)
    content = _run_config(path, widths, width, heads, trait_guide)
    metrics = _metrics(model)
    # Beside its place first, then renamed: a run is there whole or not at all.
    run_path.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=run_path.parent, prefix=f".{run_path.name}.") as folder:
        run = Run.create(Path(folder) / "run", kind="stage3", config=content)
        save_weights(model.state_dict(), run.path / "weights.safetensors")
        run.finish(metrics)
        run.path.replace(run_path)
    return Run.load(run_path)


def read_state_dict(path: Path) -> dict[str, Tensor]:
    """Name -> float32 tensor of a `.pt` with nothing but tensors in it.

    Read with `weights_only=True`: no class of a pickle is ever called. Checksums are verified,
    which torch does not do, so that a flipped bit is an error and not another weight.

    Raises:
        DataError: no such file, or larger than 1 GiB.
        ContractError: damaged, of torch's format before 1.6, or not a bare state dict.
    """
    try:
        size = path.stat().st_size
        with path.open("rb"):
            pass
    except OSError as error:
        raise DataError(f"cannot read {path}: {error.strerror}") from None
    if size > MAX_BYTES:
        raise DataError(f"{path} is larger than {MAX_BYTES >> 30} GiB, not read")
    _check_archive(path)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            content = torch.load(path, map_location="cpu", weights_only=True, mmap=True)
    except Exception as error:  # a made-up pickle can end in any exception of the unpickler
        raise ContractError(
            f"{path} is not a bare state dict: {_reason(error)}",
            hint="save one with torch.save(model.state_dict(), PATH)",
        ) from None
    return _float_tensors(content, path)


def check_state(state: Mapping[str, Tensor], path: Path, heads: int) -> tuple[dict[str, int], int]:
    """Modality -> feature width, and `H`, of a state dict that is exactly the published one's.

    Raises:
        ContractError: one line with all that is missing, unexpected or of a wrong shape.
    """
    found = {match[1] for name in state if (match := _PROJECTOR.match(name))}
    if not found:
        raise ContractError(
            f"{path} has no parameters `projectors.*`: not the published stage-3 model",
            hint=f"its first parameters: {_some(state)}",
        )
    width = _common_width(state, path)
    if heads < 1 or width % heads or width % 2:
        raise ContractError(
            f"{path} has width {width}, which is not divisible by 2 and by {heads} heads",
            hint="--heads says with how many the weights were trained",
        )
    # Of the parameters of a projector whose first weight is missing, that one is named below.
    inputs = {name: _input_width(state, name) for name in _ordered(found)}
    expected = published_shapes({name: size or 2 for name, size in inputs.items()}, width)
    problems = {
        "missing": [name for name in expected if name not in state],
        "unexpected": [name for name in state if name not in expected],
        "wrong shape": [
            f"{name} {list(state[name].shape)} instead of {shape}"
            for name, shape in expected.items()
            if name in state and list(state[name].shape) != shape
        ],
    }
    wrong = [f"{what}: {_some(names)}" for what, names in problems.items() if names]
    odd = [name for name, size in inputs.items() if size is not None and size % 2]
    if odd:
        wrong.append(f"odd width, where two halves are expected: {_some(odd)}")
    if wrong:
        raise ContractError(f"{path} does not fit the published model: {'; '.join(wrong)}")
    return {name: size for name, size in inputs.items() if size is not None}, width


def published_shapes(widths: Mapping[str, int], width: int) -> dict[str, list[int]]:
    """Parameter name -> shape of the published model, without building its tensors."""
    with torch.device("meta"):
        # Shapes do not depend on the heads; with one, every even width has a model.
        model = PublishedModel(widths, width=width, heads=1)
    return {name: list(tensor.shape) for name, tensor in model.state_dict().items()}


def _check_archive(path: Path) -> None:
    """Refuse what is no intact zip archive of stored entries.

    torch writes entries uncompressed; a compressed one could be many times larger than the file.
    """
    try:
        with zipfile.ZipFile(path) as archive:
            entries = archive.infolist()
            if any(entry.compress_type != zipfile.ZIP_STORED for entry in entries):
                raise ContractError(f"{path} has compressed entries: torch.save writes none")
            if sum(entry.file_size for entry in entries) > MAX_BYTES:
                raise ContractError(f"{path} claims more than {MAX_BYTES >> 30} GiB of content")
            broken = archive.testzip()
    except (zipfile.BadZipFile, OSError, EOFError, ValueError, NotImplementedError, RuntimeError):
        raise ContractError(
            f"{path} is damaged, or was not written by torch.save of torch 1.6 or later",
            hint="get the file again, or save its state dict again",
        ) from None
    if broken is not None:
        raise ContractError(f"{path} is damaged: the checksum of {broken} is wrong")


def _float_tensors(content: Any, path: Path) -> dict[str, Tensor]:
    """The checked content of a `.pt`, as float32 tensors with memory of their own."""
    if not isinstance(content, dict):
        raise ContractError(f"{path} is not a bare state dict: it holds a {type(content).__name__}")
    for name, value in content.items():
        if not isinstance(name, str) or not isinstance(value, Tensor):
            raise ContractError(
                f"{path} is not a bare state dict: {name!r} is of type {type(value).__name__}",
                hint="save only the model's state_dict()",
            )
        plain = value.layout == torch.strided and not value.is_quantized and not value.is_nested
        if not plain or value.is_meta or not value.is_floating_point():
            raise ContractError(f"{path}: {name} is no plain tensor of floats ({value.dtype})")
    if sum(value.numel() for value in content.values()) > MAX_VALUES:
        raise ContractError(f"{path} claims more than {MAX_VALUES} values: not this model")
    state = {
        name: value.detach().to(torch.float32, copy=True).contiguous()
        for name, value in content.items()
    }
    unusable = [name for name, value in state.items() if not value.isfinite().all()]
    if unusable:
        raise ContractError(f"{path} has weights that are NaN or infinite: {_some(unusable)}")
    return state


def _common_width(state: Mapping[str, Tensor], path: Path) -> int:
    """`H`, the last axis of the first parameter there that ends in it."""
    for name in ("emo_query", "pkl_query", "graph_attn.W.weight", "emo_head.weight"):
        if name in state and state[name].ndim and state[name].shape[-1]:
            return state[name].shape[-1]
    raise ContractError(
        f"{path} has neither emo_query nor graph_attn.W.weight: not the published stage-3 model"
    )


def _input_width(state: Mapping[str, Tensor], modality: str) -> int | None:
    weight = state.get(_INPUT_WEIGHT.format(modality))
    return weight.shape[1] if weight is not None and weight.ndim == 2 and weight.numel() else None


def _ordered(found: Iterable[str]) -> list[str]:
    """The published order, then others by name; names that no module can have are left out, and
    their parameters then are unexpected ones."""
    usable = {name for name in found if name.isidentifier() and not hasattr(nn.ModuleDict, name)}
    return [n for n in MODALITIES if n in usable] + sorted(usable - set(MODALITIES))


def _run_config(
    path: Path, widths: Mapping[str, int], width: int, heads: int, trait_guide: bool
) -> dict[str, Any]:
    settings = config.build(
        FusionSettings,
        config.read_toml(CONFIGS / "default.toml"),
        config.read_toml(CONFIGS / "published.toml"),
        {
            "model": {"kind": "published", "width": width, "heads": heads},
            "components": {"trait_guide_bank": trait_guide},
        },
    )
    return {
        "settings": config.to_dict(settings),
        "modalities": {name: [size // 2, size // 2] for name, size in widths.items()},
        "labels": {"emotions": list(EMOTIONS), "traits": list(TRAITS)},
        "prior_shift": {},
        "multi_label": {},
        "corpora": [],
        "exports": {},
        "imported_from": {
            "file": path.name,
            "bytes": path.stat().st_size,
            "sha256": sha256_file(path),
        },
    }


def _metrics(model: nn.Module) -> dict[str, Any]:
    """What is known of imported weights: their number. Nothing was measured on our splits."""
    return {
        "imported": True,
        "parameters": sum(parameter.numel() for parameter in model.parameters()),
        "best_epoch": None,
        "epochs": None,
        "val": {},
        "thresholds": {},
        "constants": {},
        "coverage": [],
        "dropped": [],
        "warnings": ["emotion logits of the published model are not calibrated"],
        "samples": {},
        "configurations_tried": None,
    }


def _reason(error: Exception) -> str:
    """The first telling line of torch's long messages."""
    found = re.search(r"Unsupported (?:global|class|operand)[^\n]*", str(error))
    text = found[0] if found else (str(error).strip().splitlines() or [type(error).__name__])[0]
    return text[:200].rstrip(". ")


def _some(names: Iterable[str], most: int = 4) -> str:
    names = list(names)
    rest = f" and {len(names) - most} more" if len(names) > most else ""
    return ", ".join(names[:most]) + rest
