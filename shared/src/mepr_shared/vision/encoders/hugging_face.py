"""Vision models of `transformers`: CLIP, SigLIP, ViT, DINOv2, ConvNeXt, ResNet and their like.

The model's own vector of a picture (`Readout()`) is the first of these that it has:

1. the image embedding, after the projection into the space that images and texts share (CLIP);
2. the output of its pooler, if the folder has weights for it;
3. the class token of the last layer;
4. the mean of the last layer's tokens or map.

Layers are the items of the model's outermost list of modules: the blocks of a ViT, the stages of a
ConvNeXt or ResNet. Code that comes with a model is never run.
"""

from __future__ import annotations

from collections.abc import Collection
from pathlib import Path
from typing import Any

from torch import Tensor, nn

from mepr_shared.errors import ConfigError, require
from mepr_shared.vision.encoders.loaded import BATCH_OF_MAPS, BATCH_OF_TOKENS, States

# Patches of so many pixels make few tokens; a ConvNeXt's have 4.
_COARSE = 8


class HuggingFaceNetwork:
    """A `Network` around a model of `transformers`.

    Args:
        model: takes `pixel_values`, gives `last_hidden_state`.
        pooled: whether its pooler has weights.
    """

    def __init__(self, model: nn.Module, *, pooled: bool = True) -> None:
        self.module = model
        self._pooled = pooled
        self._layers = _layers_of(model)
        config: Any = model.config
        self._type = str(config.model_type)
        patch = getattr(config, "patch_size", None)
        self._patch = patch if isinstance(patch, int) else None
        coarse = self._patch is not None and self._patch >= _COARSE
        self.batch_on_cpu = BATCH_OF_TOKENS if coarse else BATCH_OF_MAPS

    def states(self, pixels: Tensor, layers: Collection[int | None]) -> dict[int | None, States]:
        """See `Network.states`."""
        numbers = [layer for layer in layers if layer is not None]
        if max(numbers, default=0) > len(self._layers):
            raise ConfigError(
                f"a {self._type} model of {len(self._layers)} layers has no layer {max(numbers)}",
                hint="0 is the input of the first layer",
            )
        seen: dict[int, Tensor] = {}
        last = max(numbers) if None not in layers else None
        hooks = [self._watch(number, number == last, seen) for number in set(numbers)]
        output: Any = None
        try:
            output = self.module(pixel_values=pixels)
        except _Enough:
            pass
        finally:
            for hook in hooks:
                hook.remove()
        found: dict[int | None, States] = {n: States(self._map(s, pixels)) for n, s in seen.items()}
        if output is not None:
            hidden = output.last_hidden_state
            found[None] = States(self._map(hidden, pixels), self._summary(output, pixels))
        return found

    def _watch(self, number: int, stop: bool, seen: dict[int, Tensor]) -> Any:
        """Keep the states of a layer when the model computes them."""

        def keep(states: Any) -> None:
            seen[number] = states[0] if isinstance(states, tuple) else states
            if stop:
                raise _Enough

        if number == 0:
            return self._layers[0].register_forward_pre_hook(
                lambda _module, arguments, named: keep(
                    arguments or named.get("hidden_states", next(iter(named.values())))
                ),
                with_kwargs=True,
            )
        return self._layers[number - 1].register_forward_hook(
            lambda _module, _arguments, result: keep(result)
        )

    def _map(self, hidden: Tensor, pixels: Tensor) -> Tensor:
        """`[B, T, D]` or `[B, D, h, w]` -> `[B, D, h, w]`: what stands for places."""
        if hidden.dim() == 4:
            return hidden
        side = self._side(hidden.shape[1], pixels)
        # Tokens of no place come first: the class, registers.
        places = hidden[:, hidden.shape[1] - side * side :]
        return places.transpose(1, 2).unflatten(2, (side, side))

    def _side(self, tokens: int, pixels: Tensor) -> int:
        if self._patch and 0 < (side := pixels.shape[-1] // self._patch) ** 2 <= tokens:
            return side
        # Models that halve their maps on the way have no other tokens.
        return int(tokens**0.5)

    def _summary(self, output: Any, pixels: Tensor) -> Tensor | None:
        embeds = getattr(output, "image_embeds", None)
        if embeds is not None:
            return embeds
        pooled = getattr(output, "pooler_output", None)
        if pooled is not None and self._pooled:
            return pooled.flatten(1)
        hidden = output.last_hidden_state
        if hidden.dim() == 3 and hidden.shape[1] > self._side(hidden.shape[1], pixels) ** 2:
            return hidden[:, 0]
        return None


class _Enough(Exception):
    """Ends a forward pass whose upper layers nobody asked for."""


def open_hugging_face(folder: Path) -> HuggingFaceNetwork:
    """Load the vision model of a folder that `save_pretrained` wrote.

    Raises:
        MissingDependency: transformers is not installed.
        ConfigError: the folder holds no vision model, or not all of its weights.
    """
    transformers = require("transformers", extra="mepr-shared[vision]")
    config = loaded(transformers.AutoConfig, folder, "model", trust_remote_code=False)
    tower = _image_tower(config)
    vision = _vision_class(transformers, tower)
    if vision is None:
        raise ConfigError(
            f"{folder} is a {config.model_type} model, which does not read pictures",
            hint="CLIP, SigLIP, ViT, DINOv2, ConvNeXt and ResNet do",
        )
    model, missing = _with_weights(vision, folder, tower)
    if missing and vision is transformers.CLIPVisionModelWithProjection:
        vision = transformers.CLIPVisionModel
        model, missing = _with_weights(vision, folder, tower)
    # A pooler that a classifier was saved without is random, and of no use.
    strange = sorted(key for key in missing if "pooler" not in key)
    if strange:
        raise ConfigError(
            f"{folder} does not hold all weights of a {vision.__name__}: "
            f"{len(strange)} are missing, {strange[0]} for one"
        )
    return HuggingFaceNetwork(model, pooled=not missing)


def loaded(kind: Any, folder: Path, what: str, **arguments: Any) -> Any:
    """`kind.from_pretrained`, from this folder alone and with its errors in one line.

    Raises:
        ConfigError: it does not load.
    """
    try:
        return kind.from_pretrained(folder, local_files_only=True, **arguments)
    except Exception as error:  # of many kinds: no file, bad JSON, unknown type, torn weights
        reason = (str(error).strip().splitlines() or [repr(error)])[0]
        raise ConfigError(f"{folder} does not load as an image {what}: {reason}") from None


def _image_tower(config: Any) -> Any:
    """The part of a configuration that is about pictures."""
    tower = getattr(config, "vision_config", config)
    if config.model_type == "clip":
        # The two towers share one projection width, which only the whole is certain to know.
        tower.projection_dim = config.projection_dim
    return tower


def _vision_class(transformers: Any, tower: Any) -> Any:
    """The class of an image tower; None where it reads something else."""
    if tower.model_type == "clip_vision_model":
        return transformers.CLIPVisionModelWithProjection
    found = transformers.MODEL_MAPPING.get(type(tower), None)
    return found if getattr(found, "main_input_name", "") == "pixel_values" else None


def _with_weights(kind: Any, folder: Path, config: Any) -> tuple[nn.Module, set[str]]:
    """The model and the names of the weights that the folder lacks."""
    from transformers.utils import logging

    # What the folder has besides, the text tower for one, is no news.
    verbosity, bars = logging.get_verbosity(), logging.is_progress_bar_enabled()
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    try:
        model, information = loaded(
            kind, folder, "encoder", config=config, output_loading_info=True
        )
    finally:
        logging.set_verbosity(verbosity)
        if bars:
            logging.enable_progress_bar()
    return model, set(information["missing_keys"])


def _layers_of(model: nn.Module) -> nn.ModuleList:
    """The outermost list of modules."""
    lists = [part for part in model.modules() if isinstance(part, nn.ModuleList)]
    return lists[0] if lists else nn.ModuleList()
