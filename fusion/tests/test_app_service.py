"""The app without a browser: requests, limits, order, endpoints."""

from __future__ import annotations

import csv
import io
import json
import re
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from html.parser import HTMLParser
from pathlib import Path
from urllib.error import HTTPError
from urllib.parse import unquote
from urllib.request import Request, urlopen

import numpy as np
import pytest

from mepr_fusion.app.panels import page, report
from mepr_fusion.app.service import AppService, Options
from mepr_fusion.app.sound import envelope
from mepr_fusion.cli import main
from mepr_fusion.predict import predictor as predictor_module
from mepr_fusion.predict.media_input import Limits
from mepr_shared.errors import ConfigError, DataError
from mepr_shared.labels import EMOTIONS, TRAITS
from mepr_shared.testing.toy_stages import sound

PANELS = (
    *("summary", "emotions", "traits", "key-frames", "speech", "attribution", "contributions"),
    *("attention", "inputs", "downloads"),
)
JSON = {"Content-Type": "application/json"}


@pytest.fixture
def installed(toys, monkeypatch: pytest.MonkeyPatch):
    """The bundle's modalities are installed, and nothing is encoded yet."""
    found = [modality.discovered for modality in toys.modalities.values()]
    monkeypatch.setattr(predictor_module, "discover", lambda: found)
    for modality in toys.modalities.values():
        modality.encoded.clear()
        modality.heard.clear()
    return toys.modalities


@pytest.fixture
def service(toys, installed) -> Iterator[AppService]:
    """A service over the toy bundle."""
    opened = AppService(toys.bundle, limits=Limits(seconds=100, bytes=10_000_000))
    yield opened
    opened.close()


class Page(HTMLParser):
    """What a page refers to, its ids, its tags."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.ids: list[str] = []
        self.tags: list[str] = []
        self.addresses: list[str] = []
        self.pictures: list[dict[str, str | None]] = []
        self.feed(text)

    def handle_starttag(self, tag, attrs) -> None:
        found = dict(attrs)
        self.tags.append(tag)
        self.ids += [found["id"]] if "id" in found else []
        self.addresses += [found[n] for n in ("src", "href") if n in found]
        if tag in ("img", "svg"):
            self.pictures.append(found)


def test_the_app_says_what_the_command_says(service, installed, tmp_path: Path, capsys) -> None:
    """Identical numbers, and nothing is encoded twice, explanation and pictures included."""
    file = sound(tmp_path / "a.wav", 2.0)
    steps: list[str] = []
    result = service.answer(file, progress=lambda part, done, total: steps.append(part))
    assert {name: m.encoded for name, m in installed.items()} == {n: ["000000"] for n in installed}
    assert installed["text"].heard == ["a.wav"]
    assert steps[0] == "transcribe" and steps[-1] == "attribute"
    capsys.readouterr()
    assert main(["predict", str(file), "--bundle", str(service.bundle.path), "--json"]) == 0
    said = json.loads(capsys.readouterr().out)
    ours = result.prediction.to_dict()
    for part in ("emotion", "traits", "modalities", "transcript"):
        assert ours[part] == said[part]
    assert service.predict(file).to_dict()["emotion"] == said["emotion"]


def test_models_are_loaded_once_and_shared(service, tmp_path: Path) -> None:
    file = sound(tmp_path / "a.wav")
    first = service.predictor()
    assert service.predictor("cpu") is first
    narrowed = service.answer(file, Options(modalities=("audio", "face")))
    status = {name: a.status for name, a in narrowed.prediction.modalities.items()}
    assert status["scene"] == status["text"] == "switched_off" and status["audio"] == "ok"
    found = narrowed.explanation.attribution
    assert set(found.frames) == {"audio", "face"}
    gone = [found.modalities.index(name) for name in ("scene", "text")]
    assert (found.chosen.values[gone] == 0).all()
    whole = service.answer(file)
    assert set(whole.explanation.attribution.frames) == {"audio", "face", "scene", "text"}
    assert service.predictor() is first


def test_eight_requests_at_once_are_not_mixed_up(service, tmp_path: Path) -> None:
    files = [sound(tmp_path / f"{n}.wav", 0.5, seed=n) for n in range(8)]
    alone = [service.predict(file).to_dict()["emotion"] for file in files]
    order: list[str] = []

    def ask(file: Path):
        def told(part: str, done: int, total: int) -> None:
            if part == "attribute":
                order.append(file.name)

        return service.answer(file, progress=told)

    with ThreadPoolExecutor(8) as pool:
        results = list(pool.map(ask, files))
    assert [r.prediction.input.name for r in results] == [file.name for file in files]
    assert [r.prediction.to_dict()["emotion"] for r in results] == alone
    assert len({json.dumps(one) for one in alone}) == 8
    assert sorted(order) == [file.name for file in files]


def test_bad_requests_say_why_and_the_service_stays(service, tmp_path: Path) -> None:
    good = sound(tmp_path / "good.wav")
    (tmp_path / "empty.mp4").touch()
    (tmp_path / "text.mp4").write_text("no video")
    big = tmp_path / "big.mp4"
    with big.open("wb") as file:
        file.truncate(10_000_001)
    refused = {
        "empty.mp4": "is empty: 0 bytes",
        "text.mp4": "no media",
        "big.mp4": "more than the limit",
        "none.mp4": "cannot be read",
    }
    for name, words in refused.items():
        with pytest.raises(DataError, match=words) as caught:
            service.answer(tmp_path / name)
        assert "\n" not in str(caught.value)
    with pytest.raises(DataError, match="than the limit of 100 s"):
        service.answer(sound(tmp_path / "long.wav", 101))
    with pytest.raises(ConfigError, match="did you mean 'happiness'"):
        service.answer(good, Options(target="hapiness"))
    with pytest.raises(ConfigError, match="no modality 'taste'"):
        service.answer(good, Options(modalities=("taste",)))
    with pytest.raises(ConfigError, match="no modality is left"):
        service.answer(good, Options(modalities=()))
    with pytest.raises(ConfigError, match="no device 'tpu'"):
        service.answer(good, Options(device="tpu"))
    assert service.answer(good).prediction.emotion is not None


def test_inputs_must_lie_where_uploads_lie(toys, installed, tmp_path: Path) -> None:
    (tmp_path / "uploads").mkdir()
    inside = sound(tmp_path / "uploads" / "a.wav")
    outside = sound(tmp_path / "b.wav")
    link = tmp_path / "uploads" / "link.wav"
    link.symlink_to(outside)
    service = AppService(toys.bundle, roots=[tmp_path / "uploads"])
    assert service.predict(inside).emotion is not None
    for path in (outside, link, tmp_path / "uploads" / ".." / "b.wav", Path("/etc/passwd")):
        with pytest.raises(DataError, match="folder of uploads"):
            service.predict(path)
    service.close()


@pytest.mark.parametrize("name", ["a.wav", "silent_nobody.wav", "german.wav", "crowd.wav"])
def test_every_panel_is_there_and_nothing_is_fetched(service, tmp_path: Path, name: str) -> None:
    result = service.answer(sound(tmp_path / name, 2.0), Options(target="openness"))
    for text in (page(result), report(result)):
        found = Page(text)
        panels = [f"mepr-{panel}" for panel in PANELS]
        if text.startswith("<!doctype"):
            panels.remove("mepr-downloads")
        assert [i for i in found.ids if i in panels] == panels
        assert len(set(found.ids)) == len(found.ids)
        assert all(address.startswith("data:") for address in found.addresses)
        assert all(p.get("alt") or p.get("aria-label") for p in found.pictures)
        assert "script" not in found.tags
        assert "not a diagnosis" in text
        assert all(f"contributions to {t.replace('_', ' ')}" in text for t in TRAITS)
    if name == "silent_nobody.wav":
        assert "Not used: face (no face in any frame)" in text


def test_long_recordings_have_a_timeline(service, tmp_path: Path) -> None:
    result = service.answer(sound(tmp_path / "long.wav", 70.0), Options(target="fear"))
    assert len(result.prediction.windows) == 3
    probabilities = [w.emotion.probabilities["fear"] for w in result.prediction.windows]
    chosen = result.explanation.attribution.window
    assert chosen == int(np.argmax(probabilities))
    assert result.explanation.attribution.chosen.value == pytest.approx(
        max(probabilities), abs=1e-5
    )
    assert "timeline of 3 windows" in page(result)


def test_names_of_files_are_text(service, tmp_path: Path) -> None:
    name = "<img src=x onerror=alert(1)>${1+1}{{2}}.wav"
    result = service.answer(sound(tmp_path / name))
    for text in (page(result), report(result)):
        assert "<img src=x" not in text
    assert "&lt;img src=x" in report(result)


def test_downloads_hold_the_numbers(service, tmp_path: Path) -> None:
    result = service.answer(sound(tmp_path / "=a.wav", 1.0))
    links = {
        address.split(":")[1].split(";")[0]: unquote(address.partition(",")[2])
        for address in Page(page(result)).addresses
        if address.startswith(("data:application/json", "data:text"))
    }
    assert set(links) == {"application/json", "text/csv", "text/html"}
    record = json.loads(links["application/json"])
    assert record["prediction"]["input"]["name"] == "=a.wav"
    assert str(tmp_path) not in links["application/json"] + links["text/csv"] + links["text/html"]
    rows = list(csv.DictReader(io.StringIO(links["text/csv"])))
    target = record["explanation"]["target"]
    parts = [float(r["value"]) for r in rows if r["output"] == target and r["part"] != "value"]
    [value] = [float(r["value"]) for r in rows if r["output"] == target and r["part"] == "value"]
    assert sum(parts) == pytest.approx(value, abs=1e-3)
    assert value == pytest.approx(
        record["prediction"]["emotion"]["probabilities"][target], abs=1e-5
    )
    [path] = [r["value"] for r in rows if r["part"] == "path"]
    assert path == "'=a.wav"  # no spreadsheet takes it for a formula
    assert re.search(r'download="mepr-a\.csv"', page(result))


def test_the_outline_of_a_sound(tmp_path: Path) -> None:
    found = envelope(sound(tmp_path / "a.wav", 1.0), 2.0)
    assert found is not None and found.duration_s == 2.0
    half = len(found.low) // 2
    assert (found.high[: half - 2] > 0).all() and (found.low[: half - 2] < 0).all()
    assert (found.high[half + 1 :] == 0).all()
    (tmp_path / "b.wav").write_text("nothing")
    assert envelope(tmp_path / "b.wav", None) is None


def ask_raw(address: str, name: str, file: dict[str, str]) -> str:
    """What the server answers to a file that was never uploaded."""
    data = [{**file, "meta": {"_type": "gradio.FileData"}}, ""]
    where = f"{address}gradio_api/call/{name}"
    request = Request(where, json.dumps({"data": data}).encode(), headers=JSON)
    try:
        with urlopen(request) as asked:
            event = json.load(asked)["event_id"]
        with urlopen(f"{where}/{event}") as said:
            return said.read().decode().replace("error", "Error")
    except HTTPError as error:
        return f"Error {error.code}"


def test_named_endpoints(service, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    client = pytest.importorskip("gradio_client")
    monkeypatch.setenv("GRADIO_TEMP_DIR", str(tmp_path / "uploads"))
    from mepr_fusion.app.blocks import serve

    file = sound(tmp_path / "a.wav", 1.0)
    blocks, address = serve(service, port=None, block=False)
    try:
        remote = client.Client(address, verbose=False)
        said = remote.predict(api_name="/describe")
        assert said["targets"] == [*EMOTIONS, *TRAITS]
        given = client.handle_file(str(file))
        found = remote.predict(given, "", api_name="/predict")
        assert found["emotion"] == service.predict(file).to_dict()["emotion"]
        whole = remote.predict(given, "openness", "", api_name="/explain")
        assert whole["explanation"]["target"] == "openness"
        assert whole["prediction"]["emotion"] == found["emotion"]
        with pytest.raises(Exception, match="no emotion or trait|cannot be explained"):
            remote.predict(given, "joy", "", api_name="/explain")
        assert "Error" in ask_raw(address, "predict", {"path": "/etc/hostname"})
        endpoints = remote.view_api(return_format="dict")["named_endpoints"]
        assert set(endpoints) == {"/predict", "/explain", "/describe"}
    finally:
        blocks.close(verbose=False)
