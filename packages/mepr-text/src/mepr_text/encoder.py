"""Pretrained sentence-transformers encoder -> token embeddings `[T, D]` per text."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from sentence_transformers import SentenceTransformer
from torch import Tensor

from mepr_shared.errors import ConfigError
from mepr_shared.extract.weights import resolve
from mepr_shared.plugin import ClipFeatures, ClipInput, UpperLayers
from mepr_shared.train.loop import uses_bf16
from mepr_text.plugin import TextEncoderSettings
from mepr_text.preprocess import Window, windows

# Entries of a Hugging Face configuration that say nothing about the layers.
_NOT_REBUILT = ("_name_or_path", "architectures", "transformers_version", "dtype", "torch_dtype")

# Raise this when the same settings would give other features than before.
SCHEMA = 1


class TextExtractor:
    """Token embeddings of any sentence-transformers model, special tokens at both ends.

    Args:
        model: the loaded model.
        spec: what determines the features (see `mepr_shared.plugin.Extractor`).
        window: tokens per window without special tokens.
        settings: the `[encoder]` table.
    """

    batch_clips = 256

    def __init__(
        self,
        model: SentenceTransformer,
        spec: Mapping[str, Any],
        window: int,
        settings: TextEncoderSettings,
    ) -> None:
        self.model = model.eval()
        self.spec = spec
        self.window = window
        self.settings = settings
        self.tokenizer = model.tokenizer
        # Texts are tokenised whole and split afterwards, so no length is too long here.
        self.tokenizer.model_max_length = 10**9
        self.prefix, self.suffix = _special_tokens(model.tokenizer)
        self.bf16 = uses_bf16(settings.precision, model.device.type)

    @classmethod
    def open(cls, settings: TextEncoderSettings, *, device: str) -> TextExtractor:
        """Load the encoder that the settings name.

        Raises:
            ConfigError: the weights cannot be had, or the window leaves no room for text.
        """
        folder = resolve(settings.id, revision=settings.revision, needs=settings.needs)
        model = SentenceTransformer(str(folder.path), device=device, local_files_only=True)
        special = model.tokenizer.num_special_tokens_to_add()
        longest = model.get_max_seq_length() or 512
        window = min(settings.max_tokens or longest, longest) - special
        if window <= settings.overlap:
            raise ConfigError(
                f"encoder.max_tokens leaves {window} tokens per window, "
                f"not more than encoder.overlap = {settings.overlap}"
            )
        transformer: Any = model[0].auto_model
        depth = transformer.config.num_hidden_layers
        if any(not 0 <= layer <= depth for layer in settings.layers):
            raise ConfigError(
                f"encoder.layers = {list(settings.layers)}: the encoder has layers 0 to {depth}",
                hint="0 is the input embedding",
            )
        encoder: Any = getattr(transformer, "encoder", None)
        if settings.layers and hasattr(encoder, "layer"):
            # Layers above the highest one asked for would be computed for nothing.
            encoder.layer = encoder.layer[: max(1, *settings.layers)]
        spec = {
            "encoder": settings.id,
            "revision": folder.revision,
            "weights_sha256": folder.weights_sha256,
            "settings": {
                "needs": settings.needs,
                "layers": list(settings.layers),
                "max_tokens": window + special,
                "overlap": settings.overlap,
                "context_turns": settings.context_turns,
            },
            "schema": SCHEMA,
        }
        return cls(model, spec, window, settings)

    def cost(self, clip: ClipInput) -> float:
        """Characters: a good stand-in for tokens before tokenisation."""
        return float(len(clip.text or ""))

    def extract(self, clips: Sequence[ClipInput]) -> list[ClipFeatures]:
        """Token embeddings of each clip; `no_text` where there is nothing to read."""
        texts = [" ".join((clip.text or "").split()) for clip in clips]
        tokens = self._tokenize(texts)
        contexts = self._tokenize([" ".join(clip.context) for clip in clips])
        pieces = [
            window
            for index, ids in enumerate(tokens)
            if ids
            for window in windows(
                index, ids, contexts[index], size=self.window, overlap=self.settings.overlap
            )
        ]
        embedded: dict[Window, np.ndarray] = {}
        for batch in self._batches(pieces):
            embedded.update(zip(batch, self._embed(batch), strict=True))
        found: list[list[np.ndarray]] = [[] for _ in clips]
        for piece in pieces:
            found[piece.clip].append(embedded[piece])
        return [
            ClipFeatures(np.concatenate(parts) if len(parts) > 1 else parts[0])
            if parts
            else ClipFeatures(None, "no_text", "the transcript is empty")
            for parts in found
        ]

    def token_spans(self, text: str) -> list[tuple[int, int]]:
        """(start, end) in `text` of every frame that `extract` gives for it, in order.

        Special tokens have empty spans. Empty where the tokenizer does not know its characters.
        """
        if not self.tokenizer.is_fast:
            return []
        options = {"add_special_tokens": False, "return_offsets_mapping": True}
        inside = [tuple(pair) for pair in self.tokenizer(text, **options)["offset_mapping"]]
        if not inside:
            return []
        end = (len(text), len(text))
        return [(0, 0)] * len(self.prefix) + inside + [end] * len(self.suffix)

    def _tokenize(self, texts: Sequence[str]) -> list[list[int]]:
        return self.tokenizer(list(texts), add_special_tokens=False)["input_ids"]

    def _batches(self, pieces: Sequence[Window]) -> Iterator[list[Window]]:
        """Windows of like length, at most `batch_tokens` padded tokens at a time."""
        batch: list[Window] = []
        for piece in sorted(pieces, key=lambda p: -len(p.tokens)):
            longest = len(batch[0].tokens) if batch else len(piece.tokens)
            if batch and longest * (len(batch) + 1) > self.settings.batch_tokens:
                yield batch
                batch = []
            batch.append(piece)
        if batch:
            yield batch

    @torch.inference_mode()
    def _embed(self, batch: Sequence[Window]) -> list[np.ndarray]:
        sequences = [[*self.prefix, *piece.tokens, *self.suffix] for piece in batch]
        padded = self.tokenizer.pad(
            {"input_ids": sequences, "attention_mask": [[1] * len(s) for s in sequences]},
            return_tensors="pt",
        ).to(self.model.device)
        with torch.autocast(self.model.device.type, dtype=torch.bfloat16, enabled=self.bf16):
            hidden = self._hidden(dict(padded)).float().cpu().numpy()
        # Padding is on either side, as the tokenizer has it.
        left = self.tokenizer.padding_side == "left"
        result = []
        for row, piece, sequence in zip(hidden, batch, sequences, strict=True):
            own = row[len(row) - len(sequence) :] if left else row[: len(sequence)]
            result.append(own[self._kept(piece)])
        return result

    def _kept(self, piece: Window) -> np.ndarray:
        """Which tokens of a window enter the clip's sequence.

        The special tokens stand once around the whole text, as in an unsplit text.
        """
        before, after = len(self.prefix), len(self.suffix)
        kept = np.zeros(before + len(piece.tokens) + after, dtype=bool)
        kept[before + piece.keep_from : before + piece.keep_to] = True
        kept[:before] = piece.first
        kept[len(kept) - after :] = piece.last
        return kept

    def _hidden(self, padded: dict[str, Tensor]) -> Tensor:
        """Token embeddings `[B, T, D]`: the model's own, or the chosen layers side by side."""
        if not self.settings.layers:
            return self.model(padded)["token_embeddings"]
        transformer: Any = self.model[0].auto_model
        states = transformer(**padded, output_hidden_states=True).hidden_states
        return torch.cat([states[layer] for layer in self.settings.layers], dim=-1)


def upper_layers(spec: Mapping[str, Any], count: int) -> UpperLayers:
    """The `count` encoder layers above the one whose states a frame store holds.

    Raises:
        ConfigError: the store does not hold the states of one layer with `count` above it, the
            encoder's weights have changed since, or it is not BERT-like.
    """
    folder = resolve(spec["encoder"], revision=spec["revision"], needs=spec["settings"]["needs"])
    if folder.weights_sha256 != spec["weights_sha256"]:
        raise ConfigError(f"the weights of {spec['encoder']} are not those of the frame store")
    loaded = SentenceTransformer(str(folder.path), device="cpu", local_files_only=True)
    model: Any = loaded[0].auto_model
    depth = model.config.num_hidden_layers
    below = spec["settings"]["layers"]
    if len(below) != 1 or not count or below[0] + count > depth:
        raise ConfigError(
            f"model.kind = pretrained with {count} layers needs features of one layer with as "
            f"many above it, the store has encoder.layers = {below} of {depth}",
            hint=f"extract with --set encoder.layers=[{max(0, depth - max(1, count))}]",
        )
    if not hasattr(getattr(model, "encoder", None), "layer"):
        raise ConfigError(f"{spec['encoder']} is not BERT-like: its layers cannot be fine-tuned")
    chosen = model.encoder.layer[below[0] : below[0] + count]
    weights = {f"layer.{name}": tensor for name, tensor in chosen.state_dict().items()}
    config = {
        **model.config.to_diff_dict(),
        "model_type": model.config.model_type,
        "num_hidden_layers": count,
        # The token embeddings lie below the stored states: one row keeps the rebuilt model small.
        "vocab_size": 1,
        "pad_token_id": 0,
    }
    return UpperLayers({k: v for k, v in config.items() if k not in _NOT_REBUILT}, weights)


def _special_tokens(tokenizer: Any) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """Token ids that the model expects before and after a text."""
    bare = tokenizer("a", add_special_tokens=False)["input_ids"]
    full = tokenizer("a")["input_ids"]
    start = full.index(bare[0])
    return tuple(full[:start]), tuple(full[start + len(bare) :])
