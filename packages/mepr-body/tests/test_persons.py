"""Persons: boxes in the picture's own pixels, from any detector that knows persons."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from transformers import (
    AutoModelForObjectDetection,
    RTDetrConfig,
    RTDetrForObjectDetection,
    RTDetrImageProcessor,
    RTDetrResNetConfig,
    ViTConfig,
    ViTModel,
    YolosConfig,
    YolosForObjectDetection,
    YolosImageProcessor,
    YolosModel,
)

import mepr_body.persons as persons_module
from mepr_body.persons import BATCH, PersonDetector
from mepr_body.plugin import PersonSettings
from mepr_shared.errors import ConfigError
from mepr_shared.extract.weights import resolve
from mepr_shared.vision.types import ClipFrames, Faces

LABELS = {0: "cat", 1: "Person", 2: "dog"}
KINDS = ("yolos", "rtdetr")
# What is painted, and what the planted network takes it for: label and score.
SURE, UNSURE, DOG = (255, 255, 255), (255, 255, 0), (255, 0, 0)
MEANING = {SURE: (1, 0.9), UNSURE: (1, 0.3), DOG: (2, 0.95)}


def _names(labels: dict[int, str]) -> dict[str, Any]:
    return {"id2label": labels, "label2id": {name: label for label, name in labels.items()}}


def _yolos_config(labels: dict[int, str] = LABELS) -> YolosConfig:
    return YolosConfig(
        hidden_size=32,
        num_hidden_layers=2,
        num_attention_heads=2,
        intermediate_size=64,
        image_size=[128, 192],
        num_detection_tokens=10,
        **_names(labels),
    )


def _decided(model: YolosForObjectDetection) -> YolosForObjectDetection:
    """The model with queries that differ, as those of a trained one do; new ones are all 0."""
    with torch.no_grad():
        model.vit.embeddings.detection_tokens.normal_()
        for head in (model.class_labels_classifier, model.bbox_predictor):
            for layer in head.layers:
                layer.weight.normal_(std=layer.in_features**-0.5)
            head.layers[-1].weight.mul_(3)
        model.class_labels_classifier.layers[-1].bias[1] += 1.5
    return model


def _undecided(model: RTDetrForObjectDetection) -> RTDetrForObjectDetection:
    """The model with cats and persons at even chances; of a new one nothing is likely."""
    with torch.no_grad():
        for head in model.model.decoder.class_embed:
            head.bias[:2] = 0.0
    return model


def _rtdetr_config() -> RTDetrConfig:
    backbone = RTDetrResNetConfig(
        embedding_size=8,
        hidden_sizes=[8, 16, 16, 16],
        depths=[1, 1, 1, 1],
        layer_type="basic",
        out_features=["stage2", "stage3", "stage4"],
    )
    return RTDetrConfig(
        backbone_config=backbone,
        encoder_in_channels=[16, 16, 16],
        encoder_hidden_dim=32,
        d_model=32,
        decoder_in_channels=[32, 32, 32],
        encoder_ffn_dim=32,
        decoder_ffn_dim=32,
        num_queries=12,
        decoder_layers=2,
        encoder_attention_heads=2,
        decoder_attention_heads=2,
        num_denoising=0,
        **_names(LABELS),
    )


@pytest.fixture(scope="session")
def models(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Name -> folder of a randomly initialised model, written by `save_pretrained`."""
    root = tmp_path_factory.mktemp("detectors")
    torch.manual_seed(0)
    yolos = YolosImageProcessor(size={"shortest_edge": 128, "longest_edge": 192})
    written = {
        "yolos": (_decided(YolosForObjectDetection(_yolos_config())), yolos),
        "rtdetr": (
            _undecided(RTDetrForObjectDetection(_rtdetr_config())),
            RTDetrImageProcessor(size={"height": 160, "width": 160}),
        ),
        "no-head": (YolosModel(_yolos_config()), yolos),
        "animals": (YolosForObjectDetection(_yolos_config({0: "cat", 1: "dog"})), yolos),
        "classifier": (
            ViTModel(ViTConfig(hidden_size=32, num_hidden_layers=1, num_attention_heads=2)),
            yolos,
        ),
        "no-processor": (YolosForObjectDetection(_yolos_config()), None),
    }
    for name, (model, processor) in written.items():
        model.save_pretrained(root / name)
        if processor is not None:
            processor.save_pretrained(root / name)
    return {path.name: path for path in root.iterdir()}


class PlantedNetwork:
    """Finds the painted rectangles in the pixels it is given, as a trained network would.

    Args:
        kind: how scores are written into logits: of one label or none (`yolos`), of each label by
            itself (`rtdetr`).
    """

    def __init__(self, kind: str) -> None:
        self.kind = kind
        self.config = SimpleNamespace(id2label=LABELS)
        self.seen: list[int] = []

    def __call__(self, pixel_values: torch.Tensor, **_: Any) -> SimpleNamespace:
        self.seen.append(len(pixel_values))
        logits, boxes = zip(*(self._read(picture) for picture in pixel_values), strict=True)
        return SimpleNamespace(logits=torch.stack(logits), pred_boxes=torch.stack(boxes))

    def _read(self, picture: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        bright = picture > 0.5
        logits = torch.full((8, len(LABELS) + (self.kind == "yolos")), -12.0)
        if self.kind == "yolos":
            logits[:, -1] = 12.0
        boxes = torch.full((8, 4), 0.5)
        # The last queries answer, so that nothing depends on which ones do.
        for query, (colour, (label, score)) in enumerate(MEANING.items(), start=5):
            wanted = torch.tensor([channel > 0 for channel in colour])[:, None, None]
            rows, columns = torch.nonzero((bright == wanted).all(0), as_tuple=True)
            if not len(rows):
                continue
            height, width = picture.shape[1:]
            left, right = columns.min() / width, (columns.max() + 1) / width
            top, bottom = rows.min() / height, (rows.max() + 1) / height
            boxes[query] = torch.stack(
                [(left + right) / 2, (top + bottom) / 2, right - left, bottom - top]
            )
            if self.kind == "yolos":
                logits[query, -1] = 0.0
            logits[query, label] = float(np.log(score / (1 - score)))
        return logits, boxes


Planted = Callable[..., tuple[PersonDetector, PlantedNetwork]]


@pytest.fixture(params=KINDS)
def planted(request: pytest.FixtureRequest, models: dict[str, Path]) -> Planted:
    """A detector with the real image processor around a network that finds what is painted."""

    def make(least_score: float = 0.5) -> tuple[PersonDetector, PlantedNetwork]:
        folder = resolve(str(models[request.param]))
        settings = PersonSettings(detector=folder.id, least_score=least_score)
        _, processor = persons_module._loaded(folder, "cpu")
        network = PlantedNetwork(request.param)
        return PersonDetector(settings, network, processor, folder, "cpu"), network

    return make


def painted(
    width: int, height: int, *rectangles: tuple[tuple[int, ...], tuple[int, int, int]]
) -> np.ndarray:
    """Rectangles (left, top, right, bottom) on black."""
    picture = np.zeros((height, width, 3), np.uint8)
    for (left, top, right, bottom), colour in rectangles:
        picture[top:bottom, left:right] = colour
    return picture


def assert_boxes(found: Faces, expected: list[tuple[int, ...]], tolerance_px: float) -> None:
    assert found.boxes.dtype == np.float32 and found.scores.dtype == np.float32
    np.testing.assert_allclose(
        found.boxes, np.array(expected, np.float32).reshape(-1, 4), atol=tolerance_px
    )


# --- what is found -------------------------------------------------------------------------------


@pytest.mark.parametrize(("width", "height"), [(640, 480), (360, 640), (200, 200), (64, 50)])
def test_boxes_are_in_pixels_of_the_picture(planted: Planted, width: int, height: int) -> None:
    """Wide, high, larger and smaller than what the network sees."""
    box = (width // 8, height // 4, width // 2, height - height // 10)
    detector, _ = planted()
    (found,) = detector.find([painted(width, height, (box, SURE))])
    assert_boxes(found, [box], tolerance_px=1.5 + max(width, height) / 128)
    np.testing.assert_allclose(found.scores, [0.9], atol=1e-4)


def test_only_persons_with_the_score_best_first(planted: Planted) -> None:
    """The dog has the highest score, and is no person."""
    sure, unsure, dog = (300, 100, 400, 420), (40, 60, 160, 400), (460, 200, 600, 300)
    picture = painted(640, 480, (unsure, UNSURE), (dog, DOG), (sure, SURE))
    (found,) = planted()[0].find([picture])
    assert_boxes(found, [sure], tolerance_px=5)
    (more,) = planted(least_score=0.2)[0].find([picture])
    assert_boxes(more, [sure, unsure], tolerance_px=5)
    np.testing.assert_allclose(more.scores, [0.9, 0.3], atol=1e-3)


def test_nobody(planted: Planted) -> None:
    detector, _ = planted()
    for found in detector.find([painted(320, 240), painted(320, 240, ((9, 9, 99, 99), DOG))]):
        assert_boxes(found, [], tolerance_px=0)
        assert found.scores.shape == (0,)
    assert detector.find([]) == []


# --- batches -------------------------------------------------------------------------------------


def test_a_clip_takes_few_batches(planted: Planted) -> None:
    """Every picture gets its own boxes, whatever it shares a batch with."""
    boxes = [(10 * at, 40, 10 * at + 60, 200) for at in range(2 * BATCH + 3)]
    detector, network = planted()
    found = detector.find([painted(320, 240, (box, SURE)) for box in boxes])
    assert network.seen == [BATCH, BATCH, 3]
    for one, box in zip(found, boxes, strict=True):
        assert_boxes(one, [box], tolerance_px=4)


def test_pictures_of_mixed_sizes(planted: Planted) -> None:
    """Each as if it were alone: none is padded to the size of another."""
    sizes = [(320, 240), (200, 300), (320, 240), (400, 120), (200, 300)]
    pictures = [
        painted(width, height, ((width // 4, height // 4, width // 2, height // 2), SURE))
        for width, height in sizes
    ]
    detector, network = planted()
    together = detector.find(pictures)
    assert sorted(network.seen) == [1, 2, 2]
    for picture, found in zip(pictures, together, strict=True):
        (alone,) = detector.find([picture])
        np.testing.assert_array_equal(found.boxes, alone.boxes)
        height, width = picture.shape[:2]
        assert_boxes(found, [(width // 4, height // 4, width // 2, height // 2)], tolerance_px=5)


@pytest.mark.parametrize("shape", [(1, 1), (3, 3), (3, 50), (1, 900), (900, 1), (20, 900)])
def test_slivers_show_nobody(planted: Planted, shape: tuple[int, int]) -> None:
    """They are left out, and disturb no other picture."""
    whole = painted(320, 240, ((40, 40, 160, 200), SURE))
    detector, _ = planted()
    first, second = detector.find([np.full((*shape, 3), 255, np.uint8), whole])
    assert len(first.boxes) == 0
    assert_boxes(second, [(40, 40, 160, 200)], tolerance_px=4)


def test_a_clip_is_searched_once(planted: Planted) -> None:
    detector, network = planted()
    clip = ClipFrames([painted(320, 240)] * 3, np.arange(3, dtype=np.float32))
    assert detector.look(clip) is detector.look(clip)
    assert network.seen == [3]


def test_clips_share_batches(planted: Planted) -> None:
    """What is prepared for several clips at once is what each would have found by itself."""
    clips = []
    for count, width in ((1, 320), (3, 320), (0, 1), (1, 200)):
        boxes = [(10 + 20 * at, 40, 90 + 20 * at, 200) for at in range(count)]
        images = [painted(width, 240, (box, SURE)) for box in boxes]
        clips.append((ClipFrames(images, np.arange(count, dtype=np.float32)), boxes))
    detector, network = planted()
    detector.prepare([clip for clip, _ in clips])
    assert sorted(network.seen) == [1, 4]
    for clip, boxes in clips:
        for found, box in zip(detector.look(clip), boxes, strict=True):
            assert_boxes(found, [box], tolerance_px=4)
    assert sum(network.seen) == 5


# --- real models ---------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", KINDS)
def test_the_same_as_the_model_by_itself(models: dict[str, Path], kind: str) -> None:
    """Scores and boxes computed from the outputs of the model of `transformers`, one by one."""
    random = np.random.default_rng(0)
    pictures = [random.integers(0, 256, (180, 240, 3), dtype=np.uint8) for _ in range(3)]
    settings = PersonSettings(detector=str(models[kind]), least_score=0.05)
    detector = PersonDetector.open(settings)
    model = AutoModelForObjectDetection.from_pretrained(models[kind]).eval()
    _, processor = persons_module._loaded(resolve(settings.detector), "cpu")
    total = 0
    for picture, found in zip(pictures, detector.find(pictures), strict=True):
        with torch.no_grad():
            output = model(processor(images=picture, return_tensors="pt")["pixel_values"])
        logits, boxes = output.logits[0].double().numpy(), output.pred_boxes[0].double().numpy()
        if kind == "yolos":
            shares = np.exp(logits) / np.exp(logits).sum(-1, keepdims=True)
            # A query speaks for the label that it holds most likely.
            mine = shares[:, :-1].argmax(-1) == 1
            scores = np.where(mine, shares[:, 1], 0)
        else:
            # The best pairs of query and label, as many as there are queries.
            chances = 1 / (1 + np.exp(-logits))
            least = np.sort(chances, axis=None)[-len(chances)]
            scores = np.where(chances[:, 1] >= least, chances[:, 1], 0)
        chosen = [i for i in np.argsort(-scores, kind="stable") if scores[i] >= 0.05]
        x, y, wide, high = boxes[chosen].T
        corners = np.stack([x - wide / 2, y - high / 2, x + wide / 2, y + high / 2], axis=-1)
        np.testing.assert_allclose(found.scores, scores[chosen], atol=1e-4)
        np.testing.assert_allclose(found.boxes, corners * [240, 180, 240, 180], atol=0.05)
        total += len(chosen)
    assert total >= 3


def test_detectors_of_one_folder_have_one_key(models: dict[str, Path]) -> None:
    settings = PersonSettings(detector=str(models["yolos"]))
    one, other = PersonDetector.open(settings), PersonDetector.open(settings)
    assert one.key == other.key and one.weights_sha256 == other.weights_sha256
    stricter = PersonDetector.open(PersonSettings(detector=str(models["yolos"]), least_score=0.7))
    another = PersonDetector.open(PersonSettings(detector=str(models["rtdetr"])))
    assert len({one.key, stricter.key, another.key}) == 3


# --- what is refused -----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("animals", "knows no persons: none of its 2 labels is 'person'"),
        ("no-head", "does not hold all weights of an object detector"),
        ("classifier", "does not load as an image detector"),
        ("no-processor", "does not load as an image processor"),
    ],
)
def test_what_finds_no_persons_is_refused(models: dict[str, Path], name: str, message: str) -> None:
    with pytest.raises(ConfigError, match=message) as caught:
        PersonDetector.open(PersonSettings(detector=str(models[name])))
    assert "\n" not in str(caught.value)
    assert "encoder.persons.detector" in str(caught.value)


def test_a_detector_that_is_not_there(tmp_path: Path) -> None:
    for detector in (str(tmp_path / "nowhere"), "nobody/nothing"):
        with pytest.raises(ConfigError, match=r"persons\.detector = .*(derives bodies from faces)"):
            PersonDetector.open(PersonSettings(detector=detector))


def test_code_of_a_model_is_not_run(models: dict[str, Path], tmp_path: Path) -> None:
    """A folder that brings its own classes is refused, and nothing asks whether to trust it."""
    folder = tmp_path / "strange"
    shutil.copytree(models["yolos"], folder)
    config = (folder / "config.json").read_text()
    ours = '"auto_map": {"AutoConfig": "code.C", "AutoModelForObjectDetection": "code.M"},'
    renamed = config.replace('"model_type": "yolos"', '"model_type": "strange"')
    (folder / "config.json").write_text(renamed.replace("{", "{" + ours, 1))
    (folder / "code.py").write_text(f"open({str(tmp_path / 'run')!r}, 'w')\n")
    with pytest.raises(ConfigError):
        PersonDetector.open(PersonSettings(detector=str(folder)))
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("score", [0.0, 1.0, -1.0, float("nan")])
def test_scores_out_of_range_are_refused(score: float) -> None:
    with pytest.raises(ConfigError, match="least_score"):
        PersonSettings(least_score=score)
