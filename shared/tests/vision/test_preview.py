"""Contact sheets: what is drawn, what is embedded, what is refused."""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from PIL import Image, ImageColor

from mepr_shared.cli import preview_verb
from mepr_shared.errors import ConfigError, DataError
from mepr_shared.vision.preview import (
    KEY,
    NOTICE,
    check_target,
    draw_sheet,
    save_sheet,
    sheet_record,
)
from mepr_shared.vision.preview_marks import (
    CHOSEN,
    MASKED,
    drawable,
    outline,
    shortened,
    text_width,
    wrapped,
)
from mepr_shared.vision.types import ClipFrames, Regions

BOX = (40.0, 30.0, 100.0, 90.0)


def clip_of(count: int, height: int = 120, width: int = 160) -> ClipFrames:
    images = [np.full((height, width, 3), (200, 60, 60), np.uint8) for _ in range(count)]
    return ClipFrames(images, np.arange(count, dtype=np.float32) * 0.5)


def regions_of(
    count: int,
    *,
    masked: tuple[int, ...] = (),
    derived: tuple[int, ...] | None = None,
    box: tuple[float, ...] = BOX,
    others: int = 0,
) -> Regions:
    mask = np.array([frame not in masked for frame in range(count)])
    found = tuple(np.tile(np.float32([[4, 4, 30, 30]]), (others, 1)) for _ in range(count))
    return Regions(
        np.tile(np.array(box, np.float32), (count, 1)),
        mask,
        np.where(mask, 0.97, 0).astype(np.float32),
        "partial" if masked else "ok",
        f"no face in {len(masked)} of {count} frames" if masked else "",
        found,
        None if derived is None else np.array([f in derived for f in range(count)]),
    )


def crops_of(regions: Regions) -> list[np.ndarray | None]:
    blue = np.full((64, 64, 3), (0, 0, 255), np.uint8)
    return [blue if valid else None for valid in regions.mask]


def sheet_of(count: int = 1, width: int = 1600, name: str = "a.mp4", **kwargs: Any) -> Image.Image:
    regions = regions_of(count, **kwargs)
    return draw_sheet(name, "face", clip_of(count), regions, crops_of(regions), width=width)


def has(picture: Image.Image | np.ndarray, colour: str | tuple[int, ...]) -> int:
    """How many pixels have exactly this colour."""
    wanted = ImageColor.getrgb(colour) if isinstance(colour, str) else colour
    return int((np.asarray(picture) == wanted).all(-1).sum())


@pytest.mark.parametrize("count", [1, 2, 7, 30, 300])
@pytest.mark.parametrize("width", [400, 1600])
def test_a_sheet_has_its_width_and_every_unmasked_frame_its_crop(count: int, width: int) -> None:
    masked = tuple(range(2, count, 3))
    sheet = sheet_of(count, width, masked=masked)
    assert sheet.width == width
    # Crops are equal squares of a colour that nothing else has.
    area = has(sheet, (0, 0, 255)) / (count - len(masked))
    assert area == pytest.approx(round(area**0.5) ** 2) and area > 0


@pytest.mark.parametrize("shape", [(1, 1), (2, 900), (900, 2), (320, 180), (90, 160)])
def test_odd_frames_are_drawn(shape: tuple[int, int]) -> None:
    regions = regions_of(3, masked=(1,), box=(0, 0, shape[1], shape[0]), derived=(2,))
    sheet = draw_sheet("a.png", "body", clip_of(3, *shape), regions, crops_of(regions))
    assert sheet.width == 1600
    assert 100 < sheet.height < 2500


def test_the_chosen_box_is_drawn_along_its_edges() -> None:
    picture = Image.new("RGB", (160, 120), "black")
    outline(picture, np.float32(BOX), "chosen")
    green = ImageColor.getrgb(CHOSEN)
    for place in ((40, 60), (100, 60), (70, 30), (70, 90), (40, 30), (100, 90)):
        assert picture.getpixel(place) == green
    assert picture.getpixel((70, 60)) == (0, 0, 0)


def test_line_style_tells_marks_apart_without_colour() -> None:
    rows = {}
    for mark in ("chosen", "derived", "other"):
        picture = Image.new("RGB", (160, 120), "black")
        outline(picture, np.float32(BOX), mark)
        rows[mark] = np.asarray(picture.convert("L"), dtype=int)
    edge = {mark: grey[30, 44:97] for mark, grey in rows.items()}
    assert np.ptp(edge["chosen"]) == 0 and np.ptp(edge["other"]) == 0
    assert np.abs(np.diff(edge["derived"])).astype(bool).sum() >= 6  # dashes and gaps
    inside = {mark: (grey[31:40, 70] > 0).sum() for mark, grey in rows.items()}
    assert inside["chosen"] == inside["derived"] == 2 and inside["other"] == 0  # thick, thin


@pytest.mark.parametrize("mark", ["chosen", "derived", "other"])
@pytest.mark.parametrize(
    "box", [(-50, -50, 400, 400), (300, 300, 400, 400), (10, 10, 10, 10), (90, 90, 20, 20)]
)
def test_boxes_beyond_the_frame_are_drawn_at_its_edge(mark: str, box: tuple[int, ...]) -> None:
    picture = Image.new("RGB", (160, 120), "black")
    outline(picture, np.float32(box), mark)
    assert np.asarray(picture).any()


def test_a_box_lies_where_it_lies_in_the_frame() -> None:
    drawn = np.asarray(sheet_of(1))
    red = np.argwhere((drawn == (200, 60, 60)).all(-1))
    upper, left = red.min(0)
    scale = (red[:, 1].max() - left + 1) / 160
    green = np.argwhere((drawn == ImageColor.getrgb(CHOSEN)).all(-1))
    green = green[green[:, 0] < red[:, 0].max()]  # without the legend
    expected = np.array([BOX[1], BOX[0], BOX[3], BOX[2]]) * scale + [upper, left, upper, left]
    assert np.abs(np.concatenate([green.min(0), green.max(0)]) - expected).max() <= 2


def test_masked_frames_are_grey_dark_and_crossed() -> None:
    seen, masked = sheet_of(1), sheet_of(1, masked=(0,))
    assert has(seen, (200, 60, 60)) > 100_000 and not has(masked, (200, 60, 60))
    luminance = np.asarray(Image.new("RGB", (1, 1), (200, 60, 60)).convert("L"))[0, 0]
    assert has(masked, (int(luminance) // 2,) * 3) > 100_000
    assert has(masked, MASKED) > has(seen, MASKED) + 2000
    assert has(masked, CHOSEN) < has(seen, CHOSEN)
    assert not has(masked, (0, 0, 255))


def test_rows_of_masked_frames_take_less_room() -> None:
    assert sheet_of(30, masked=tuple(range(30))).height < sheet_of(30).height


def test_a_derived_box_is_dashed_on_the_sheet() -> None:
    """Gaps between dashes: less of the colour than along a box that was detected."""
    legend = has(sheet_of(1, masked=(0,)), CHOSEN)
    detected, derived = (has(sheet_of(1, derived=d), CHOSEN) - legend for d in ((), (0,)))
    assert 0.4 * detected < derived < 0.8 * detected


@pytest.mark.parametrize("count", [1, 30])
def test_derived_boxes_and_other_boxes_change_the_sheet(count: int) -> None:
    plain = np.asarray(sheet_of(count, derived=()))
    assert (plain != np.asarray(sheet_of(count, derived=(0,)))).any()
    assert (plain != np.asarray(sheet_of(count, derived=(), others=1))).any()


def test_no_folder_of_the_file_reaches_the_sheet() -> None:
    path = "/some/secret/folder/a.mp4"
    assert np.array_equal(np.asarray(sheet_of(name=path)), np.asarray(sheet_of(name="a.mp4")))
    assert sheet_record(path, "face", clip_of(1), regions_of(1))["file"] == "a.mp4"


def test_scores_are_whole_or_elsewhere_never_cut() -> None:
    """300 frames late in a long recording: time and score do not fit side by side."""
    from mepr_shared.vision import preview

    clip, regions = clip_of(1), regions_of(1)
    clip.time_s[:] = 18149.3
    for width in range(40, 200, 5):
        assert preview._label_words(clip, regions, 0, width)[1] in ("0.97", "")
    assert preview._label_words(clip, regions, 0, 200) == ("18149.30 s", "0.97")
    early, late = clip_of(300), clip_of(300)
    late.time_s[:] = 18149.3
    many = regions_of(300)
    heights = {draw_sheet("a", "face", c, many, crops_of(many)).height for c in (early, late)}
    assert len(heights) == 1


def test_notes_stay_within_their_cell() -> None:
    """At the most columns there are: between two cells nothing is drawn."""
    drawn = np.asarray(sheet_of(300, derived=tuple(range(300)), others=2))
    red = np.argwhere((drawn == (200, 60, 60)).all(-1))
    rows = drawn[red[:, 0].min() : red[:, 0].max()]
    cell = (1600 - 2 * 24 + 12) // 16
    for column in range(1, 16):
        gap = rows[:, 24 + column * cell - 11 : 24 + column * cell - 1]
        assert (gap == 255).all()


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("caf\u00e9.mp4", "cafe.mp4"),
        ("cafe\u0301.mp4", "cafe.mp4"),  # as macOS writes it
        ("\u65e5\u672c.mp4", "??.mp4"),
        ("a\n\u202eb.mp4", "a??b.mp4"),
        ("<b>&amp;.mp4", "<b>&amp;.mp4"),
        ("\udcff.mp4", "?.mp4"),  # bytes that are no UTF-8
    ],
)
def test_what_the_font_cannot_draw_is_replaced(text: str, shown: str) -> None:
    assert drawable(text) == shown
    sheet_of(name=text)


@pytest.mark.parametrize("width", [60, 300])
def test_long_text_fits_and_keeps_both_ends(width: int) -> None:
    long = "first" + "x" * 5000 + "_7.mp4"
    short = shortened(long, 14, width)
    assert text_width(short, 14) <= width and "..." in short
    assert short.startswith("fi") and short.endswith("4")
    for line in wrapped(f"{NOTICE} {long}", 14, width):
        assert text_width(line, 14) <= width
    assert " ".join(wrapped(NOTICE, 14, 300)) == NOTICE


def test_a_clip_without_frames_has_no_sheet() -> None:
    nothing = ClipFrames([], np.zeros(0, np.float32), "no_video", "the file has no video stream")
    with pytest.raises(DataError, match=r"a\.mp4: no_video: the file has no video stream"):
        draw_sheet("/x/a.mp4", "face", nothing, regions_of(0), [])


@pytest.mark.parametrize("name", ["a.mp4", "\u65e5\u672c.mp4", "\udcff.mp4"])
def test_the_file_carries_its_record_and_the_notice(tmp_path: Path, name: str) -> None:
    regions = regions_of(3, masked=(1,), derived=(2,), others=2)
    record = sheet_record(name, "face", clip_of(3), regions)
    save_sheet(sheet_of(), tmp_path / "sheet.PNG", record)
    with Image.open(tmp_path / "sheet.PNG") as image:
        assert image.format == "PNG"
        texts = dict(image.text)  # type: ignore[attr-defined]
    assert texts["Copyright"] == texts["Comment"] == NOTICE
    assert json.loads(texts[KEY]) == record
    json.dumps(record, ensure_ascii=False).encode()  # as stdout gets it
    assert (record["n_frames"], record["n_masked"], record["n_derived"]) == (3, 1, 1)
    assert [frame["time_s"] for frame in record["frames"]] == [0.0, 0.5, 1.0]
    assert [frame["masked"] for frame in record["frames"]] == [False, True, False]
    assert record["frames"][0]["box"] == list(BOX) and record["frames"][1]["box"] is None
    assert record["frames"][0]["score"] == 0.97 and record["frames"][1]["score"] is None
    assert record["frames"][0]["others"] == [[4, 4, 30, 30]] * 2
    assert list(tmp_path.iterdir()) == [tmp_path / "sheet.PNG"]


def test_targets_that_are_refused(tmp_path: Path) -> None:
    (tmp_path / "there.png").write_bytes(b"mine")
    (tmp_path / "folder.png").mkdir()
    (tmp_path / "dangling.png").symlink_to(tmp_path / "nowhere")
    before = sorted(tmp_path.iterdir())
    for name, says in [
        ("sheet.jpg", "PNG"),
        ("sheet", "PNG"),
        ("none/sheet.png", "no folder"),
        ("folder.png", "is a folder"),
        ("there.png", "--overwrite"),
        ("dangling.png", "--overwrite"),
    ]:
        with pytest.raises(ConfigError, match=says):
            save_sheet(sheet_of(), tmp_path / name, {})
    assert sorted(tmp_path.iterdir()) == before
    assert (tmp_path / "there.png").read_bytes() == b"mine"
    check_target(tmp_path / "there.png", overwrite=True)


def test_a_failed_write_leaves_what_was_there(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "sheet.png"
    out.write_bytes(b"mine")

    def full(self: Image.Image, path: Path, **_: Any) -> None:
        Path(path).write_bytes(b"half")
        raise OSError("no space left")

    monkeypatch.setattr(Image.Image, "save", full)
    with pytest.raises(OSError, match="no space"):
        save_sheet(sheet_of(), out, {}, overwrite=True)
    assert out.read_bytes() == b"mine" and list(tmp_path.iterdir()) == [out]


def test_names_of_the_greatest_length_can_be_written(tmp_path: Path) -> None:
    out = tmp_path / ("x" * 251 + ".png")
    save_sheet(sheet_of(), out, {})
    assert out.is_file()


class _Sight:
    """Sees what it is told; counts how often it is asked."""

    def __init__(self, clip: ClipFrames, regions: Regions) -> None:
        self.clip, self.regions, self.asked = clip, regions, 0

    def look(self, clip: Any) -> tuple[ClipFrames, Regions]:
        self.asked += 1
        return self.clip, self.regions

    def crops(self, clip: ClipFrames, regions: Regions) -> list[np.ndarray | None]:
        return crops_of(regions)


def preview(
    monkeypatch: pytest.MonkeyPatch, video: Path, out: Path, sight: _Sight, **given: Any
) -> int:
    modality = SimpleNamespace(name="face", open_sight=lambda settings, device: sight)
    options: dict[str, Any] = {"start_s": None, "end_s": None, "width": 1600, "set": []}
    options |= {"overwrite": False, "device": "cpu", "json": False, "modality": modality, **given}
    monkeypatch.setattr(preview_verb, "encoder_settings", lambda *_: None)
    return preview_verb.run_preview(argparse.Namespace(video=video, out=out, **options))


def test_the_verb_writes_the_sheet_and_prints_its_record(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    sight = _Sight(clip_of(3), regions_of(3, masked=(1,)))
    out = tmp_path / "sheet.png"
    assert preview(monkeypatch, tmp_path / "a.mp4", out, sight, json=True) == 0
    printed = json.loads(capsys.readouterr().out)
    with Image.open(out) as image:
        embedded = json.loads(image.text[KEY])  # type: ignore[attr-defined]
    assert printed == {**embedded, "sheet": str(out)}
    assert str(tmp_path) not in json.dumps(embedded)


def test_the_verb_never_replaces_the_picture_it_looks_at(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    photo, link = tmp_path / "photo.png", tmp_path / "link.png"
    photo.write_bytes(b"mine")
    link.hardlink_to(photo)
    sight = _Sight(clip_of(1), regions_of(1))
    for out in (photo, link):
        with pytest.raises(ConfigError, match="looked at"):
            preview(monkeypatch, photo, out, sight, overwrite=True)
    assert photo.read_bytes() == b"mine" and not sight.asked


def test_the_verb_refuses_before_it_looks_and_writes_nothing_for_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    sight = _Sight(
        ClipFrames([], np.zeros(0, np.float32), "decode_error", "damaged"), regions_of(0)
    )
    with pytest.raises(ConfigError, match="PNG"):
        preview(monkeypatch, tmp_path / "a.mp4", tmp_path / "sheet.jpg", sight)
    with pytest.raises(ConfigError, match="--width"):
        preview(monkeypatch, tmp_path / "a.mp4", tmp_path / "sheet.png", sight, width=10)
    assert not sight.asked
    with pytest.raises(DataError, match="decode_error: damaged"):
        preview(monkeypatch, tmp_path / "a.mp4", tmp_path / "sheet.png", sight)
    assert not list(tmp_path.iterdir())
