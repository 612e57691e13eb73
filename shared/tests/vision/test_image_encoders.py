"""What image encoders promise: the models' own numbers, in batches, from any layer, in bf16."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
import transformers
from torch import Tensor, nn

from mepr_shared.errors import ConfigError, MissingDependency
from mepr_shared.vision.crop import crop, mean_colour
from mepr_shared.vision.encoders import ImageEncoder, Readout, open_image_encoder

TOP = Readout()
SMALL = {
    "hidden_size": 32,
    "intermediate_size": 64,
    "num_hidden_layers": 3,
    "num_attention_heads": 2,
    "image_size": 32,
    "patch_size": 8,
}
MAPS = {"hidden_sizes": [8, 12, 16, 24], "depths": [1, 1, 1, 1]}


def noise(count: int, size: int, seed: int = 0) -> np.ndarray:
    random = np.random.default_rng(seed)
    return random.integers(0, 256, (count, size, size, 3)).astype(np.uint8)


def processor(kind: str = "CLIP", **settings: object) -> object:
    if kind == "CLIP":
        sizes = {"size": {"shortest_edge": 32}, "crop_size": {"height": 32, "width": 32}}
        return transformers.CLIPImageProcessor(**(sizes | settings))
    square = {"size": {"height": 32, "width": 32}}
    return getattr(transformers, f"{kind}ImageProcessor")(**(square | settings))


def saved(folder: Path, model: object, reader: object | None) -> str:
    torch.manual_seed(0)
    model.save_pretrained(folder)
    if reader is not None:
        reader.save_pretrained(folder)
    return str(folder)


def small_clip(folder: Path) -> str:
    torch.manual_seed(0)
    config = transformers.CLIPVisionConfig(**SMALL, projection_dim=16)
    return saved(folder, transformers.CLIPVisionModelWithProjection(config).eval(), processor())


@pytest.fixture(scope="module")
def clip(tmp_path_factory: pytest.TempPathFactory) -> str:
    return small_clip(tmp_path_factory.mktemp("clip"))


def theirs(model: nn.Module, folder: str, images: np.ndarray) -> object:
    """The output of the model for its processor's own pixels, in float32."""
    read = transformers.AutoImageProcessor.from_pretrained(folder, backend="pil")
    pixels = read(list(images), return_tensors="pt")["pixel_values"]
    with torch.no_grad():
        return model.eval()(pixel_values=pixels, output_hidden_states=True)


def encode(encoder: ImageEncoder, images: np.ndarray, readout: Readout = TOP) -> np.ndarray:
    return np.stack(encoder.encode(images, [readout] * len(images)))


def cosines(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    return (a * b).sum(1) / np.linalg.norm(a, axis=1) / np.linalg.norm(b, axis=1)


# The models' own vectors


def test_clip_gives_the_image_embedding_of_its_own_pipeline(clip: str) -> None:
    model = transformers.CLIPVisionModelWithProjection.from_pretrained(clip)
    images = noise(3, 32)
    encoder = open_image_encoder(clip)
    ours = encode(encoder, images)
    assert ours.dtype == np.float32 and ours.shape == (3, 16) and encoder.width(TOP) == 16
    assert np.abs(ours - theirs(model, clip, images).image_embeds.numpy()).max() < 1e-5


def test_a_whole_clip_gives_what_its_vision_tower_gives(tmp_path: Path) -> None:
    text = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 1}
    text |= {"num_attention_heads": 2, "vocab_size": 99}
    config = transformers.CLIPConfig(text_config=text, vision_config=SMALL, projection_dim=16)
    model = transformers.CLIPModel(config)
    folder = saved(tmp_path, model, processor())
    images = noise(2, 32)
    ours = encode(open_image_encoder(folder), images)
    vision = model.vision_model(theirs_pixels(folder, images)).pooler_output
    assert np.abs(ours - model.visual_projection(vision).detach().numpy()).max() < 1e-5


def theirs_pixels(folder: str, images: np.ndarray) -> Tensor:
    read = transformers.AutoImageProcessor.from_pretrained(folder, backend="pil")
    return read(list(images), return_tensors="pt")["pixel_values"]


def test_a_clip_without_projection_gives_its_pooled_output(tmp_path: Path) -> None:
    model = transformers.CLIPVisionModel(transformers.CLIPVisionConfig(**SMALL))
    folder = saved(tmp_path, model, processor())
    images = noise(2, 32)
    ours = encode(open_image_encoder(folder), images)
    assert np.abs(ours - theirs(model, folder, images).pooler_output.numpy()).max() < 1e-5


VISION_MODELS = {
    "Vit": (transformers.ViTModel, transformers.ViTConfig(**SMALL), processor("ViT")),
    "SigLIP": (
        transformers.SiglipVisionModel,
        transformers.SiglipVisionConfig(**SMALL),
        processor("Siglip"),
    ),
    "DINOv2": (
        transformers.Dinov2Model,
        transformers.Dinov2Config(**SMALL),
        transformers.BitImageProcessor(
            size={"shortest_edge": 36}, crop_size={"height": 32, "width": 32}
        ),
    ),
    "ConvNeXt": (
        transformers.ConvNextModel,
        transformers.ConvNextConfig(**MAPS),
        transformers.ConvNextImageProcessor(size={"shortest_edge": 64}, crop_pct=0.875),
    ),
    "ResNet": (
        transformers.ResNetModel,
        transformers.ResNetConfig(**MAPS, embedding_size=8),
        transformers.ConvNextImageProcessor(size={"shortest_edge": 64}, crop_pct=0.875),
    ),
}


@pytest.mark.parametrize("name", VISION_MODELS)
def test_models_give_their_pooled_output_for_whole_pictures(name: str, tmp_path: Path) -> None:
    kind, config, reader = VISION_MODELS[name]
    torch.manual_seed(1)
    model = kind(config).eval()
    folder = saved(tmp_path, model, reader)
    encoder = open_image_encoder(folder)
    whole = np.random.default_rng(3).integers(0, 256, (1, 60, 90, 3)).astype(np.uint8)
    expected = theirs(model, folder, whole)
    cut = crop(
        whole[0],
        (0, 0, 90, 60),
        encoder.size,
        fit=encoder.fit,
        resample=encoder.resample,
        shortest=encoder.shortest,
    )
    pixels = encoder.pixels(cut[None])
    assert (pixels - theirs_pixels(folder, whole)).abs().max() < 1.01 / 255 / min(encoder.std)
    ours = encode(encoder, cut[None])
    assert np.abs(ours - expected.pooler_output.flatten(1).numpy()).max() < 5e-3
    with torch.no_grad():
        exactly = model(pixel_values=pixels.contiguous())
    assert np.abs(ours - exactly.pooler_output.flatten(1).numpy()).max() < 1e-5
    layers = len(expected.hidden_states) - 1
    assert encoder.width(Readout(layer=layers, grid=2)) == 4 * expected.hidden_states[-1].shape[
        1 if expected.hidden_states[-1].dim() == 4 else 2
    ]  # fmt: skip


def test_a_vision_tower_is_found_in_a_whole_siglip(tmp_path: Path) -> None:
    text = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 1}
    text |= {"num_attention_heads": 2, "vocab_size": 99}
    config = transformers.SiglipConfig(text_config=text, vision_config=SMALL)
    model = transformers.SiglipModel(config).eval()
    folder = saved(tmp_path, model, processor("Siglip"))
    images = noise(2, 32)
    with torch.no_grad():
        expected = model.vision_model(theirs_pixels(folder, images)).pooler_output
    assert np.abs(encode(open_image_encoder(folder), images) - expected.numpy()).max() < 1e-5


def test_a_pooler_without_weights_is_not_used(tmp_path: Path) -> None:
    """Classifiers are saved without one: transformers fills in random numbers."""
    model = transformers.ViTForImageClassification(transformers.ViTConfig(**SMALL)).eval()
    folder = saved(tmp_path, model, processor("ViT"))
    images = noise(2, 32)
    ours = encode(open_image_encoder(folder), images)
    expected = theirs(model.vit, folder, images).last_hidden_state[:, 0]
    assert np.abs(ours - expected.numpy()).max() < 1e-5


# Layers and grids


def test_a_grid_holds_the_means_of_cells_row_by_row(clip: str) -> None:
    encoder = open_image_encoder(clip)
    images = noise(2, 32)
    model = transformers.CLIPVisionModelWithProjection.from_pretrained(clip)
    states = theirs(model, clip, images).hidden_states
    for layer in (0, 2):
        tokens = states[layer][:, 1:].reshape(2, 2, 2, 2, 2, 32)  # rows, in cell, columns, in cell
        expected = tokens.mean((2, 4)).reshape(2, 4 * 32).numpy()
        ours = encode(encoder, images, Readout(layer=layer, grid=2))
        assert np.abs(ours - expected).max() < 1e-5
    mean = encode(encoder, images, Readout(layer=2))
    assert np.abs(mean - states[2][:, 1:].mean(1).numpy()).max() < 1e-5


def test_a_mixed_batch_gives_what_each_readout_gives_alone(clip: str) -> None:
    encoder = open_image_encoder(clip)
    images = noise(6, 32)
    readouts = [TOP, Readout(1, 2), TOP, Readout(0), Readout(None, 3), Readout(3, 1)]
    together = encoder.encode(images, readouts, batch=4)
    for image, readout, row in zip(images, readouts, together, strict=True):
        assert np.abs(encoder.encode(image[None], [readout])[0] - row).max() < 1e-5
        assert row.shape == (encoder.width(readout),)


def test_upper_layers_are_not_computed_for_nothing(clip: str) -> None:
    encoder = open_image_encoder(clip)
    layers = encoder._network.module.vision_model.encoder.layers
    seen: list[int] = []
    hooks = [
        layer.register_forward_hook(lambda *_, n=number: seen.append(n))
        for number, layer in enumerate(layers, start=1)
    ]
    encode(encoder, noise(2, 32), Readout(layer=1))
    assert seen == [1]
    encoder.encode(noise(2, 32), [Readout(layer=1), TOP])
    assert seen == [1, 1, 2, 3]
    for hook in hooks:
        hook.remove()


def test_readouts_that_are_not_there_are_refused(clip: str) -> None:
    encoder = open_image_encoder(clip)
    for readout in (Readout(layer=4), Readout(grid=5)):
        with pytest.raises(ConfigError):
            encoder.width(readout)
    with pytest.raises(ConfigError):
        Readout(grid=0)
    with pytest.raises(ConfigError):
        Readout(layer=-1)


# Loading


def test_equal_arguments_give_the_same_encoder(clip: str) -> None:
    assert open_image_encoder(clip) is open_image_encoder(clip, precision="float32", device="cpu")
    assert open_image_encoder(clip) is not open_image_encoder(clip, precision="bf16")
    encoder = open_image_encoder(clip)
    assert len(encoder.weights_sha256) == 64 and encoder.revision == ""


def test_settings_are_read_from_the_image_processor(tmp_path: Path) -> None:
    model = transformers.ViTModel(transformers.ViTConfig(**SMALL))
    mean, std = (0.1, 0.2, 0.3), (0.4, 0.5, 0.6)
    reader = processor("ViT", image_mean=mean, image_std=std, resample=3)
    encoder = open_image_encoder(saved(tmp_path, model, reader))
    assert (encoder.mean, encoder.std, encoder.resample) == (mean, std, 3)
    assert (encoder.size, encoder.shortest, encoder.fit) == (32, 32, "stretch")
    bars = np.full((1, 32, 32, 3), mean_colour(mean), np.uint8)
    assert encoder.pixels(bars).abs().max() < 0.5 / 255 / min(std) + 1e-6


def test_models_of_another_kind_are_refused_in_one_line(tmp_path: Path) -> None:
    bert = transformers.BertConfig(
        hidden_size=32, num_hidden_layers=1, num_attention_heads=2, intermediate_size=64
    )
    folder = saved(tmp_path / "bert", transformers.BertModel(bert), None)
    with pytest.raises(ConfigError, match="bert model, which does not read pictures") as found:
        open_image_encoder(folder)
    assert "\n" not in str(found.value)


def test_folders_that_lack_something_are_refused_in_one_line(tmp_path: Path, clip: str) -> None:
    model = transformers.ViTModel(transformers.ViTConfig(**SMALL))
    (tmp_path / "other").mkdir()
    (tmp_path / "other/weights.bin").write_bytes(b"?")
    (tmp_path / "torn").mkdir()
    (tmp_path / "torn/config.json").write_text("{")
    (tmp_path / "torn/model.safetensors").write_bytes(b"?")
    part = transformers.CLIPVisionModel.from_pretrained(clip)
    del part.encoder.layers[2]
    half = saved(tmp_path / "half", part, processor())
    config = Path(half) / "config.json"
    config.write_text(
        config.read_text().replace('"num_hidden_layers": 2', '"num_hidden_layers": 3')
    )
    for folder, words in {
        saved(tmp_path / "bare", model, None): "processor",
        saved(tmp_path / "oblong", model, processor("ViT", size={"height": 32, "width": 48})): "48",
        str(tmp_path / "other"): "no image encoder",
        str(tmp_path / "torn"): "does not load",
        half: "missing",
    }.items():
        with pytest.raises(ConfigError, match=words) as found:
            open_image_encoder(folder)
        assert "\n" not in str(found.value)


def test_code_that_comes_with_a_model_is_refused(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text(
        '{"model_type": "strange", "auto_map": {"AutoConfig": "code.StrangeConfig"}}'
    )
    (tmp_path / "code.py").write_text("raise SystemExit('was run')")
    (tmp_path / "model.safetensors").write_bytes(b"?")
    with pytest.raises(ConfigError):
        open_image_encoder(str(tmp_path))


def test_a_missing_package_and_an_unknown_precision_are_named() -> None:
    with pytest.raises(MissingDependency, match="pip install some-weights"):
        open_image_encoder("package:not_there/models", needs="some-weights")
    with pytest.raises(ConfigError, match="float16"):
        open_image_encoder("anything", precision="float16")


# Batches, memory, precision


def test_pictures_may_be_tensors_and_none_at_all(clip: str) -> None:
    encoder = open_image_encoder(clip)
    images = noise(2, 32)
    ours = np.stack(encoder.encode(torch.from_numpy(images), [TOP, TOP]))
    assert np.array_equal(ours, encode(encoder, images))
    assert encoder.encode(images[:0], []) == []
    with pytest.raises(ValueError, match="uint8"):
        encoder.encode(images[:, :16], [TOP, TOP])
    with pytest.raises(ValueError, match="uint8"):
        encoder.encode(images / 255, [TOP, TOP])


def test_batched_equals_single(clip: str) -> None:
    encoder = open_image_encoder(clip)
    images = noise(7, 32)
    tops = [TOP] * len(images)
    together = np.stack(encoder.encode(images, tops, batch=7))
    for batch in (1, 3):
        apart = np.stack(encoder.encode(images, tops, batch=batch))
        assert np.abs(apart - together).max() <= 1e-5


def test_bf16_is_close_to_float32(clip: str) -> None:
    images = noise(8, 32)
    exact, rough = (
        encode(open_image_encoder(clip, precision=p), images) for p in ("float32", "bf16")
    )
    assert rough.dtype == np.float32
    assert cosines(exact, rough).min() >= 0.998 and not np.array_equal(exact, rough)
