"""Any table: what is understood is said, what cannot be is refused by row and field."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from mepr_shared.corpora.importers import importer, table
from mepr_shared.errors import DataError
from mepr_shared.labels import EMOTIONS, TRAITS

SEVEN = "sample_id," + ",".join(EMOTIONS) + "\n"


def csv_file(folder: Path, text: str, name: str = "mine.csv") -> Path:
    path = folder / name
    path.write_text(text, "utf-8")
    return path


def test_a_column_map_a_label_column_and_traits(tmp_path: Path) -> None:
    path = csv_file(
        tmp_path,
        "clip,label,openness,quote,start,part,group_sex,other\n"
        'a,joy,0.5,"hi, there\nyou",0.5,training,f,1\n'
        "b,,NA,x,1,dev,m,2\n"
        "c,Anger,,,2,,,3\n",
    )
    columns = {"sample_id": "clip", "emotion": "label", "text": "quote"}
    columns |= {"start_s": "start", "split": "part"}
    result = table.read(path, name="mine", columns=columns)
    corpus = result.corpus
    assert corpus.sample_ids == ["a", "b", "c"]
    assert corpus.splits.tolist() == ["train", "val", None]
    assert corpus.texts == ["hi, there\nyou", "x", None]
    assert corpus.column("group_sex").tolist() == ["f", "m", None]
    assert corpus.emotion_values[0].argmax() == EMOTIONS.index("happiness")
    assert np.isnan(corpus.emotion_values[1]).all()
    assert corpus.emotion_values[2].argmax() == EMOTIONS.index("anger")
    assert corpus.trait_values[0, TRAITS.index("openness")] == 0.5
    assert np.isnan(corpus.trait_values[1:]).all()
    assert result.report.partly_missing_traits == 1
    said = "\n".join(result.report.lines())
    assert "sample_id <- column 'clip'" in said
    assert "emotions are single_label" in said
    assert "ignored columns: other" in said
    assert "not in the table: source_id, media" in said


@pytest.mark.parametrize(
    ("rows", "kind"),
    [
        ("a,0,0,1,0,0,0,0\nb,1,0,0,0,0,0,0\n", "single_label"),
        ("a,0,0,1,1,0,0,0\nb,1,0,0,0,0,0,0\n", "multi_label"),
        ("a,0.5,0,0.5,0,0,0,0\nb,0.25,0.75,0,0,0,0,0\n", "distribution"),
    ],
)
def test_the_kind_of_emotions_is_found_where_there_is_no_doubt(
    tmp_path: Path, rows: str, kind: str
) -> None:
    corpus = table.read(csv_file(tmp_path, SEVEN + rows), name="x").corpus
    assert corpus.meta.scale.kind == kind


def test_intensities_need_a_word_about_their_scale(tmp_path: Path) -> None:
    path = csv_file(tmp_path, SEVEN + "a,0,2,1,0,0,0,0\n")
    with pytest.raises(DataError, match="--emotion-kind"):
        table.read(path, name="x")
    with pytest.raises(DataError, match="--emotion-max"):
        table.read(path, name="x", emotion_kind="intensity")
    scale = {"emotion_kind": "intensity", "emotion_max": 3, "present_above": 1}
    corpus = table.read(path, name="x", **scale).corpus
    assert corpus.emotion_targets()[0].tolist() == [0, 1, 0, 0, 0, 0, 0]


def test_six_emotions_imply_neutral_and_a_map_wins_over_names(tmp_path: Path) -> None:
    header = "sample_id,emotion,joy,sad,angry,surprised,disgusted,fearful\n"
    path = csv_file(tmp_path, header + "a,ignored,1,0,0,0,0,0\nb,ignored,0,0,0,0,0,0\n")
    columns = {f"emotion.{name}": name for name in ("joy", "sad", "angry", "surprised")}
    columns |= {"emotion.disgust": "disgusted", "emotion.fear": "fearful"}
    corpus = table.read(path, name="x", columns=columns).corpus
    assert corpus.emotion_values.tolist() == [[0, 0, 0, 0, 1, 0, 0], [1, 0, 0, 0, 0, 0, 0]]


def test_parquet_lists_and_media_beside_the_table(tmp_path: Path) -> None:
    (tmp_path / "a.wav").write_bytes(b"x")
    emotion = [[1.0, 0, 0, 0, 0, 0, 0], None]
    columns = {
        "sample_id": [7, 8],
        "media": ["a.wav", "b.wav"],
        "emotion": pa.array(emotion, pa.large_list(pa.float64())),
        "traits": [[0.1, 0.2, 0.3, 0.4, None], None],
        "fold": [0, 1],
    }
    pq.write_table(pa.table(columns), tmp_path / "mine.parquet")
    result = table.read(tmp_path / "mine.parquet", name="x")
    assert result.corpus.sample_ids == ["7", "8"]
    assert result.corpus.column("media").tolist()[0] == str(tmp_path / "a.wav")
    assert (result.report.media_found, result.report.media_missing) == (1, 1)
    assert result.corpus.trait_values[0, 3] == np.float32(0.4)
    assert result.corpus.select(fold=1).tolist() == [1]
    written = result.corpus.write(tmp_path / "x.parquet")
    assert written.column("media").tolist() == ["a.wav", "b.wav"]


@pytest.mark.parametrize("delimiter", [",", ";", "\t"])
def test_delimiters_and_a_byte_order_mark(tmp_path: Path, delimiter: str) -> None:
    rows = [["sample_id", "text"], ["a", "é"]]
    text = "\ufeff" + "\n".join(delimiter.join(row) for row in rows)
    suffix = "tsv" if delimiter == "\t" else "csv"
    corpus = table.read(csv_file(tmp_path, text, f"x.{suffix}"), name="x").corpus
    assert (corpus.sample_ids, corpus.texts) == (["a"], ["é"])


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (
            "sample_id,openness\na,0.5\nb,1.5\n",
            r"row 2: traits\.openness is 1\.5, outside \[0, 1\]",
        ),
        ("sample_id,openness\na,-0.1\n", r"row 1: traits\.openness is -0\.1"),
        ("sample_id,openness\na,high\n", r"row 1: traits\.openness is 'high', not a number"),
        ("sample_id,emotion\na,joy\nb,bored\n", "row 2: emotion is 'bored'"),
        ("sample_id,text\na,x\nb,y\na,z\n", "row 3: sample_id 'a' is already in row 1"),
        ("sample_id,text\n,x\n", "row 1: sample_id is empty"),
        ("sample_id,split\na,holdout\n", "row 1: split is 'holdout'"),
        ("sample_id,start_s\na,-1\n", "row 1: start_s is -1, below 0"),
        ("sample_id,start_s,end_s\na,2,1\n", "row 1: end_s is 1, not after start_s"),
        ("sample_id,fold\na,0.5\n", "row 1: fold is 0.5, not a whole number"),
        ("sample_id,interview\na,7\n", r"row 1: interview is 7, outside \[0, 1\]"),
        (SEVEN + "a,0,1,,0,0,0,0\n", r"row 1: emotion\.disgust is missing"),
        ("sample_id,joy\na,1\n", "lacks columns for anger"),
        ("sample_id,emotion,joy\na,joy,1\n", "given twice"),
        ("sample_id,traits\na,0.5\n", "does not hold lists of five"),
        ("clip,text\na,x\n", "no column 'sample_id'.*--map sample_id=COLUMN"),
        ("sample_id,text,text\na,x,y\n", "two columns have the same name"),
        ("sample_id,text\n", "has no rows"),
        ("sample_id,text\na\n", "not readable"),
        ("", "not readable"),
    ],
)
def test_a_table_that_cannot_be_is_refused(tmp_path: Path, text: str, said: str) -> None:
    with pytest.raises(DataError, match=said) as error:
        table.read(csv_file(tmp_path, text), name="x")
    assert "\n" not in str(error.value)


def test_kind_and_values_must_agree(tmp_path: Path) -> None:
    path = csv_file(tmp_path, SEVEN + "a,1,1,0,0,0,0,0\nb,0,0,0,0,0,0,0\n")
    with pytest.raises(DataError, match="row 1: emotion is no single_label"):
        table.read(path, name="x", emotion_kind="single_label")
    with pytest.raises(DataError, match="row 2: emotion is no distribution"):
        table.read(path, name="x", emotion_kind="distribution")
    with pytest.raises(DataError, match="unknown emotion_kind"):
        table.read(path, name="x", emotion_kind="moods")


def test_a_wrong_map_is_refused_with_a_hint(tmp_path: Path) -> None:
    path = csv_file(tmp_path, "sample_id,quote\na,x\n")
    with pytest.raises(DataError, match="no field 'txt'.*did you mean 'text'"):
        table.read(path, name="x", columns={"txt": "quote"})
    with pytest.raises(DataError, match="no column 'quotes'.*did you mean 'quote'"):
        table.read(path, name="x", columns={"text": "quotes"})


def test_missing_and_foreign_files_are_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="no such table"):
        table.read(tmp_path / "absent.csv", name="x")
    with pytest.raises(DataError, match=r"neither \.csv, \.tsv nor \.parquet"):
        table.read(csv_file(tmp_path, "x", "x.json"), name="x")
    with pytest.raises(DataError, match="not readable"):
        table.read(csv_file(tmp_path, "x", "x.parquet"), name="x")


def test_understand_says_what_a_table_is_taken_for_without_reading_labels(tmp_path: Path) -> None:
    path = csv_file(tmp_path, "sample_id,openness,colour\na,7,red\n")
    lines = table.understand(path).lines()
    assert "traits.openness <- column 'openness'" in lines
    assert "ignored columns: colour" in lines


def test_an_unknown_importer_is_refused_with_a_hint() -> None:
    with pytest.raises(DataError, match="did you mean 'fiv2'"):
        importer("fiv")
