"""The index keeps what it is given, notices what changed, and refuses what cannot be."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from mepr_shared.corpora import files
from mepr_shared.corpora.columns import label_array, label_matrix
from mepr_shared.corpora.index import Corpus, CorpusMeta
from mepr_shared.errors import DataError
from mepr_shared.labels import EMOTIONS, TRAITS, EmotionScale

MULTI = EmotionScale("intensity", maximum=3.0)


def small(**changes) -> Corpus:
    """Three clips of two sources; the second has no emotion, the third one trait missing."""
    columns = {
        "sample_id": ["c", "a", "b"],
        "split": ["train", "val", None],
        "source_id": ["v1", "v2", "v1"],
        "text": ["hello", None, "bye"],
        "emotion": np.array([[0, 3, 0, 0, 0, 0, 0], [np.nan] * 7, [0] * 7], dtype=np.float32),
        "traits": np.array([[0.1, 0.2, 0.3, 0.4, 0.5], [np.nan] * 5, [0.5, np.nan, 0, 1, 0]]),
        "interview": [0.5, None, 0.25],
        "group_gender": ["f", "m", None],
    }
    return Corpus.build(CorpusMeta("small", MULTI), {**columns, **changes})


texts = st.text(st.characters(exclude_categories=["Cs"]), max_size=20)
labels = st.one_of(st.none(), st.lists(st.floats(0, 1, width=32), min_size=7, max_size=7))
trait_values = st.lists(st.one_of(st.none(), st.floats(0, 1, width=32)), min_size=5, max_size=5)
rows = st.fixed_dictionaries(
    {
        "split": st.sampled_from(["train", "val", "test", None]),
        "source_id": st.one_of(st.none(), texts),
        "text": st.one_of(st.none(), texts),
        "start_s": st.one_of(st.none(), st.floats(0, 1e6)),
        "emotion": labels,
        "traits": st.one_of(st.none(), trait_values),
        "context_order": st.one_of(st.none(), st.integers(-5, 2**31 - 1)),
        "group_age": st.one_of(st.none(), texts),
    }
)


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(st.dictionaries(texts.filter(bool), rows, min_size=1, max_size=8))
def test_what_is_written_is_read(tmp_path_factory: pytest.TempPathFactory, samples: dict) -> None:
    columns = {key: [row[key] for row in samples.values()] for key in next(iter(samples.values()))}
    corpus = Corpus.build(CorpusMeta("any", MULTI), {"sample_id": list(samples), **columns})
    path = tmp_path_factory.mktemp("index") / "any.parquet"
    corpus.write(path)
    again = Corpus.read(path)
    assert again.sample_ids == sorted(samples, key=str.encode)
    assert again.hashes == corpus.hashes and again.meta == corpus.meta
    for row, sample_id in enumerate(again.sample_ids):
        sample = samples[sample_id]
        for name in ("split", "text", "start_s", "context_order", "group_age"):
            assert again.column(name)[row] == sample[name]
        assert again.source_ids[row] == (
            sample_id if sample["source_id"] is None else sample["source_id"]
        )
        given_traits = [np.nan] * 5 if sample["traits"] is None else sample["traits"]
        np.testing.assert_array_equal(
            again.trait_values[row], np.array(given_traits, dtype=np.float32)
        )
        given_emotion = [np.nan] * 7 if sample["emotion"] is None else sample["emotion"]
        np.testing.assert_array_equal(again.emotion_values[row], np.float32(given_emotion))


def test_rows_are_sorted_and_typed(tmp_path: Path) -> None:
    corpus = small().write(tmp_path / "small.parquet")
    assert corpus.sample_ids == ["a", "b", "c"]
    assert corpus.splits.tolist() == ["val", None, "train"]
    schema = pq.read_schema(tmp_path / "small.parquet")
    assert schema.field("emotion").type == pa.list_(pa.float32())
    assert not any("half" in str(field.type) for field in schema)
    assert corpus.table["traits"].null_count == 1  # unlabelled is null, not a list of NaN
    assert corpus.meta.counts["split"] == {"train": 1, "val": 1, "none": 1}
    assert corpus.select(split="train").tolist() == [2]


def test_targets_follow_the_scale() -> None:
    targets = small().emotion_targets()
    assert np.isnan(targets[0]).all()
    assert targets[1].tolist() == [1, 0, 0, 0, 0, 0, 0]
    assert targets[2].tolist() == [0, 1, 0, 0, 0, 0, 0]


def test_each_hash_answers_for_its_own_columns() -> None:
    base = small().hashes
    text = small(text=["hello!", None, "bye"]).hashes
    label = small(traits=np.zeros((3, 5))).hashes
    split = small(split=["train", "val", "test"]).hashes
    segment = small(end_s=[1.0, None, None]).hashes
    assert text.inputs_sha256["text"] != base.inputs_sha256["text"]
    assert text.inputs_sha256["media"] == base.inputs_sha256["media"]
    assert segment.inputs_sha256["media"] != base.inputs_sha256["media"]
    assert (text.samples_sha256, text.labels_sha256) == (base.samples_sha256, base.labels_sha256)
    assert label.labels_sha256 != base.labels_sha256
    assert label.samples_sha256 == base.samples_sha256
    assert split.samples_sha256 != base.samples_sha256
    other_scale = Corpus(CorpusMeta("small", EmotionScale("intensity", 3.0, 1 / 3)), small().table)
    assert other_scale.hashes.labels_sha256 != base.labels_sha256


def test_hashes_are_stable_across_versions() -> None:
    # Manifests on disk hold these values: a change of the definition breaks every join.
    assert small().hashes.samples_sha256[:16] == "1b5efb1ffc2e9abd"
    assert small().hashes.labels_sha256[:16] == "ece376d48509e6b9"
    assert small().hashes.inputs_sha256["text"][:16] == "c79d711aaf87e531"


def test_input_hash_of_a_row_follows_its_text_and_its_media_bytes(tmp_path: Path) -> None:
    media = tmp_path / "clip.wav"
    corpus = small(media=[str(media), str(media), None], start_s=[0.0, 1.0, None])
    absent = corpus.input_sha256(2, "media")
    media.write_bytes(b"one")
    one = corpus.input_sha256(2, "media")
    assert corpus.input_sha256(0, "media") != one  # the same file from another second on
    media.write_bytes(b"three")
    assert len({absent, one, corpus.input_sha256(2, "media")}) == 3
    assert corpus.input_sha256(1, "text") != corpus.input_sha256(0, "text")
    with pytest.raises(DataError, match="unknown input kind"):
        corpus.input_sha256(0, "smell")


def test_media_inside_the_folder_are_stored_relative_and_follow_the_index(tmp_path: Path) -> None:
    inside, outside = tmp_path / "data" / "clips" / "a.mp4", tmp_path / "elsewhere" / "b.mp4"
    for file in (inside, outside):
        file.parent.mkdir(parents=True)
        file.write_bytes(b"x")
    corpus = small(media=[str(inside), str(outside), None]).write(tmp_path / "data/small.parquet")
    assert corpus.column("media").tolist() == [str(outside), None, "clips/a.mp4"]
    assert corpus.media_path("clips/a.mp4") == inside
    moved = corpus.write(tmp_path / "other" / "small.parquet")
    assert moved.column("media").tolist() == [str(outside), None, str(inside)]


def test_an_existing_index_is_not_overwritten_unasked(tmp_path: Path) -> None:
    path = tmp_path / "small.parquet"
    small().write(path)
    before = path.read_bytes()
    with pytest.raises(DataError, match="exists"):
        small(text=["x", "y", "z"]).write(path)
    assert path.read_bytes() == before
    small(text=["x", "y", "z"]).write(path, overwrite=True)
    assert Corpus.read(path).texts == ["y", "z", "x"]
    assert sorted(file.name for file in tmp_path.iterdir()) == ["small.json", "small.parquet"]


def test_a_write_killed_between_its_two_files_is_noticed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "small.parquet"
    small().write(path)
    commit = files.replacing.commit

    def fail_on_json(self: files.replacing) -> None:
        if self.target.suffix == ".json":
            raise KeyboardInterrupt
        commit(self)

    monkeypatch.setattr(files.replacing, "commit", fail_on_json)
    with pytest.raises(KeyboardInterrupt):
        small(text=["x", "y", "z"]).write(path, overwrite=True)
    with pytest.raises(DataError, match="inputs_sha256 differs"):
        Corpus.read(path)
    assert sorted(file.name for file in tmp_path.iterdir()) == ["small.json", "small.parquet"]


def test_a_full_disk_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object, **__: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(pq, "write_table", full)
    with pytest.raises(DataError, match="No space left on device"):
        small().write(tmp_path / "small.parquet")
    assert not list(tmp_path.iterdir())


def _edit_json(path: Path, **changes: object) -> None:
    data = json.loads(path.with_suffix(".json").read_text())
    path.with_suffix(".json").write_text(json.dumps({**data, **changes}))


@pytest.mark.parametrize(
    ("damage", "said"),
    [
        (lambda p: p.unlink(), "no such corpus file"),
        (lambda p: p.with_suffix(".json").unlink(), "no such corpus file"),
        (lambda p: p.write_bytes(p.read_bytes()[:-50]), "not a readable Parquet file"),
        (lambda p: p.with_suffix(".json").write_text("{"), "not valid JSON"),
        (lambda p: p.with_suffix(".json").write_text("[]"), "not a JSON object"),
        (lambda p: _edit_json(p, labels_sha256="0" * 64), "labels_sha256 differs"),
        (lambda p: _edit_json(p, format="other"), "no corpus index"),
        (lambda p: _edit_json(p, format_version="2.0"), "--upgrade"),
        (lambda p: _edit_json(p, emotions=list(EMOTIONS)[::-1]), "order of emotions"),
        (lambda p: _edit_json(p, traits=list(TRAITS)[1:]), "order of traits"),
        (lambda p: _edit_json(p, emotion_kind="mood"), "unknown emotion_kind"),
        (lambda p: _edit_json(p, emotion_max=None), "is incomplete"),
        (lambda p: pq.write_table(pa.table({"sample_id": ["a"]}), p), "lacks the columns"),
    ],
)
def test_a_broken_index_is_refused_in_one_line(tmp_path: Path, damage, said: str) -> None:
    path = tmp_path / "small.parquet"
    small().write(path)
    damage(path)
    with pytest.raises(DataError, match=said) as error:
        Corpus.read(path)
    assert "\n" not in str(error.value)
    assert "small." in str(error.value) or said == "unknown emotion_kind"


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"sample_id": ["a", "a", "b"]}, "sample_id occurs more than once: 'a'"),
        ({"sample_id": ["a", None, "b"]}, "sample_id is empty"),
        ({"split": ["train", "dev", None]}, "split is none of"),
        ({"start_s": [-1.0, None, None]}, "start_s is negative: 'c'"),
        ({"start_s": [2.0, None, None], "end_s": [1.0, None, None]}, "end_s is not after"),
        ({"emotion": [[0, 4, 0, 0, 0, 0, 0], None, None]}, r"emotion has a value outside \[0, 3\]"),
        ({"emotion": [[0, None, 0, 0, 0, 0, 0], None, None]}, "emotion has some values missing"),
        ({"emotion": [[0, 1], None, None]}, "has 2 values in row 0, not 7"),
        ({"traits": [[0, 0, 0, 0, 1.5], None, None]}, r"traits has a value outside \[0, 1\]: 'c'"),
        ({"traits": np.zeros((3, 4))}, "has 4 values a row, not 5"),
        ({"traits": ["high", None, None]}, "column 'traits' is not list"),
        ({"context_order": ["x", None, None]}, "column 'context_order' is not int32"),
        ({"mood": [1, 2, 3]}, "no column 'mood'"),
    ],
)
def test_impossible_rows_are_refused_by_name(changes: dict, said: str) -> None:
    with pytest.raises(DataError, match=said):
        small(**changes)


@pytest.mark.parametrize("name", ["", "a/b", "..", "-x", "a b"])
def test_a_corpus_name_is_a_plain_folder_name(name: str) -> None:
    with pytest.raises(DataError, match="folder name"):
        Corpus(CorpusMeta(name, MULTI), small().table)


def test_labels_survive_slices_nulls_and_negative_zero() -> None:
    matrix = np.array([[-0.0, 1], [np.nan, np.nan], [np.nan, 0.5], [1, 1]], dtype=np.float32)
    array = label_array(matrix)
    np.testing.assert_array_equal(label_matrix(array[1:3], 2), matrix[1:3])
    assert not np.signbit(label_matrix(array, 2)[0, 0])
    assert array.null_count == 1


def test_take_selects_rows_in_order() -> None:
    part = small().take(np.array([2, 0]))
    assert part.sample_ids == ["a", "c"] and part.meta.counts["rows"] == 2


def test_importing_the_package_is_light() -> None:
    code = "import sys, mepr_shared.corpora, mepr_shared.corpora.importers; print(*sys.modules)"
    loaded = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True
    )
    assert not {"numpy", "pyarrow", "torch"} & set(loaded.stdout.split())
    code = (
        "import sys; from mepr_shared.corpora import Corpus, audit, demo, split, withdraw\n"
        "from mepr_shared.corpora.importers import IMPORTERS, importer\n"
        "[importer(name) for name in IMPORTERS]; print(*sys.modules)"
    )
    loaded = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True
    )
    assert not {"torch", "pandas", "scipy", "h5py"} & set(loaded.stdout.split())
