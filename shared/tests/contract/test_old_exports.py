"""Exports of every earlier format are read as they were written."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest

from mepr_shared.contract.living import export_folders
from mepr_shared.contract.reader import Export
from mepr_shared.contract.verify import verify

FIXTURES = Path(__file__).with_name("fixtures")


@pytest.fixture
def generator() -> ModuleType:
    spec = importlib.util.spec_from_file_location("generator", FIXTURES / "make_export_1_0.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_format_1_0(generator: ModuleType) -> None:
    (path,) = export_folders(FIXTURES / "export-1.0")
    assert verify(path, deep=True, corpus=generator.Corpus()) == []
    export = Export.open(path)
    assert export.sample_ids == generator.IDS
    assert export.split.tolist() == generator.SPLITS
    assert export.status.tolist() == generator.STATUSES
    assert export.n_frames == list(range(6))
    for name in generator.WIDTHS:
        expected = np.stack([generator.values(row, name) for row in range(6)])
        np.testing.assert_array_equal(getattr(export, name), expected)
    assert export.manifest.corpus.samples_sha256 == "5a" * 32
    assert export.manifest.model.seed == 7
    assert export.manifest.model.encoder is not None
    assert export.manifest.model.encoder.id == "an/encoder"
    assert export.manifest.emotion_output is not None
    assert export.manifest.emotion_output.temperature == 1.5
