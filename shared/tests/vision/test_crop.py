"""What `crop` promises: whole pictures as CLIP reads them, parts beyond the edges, odd boxes."""

from pathlib import Path

import numpy as np
import pytest
import transformers
from PIL import Image

from mepr_shared.vision.crop import FITS, crop, crop_for, mean_colour

GREY = (127, 127, 127)


def picture(height: int, width: int, seed: int = 0) -> np.ndarray:
    """Noise over a ramp: no two places look alike."""
    random = np.random.default_rng(seed)
    ramp = np.linspace(0, 200, width)[None, :, None] * np.linspace(0.2, 1, height)[:, None, None]
    return (ramp + random.integers(0, 55, (height, width, 3))).astype(np.uint8)


@pytest.mark.parametrize(("backend", "levels"), [("pil", 1), ("torchvision", 2)])
@pytest.mark.parametrize("shape", [(512, 512), (300, 451), (337, 501), (100, 71), (224, 224)])
def test_a_whole_picture_equals_clips_image_processor(
    shape: tuple[int, int], backend: str, levels: int, tmp_path: Path
) -> None:
    transformers.CLIPImageProcessor(do_normalize=False, do_rescale=False).save_pretrained(tmp_path)
    processor = transformers.AutoImageProcessor.from_pretrained(tmp_path, backend=backend)
    image = picture(*shape)
    theirs = np.asarray(processor(image)["pixel_values"][0]).transpose(1, 2, 0)
    ours = crop(image, (0, 0, shape[1], shape[0]), 224, fit="crop")
    difference = np.abs(ours.astype(int) - theirs.astype(int))
    # Grey levels: coordinates are rounded, and torchvision's filter is not quite PIL's.
    assert difference.max() <= levels
    assert (difference > 0).mean() < (1e-3 if backend == "pil" else 2e-2)


def test_the_middle_is_cut_from_a_larger_shorter_side_as_dinov2_does() -> None:
    image = picture(300, 400)
    resized = np.asarray(Image.fromarray(image).resize((341, 256), Image.Resampling.BICUBIC))
    ours = crop(image, (0, 0, 400, 300), 224, fit="crop", shortest=256)
    difference = np.abs(ours.astype(int) - resized[16:240, 58:282].astype(int))
    assert difference.max() <= 1 and (difference > 0).mean() < 1e-3


def test_a_box_equals_a_crop_of_whole_pixels() -> None:
    image = picture(200, 300)
    ours = crop(image, (50, 40, 114, 104), 32, fit="letterbox", resample=Image.Resampling.BOX)
    theirs = image[40:104, 50:114].reshape(32, 2, 32, 2, 3).mean((1, 3))
    assert np.abs(ours - theirs).max() <= 1


def test_a_letterbox_keeps_proportions_between_bars() -> None:
    image = np.full((100, 200, 3), 255, np.uint8)
    ours = crop(image, (0, 0, 200, 100), 64, fit="letterbox", colour=(10, 20, 30))
    assert (ours[16:48] == 255).all()
    assert (ours[:16] == (10, 20, 30)).all() and (ours[48:] == (10, 20, 30)).all()


def test_stretch_shows_all_of_a_box() -> None:
    image = picture(60, 120)
    ours = crop(image, (0, 0, 120, 60), 60, fit="stretch")
    theirs = np.asarray(Image.fromarray(image).resize((60, 60), Image.Resampling.BICUBIC))
    assert np.array_equal(ours, theirs)


def test_parts_beyond_the_picture_are_padded() -> None:
    image = np.full((100, 100, 3), 255, np.uint8)
    ours = crop(image, (-50, -50, 50, 50), 64, fit="letterbox", colour=GREY)
    assert (ours[32:, 32:] == 255).all()
    assert (ours[:32] == GREY).all() and (ours[:, :32] == GREY).all()


@pytest.mark.parametrize("fit", FITS)
def test_content_does_not_move_when_a_box_reaches_beyond_the_picture(fit: str) -> None:
    """The same as cutting the box out of a picture that was padded by hand."""
    image = picture(90, 120)
    wide = np.full((290, 320, 3), GREY, np.uint8)
    wide[100:190, 100:220] = image
    box = np.array([-20, -30, 70, 60])
    ours = crop(image, box, 45, fit=fit, resample=Image.Resampling.BOX, colour=GREY)
    theirs = crop(wide, box + 100, 45, fit=fit, resample=Image.Resampling.BOX)
    assert np.abs(ours.astype(int) - theirs.astype(int)).max() <= 1


@pytest.mark.parametrize("fit", FITS)
@pytest.mark.parametrize(
    "box",
    [
        (10, 10, 11, 11),
        (10.2, 10.3, 10.4, 10.5),
        (0, 0, 100, 0.01),
        (99.9, 49.9, 300, 300),
        (-1000, -1000, 1000, 1000),
        (0, 0, 1, 50),
        (-3, 10, 0.4, 20),
        (1e7, 1e7, 2e7, 2e7),
    ],
)
def test_odd_boxes_give_a_picture_of_the_size_asked_for(
    fit: str, box: tuple[float, float, float, float]
) -> None:
    ours = crop(picture(50, 100), box, 32, fit=fit)
    assert ours.shape == (32, 32, 3) and ours.dtype == np.uint8


@pytest.mark.parametrize("fit", FITS)
def test_a_box_wholly_beyond_the_picture_is_padding(fit: str) -> None:
    ours = crop(picture(50, 100), (200, 10, 300, 40), 16, fit=fit, colour=(1, 2, 3))
    assert (ours == (1, 2, 3)).all()


@pytest.mark.parametrize(
    "box", [(10, 10, 10, 20), (20, 10, 10, 20), (0, 5, 9, 1), (0, 0, np.nan, 1), (0, 0, np.inf, 1)]
)
def test_boxes_without_area_are_refused(box: tuple[float, float, float, float]) -> None:
    with pytest.raises(ValueError, match="box"):
        crop(picture(50, 100), box, 16, fit="letterbox")


def test_pictures_of_another_kind_and_unknown_fits_are_refused() -> None:
    with pytest.raises(ValueError, match="uint8"):
        crop(np.zeros((5, 5), np.uint8), (0, 0, 5, 5), 16, fit="crop")
    with pytest.raises(ValueError, match="uint8"):
        crop(np.zeros((5, 5, 3), np.float32), (0, 0, 5, 5), 16, fit="crop")
    with pytest.raises(ValueError, match="letterbox"):
        crop(picture(5, 5), (0, 0, 5, 5), 16, fit="contain")


def test_one_pixel_fills_the_crop() -> None:
    image = picture(20, 20)
    ours = crop(image, (7, 8, 8, 9), 16, fit="letterbox", resample=Image.Resampling.NEAREST)
    assert (ours == image[8, 7]).all()


def test_the_bars_are_the_mean_colour_of_the_encoder() -> None:
    class Encoder:
        size, shortest, resample = 8, 8, int(Image.Resampling.BICUBIC)
        mean = (0.48145466, 0.4578275, 0.40821073)

    ours = crop_for(Encoder(), picture(10, 20), np.array([0, 0, 20, 10]), "letterbox")
    assert (ours[0] == mean_colour(Encoder.mean)).all()
    assert np.abs(ours[0] / 255 - Encoder.mean).max() <= 0.5 / 255 + 1e-9


def test_the_picture_is_left_alone() -> None:
    image = picture(40, 40)
    image.setflags(write=False)
    ours = crop(image, (0, 0, 40, 40), 40, fit="crop")
    assert np.array_equal(ours, image) and not np.shares_memory(ours, image)
    assert crop(image, (0, 0, 9, 9), 40, fit="crop").flags.c_contiguous
