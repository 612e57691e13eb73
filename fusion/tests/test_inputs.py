"""Which export a run reads: one if there is one, a choice if there are several, its pins later."""

from __future__ import annotations

import numpy as np
import pytest

from mepr_fusion.inputs import check_intact, choose, parse_choices
from mepr_shared.contract import EmotionOutput, Export, ExportInfo, ExportWriter
from mepr_shared.contract.living import set_alias
from mepr_shared.corpora.index import Corpus, CorpusMeta
from mepr_shared.errors import ConfigError, ContractError, DataError


def make_corpus(folder, name):
    ids = [f"clip{i}" for i in range(4)]
    columns = {"sample_id": ids, "split": ["train"] * 4, "traits": np.full((4, 5), 0.5)}
    return Corpus.build(CorpusMeta(name), columns).write(folder / f"{name}.parquet").path


def make_export(root, corpus_path, modality, seed=0) -> str:
    random = np.random.default_rng(seed)
    info = ExportInfo(modality, "stage2", emotion_output=EmotionOutput("softmax"))
    writer = ExportWriter(root, corpus=Corpus.read(corpus_path), info=info)
    for index, ids in writer.pending():
        embedding = random.normal(size=(len(ids), 3)).astype(np.float32)
        writer.write_part(index, {"status": ["ok"] * len(ids), "trait_embedding": embedding})
    return writer.commit().name


@pytest.fixture
def place(tmp_path):
    """Two corpora; text for both, twice for films, and face for films."""
    paths = [make_corpus(tmp_path, name) for name in ("films", "talks")]
    root = tmp_path / "exports"
    ids = {
        "films": [make_export(root, paths[0], "text", seed) for seed in (0, 1)],
        "talks": [make_export(root, paths[1], "text", 2)],
        "face": [make_export(root, paths[0], "face", 3)],
    }
    return paths, root, ids


def test_choices_are_read_and_bad_ones_refused():
    found = parse_choices(["text:meld=1f3a", "face=best"])
    assert found == {("text", "meld"): "1f3a", ("face", None): "best"}
    for bad in ("text", "=x", "text=", "text:=x", ":meld=x"):
        with pytest.raises(ConfigError, match="MODALITY"):
            parse_choices([bad])
    with pytest.raises(ConfigError, match="twice"):
        parse_choices(["text=a", "text=b"])


def test_several_exports_need_a_choice_and_both_are_named(place):
    paths, root, ids = place
    with pytest.raises(ContractError) as caught:
        choose(paths, root, {})
    assert all(key in str(caught.value) for key in ids["films"])
    assert "--export text:films=" in str(caught.value)


@pytest.mark.parametrize("corpus", ["films", None])
def test_a_choice_by_id_or_alias_settles_it_and_leaves_other_corpora_alone(place, corpus):
    paths, root, ids = place
    set_alias(root, "current", ids["films"][1])
    for name in (ids["films"][1], "current"):
        found = choose(paths, root, {("text", corpus): name})
        assert {key: export.export_id for key, export in found.exports.items()} == {
            ("text", "films"): ids["films"][1],
            ("text", "talks"): ids["talks"][0],
            ("face", "films"): ids["face"][0],
        }


@pytest.mark.parametrize(
    "choice", [("text", "talk"), ("gaze", None), ("face", "talks"), ("text", None)]
)
def test_a_choice_that_fits_nothing_is_refused(place, choice):
    paths, root, ids = place
    choices = {("text", "films"): ids["films"][0], choice: "nowhere"}
    with pytest.raises(ConfigError, match="=nowhere: no such export"):
        choose(paths, root, choices)


def test_an_unknown_id_for_a_named_place_is_refused(place):
    paths, root, _ = place
    with pytest.raises(ContractError, match="no export 'nowhere' of text for corpus 'films'"):
        choose(paths, root, {("text", "films"): "nowhere"})


def test_a_corpus_without_exports_says_which_have_some(place, tmp_path):
    _, root, _ = place
    with pytest.raises(ContractError, match="no export for corpus 'empty'.*films, talks"):
        choose([make_corpus(tmp_path, "empty")], root, {})
    with pytest.raises(ContractError, match="no such folder"):
        choose([make_corpus(tmp_path, "other")], root / "nowhere", {})


def test_two_corpora_of_one_name_are_refused(place):
    paths, root, _ = place
    with pytest.raises(DataError, match="same name"):
        choose([paths[1], paths[1]], root, {})


def test_a_flipped_bit_is_found_and_the_file_named(place):
    _, root, ids = place
    export = Export.open(root / "talks" / "text" / ids["talks"][0])
    check_intact([export])
    part = export.path / export.manifest.files[0].path
    content = bytearray(part.read_bytes())
    content[len(content) // 2] ^= 1
    part.write_bytes(content)
    with pytest.raises(ContractError, match=part.name):
        check_intact([export])
