"""Reading an export."""

from __future__ import annotations

from collections.abc import Iterable
from functools import cached_property
from pathlib import Path
from typing import cast

import numpy as np

from mepr_shared.contract.scan import part_paths, text_column
from mepr_shared.contract.schema import CorpusLike, EmotionOutput, Manifest
from mepr_shared.contract.table import ARRAYS, SampleRows, concatenate, read_part
from mepr_shared.contract.verify import coverage_findings, quick
from mepr_shared.errors import ContractError


class Export:
    """An immutable export; its rows are sorted by `sample_id` and read when first asked for.

    Attributes:
        path: its folder.
        manifest: see `Manifest`.
    """

    def __init__(self, path: Path, manifest: Manifest) -> None:
        self.path = path
        self.manifest = manifest

    @classmethod
    def open(cls, path: Path | str) -> Export:
        """Open an export and check its version, features, label order and file sizes.

        Raises:
            ContractError: what is wrong with it.
        """
        manifest, findings = quick(Path(path))
        if manifest is None or findings:
            raise ContractError(findings[0].message)
        return cls(Path(path), manifest)

    def __len__(self) -> int:
        return sum(part.rows for part in self.manifest.files)

    @cached_property
    def rows(self) -> SampleRows:
        """All rows, in memory.

        Raises:
            ContractError: a part is not what was written.
        """
        widths = {name: self.manifest.width(name) for name in ARRAYS}
        return concatenate([read_part(path, widths) for path in part_paths(self)])

    def text(self, name: str) -> list[str | None]:
        """A text column as `N` values; nothing else is read."""
        if "rows" in vars(self):
            return self.rows.text[name]
        return text_column(self, name).to_pylist()

    @property
    def export_id(self) -> str:
        """16 hex digits; also the folder's name."""
        return self.manifest.export_id

    @property
    def modality(self) -> str:
        """Name of the modality."""
        return self.manifest.modality

    @property
    def corpus_name(self) -> str:
        """Name of the corpus."""
        return self.manifest.corpus.name

    @property
    def sample_ids(self) -> list[str]:
        """`N` ids, sorted."""
        return self.rows.text["sample_id"]

    @cached_property
    def split(self) -> np.ndarray:
        """`[N]` objects: `train`, `val`, `test` or None."""
        return _objects(self.rows.text["split"])

    @cached_property
    def status(self) -> np.ndarray:
        """`[N]` objects, see `STATUSES`."""
        return _objects(self.rows.text["status"])

    @property
    def status_reason(self) -> list[str | None]:
        """`N` reasons in words."""
        return self.rows.text["status_reason"]

    @property
    def source_sha256(self) -> list[str | None]:
        """`N` hashes of what each row was computed from."""
        return self.rows.text["source_sha256"]

    @property
    def fold(self) -> list[int | None]:
        """`N` fold numbers; None unless out-of-fold."""
        return self.rows.integers["fold"]

    @property
    def n_frames(self) -> list[int | None]:
        """`N` frame counts."""
        return self.rows.integers["n_frames"]

    @property
    def n_masked(self) -> list[int | None]:
        """`N` counts of masked frames."""
        return self.rows.integers["n_masked"]

    @property
    def emotion_logits(self) -> np.ndarray:
        """float32 `[N, 7]`, NaN where absent."""
        return self.rows.arrays["emotion_logits"]

    @property
    def trait_scores(self) -> np.ndarray:
        """float32 `[N, 5]` in [0, 1], NaN where absent."""
        return self.rows.arrays["trait_scores"]

    @property
    def emotion_embedding(self) -> np.ndarray:
        """float32 `[N, De]`, NaN where absent; `De` is 0 in an export without."""
        return self.rows.arrays["emotion_embedding"]

    @property
    def trait_embedding(self) -> np.ndarray:
        """float32 `[N, Dp]`, NaN where absent; `Dp` is 0 in an export without."""
        return self.rows.arrays["trait_embedding"]

    def emotion_probabilities(self) -> np.ndarray:
        """float32 `[N, 7]` calibrated probabilities, NaN where absent."""
        output = self.manifest.emotion_output
        if output is None:
            return self.emotion_logits
        return emotion_probabilities(self.emotion_logits, output)

    def row_of(self, sample_ids: Iterable[str]) -> np.ndarray:
        """Row numbers of samples, int64; -1 where a sample has no row."""
        return np.array([self._places.get(key, -1) for key in sample_ids], dtype=np.int64)

    def check_against(self, corpus: CorpusLike) -> list[str]:
        """May this export be joined with this corpus index?

        Returns:
            Warnings: labels changed since, samples without a row, rows without a sample.

        Raises:
            ContractError: another corpus, a changed split, or no common sample.
        """
        recorded = self.manifest.corpus
        if recorded.name != corpus.name:
            raise ContractError(
                f"{self.path} is of corpus {recorded.name!r}, not of {corpus.name!r}"
            )
        warnings = []
        if recorded.labels_sha256 != corpus.hashes.labels_sha256:
            warnings.append(f"labels of {corpus.name} changed since export {self.export_id}")
        if recorded.samples_sha256 == corpus.hashes.samples_sha256 and not (
            self.manifest.withdrawals
        ):
            return warnings
        keys = cast(list[str], self.text("sample_id"))
        found = dict(zip(keys, self.text("split"), strict=True))
        if found.keys().isdisjoint(corpus.sample_ids):
            raise ContractError(f"{self.path} and corpus {corpus.name!r} have no sample in common")
        for finding in coverage_findings(found, corpus, self.path):
            if finding.code == "split":
                raise ContractError(finding.message, hint="export again")
            warnings.append(finding.message)
        gone = found.keys() - set(corpus.sample_ids)
        if gone:
            warnings.append(f"{self.path}: {len(gone)} rows are no longer in {corpus.name}")
        return warnings

    @cached_property
    def _places(self) -> dict[str, int]:
        return {key: row for row, key in enumerate(self.sample_ids)}


def emotion_probabilities(logits: np.ndarray, output: EmotionOutput) -> np.ndarray:
    """Calibrated probabilities `[N, 7]` from logits `[N, 7]`; see `EmotionOutput`."""
    shift = np.asarray(output.prior_shift, dtype=np.float32)
    scaled = (logits - shift) / np.float32(output.temperature)
    if output.kind == "sigmoid":
        # The form by tanh does not overflow for large negative logits.
        return (0.5 * (1 + np.tanh(0.5 * scaled))).astype(np.float32)
    weights = np.exp(scaled - scaled.max(axis=1, keepdims=True))
    return (weights / weights.sum(axis=1, keepdims=True)).astype(np.float32)


def _objects(values: list[str | None]) -> np.ndarray:
    return np.array([*values, None], dtype=object)[:-1]
