"""`mepr export verify | create | list | diff | alias | gc`."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from mepr_shared.contract.living import aliases, write_lock
from mepr_shared.contract.reader import Export
from mepr_shared.contract.verify import verify


@pytest.fixture
def create(mepr, demo: Path, tmp_path: Path):
    """Makes an export of the demo corpus from one of its tables."""

    def run(table: str | Path, *options: object, modality: str = "text"):
        source = demo / table
        return mepr(
            *("export", "create", "--modality", modality, "--from", source),
            *("--corpus", demo / "demo_features.parquet", "--out", tmp_path / "exports"),
            *("--json", *options),
        )

    return run


def flip(path: Path) -> None:
    """Change one bit in the middle of a file."""
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)


def test_create_follows_the_corpus(create, tmp_path: Path) -> None:
    outcome = create("text.parquet", "--alias", "current")
    export = Export.open(outcome.record["export"])
    assert outcome.code == 0
    assert verify(export.path, deep=True) == []
    assert (export.modality, export.manifest.stage) == ("text", "external")
    assert export.manifest.emotion_output.kind == "sigmoid"
    assert "sigmoid" in outcome.err and "multi_label" in outcome.err
    assert outcome.record["counts"] == export.manifest.counts
    assert aliases(export.path.parent) == {"current": export.export_id}


def test_create_takes_every_statement_about_the_model(create, tmp_path: Path) -> None:
    model = tmp_path / "model.json"
    model.write_text(json.dumps({"seed": 7, "encoder": {"id": "ours"}, "config": {"width": 16}}))
    shift, thresholds = [0.5] * 7, [0.25] * 7
    outcome = create(
        "text.parquet",
        *("--emotion-output", "softmax", "--prior-shift", *shift, "--temperature", 2),
        *("--thresholds", *thresholds, "--train-rows", "out_of_fold", "--stage", "stage2"),
        *("--model", model, "--missing-status", "no_text"),
    )
    manifest = Export.open(outcome.record["export"]).manifest
    output = manifest.emotion_output
    assert (output.kind, output.prior_shift, output.temperature) == ("softmax", shift, 2)
    assert output.thresholds == thresholds
    assert (manifest.train_rows, manifest.stage) == ("out_of_fold", "stage2")
    assert (manifest.model.seed, manifest.model.encoder.id) == (7, "ours")


def test_samples_that_the_table_lacks_get_the_missing_status(create, demo: Path) -> None:
    pq.write_table(pq.read_table(demo / "text.parquet").slice(0, 100), demo / "less.parquet")
    record = create("less.parquet", "--missing-status", "no_text").record
    export = Export.open(record["export"])
    assert set(export.status[100:]) == {"no_text"}


@pytest.mark.parametrize(
    ("content", "wanted"),
    [
        ({"seeed": 7}, "did you mean 'seed'"),
        ({"seed": "seven"}, "seed"),
        ([], "no JSON object"),
    ],
)
def test_a_wrong_model_file(create, tmp_path: Path, content, wanted: str) -> None:
    (tmp_path / "model.json").write_text(json.dumps(content))
    outcome = create("text.parquet", "--model", tmp_path / "model.json")
    assert (outcome.code, outcome.out) == (2, "")
    assert wanted in outcome.err and not (tmp_path / "exports").exists()


@pytest.mark.parametrize(
    ("column", "values", "wanted"),
    [
        ("trait_scores", [[0.5, 0.5, 0.5, 0.5, 1.5]], "[0, 1]"),
        ("emotion_logits", [[0.0] * 6], "7"),
        ("sample_id", ["stranger"], "'stranger'"),
    ],
)
def test_a_table_that_breaks_a_rule(
    create, demo: Path, tmp_path: Path, column: str, values, wanted: str
) -> None:
    columns = {"sample_id": ["demo_features_000000"], "trait_scores": [[0.5] * 5]}
    pq.write_table(pa.table({**columns, column: values}), demo / "bad.parquet")
    outcome = create("bad.parquet")
    assert (outcome.code, outcome.out) == (2, "")
    (line,) = [line for line in outcome.err.splitlines() if "error" in line]
    assert wanted in line and "bad.parquet" in line
    assert not list(tmp_path.glob("exports/*/*/*/manifest.json"))


def test_settings_of_logits_without_their_kind_are_refused(refused, index: Path, tmp_path) -> None:
    fiv2_like = tmp_path / "traits.csv"
    fiv2_like.write_text("sample_id,split,openness\na,train,0.5\n")
    out = tmp_path / "traits.parquet"
    # A corpus without emotion labels cannot say how logits are to be read.
    from mepr_shared.corpora.importers.table import read

    read(fiv2_like, name="traits").corpus.write(out)
    error = refused(
        *("export", "create", "--modality", "text", "--corpus", out, "--from", fiv2_like),
        *("--out", tmp_path / "exports", "--temperature", 2),
    ).err
    assert "--emotion-output" in error


def test_verify_a_sound_export(mepr, export: Path) -> None:
    for place in (export, *export.parents[:3]):
        outcome = mepr("export", "verify", place, "--deep", "--json")
        assert outcome.code == 0
        assert outcome.record == {
            **{"path": str(export), "findings": [], "deep": True, "ok": True},
        }


def test_verify_names_the_damage(mepr, export: Path) -> None:
    part = next((export / "samples").iterdir())
    flip(part)
    assert mepr("export", "verify", export).code == 0  # the quick look reads sizes only
    outcome = mepr("export", "verify", export, "--deep", "--json")
    assert outcome.code == 1
    assert [finding["code"] for finding in outcome.record["findings"]] == ["file_hash"]
    part.write_bytes(part.read_bytes()[:-1])
    outcome = mepr("export", "verify", export.parents[2])
    assert outcome.code == 1
    assert "file_size" in outcome.out and "1 with findings" in outcome.err


def test_verify_one_bad_among_good(mepr, create, export: Path) -> None:
    other = Path(create("audio.parquet", modality="audio").record["export"])
    flip(other / "manifest.json")
    outcome = mepr("export", "verify", export.parents[2], "--json")
    assert outcome.code == 1
    assert {record["path"]: record["ok"] for record in outcome.records} == {
        str(export): True,
        str(other): False,
    }


def test_verify_finds_a_folder_that_lost_its_manifest(mepr, export: Path) -> None:
    (export / "manifest.json").unlink()
    outcome = mepr("export", "verify", export.parents[2], "--json")
    assert outcome.code == 1
    assert [finding["code"] for finding in outcome.record["findings"]] == ["missing"]


def test_verify_against_the_corpus(mepr, refused, demo: Path, export: Path, tmp_path) -> None:
    index = demo / "demo_features.parquet"
    command = ("export", "verify", export.parents[2], "--corpus")
    assert mepr(*command, index, "--deep").code == 0
    assert "--deep" in refused(*command, index).err
    other = tmp_path / "other.parquet"
    mepr("corpus", "split", index, "--seed", 9, "--out", other)
    outcome = mepr(*command, other, "--deep", "--json")
    assert outcome.code == 1
    assert [finding["code"] for finding in outcome.record["findings"]] == ["split"]


@pytest.mark.parametrize("verb", ["verify", "list", "gc"])
def test_a_missing_folder(refused, tmp_path: Path, verb: str) -> None:
    assert "none" in refused("export", verb, tmp_path / "none").err


def test_a_folder_without_exports(refused, mepr, tmp_path: Path) -> None:
    assert "no export in" in refused("export", "verify", tmp_path).err
    outcome = mepr("export", "list", tmp_path, "--json")
    assert (outcome.code, outcome.out) == (0, "")
    assert "no exports" in outcome.err


def test_list(mepr, create, export: Path) -> None:
    other = Path(create("audio.parquet", "--alias", "new", modality="audio").record["export"])
    flip(export / "manifest.json")
    records = {
        r["modality"]: r for r in mepr("export", "list", export.parents[2], "--json").records
    }
    assert records["audio"]["export_id"] == other.name
    assert (records["audio"]["aliases"], records["audio"]["rows"]) == (["new"], 120)
    assert records["audio"]["problem"] is None and records["text"]["problem"]
    table = mepr("export", "list", export.parents[2]).out
    assert other.name in table and "new" in table and "MB" not in table


def test_alias(mepr, refused, export: Path) -> None:
    root = export.parents[2]
    record = mepr("export", "alias", root, "best", export.name, "--json").record
    assert record == {"alias": "best", "export_id": export.name, "path": str(export)}
    assert mepr("export", "alias", root, "better", "best").code == 0
    assert aliases(export.parent) == {"best": export.name, "better": export.name}
    assert "'0000'" in refused("export", "alias", root, "x", "0000").err


def test_diff(mepr, create, demo: Path, export: Path) -> None:
    table = pq.read_table(demo / "text.parquet")
    scores = [
        None if row is None else np.clip(np.float32(row) + np.float32(0.1), 0, 1).tolist()
        for row in table["trait_scores"].to_pylist()
    ]
    at = table.column_names.index("trait_scores")
    column = pa.array(scores, pa.list_(pa.float32()))
    pq.write_table(table.set_column(at, "trait_scores", column), demo / "shifted.parquet")
    create("shifted.parquet", "--alias", "shifted")
    command = ("export", "diff", export.parents[2], export.name, "shifted")
    report = mepr(*command, "--json", "--corpus", demo / "demo_features.parquet").record
    present = sum(row is not None for row in scores)
    assert report["shift"]["traits"]["openness"] == {
        "n": present,
        "mean": pytest.approx(0.1, abs=0.02),
        "mean_absolute": pytest.approx(0.1, abs=0.02),
    }
    assert report["shift"]["emotion"]["anger"]["mean_absolute"] == 0
    assert report["coverage"]["ok"] == [present, present]
    traits, emotion = report["scores"]["traits"], report["scores"]["emotion"]
    assert (report["scores"]["corpus"], report["scores"]["split"]) == ("demo_features", "val")
    assert traits["macc"]["difference"] == pytest.approx(
        traits["macc"]["second"] - traits["macc"]["first"]
    )
    assert traits["macc"]["difference"] != 0
    assert emotion["uar"]["difference"] == 0
    shown = mepr(*command, "--corpus", demo / "demo_features.parquet").out
    assert "mean absolute change" in shown and "macc" in shown


def test_diff_of_folders_and_of_what_is_not_there(mepr, refused, export: Path) -> None:
    report = mepr("export", "diff", export.parents[2], export, export.name, "--json").record
    assert report["exports"] == [export.name, export.name] and report["config"] == {}
    assert "'nothing'" in refused("export", "diff", export.parents[2], export, "nothing").err


def test_diff_refuses_another_corpus(refused, export: Path, index: Path) -> None:
    root = export.parents[2]
    error = refused("export", "diff", root, export.name, export.name, "--corpus", index).err
    assert "demo_features" in error and "clips" in error


def test_gc_keeps_what_is_used(mepr, create, demo: Path, export: Path, tmp_path: Path) -> None:
    table = pq.read_table(demo / "text.parquet")
    made = [export]
    for number in range(1, 4):
        pq.write_table(table.slice(number), demo / f"{number}.parquet")
        made.append(Path(create(f"{number}.parquet").record["export"]))
    root, run = export.parents[2], tmp_path / "runs" / "run"
    for age, path in enumerate(reversed(made)):
        backdate(path, age)
    mepr("export", "alias", root, "kept", made[1].name)
    run.mkdir(parents=True)
    write_lock(run / "exports.lock", [Export.open(made[2])])
    command = ("export", "gc", root, "--runs", run.parent, "--json")
    would = {"removed": [str(made[0])], "dry_run": True}
    assert mepr(*command, "--dry-run").record == would
    assert made[0].exists()
    assert mepr(*command).record == {**would, "dry_run": False}
    assert [path.exists() for path in made] == [False, True, True, True]
    shutil.rmtree(run.parent)
    assert mepr("export", "gc", root).out.split() == [str(made[2])]


def backdate(path: Path, days: int) -> None:
    """Let an export be as many days old; its seal is made anew."""
    from mepr_shared.contract.schema import seal_of

    manifest = json.loads((path / "manifest.json").read_text())
    manifest["created_at"] = f"2026-01-{20 - days:02d}T00:00:00+00:00"
    manifest["manifest_sha256"] = seal_of(manifest)
    (path / "manifest.json").write_text(json.dumps(manifest))
