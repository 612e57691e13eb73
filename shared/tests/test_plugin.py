"""Finding modality packages: one that does not load hides no other, and says why."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from mepr_shared import plugin
from mepr_shared.errors import ConfigError
from mepr_shared.plugin import ClipFeatures, ClipInput, Modality, UpperLayers, discover


@dataclass(frozen=True)
class Settings:
    id: str = "encoder/a"
    revision: str = ""
    layer: int = -1


class Encoder:
    def __init__(self, settings: Settings, weights: str) -> None:
        self.batch_clips = 1
        self.spec = {
            "encoder": settings.id,
            "revision": settings.revision,
            "weights_sha256": weights,
            "settings": {"layer": settings.layer},
        }

    def extract(self, clips: Sequence[ClipInput]) -> list[ClipFeatures]:
        return [ClipFeatures(None, "no_text") for _ in clips]

    def cost(self, clip: ClipInput) -> float:
        return 1.0


@dataclass
class Smell:
    """A modality with everything the protocol asks for."""

    name: str = "smell"
    distribution: str = "mepr-smell"
    inputs: tuple[str, ...] = ("media",)
    encoder_settings: type = Settings
    profiles: Mapping[str, Path] = field(default_factory=dict)
    weights: str = "aa"

    def open_extractor(self, settings: Settings, *, device: str) -> Encoder:
        return Encoder(settings, self.weights)

    def upper_layers(self, spec: Mapping[str, Any], count: int) -> UpperLayers:
        raise ConfigError("no layers")

    def named_encoder(self, encoder: str) -> Mapping[str, Any]:
        return {"id": encoder}


@dataclass
class Entry:
    """The parts of `importlib.metadata.EntryPoint` that are read."""

    name: str
    loaded: Any
    value: str = "package.plugin:NAME"
    dist: Any = field(default_factory=lambda: SimpleNamespace(name="mepr-x", version="1.2"))

    def load(self) -> Any:
        if isinstance(self.loaded, Exception):
            raise self.loaded
        return self.loaded


@pytest.fixture
def install(monkeypatch: pytest.MonkeyPatch):
    def with_entries(*entries: Entry) -> None:
        def entry_points(*, group: str) -> tuple[Entry, ...]:
            assert group == "mepr.modalities"
            return entries

        monkeypatch.setattr(plugin, "entry_points", entry_points)

    return with_entries


def test_a_broken_package_keeps_its_place_with_the_reason_and_hides_no_other(install) -> None:
    smell, touch = Smell(), Smell("touch")
    install(
        Entry("touch", touch),
        Entry("taste", ImportError("No module named 'tongue'")),
        Entry("sight", RuntimeError("no eyes")),
        Entry("smell", smell),
    )
    found = discover()
    assert [entry.name for entry in found] == ["sight", "smell", "taste", "touch"]
    assert [entry.modality for entry in found] == [None, smell, None, touch]
    assert [entry.problem for entry in found] == [
        "RuntimeError: no eyes",
        "",
        "ImportError: No module named 'tongue'",
        "",
    ]
    assert {(entry.distribution, entry.version) for entry in found} == {("mepr-x", "1.2")}


def test_an_object_that_is_no_modality_is_a_problem_not_a_modality(install) -> None:
    half = SimpleNamespace(name="half", distribution="mepr-half", inputs=("text",))
    install(Entry("half", half, value="mepr_half.plugin:HALF", dist=None))
    (found,) = discover()
    assert found.modality is None
    assert found.problem == "mepr_half.plugin:HALF is not a Modality"
    assert (found.distribution, found.version) == ("?", "?")
    assert isinstance(Smell(), Modality)


def test_nothing_installed_is_an_empty_list(install) -> None:
    install()
    assert discover() == []


def test_a_modality_is_got_by_name_even_beside_a_broken_one(install) -> None:
    smell = Smell()
    install(Entry("smell", smell), Entry("taste", ImportError("No module named 'tongue'")))
    assert plugin.get_modality("smell") is smell
    with pytest.raises(ConfigError, match="'taste' does not load: ImportError: .*'tongue'"):
        plugin.get_modality("taste")


def test_a_modality_that_is_not_installed_comes_with_the_command_and_the_known_ones(
    install,
) -> None:
    install(Entry("smell", Smell()))
    with pytest.raises(ConfigError, match="'audio' is not installed") as caught:
        plugin.get_modality("audio")
    assert caught.value.hint is not None
    assert "pip install mepr-audio" in caught.value.hint
    assert "known: smell" in caught.value.hint
    with pytest.raises(ConfigError, match="did you mean 'smell'"):
        plugin.get_modality("smel")


def test_an_encoder_is_opened_again_from_its_spec_alone() -> None:
    modality = Smell()
    first = modality.open_extractor(Settings("encoder/b", "main", layer=3), device="cpu")
    again = plugin.reopen(modality, first.spec, device="cpu")
    assert again.spec == first.spec


def test_an_encoder_whose_weights_changed_is_refused() -> None:
    spec = Smell().open_extractor(Settings(), device="cpu").spec
    with pytest.raises(ConfigError, match="weights of encoder encoder/a are not those"):
        plugin.reopen(Smell(weights="bb"), spec, device="cpu")
