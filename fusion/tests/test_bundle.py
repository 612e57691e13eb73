"""Bundles: what is in them, that they are the same for the same runs, and what is refused."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from mepr_fusion.bundle.format import open_bundle, seal_of
from mepr_fusion.bundle.sources import find_sources
from mepr_fusion.bundle.write import write_bundle
from mepr_fusion.cli import main
from mepr_fusion.predict.trait_intervals import conformal_half_width
from mepr_shared.errors import ContractError
from mepr_shared.testing.toy_stages import toy_run


@pytest.fixture
def copy(toys, tmp_path: Path) -> Path:
    """A bundle that may be damaged."""
    return Path(shutil.copytree(toys.bundle, tmp_path / "copy"))


def rewrite(bundle: Path, change: Callable[[dict[str, Any]], Any], *, seal: bool = True) -> None:
    content = json.loads((bundle / "bundle.json").read_text())
    change(content)
    if seal:
        content["sha256"] = seal_of(content)
    (bundle / "bundle.json").write_text(json.dumps(content))


def test_what_is_in_it(toys) -> None:
    bundle = open_bundle(toys.bundle)
    assert bundle.corpus == "films" and not bundle.left_out
    assert set(bundle.modalities) == {"audio", "face", "scene", "text"}
    assert bundle.modalities["audio"]["config"]["task"] == "emotion"
    assert bundle.modalities["face"]["config"]["encoder"]["weights_sha256"] == "1"
    assert set(bundle.modalities["face"]["outputs"]) == {"films", "talks"}
    assert bundle.metrics["thresholds"]["fusion"]
    intervals = bundle.content["stage3"]["trait_intervals"]
    assert intervals["level"] == 0.9 and intervals["n"] == 13
    names = {path.name for path in toys.bundle.iterdir()}
    assert names == {
        "bundle.json",
        "stage3.safetensors",
        *(f"{m}.safetensors" for m in bundle.modalities),
    }
    assert str(toys.folder) not in (toys.bundle / "bundle.json").read_text()


def test_the_same_runs_give_the_same_bytes(toys, tmp_path: Path) -> None:
    moved = Path(shutil.copytree(toys.folder / "face", tmp_path / "elsewhere"))
    others = [toys.folder / name for name in ("text", "audio", "scene")]
    sources = find_sources(toys.stage3, roots=others, given={"face": moved / "stage2"})
    again = write_bundle(toys.stage3, sources, tmp_path / "again")
    for file in toys.bundle.iterdir():
        assert (again.path / file.name).read_bytes() == file.read_bytes()


@pytest.mark.parametrize("name", ["stage3.safetensors", "face.safetensors", "bundle.json"])
def test_a_flipped_bit_is_found(copy: Path, name: str) -> None:
    content = bytearray((copy / name).read_bytes())
    content[len(content) // 2] ^= 1
    (copy / name).write_bytes(content)
    with pytest.raises(ContractError, match=f"{name} is damaged"):
        open_bundle(copy)


def test_what_is_refused(copy: Path) -> None:
    shutil.copy(copy / "face.safetensors", copy.parent / "face.safetensors")
    outside = {"../face.safetensors": {"bytes": 1, "sha256": "0"}}
    cases: list[tuple[str, Callable[[dict[str, Any]], Any]]] = [
        ("bundle format 2.0, this version reads 1.0", lambda c: c.update(format_version="2.0")),
        ("needs unknown features", lambda c: c.update(required_features=["lora"])),
        ("no format 'mepr-bundle'", lambda c: c.update(format="mepr-run")),
        ("other labels, or another order", lambda c: c["labels"]["emotion"].reverse()),
        ("unsafe path", lambda c: c["files"].update(outside)),
        ("unsafe path", lambda c: c["modalities"]["face"].update(weights="/etc/passwd")),
        ("vouches for no weights of face", lambda c: c["files"].pop("face.safetensors")),
        ("it has no 'modalities'", lambda c: c.pop("modalities")),
    ]
    original = (copy / "bundle.json").read_bytes()
    for words, change in cases:
        rewrite(copy, change)
        with pytest.raises(ContractError, match=words) as caught:
            open_bundle(copy)
        assert "\n" not in str(caught.value)
        (copy / "bundle.json").write_bytes(original)
    rewrite(copy, lambda c: c.update(corpus="talks"), seal=False)
    with pytest.raises(ContractError, match="damaged"):
        open_bundle(copy)
    (copy / "bundle.json").write_bytes(original)
    (copy / "face.safetensors").unlink()
    with pytest.raises(ContractError, match=r"incomplete: face.safetensors is missing"):
        open_bundle(copy)
    (copy / "face.safetensors").symlink_to(copy.parent / "face.safetensors")
    with pytest.raises(ContractError, match="link that leads out"):
        open_bundle(copy)
    (copy / "bundle.json").unlink()
    with pytest.raises(ContractError, match="is not a bundle"):
        open_bundle(copy)
    with pytest.raises(ContractError, match="is not a bundle"):
        open_bundle(copy / "nowhere")


def test_runs_that_are_not_there(toys, tmp_path: Path) -> None:
    names = ("text", "audio", "face", "scene")
    found = find_sources(toys.stage3, roots=[toys.folder / name for name in names[:3]])
    assert found.left_out == {"scene": "no run of it was found here: another team has it"}
    with pytest.raises(ContractError, match="no modality of .* has a run"):
        find_sources(toys.stage3, roots=[tmp_path])
    retrained = tmp_path / "runs/scene/stage2"
    toy_run(retrained, toys.modalities["scene"], seed=9)
    with pytest.raises(ContractError, match=r"none of .* has the weights .*--without scene"):
        find_sources(toys.stage3, roots=[toys.folder / "face", tmp_path])
    left = find_sources(toys.stage3, roots=[toys.folder], without=["scene", "face"])
    assert set(left.runs) == {"text", "audio"} and left.left_out["face"] == "left out on request"


def test_nothing_is_half_written(toys, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(path: Path, content: Any) -> None:
        raise OSError(28, "No space left on device")

    sources = find_sources(toys.stage3, roots=[toys.folder])
    monkeypatch.setattr("mepr_fusion.bundle.write.write_json", full)
    with pytest.raises(ContractError, match="cannot write .*No space left"):
        write_bundle(toys.stage3, sources, tmp_path / "bundle")
    assert not list(tmp_path.iterdir())


def test_the_verb(toys, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = ["bundle", "--run", str(toys.stage3.path), "--out", str(tmp_path / "b"), "--json"]
    capsys.readouterr()
    assert main(words) == 0
    said = json.loads(capsys.readouterr().out)
    assert said["id"] == open_bundle(toys.bundle).id == open_bundle(tmp_path / "b").id
    assert main(words) == 2
    assert "--overwrite replaces it" in capsys.readouterr().err
    assert main([*words, "--overwrite", "--without", "scene"]) == 0
    assert "left out: scene" in capsys.readouterr().err
    assert main([*words, "--overwrite", "--without", "scen"]) == 2
    assert "did you mean 'scene'" in capsys.readouterr().err
    (tmp_path / "full").mkdir()
    (tmp_path / "full/thesis.txt").write_text("years of work")
    words[words.index("--out") + 1] = str(tmp_path / "full")
    assert main([*words, "--overwrite"]) == 2
    assert (tmp_path / "full/thesis.txt").read_text() == "years of work"


def test_half_widths_hold_their_share() -> None:
    random = np.random.default_rng(0)
    errors = np.abs(random.normal(size=10000))
    width = conformal_half_width(errors[:5000], 0.9)
    assert width is not None
    assert 0.88 < (errors[5000:] <= width).mean() < 0.92
    assert conformal_half_width(errors[:8], 0.9) is None
    assert conformal_half_width(errors[:9], 0.9) == errors[:9].max()
