"""The app in a real browser: a clip goes in, every panel comes out, nothing comes from outside.

`MEPR_APP_PICTURE=FILE.png` with `MEPR_APP_BUNDLE` and `MEPR_APP_CLIP` makes the README's picture.
"""

from __future__ import annotations

import csv
import io
import json
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from mepr_fusion.bundle.sources import find_sources
from mepr_fusion.bundle.write import write_bundle
from mepr_fusion.inputs import choose
from mepr_fusion.predict import predictor as predictor_module
from mepr_fusion.predict.media_input import Limits
from mepr_fusion.settings import FusionSettings
from mepr_fusion.train import train
from mepr_shared import config
from mepr_shared.testing.browser import Tab, open_browser
from mepr_shared.testing.toy_modalities import ToyModality, ToyTextModality
from mepr_shared.testing.toy_stages import sound, toy_corpus, toy_exports

PANELS = (
    *("summary", "emotions", "traits", "key-frames", "speech", "attribution", "contributions"),
    *("attention", "inputs", "downloads"),
)
WAIT_MS = 60_000


@pytest.fixture(scope="module")
def browser() -> Iterator[Callable[..., Tab]]:
    with open_browser() as open_tab:
        yield open_tab


@pytest.fixture(scope="module")
def clip(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A video of one and a half seconds with sound that a browser can show."""
    import av
    import numpy as np

    path = tmp_path_factory.mktemp("clip") / "clip & co.webm"
    random = np.random.default_rng(0)
    with av.open(str(path), "w") as file:
        video = file.add_stream("libvpx", rate=10)
        video.width, video.height, video.pix_fmt = 160, 120, "yuv420p"
        audio = file.add_stream("libopus", rate=48000)
        for number in range(15):
            picture = np.full((120, 160, 3), 16 * number, np.uint8)
            file.mux(video.encode(av.VideoFrame.from_ndarray(picture, format="rgb24")))
        samples = random.normal(0, 2000, (1, 72000)).astype(np.int16)
        frame = av.AudioFrame.from_ndarray(samples, format="s16", layout="mono")
        frame.sample_rate = 48000
        for stream, given in ((audio, frame), (audio, None), (video, None)):
            file.mux(stream.encode(given))
    return path


@pytest.fixture(scope="module")
def address(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The app over toy modalities, or over `MEPR_APP_BUNDLE`."""
    pytest.importorskip("gradio", reason="gradio is not installed")
    folder = tmp_path_factory.mktemp("app")
    patch = pytest.MonkeyPatch()
    patch.setenv("GRADIO_TEMP_DIR", str(folder / "uploads"))
    from mepr_fusion.app.blocks import serve
    from mepr_fusion.app.service import AppService

    given = os.environ.get("MEPR_APP_BUNDLE")
    bundle = Path(given) if given else toy_bundle(folder, patch)
    service = AppService(
        bundle, limits=Limits(60, 5_000_000), roots=[folder / "uploads"], samples=[]
    )
    blocks, found = serve(service, port=None, block=False)
    yield found
    blocks.close(verbose=False)
    service.close()
    patch.undo()


def toy_bundle(folder: Path, patch: pytest.MonkeyPatch) -> Path:
    """A bundle of toy modalities, which are installed for as long as `patch` holds."""
    corpus = toy_corpus(folder, "films")
    names = ("face", "scene")
    modalities = [ToyTextModality("text"), ToyModality("audio")]
    modalities += [ToyModality(name, looks=True) for name in names]
    toy_exports(folder, [corpus], modalities)
    quick = config.parse_assignments(["fit.epochs=1", "model.width=16", "model.heads=2"])
    run = train(
        choose([folder / "films.parquet"], folder / "exports", {}),
        config.build(FusionSettings, quick),
        folder / "stage3",
        exports_root=folder / "exports",
    )
    write_bundle(run, find_sources(run, roots=[folder]), folder / "bundle")
    patch.setattr(predictor_module, "discover", lambda: [m.discovered for m in modalities])
    return folder / "bundle"


def upload(tab: Tab, file: Path | dict[str, Any]) -> None:
    """Give a file to the video field, and wait for it to be there."""
    tab.page.set_input_files("input[type=file] >> nth=0", file)
    tab.page.wait_for_selector("video", timeout=WAIT_MS)


def analyse(tab: Tab, file: Path) -> None:
    """Upload, run, wait for the result."""
    tab.page.wait_for_selector("#run", timeout=WAIT_MS)
    upload(tab, file)
    tab.page.click("#run")
    tab.page.wait_for_selector("#mepr-downloads", timeout=WAIT_MS)


@pytest.mark.slow
@pytest.mark.parametrize(("width", "dark"), [(1280, False), (390, True)])
def test_a_clip_is_answered(
    browser, address: str, clip: Path, tmp_path: Path, width: int, dark: bool
) -> None:
    tab = browser(address, width=width, dark=dark)
    analyse(tab, clip)
    # Gradio ends its stream of events by closing it, which counts as a failed request.
    assert [e for e in tab.errors if "/queue/data?" not in e] == []
    assert [r for r in tab.requests if not r.startswith((address, "blob:"))] == []
    assert tab.overflow() <= 0
    for name in PANELS:
        assert tab.page.is_visible(f"#mepr-{name}"), name
    unnamed = tab.page.evaluate(
        "[...document.querySelectorAll('.mepr img')].filter(e => e.alt.length < 15).length"
        " + [...document.querySelectorAll('.mepr svg, .mepr .track')]"
        ".filter(e => !e.getAttribute('aria-label')).length"
    )
    assert unnamed == 0
    assert tab.page.locator(".mepr img:visible").count() == 6  # key frames of face and scene
    assert tab.page.locator("table.heat").count() == 6
    tips = tab.page.locator("table.heat td[title]").all()
    assert len(tips) == 6 * 4 * 4 and "to openness: " in str(tips[16].get_attribute("title"))
    enlarge_by_keyboard(tab)
    with tab.page.expect_download() as waiting:
        tab.page.click("#download-json")
    record = json.loads(waiting.value.path().read_text("utf-8"))
    assert waiting.value.suggested_filename == "mepr-clip_co.json"
    assert record["prediction"]["input"]["kind"] == "video"
    with tab.page.expect_download() as waiting:
        tab.page.click("#download-csv")
    rows = list(csv.DictReader(io.StringIO(waiting.value.path().read_text("utf-8"))))
    probabilities = record["prediction"]["emotion"]["probabilities"]
    [said] = [r["value"] for r in rows if r["part"] == "p_fear"]
    assert float(said) == pytest.approx(probabilities["fear"], abs=1e-6)
    with tab.page.expect_download() as waiting:
        tab.page.click("#download-html")
    saved = tmp_path / "report.html"
    saved.write_bytes(waiting.value.path().read_bytes())
    alone = browser(saved.as_uri(), width=width, dark=dark)
    assert alone.errors == [] and alone.requests == [saved.as_uri()]
    assert alone.overflow() <= 0 and alone.page.is_visible("#mepr-attribution")


def enlarge_by_keyboard(tab: Tab) -> None:
    """Open the first key frame and close it again, without a mouse."""
    tab.page.locator("#mepr-key-frames figure > button").first.focus()
    tab.page.keyboard.press("Enter")
    large = tab.page.locator("#mepr-key-frames [popover]").first
    assert large.is_visible()
    tab.page.keyboard.press("Escape")
    assert not large.is_visible()


@pytest.mark.slow
def test_what_cannot_be_read_is_a_toast(browser, address: str, clip: Path, tmp_path: Path) -> None:
    tab = browser(address)
    tab.page.wait_for_selector("#run", timeout=WAIT_MS)
    tab.page.click("#run")
    tab.page.get_by_text("Choose a video first").wait_for(timeout=WAIT_MS)
    long = sound(tmp_path / "long.wav", 61)
    bad = {
        "<b>text.mp4": (b"no video at all", "video/mp4", "is no media"),
        "long.mp4": (long.read_bytes(), "video/mp4", "more than the limit"),
    }
    for name, (content, kind, words) in bad.items():
        upload(tab, {"name": name, "mimeType": kind, "buffer": content})
        tab.page.click("#run")
        toast = tab.page.get_by_text(words)
        toast.wait_for(timeout=WAIT_MS)
        assert tab.page.locator("b", has_text="text.mp4").count() == 0
        tab.page.reload()
        tab.page.wait_for_selector("#run", timeout=WAIT_MS)
    upload(tab, clip)
    tab.page.click("#run")
    tab.page.wait_for_selector("#mepr-summary", timeout=WAIT_MS)


@pytest.mark.skipif("MEPR_APP_PICTURE" not in os.environ, reason="made where it is asked for")
def test_picture_for_the_readme(browser, address: str) -> None:
    from PIL import Image

    target = Path(os.environ["MEPR_APP_PICTURE"])
    tab = browser(address, width=1180, height=900)
    analyse(tab, Path(os.environ["MEPR_APP_CLIP"]))
    tab.page.wait_for_timeout(1500)
    box = tab.page.locator("#mepr-attribution").bounding_box()
    shown = {"x": 0, "y": 0, "width": 1180, "height": box["y"] + box["height"] + 20}
    content = tab.page.screenshot(full_page=True, clip=shown)
    with Image.open(io.BytesIO(content)) as picture:
        small = picture.convert("RGB").quantize(255, dither=Image.Dither.NONE)
        small.save(target, optimize=True)
    assert target.stat().st_size < 300_000
