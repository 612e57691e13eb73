"""What stage 3 loses without a modality or a block: one run per variant and seed.

```
ABLATION/
  plan.json             data and settings that all runs share
  runs/<variant>/seed-<s>/     a normal run each, with <split>_predictions.parquet
  ablation.md|json|csv  the table (`ablate_table.py`)
  seconds.csv           training time; apart, since it is never the same twice
```
No torch here: runs are trained by `work.py`, maybe in other processes.
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import combinations
from pathlib import Path
from typing import Any

from mepr_fusion.settings import ComponentSettings, FusionSettings
from mepr_fusion.studies.jobs import Job, Source
from mepr_shared import config
from mepr_shared.errors import ConfigError, ContractError, MeprError, did_you_mean
from mepr_shared.train.compare_runs import config_difference
from mepr_shared.train.runs import replace_file

FULL = "full"
PLAN = "plan.json"

# What switches a component off, and the settings with which there is something to switch off.
COMPONENTS: dict[str, tuple[dict[str, Any], dict[str, Any]]] = {
    **{
        item.name: ({"components": {item.name: False}}, {"components": {item.name: True}})
        for item in dataclasses.fields(ComponentSettings)
    },
    "ssl": ({"ssl": False}, {"ssl": True}),
    "gradnorm": ({"weighting": "equal"}, {"weighting": "gradnorm"}),
}


@dataclass(frozen=True)
class Variant:
    """One row of the table.

    Attributes:
        name: `full`, `audio+text` or `no_graph_attention`; also its folder.
        kind: `full`, `modalities` or `component`.
        modalities: those it is trained on.
        settings: what differs from the full model's, nested.
    """

    name: str
    kind: str
    modalities: tuple[str, ...]
    settings: Mapping[str, Any] = field(default_factory=dict)


def parse_modalities(text: str, known: Sequence[str]) -> list[tuple[str, ...]]:
    """Subsets to train on, each once and never all modalities, which is the full model.

    Args:
        text: comma-separated: `all-subsets`, `leave-one-out`, `single`, or modalities joined
            with `+`.
        known: modalities there are, in their order.

    Raises:
        ConfigError: an unknown modality, one that is named twice in a subset, or nothing to
            leave out.
    """
    sizes = {
        "all-subsets": range(1, len(known)),
        "leave-one-out": range(len(known) - 1, len(known)),
        "single": range(1, 2),
    }
    found: dict[tuple[str, ...], None] = {}
    for part in (part.strip() for part in text.split(",")):
        if part in sizes:
            if len(known) < 2:
                raise ConfigError(f"--modalities {part}: there is only {' '.join(known)}")
            found |= {subset: None for size in sizes[part] for subset in combinations(known, size)}
            continue
        names = part.split("+")
        for name in names:
            if name not in known:
                raise ConfigError(
                    f"--modalities: {name!r} is neither a modality of these exports nor a group",
                    hint=did_you_mean(name, [*known, *sizes]),
                )
        if len(set(names)) < len(names):
            raise ConfigError(f"--modalities: {part!r} names a modality twice")
        found[tuple(name for name in known if name in names)] = None
    found.pop(tuple(known), None)
    return list(found)


def parse_components(text: str, settings: FusionSettings) -> list[str]:
    """Names of components to switch off.

    Args:
        text: `all` that the full model has, or a comma-separated list.
        settings: of the full model.

    Raises:
        ConfigError: an unknown component, or one that the full model does not have.
    """
    present = [name for name in COMPONENTS if _is_on(name, settings)]
    if text == "all":
        return present
    names = list(dict.fromkeys(part.strip() for part in text.split(",")))
    for name in names:
        if name not in COMPONENTS:
            raise ConfigError(
                f"--components: {name!r} is unknown",
                hint=did_you_mean(name, [*COMPONENTS, "all"]),
            )
        if name not in present:
            raise ConfigError(
                f"--components: the full model is without {name} already",
                hint=f"switch it on: --set {_assignment(COMPONENTS[name][1])}",
            )
    return names


def variants(
    known: Sequence[str],
    settings: FusionSettings,
    *,
    modalities: str | None = None,
    components: str | None = None,
) -> list[Variant]:
    """The full model, subsets of modalities, then components left out.

    With neither given: every modality and every component is left out once.
    """
    if modalities is None and components is None:
        modalities, components = "leave-one-out" if len(known) > 1 else None, "all"
    every = tuple(known)
    found = [Variant(FULL, "full", every)]
    for subset in parse_modalities(modalities, known) if modalities is not None else []:
        found.append(Variant("+".join(subset), "modalities", subset))
    for name in parse_components(components, settings) if components is not None else []:
        found.append(Variant(f"no_{name}", "component", every, COMPONENTS[name][0]))
    return found


def jobs_of(
    variants: Iterable[Variant],
    source: Source,
    settings: FusionSettings,
    folder: Path,
    *,
    seeds: int,
    splits: Sequence[str],
) -> dict[tuple[str, int], Job]:
    """(variant, seed) -> its job; seeds count up from that of the settings.

    Seed by seed, so that an ablation that is stopped early has whole rounds.

    Raises:
        ConfigError: fewer than one seed.
    """
    if seeds < 1:
        raise ConfigError(f"--seeds takes a number of at least 1, got {seeds}")
    found = {}
    chosen = list(variants)
    for seed in range(settings.fit.seed, settings.fit.seed + seeds):
        for variant in chosen:
            layers = config.to_dict(settings), variant.settings, {"fit": {"seed": seed}}
            found[variant.name, seed] = Job(
                f"{variant.name}, seed {seed}",
                source,
                variant.modalities,
                config.merge(*layers),
                run_folder(folder, variant.name, seed),
                tuple(dict.fromkeys(splits)),
            )
    return found


def run_folder(folder: Path, variant: str, seed: int) -> Path:
    """Where the run of a variant and seed lies."""
    return folder / "runs" / variant / f"seed-{seed}"


def keep_plan(folder: Path, plan: Mapping[str, Any], *, resume: bool) -> None:
    """Write what all runs of a study share, or see that it is what an earlier call wrote.

    Args:
        folder: of the study.
        plan: JSON-ready.
        resume: the study may be there already.

    Raises:
        MeprError: it is there and `resume` is off, or its plan is another one.
    """
    path = folder / PLAN
    if path.exists():
        if not resume:
            raise MeprError(
                f"{folder} holds a study already", hint="--resume goes on; or another --run"
            )
        before = read_plan(folder)
        changed = config_difference(before, json.loads(json.dumps(plan)))
        if changed:
            key, (old, new) = next(iter(changed.items()))
            raise MeprError(
                f"{folder} was begun with another {key}: {json.dumps(old)}, now {json.dumps(new)}",
                hint="repeat the original options, or give another --run",
            )
        return
    if folder.exists() and any(entry.name[0] != "." for entry in folder.iterdir()):
        raise MeprError(f"{folder} is not empty and holds no study", hint="give another --run")
    folder.mkdir(parents=True, exist_ok=True)
    text = json.dumps(plan, indent=2, ensure_ascii=False) + "\n"
    replace_file(path, lambda target: target.write_text(text, "utf-8"))


def read_plan(folder: Path) -> dict[str, Any]:
    """What `keep_plan` wrote.

    Raises:
        ContractError: it is damaged.
    """
    path = folder / PLAN
    try:
        return json.loads(path.read_text("utf-8"))
    except (OSError, ValueError) as error:
        raise ContractError(f"{path} is damaged: {error}") from None


def pinned_choices(folder: Path, *, resume: bool) -> dict[tuple[str, str | None], str]:
    """The exports that an interrupted study reads: later exports do not enter it."""
    if not resume or not (folder / PLAN).exists():
        return {}
    found: dict[tuple[str, str | None], str] = {}
    for place, export_id in read_plan(folder)["source"]["exports"].items():
        modality, _, corpus = place.partition(":")
        found[modality, corpus] = export_id
    return found


def _is_on(name: str, settings: FusionSettings) -> bool:
    return _within(COMPONENTS[name][1], config.to_dict(settings))


def _within(wanted: Mapping[str, Any], values: Mapping[str, Any]) -> bool:
    return all(
        _within(value, values.get(key, {}))
        if isinstance(value, Mapping)
        else values.get(key) == value
        for key, value in wanted.items()
    )


def _assignment(nested: Any) -> str:
    if not isinstance(nested, Mapping):
        text = str(nested).lower() if isinstance(nested, bool) else str(nested)
        return "=" + {"true": "on", "false": "off"}.get(text, text)
    ((key, value),) = nested.items()
    rest = _assignment(value)
    return key + (rest if rest.startswith("=") else "." + rest)
