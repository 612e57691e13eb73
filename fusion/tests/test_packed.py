"""The joined table on disk: the same table, never written over, gone with what it was made of."""

from __future__ import annotations

import shutil
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from mepr_fusion import data as data_module
from mepr_fusion import packed
from mepr_fusion.given import DEFAULTS
from mepr_fusion.inputs import Inputs, choose
from mepr_fusion.join import Joined, join, multi_label_by_corpus
from mepr_fusion.settings import FusionSettings
from mepr_fusion.train import train
from mepr_shared import config
from mepr_shared.contract.living import JOINED, collect_garbage
from mepr_shared.contract.withdraw import withdraw_from_exports
from mepr_shared.errors import DataError


@pytest.fixture(name="union")
def own_union(union: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The shared union, as this test's own."""
    monkeypatch.setattr(packed, "SMALLEST_BYTES", 0)
    return Path(shutil.copytree(union, tmp_path / "union"))


def open_union(folder: Path) -> Inputs:
    return choose([folder / "films.parquet", folder / "talks.parquet"], folder / "exports", {})


SHIFT = {"films": np.arange(7, dtype=np.float32)}


def join_once(folder: Path, **options: object) -> Joined:
    inputs = open_union(folder)
    kinds = multi_label_by_corpus(inputs.corpora)
    return packed.join_once(
        inputs, folder / "exports", prior_shift=SHIFT, multi_label=kinds, **options
    )


def join_anew(folder: Path) -> Joined:
    inputs = open_union(folder)
    kinds = multi_label_by_corpus(inputs.corpora)
    return join(inputs.corpora, inputs.exports, prior_shift=SHIFT, multi_label=kinds)


def assert_same(a: Joined, b: Joined) -> None:
    for name, value in vars(a).items():
        other = getattr(b, name)
        if isinstance(value, np.ndarray):
            np.testing.assert_array_equal(value, other, err_msg=name)
            assert value.dtype == other.dtype, name
        elif name in ("features", "own_shift"):
            assert value.keys() == other.keys()
            for key in value:
                np.testing.assert_array_equal(value[key], other[key])
        else:
            assert value == other, name


def tables(folder: Path) -> list[Path]:
    return list((folder / "exports" / JOINED).glob("*"))


def test_a_table_is_what_join_makes_and_is_made_once(union, monkeypatch):
    wanted = join_anew(union)
    assert_same(wanted, join_once(union))
    assert len(tables(union)) == 1
    monkeypatch.setattr(packed, "join", None)
    assert_same(wanted, join_once(union))


def test_what_is_written_over_a_table_stays_in_this_process(union):
    first = join_once(union)
    torch.from_numpy(first.features["text"]).zero_()
    first.emotion_targets[:] = 3
    assert_same(join_anew(union), join_once(union))


def test_low_coverage_is_refused_with_a_table_as_without(union):
    join_once(union)
    with pytest.raises(DataError, match="less than --min-coverage"):
        join_once(union, min_coverage=0.9)


@pytest.mark.parametrize("damage", ["flipped", "short", "gone", "listing"])
def test_a_damaged_table_is_made_again(union, damage):
    join_once(union)
    (table,) = tables(union)
    file = table / ("table.json" if damage == "listing" else "features.text.bin")
    content = bytearray(file.read_bytes())
    content[len(content) // 2] ^= 1
    file.unlink()
    if damage != "gone":
        file.write_bytes(content[:-4] if damage == "short" else content)
    assert_same(join_anew(union), join_once(union))
    assert tables(union) == [table]


def test_processes_that_write_at_once_end_with_one_table(union):
    with ThreadPoolExecutor(4) as pool:
        found = list(pool.map(lambda _: join_once(union), range(4)))
    for joined in found:
        assert_same(join_anew(union), joined)
    assert len(tables(union)) == 1


def test_withdrawn_people_are_in_no_table(union):
    before = join_once(union)
    names = {corpus.name: corpus for corpus in open_union(union).corpora}
    gone = names["films"].sample_ids[1]
    withdraw_from_exports(union / "exports", "films", [gone], reason="asked to")
    assert tables(union) == []
    after = join_once(union)
    assert len(after) == len(before) - 1
    assert any(reason.startswith("withdrawn") for _, _, reason in after.dropped)


def test_a_withdrawal_while_a_table_is_made_keeps_it_from_being_published(union, monkeypatch):
    def slow(corpora, exports, **options):
        joined = join(corpora, exports, **options)
        ids = open_union(union).corpora[0].sample_ids
        withdraw_from_exports(union / "exports", "films", ids[:1], reason="asked to")
        return joined

    inputs = open_union(union)
    with monkeypatch.context() as patch:
        patch.setattr(packed, "join", slow)
        kinds = multi_label_by_corpus(inputs.corpora)
        folder = union / "exports" / JOINED / packed.table_key(inputs, kinds, ("face", "text"))
        with pytest.raises(OSError):
            packed._write(folder, inputs, kinds, ("face", "text"))
    assert tables(union) == []


def test_garbage_collection_removes_every_table(union):
    join_once(union)
    folder = union / "exports" / JOINED
    assert folder in collect_garbage(union / "exports", dry_run=True) and folder.exists()
    assert folder in collect_garbage(union / "exports")
    assert not folder.exists()


def test_few_tables_are_kept(union, monkeypatch):
    monkeypatch.setattr(packed, "KEPT", 1)
    join_once(union)
    first = tables(union)
    join_once(union, modalities=("text", "face"))
    assert len(tables(union)) == 1 and tables(union) != first


def test_subsets_small_tables_and_folders_that_cannot_be_written_leave_nothing(union, monkeypatch):
    inputs = open_union(union)
    kinds = multi_label_by_corpus(inputs.corpora)
    text = {place: e for place, e in inputs.exports.items() if place[0] == "text"}
    subset = Inputs(inputs.corpora, text)
    packed.join_once(subset, union / "exports", prior_shift={}, multi_label=kinds)
    with monkeypatch.context() as patch:
        patch.setattr(packed, "SMALLEST_BYTES", 1 << 40)
        join_once(union)
    assert tables(union) == []
    (union / "exports" / JOINED).write_text("in the way")  # no folder can be made here
    assert_same(join_anew(union), join_once(union))


@pytest.mark.parametrize("cached", [True, False])
def test_features_that_do_not_fit_are_gathered_and_train_the_same_model(
    union, tmp_path, monkeypatch, cached
):
    monkeypatch.setattr(packed, "SMALLEST_BYTES", 0 if cached else 1 << 40)
    given = {
        "ssl": True,
        "weighting": "gradnorm",
        "hidden_labels": 0.4,
        "semi": {"warmup": 0, "positive": 0.3},
        "model": {"width": 16, "heads": 2, "dropout": 0.0, "modality_dropout": 0.0},
        "fit": {"epochs": 2, "keep": "last", "optimiser": "sgd", "learning_rate": 0.02},
    }
    settings = config.build(FusionSettings, config.read_toml(DEFAULTS), given)

    def weights(name: str) -> dict[str, torch.Tensor]:
        root = union / "exports"
        run = train(open_union(union), settings, tmp_path / name, exports_root=root)
        return load_file(run.weights_path)

    wanted = weights("resident")
    monkeypatch.setattr(data_module, "fits", lambda size, device: False)
    found = weights("gathered")
    for name, value in wanted.items():
        torch.testing.assert_close(found[name], value, rtol=1e-4, atol=1e-5)
