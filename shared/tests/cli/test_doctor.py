"""`mepr modalities` and `mepr doctor`: they try things and say what to do."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import pytest

from mepr_shared.cli import doctor
from mepr_shared.plugin import Discovered


@dataclass(frozen=True)
class Settings:
    id: str = "package:no_such_module_here/model"
    needs: str = "no-such-distribution"


class StandIn:
    """A modality as light as can be."""

    name = "standin"
    distribution = "mepr-standin"
    inputs = ("text", "media")
    encoder_settings = Settings

    def __init__(self, profile: Path) -> None:
        self.profiles: Mapping[str, Path] = {"small": profile}


@pytest.fixture
def installed(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> StandIn:
    """One modality that loads and one that does not."""
    profile = tmp_path / "small.toml"
    profile.write_text("[encoder]\n")
    modality = StandIn(profile)
    entries = [
        Discovered("broken", "mepr-broken", "2.0", None, "ImportError: no libsnd"),
        Discovered("standin", "mepr-standin", "1.0", modality),  # type: ignore[arg-type]
    ]
    monkeypatch.setattr(doctor, "discover", lambda: entries)
    return modality


def test_modalities(mepr, installed: StandIn) -> None:
    outcome = mepr("modalities", "--json")
    assert outcome.code == 0
    assert outcome.records == [
        {
            **{"name": "broken", "distribution": "mepr-broken", "version": "2.0"},
            **{"inputs": None, "profiles": None, "problem": "ImportError: no libsnd"},
        },
        {
            **{"name": "standin", "distribution": "mepr-standin", "version": "1.0"},
            **{"inputs": "text, media", "profiles": "small", "problem": None},
        },
    ]
    assert "no libsnd" in mepr("modalities").out


def test_no_modality_is_said(mepr, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(doctor, "discover", list)
    outcome = mepr("modalities", "--json")
    assert (outcome.code, outcome.out) == (0, "")
    assert "pip install mepr-text" in outcome.err


def test_doctor_fails_with_advice(mepr, installed: StandIn, tmp_path: Path) -> None:
    outcome = mepr("doctor", "--path", tmp_path, "--json")
    found = {record["check"]: record for record in outcome.records}
    assert outcome.code == 1
    assert found["broken"]["result"] == "fail" and "no libsnd" in found["broken"]["detail"]
    assert found["standin"]["result"] == "ok"
    assert found["standin encoder"]["result"] == "fail"
    assert found["standin encoder"]["advice"] == "pip install no-such-distribution"
    assert found["frame store"]["result"] == "ok"
    assert not list(tmp_path.glob(".mepr-doctor-*"))
    assert "2 failed" in outcome.err


def test_doctor_finds_local_weights(mepr, installed: StandIn, tmp_path: Path, monkeypatch) -> None:
    (tmp_path / "weights").mkdir()
    (tmp_path / "weights" / "model.safetensors").write_bytes(b"weights")
    installed.profiles["small"].write_text(f'[encoder]\nid = "{tmp_path / "weights"}"\n')
    monkeypatch.setattr(doctor, "discover", lambda: [Discovered("s", "d", "1", installed)])
    outcome = mepr("doctor", "--path", tmp_path, "--json")
    assert {record["check"]: record["result"] for record in outcome.records}["s encoder"] == "ok"
    assert outcome.code == 0


def test_scarce_disk_space(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for free, result in ((20 << 30, "ok"), (5 << 30, "warn"), (1 << 20, "fail")):
        usage = type("Usage", (), {"free": free})()
        monkeypatch.setattr(doctor.shutil, "disk_usage", lambda path, usage=usage: usage)
        assert doctor._disk(tmp_path).result == result


def test_without_torch_there_is_a_warning(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    def no_torch(module: str, *, extra: str):
        raise doctor.MissingDependency(f"no {module}", hint=f"pip install '{extra}'")

    monkeypatch.setattr(doctor, "require", no_torch)
    monkeypatch.setattr(doctor, "discover", list)
    checks = {check.check: check for check in doctor.examine(tmp_path)}
    assert checks["torch"].result == "warn"
    assert checks["torch"].advice == "pip install 'mepr-shared[train]'"
    assert "bf16 on cpu" not in checks


def test_a_check_that_breaks_is_a_failure() -> None:
    def broken() -> doctor.Check:
        raise RuntimeError("the driver is too old\nand more")

    check = doctor._attempt("torch", broken)
    assert (check.result, check.detail) == ("fail", "RuntimeError: the driver is too old")


@pytest.mark.parametrize(
    ("seconds", "automatic", "result"),
    [
        ({"float32": 1.0, "bfloat16": 9.0}, False, "ok"),
        ({"float32": 1.0, "bfloat16": 0.3}, True, "ok"),
        ({"float32": 1.0, "bfloat16": 9.0}, True, "warn"),
        ({"float32": 1.0, "bfloat16": 0.3}, False, "warn"),
    ],
)
def test_bf16_is_judged_by_what_auto_chooses(monkeypatch, seconds, automatic, result) -> None:
    torch = pytest.importorskip("torch", reason="mepr-shared[train] is not installed")
    monkeypatch.setattr(doctor, "_product_s", lambda torch, device, dtype: seconds[dtype])
    monkeypatch.setattr("mepr_shared.train.loop.uses_bf16", lambda precision, device: automatic)
    assert doctor._bf16(torch, "cpu").result == result


def test_a_missing_path(refused, tmp_path: Path) -> None:
    assert "none" in refused("doctor", "--path", tmp_path / "none").err
