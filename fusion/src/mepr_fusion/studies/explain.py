"""`mepr-fusion explain-config`: the model as built, and where its settings come from."""

from __future__ import annotations

import argparse
import dataclasses
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import nn

from mepr_fusion.given import given_file
from mepr_fusion.inputs import choose, parse_choices
from mepr_fusion.settings import DEFAULTS, MODES, FusionSettings
from mepr_fusion.train import KIND, build_model
from mepr_shared import config
from mepr_shared.cli.output import emit_json, emit_table, say
from mepr_shared.errors import ConfigError, ContractError
from mepr_shared.labels import EMOTIONS, TRAITS
from mepr_shared.train.runs import Run

# Samples of the trial pass, a number that no width is likely to be: where it appears stands B.
SAMPLES = 97

# Blocks whose `forward` is not called in one piece: shapes in terms of the model's.
PARTS = {
    "GraphAttention": "[B, M, H] -> [B, M, H]",
    "AdapterBank": "[B, M, H] -> [B, M, H]",
    "ProjectorAdapter": "[B, width] each -> [B, M, H]",
}

Source = tuple[str, Mapping[str, Any]]


def run_explain(arguments: argparse.Namespace) -> int:
    """Print the blocks, the settings and the objective of a run or of a configuration."""
    if arguments.run:
        run_config, sources = _of_run(arguments)
    else:
        run_config, sources = _of_configuration(arguments)
    found = explanation(run_config, sources)
    if arguments.json:
        emit_json(found)
        return 0
    blocks = [[b["block"], b["kind"], b["shape"], f"{b['parameters']:,}"] for b in found["blocks"]]
    blocks.append(["total", "", "", f"{found['parameters']:,}"])
    emit_table(blocks, ["block", "kind", "shape", "parameters"], title="model")
    dims = found["dimensions"]
    say(f"B samples, M = {dims['M']} modalities, H = {dims['H']}")
    shared = found["shared_weight"]
    say(f"shared weight: {shared['name']} {shared['shape']}, {shared['parameters']:,} parameters")
    for name, value in found["objective"].items():
        say(f"{name}: {value}")
    rows = [[s["setting"], str(s["value"]), s["from"]] for s in found["settings"]]
    emit_table(rows, ["setting", "value", "from"], title="settings in force")
    return 0


def explanation(run_config: Mapping[str, Any], sources: list[Source]) -> dict[str, Any]:
    """What a stage-3 run's `config.json` builds, ready for JSON.

    Args:
        run_config: `settings` and `modalities`.
        sources: named layers of settings, the last one that has a key is where it comes from.

    Returns:
        `blocks` (`block, kind, shape, parameters`, which add up to `parameters`), `dimensions`,
        `shared_weight`, `objective`, and `settings` (`setting, value, from`) that are read.
    """
    settings = config.build(FusionSettings, run_config["settings"])
    halves = MODES[settings.mode][0]
    widths = {
        name: sum(pair) if halves == "both" else pair[halves == "traits"]
        for name, pair in run_config["modalities"].items()
    }
    # The trial pass and the initial weights must not disturb the caller's random numbers.
    with torch.random.fork_rng(devices=[]):
        model = build_model(run_config).eval()
        shapes = _shapes(model, widths)
    return {
        "modalities": widths,
        "dimensions": {"M": len(widths), "H": settings.model.width},
        "blocks": [
            {
                "block": name,
                "kind": kind,
                "shape": shapes.get(name) or PARTS.get(kind, "-"),
                "parameters": count,
            }
            for name, kind, count in blocks(model)
        ],
        "parameters": sum(p.numel() for p in model.parameters()),
        "shared_weight": _shared(model),
        "objective": objective(settings),
        "settings": [
            {"setting": key, "value": value, "from": _origin(key, sources)}
            for key, value in read_settings(settings)
        ],
    }


def blocks(model: nn.Module) -> Iterator[tuple[str, str, int]]:
    """(path, class, parameters) of blocks that together hold every parameter exactly once.

    A module's parts are blocks of their own down to the second level (containers do not count),
    and what a module holds beside its parts stands under its own name.
    """
    walked = list(_walk(model, "", 2))
    paths = [path for path, _ in walked]
    counted: set[int] = set()
    for name, module in walked:
        divided = any(
            path != name and path.startswith(f"{name}." if name else "") for path in paths
        )
        own = [p for p in module.parameters(recurse=not divided) if id(p) not in counted]
        counted |= {id(p) for p in own}
        if own:
            yield name or "(model)", type(module).__name__, sum(p.numel() for p in own)


def objective(settings: FusionSettings) -> dict[str, Any]:
    """How the terms of the loss are weighted: fixed weights, or wallets that GradNorm fills."""
    tasks = MODES[settings.mode][1]
    semi = settings.ssl and settings.pseudo != "off" and settings.semi.weight > 0
    found: dict[str, Any] = {
        "tasks": list(tasks),
        "weighting": settings.weighting,
        "terms": [*tasks, *(f"{task}, semi-supervised" for task in tasks if semi)],
    }
    if settings.weighting == "gradnorm":
        chosen, count = settings.gradnorm, len(tasks)
        found["supervised wallet"] = {
            "budget": float(count),
            "alpha": chosen.alpha,
            "learning_rate": chosen.learning_rate,
            "floor": chosen.floor,
        }
        if semi:
            found["semi-supervised wallet"] = {
                "budget": count * settings.semi.weight,
                "alpha": chosen.semi_alpha,
                "learning_rate": chosen.semi_learning_rate,
                "floor": chosen.floor,
            }
        return found
    fixed = settings.weighting == "fixed"
    given = {"emotion": settings.emotion_weight, "traits": settings.trait_weight}
    found["weights"] = {task: given[task] if fixed else 1.0 for task in tasks}
    return found


def read_settings(settings: Any, prefix: str = "") -> Iterator[tuple[str, Any]]:
    """(dotted key, value) of every setting that this configuration reads."""
    for item in dataclasses.fields(settings):
        value = getattr(settings, item.name)
        if "when" in item.metadata:
            sibling, values = item.metadata["when"]
            if getattr(settings, sibling) not in values:
                continue
        if dataclasses.is_dataclass(value):
            yield from read_settings(value, f"{prefix}{item.name}.")
        else:
            yield prefix + item.name, value


def _walk(module: nn.Module, name: str, depth: int) -> Iterator[tuple[str, nn.Module]]:
    yield name, module
    for child_name, child in module.named_children():
        path = f"{name}.{child_name}" if name else child_name
        container = isinstance(child, (nn.ModuleDict, nn.ModuleList, nn.Sequential))
        if depth > 1 or container:
            yield from _walk(child, path, depth if container else depth - 1)
        else:
            yield path, child


def _shared(model: Any) -> dict[str, Any]:
    weight = model.shared_weight()
    name = next((n for n, p in model.named_parameters() if p is weight), "-")
    return {"name": name, "shape": list(weight.shape), "parameters": weight.numel()}


@torch.no_grad()
def _shapes(model: nn.Module, widths: Mapping[str, int]) -> dict[str, str]:
    """Path -> `[in] -> [out]` of the blocks that a trial pass calls in one piece."""
    found: dict[str, str] = {}

    def hook(name: str) -> Any:
        def note(_: nn.Module, given: tuple[Any, ...], output: Any) -> None:
            found[name] = f"{_shape(given)} -> {_shape(output)}"

        return note

    handles = [m.register_forward_hook(hook(n)) for n, m in _walk(model, "", 2) if n]
    count = len(widths)
    try:
        model(
            {name: torch.zeros(SAMPLES, width) for name, width in widths.items()},
            torch.zeros(SAMPLES, count, len(EMOTIONS)),
            torch.full((SAMPLES, count, len(TRAITS)), 0.5),
            torch.ones(SAMPLES, count, dtype=torch.bool),
        )
    finally:
        for handle in handles:
            handle.remove()
    return found


def _shape(value: Any) -> str:
    """The first tensor's shape, the batch as B."""
    while isinstance(value, (tuple, list)) and value:
        value = value[0]
    if not isinstance(value, torch.Tensor):
        return "..."
    return "[" + ", ".join("B" if n == SAMPLES else str(n) for n in value.shape) + "]"


def _of_run(arguments: argparse.Namespace) -> tuple[Mapping[str, Any], list[Source]]:
    if arguments.widths or arguments.corpus or arguments.config or arguments.set:
        raise ConfigError(
            "--run shows a run as it is",
            hint="leave --widths, --corpus, --config and --set out",
        )
    run = Run.load(arguments.run)
    if run.kind != KIND:
        raise ContractError(f"{run.path} is a {run.kind} run", hint="give a stage-3 run")
    differing = _differing(run.config["settings"], config.to_dict(FusionSettings()))
    return run.config, [("run", differing)]


def _of_configuration(arguments: argparse.Namespace) -> tuple[Mapping[str, Any], list[Source]]:
    layers: list[Source] = [(DEFAULTS.name, config.read_toml(DEFAULTS))]
    if arguments.config:
        layers.append((str(arguments.config), given_file(arguments.config)))
    layers.append(("--set", config.parse_assignments(arguments.set)))
    settings = config.build(FusionSettings, *(layer for _, layer in layers))
    config.refuse_unused(settings, config.merge(*(layer for _, layer in layers[1:])))
    return {"settings": config.to_dict(settings), "modalities": _widths(arguments)}, layers


def _widths(arguments: argparse.Namespace) -> dict[str, list[int]]:
    if bool(arguments.widths) == bool(arguments.corpus):
        raise ConfigError(
            "which modalities?",
            hint="--widths audio=512,text=512, --corpus and --exports, or --run",
        )
    if arguments.widths:
        return parse_widths(arguments.widths)
    if not arguments.exports:
        raise ConfigError("--corpus needs --exports")
    inputs = choose(arguments.corpus, Path(arguments.exports), parse_choices(arguments.export))
    found = {}
    for (modality, _), export in sorted(inputs.exports.items()):
        width = export.manifest.width
        found[modality] = [width("emotion_embedding") or 0, width("trait_embedding") or 0]
    return found


def parse_widths(text: str) -> dict[str, list[int]]:
    """`audio=512,text=768` as `{"audio": [256, 256], "text": [384, 384]}`: both tasks' halves.

    Raises:
        ConfigError: not of this form, or a modality is given twice.
    """
    found: dict[str, list[int]] = {}
    for part in text.split(","):
        name, _, width = part.strip().partition("=")
        if not name or not width.isdecimal() or int(width) < 2:
            raise ConfigError(f"--widths takes NAME=WIDTH,..., got {part!r}")
        if name in found:
            raise ConfigError(f"--widths names {name!r} twice")
        found[name] = [int(width) - int(width) // 2, int(width) // 2]
    return found


def _differing(values: Mapping[str, Any], defaults: Mapping[str, Any]) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for key, value in values.items():
        before = defaults.get(key)
        if isinstance(value, Mapping) and isinstance(before, Mapping):
            inner = _differing(value, before)
            found |= {key: inner} if inner else {}
        elif value != before:
            found[key] = value
    return found


def _origin(key: str, sources: list[Source]) -> str:
    for name, layer in reversed(sources):
        value: Any = layer
        for part in key.split("."):
            if not isinstance(value, Mapping) or part not in value:
                break
            value = value[part]
        else:
            return name
    return "default"
