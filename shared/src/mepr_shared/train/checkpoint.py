"""Model and trainer state as safetensors. Nothing here is ever unpickled."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from mepr_shared.errors import ContractError
from mepr_shared.train.runs import Run, replace_file


def save_weights(model_state: dict[str, Tensor], path: Path) -> None:
    """Write tensors atomically. Shared storage is copied, since safetensors refuses aliases."""
    tensors = {name: tensor.detach().cpu().contiguous() for name, tensor in model_state.items()}
    replace_file(path, lambda target: save_file(tensors, str(target)))


def load_weights(model: nn.Module, path: Path) -> None:
    """Load weights into a model of the same shape.

    Raises:
        ContractError: the file is damaged, or does not fit the model.
    """
    try:
        model.load_state_dict(load_file(str(path)))
    except (SafetensorError, OSError) as error:
        raise ContractError(f"{path} cannot be read: {error}") from None
    except RuntimeError as error:
        detail = " ".join(str(error).split())[:300]
        raise ContractError(f"{path} does not fit the model: {detail}") from None


def save_trainer(
    run: Run,
    model: nn.Module,
    optimiser: torch.optim.Optimizer,
    extra_tensors: dict[str, Tensor],
    record: dict[str, Any],
) -> None:
    """Everything `--resume` needs, in one atomic file.

    The record lives in the safetensors metadata, so that tensors and record can never disagree
    after a crash; `trainer.json` is a copy for people.
    """
    state = optimiser.state_dict()
    tensors = {f"model.{name}": tensor for name, tensor in model.state_dict().items()}
    tensors |= {f"extra.{name}": tensor for name, tensor in extra_tensors.items()}
    for index, slots in state["state"].items():
        for slot, value in slots.items():
            tensors[f"optimiser.{index}.{slot}"] = torch.as_tensor(value)
    record = {**record, "optimiser": _plain_groups(state["param_groups"])}
    metadata = {"record": json.dumps(record)}
    tensors = {name: tensor.detach().cpu().clone() for name, tensor in tensors.items()}
    replace_file(
        run.path / "trainer.safetensors",
        lambda target: save_file(tensors, str(target), metadata=metadata),
    )
    run.write_json("trainer.json", record)


def load_trainer(
    run: Run, model: nn.Module, optimiser: torch.optim.Optimizer
) -> tuple[dict[str, Any], dict[str, Tensor]] | None:
    """Restore model and optimiser; None where no epoch was finished yet.

    Returns:
        The record and the extra tensors that `save_trainer` was given.
    """
    path = run.path / "trainer.safetensors"
    if not path.exists():
        return None
    try:
        with safe_open(str(path), framework="pt") as file:
            record = json.loads(file.metadata()["record"])
            names = list(file.keys())
            tensors = {name: file.get_tensor(name) for name in names}
    except (SafetensorError, OSError, KeyError, TypeError, json.JSONDecodeError) as error:
        raise ContractError(
            f"{path} is damaged: {error}", hint="remove the run directory and train again"
        ) from None
    model.load_state_dict(_below("model.", tensors))
    slots: dict[int, dict[str, Tensor]] = {}
    for name, tensor in _below("optimiser.", tensors).items():
        index, slot = name.split(".", 1)
        slots.setdefault(int(index), {})[slot] = tensor
    optimiser.load_state_dict({"state": slots, "param_groups": record["optimiser"]})
    return record, _below("extra.", tensors)


def _below(prefix: str, tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    return {n.removeprefix(prefix): t for n, t in tensors.items() if n.startswith(prefix)}


def _plain_groups(groups: list[dict[str, Any]]) -> list[dict[str, Any]]:
    return json.loads(json.dumps(groups))
