"""Encoders behind the protocol: equal to the models they wrap, alone and in batches."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
import torchaudio
from transformers import AutoModel, Wav2Vec2FeatureExtractor, WhisperFeatureExtractor, WhisperModel

from mepr_audio.encoders import FrameEncoder, open_encoder
from mepr_audio.encoders.ctranslate2 import read_spec, read_weights
from mepr_audio.encoders.wav2vec2 import grid_of
from mepr_audio.encoders.whisper import load_ctranslate2
from mepr_audio.plugin import AudioEncoderSettings
from mepr_shared.errors import ConfigError

RATE = 16_000
RAW = ("wav2vec2-layer", "wav2vec2-stable", "wav2vec2-group", "hubert-stable", "wavlm-layer")
LENGTHS = (1.0, 0.43, 2.21, 1.0)


def opened(folder: Path | str, **settings) -> FrameEncoder:
    encoder = AudioEncoderSettings(str(folder), **settings)
    return open_encoder(encoder, device="cpu", bf16=False).encoder


def encode(encoder: FrameEncoder, waves: list[np.ndarray]) -> list[np.ndarray]:
    return encoder.encode([(wave, encoder.measure([wave])) for wave in waves])


@pytest.mark.parametrize("name", RAW)
def test_raw_models_give_what_transformers_gives(voice, models: dict[str, Path], name: str) -> None:
    wave = voice(1.3)
    model = AutoModel.from_pretrained(models[name]).eval()
    inputs = Wav2Vec2FeatureExtractor(return_attention_mask=False)(
        wave, sampling_rate=RATE, return_tensors="pt"
    )
    with torch.inference_mode():
        wanted = model(inputs.input_values).last_hidden_state[0].numpy()
    (found,) = encode(opened(models[name]), [wave])
    assert found.shape == wanted.shape
    np.testing.assert_allclose(found, wanted, atol=1e-5)


@pytest.mark.parametrize("name", RAW)
@pytest.mark.parametrize("layers", [(0,), (1, 2), (3,)])
def test_layers_are_the_hidden_states(
    voice, models: dict[str, Path], name: str, layers: tuple[int, ...]
) -> None:
    wave = voice(0.7)
    encoder = opened(models[name], layers=layers)
    model = AutoModel.from_pretrained(models[name]).eval()
    level = encoder.measure([wave])
    with torch.inference_mode():
        inputs = torch.from_numpy((wave - level.mean) / level.spread).float()[None]
        states = model(inputs, output_hidden_states=True).hidden_states
    wanted = torch.cat([states[layer] for layer in layers], dim=-1)[0].numpy()
    np.testing.assert_allclose(encode(encoder, [wave])[0], wanted, atol=1e-5)
    assert encoder.width == wanted.shape[1]


@pytest.mark.parametrize("name", [name for name in RAW if "group" not in name] + ["whisper"])
def test_a_batch_of_mixed_lengths_equals_one_by_one(
    voice, models: dict[str, Path], name: str
) -> None:
    encoder = opened(models[name])
    waves = [voice(seconds, seed) for seed, seconds in enumerate(LENGTHS)]
    for together, wave in zip(encode(encoder, waves), waves, strict=True):
        (alone,) = encode(encoder, [wave])
        assert len(alone) == encoder.grid.frames(len(wave))
        np.testing.assert_allclose(together, alone, atol=1e-4)


def test_group_norm_models_ask_for_equal_lengths(voice, models: dict[str, Path]) -> None:
    encoder = opened(models["wav2vec2-group"])
    assert encoder.equal_lengths and not opened(models["wav2vec2-layer"]).equal_lengths
    waves = [voice(0.9, seed) for seed in range(3)]
    for together, wave in zip(encode(encoder, waves), waves, strict=True):
        np.testing.assert_allclose(together, encode(encoder, [wave])[0], atol=1e-4)


def test_whisper_at_full_length_gives_what_transformers_gives(
    voice, models: dict[str, Path]
) -> None:
    wave = np.concatenate([voice(3.0), np.zeros(27 * RATE, np.float32)])
    model = WhisperModel.from_pretrained(models["whisper"]).get_encoder().eval()
    inputs = WhisperFeatureExtractor()(wave, sampling_rate=RATE, return_tensors="pt")
    with torch.inference_mode():
        output = model(inputs.input_features, output_hidden_states=True)
    (found,) = encode(opened(models["whisper"]), [wave])
    assert found.shape == (1500, 32)
    np.testing.assert_allclose(found, output.last_hidden_state[0].numpy(), atol=1e-4)
    (middle,) = encode(opened(models["whisper"], layers=(1,)), [wave])
    np.testing.assert_allclose(middle, output.hidden_states[1][0].numpy(), atol=1e-4)


def test_logmel_gives_what_torchaudio_gives(voice) -> None:
    wave = voice(1.0)
    spectrum = torchaudio.transforms.MelSpectrogram(
        RATE, n_fft=400, hop_length=160, n_mels=80, norm="slaney", mel_scale="slaney"
    )
    values = (spectrum(torch.from_numpy(wave))[:, :100] + 1e-6).log()
    wanted = ((values - values.mean()) / values.std(correction=0)).T.numpy()
    (found,) = encode(opened("logmel"), [wave])
    np.testing.assert_allclose(found, wanted, atol=1e-3)


@pytest.mark.parametrize("name", ["wav2vec2-layer", "logmel", "whisper"])
def test_level_of_chunks_is_that_of_the_whole(voice, models: dict[str, Path], name: str) -> None:
    encoder = opened(models.get(name, name))
    wave = voice(7.0)
    whole = encoder.measure([wave])
    chunked = encoder.measure(np.split(wave, [1, 40_000, 40_100]))
    for key, value in vars(whole).items():
        assert vars(chunked)[key] == pytest.approx(value, rel=1e-3)


def test_grid_is_that_of_the_model() -> None:
    grid = grid_of((10, 3, 3, 3, 3, 2, 2), (5, 2, 2, 2, 2, 2, 2))
    assert (grid.hop, grid.receptive) == (320, 400)


# --- CTranslate2 ------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def converted(models: dict[str, Path], tmp_path_factory) -> dict[str, Path]:
    """Quantisation -> the small Whisper as CTranslate2 writes it."""
    pytest.importorskip("ctranslate2", reason="needs ctranslate2")
    root = tmp_path_factory.mktemp("ctranslate2")
    for kind in ("float32", "float16", "int8"):
        spec = _whisper_specification(WhisperModel.from_pretrained(models["whisper"]))
        spec.validate()
        spec.optimize(quantization=kind)
        (root / kind).mkdir()
        spec.save(str(root / kind))
    return {path.name: path for path in root.iterdir()}


def _whisper_specification(model):
    """What CTranslate2's converter makes of a model; it would also want a tokenizer."""
    from ctranslate2.converters.transformers import WhisperLoader
    from ctranslate2.specs import WhisperSpec

    loader, config = WhisperLoader(), model.config
    spec = WhisperSpec(3, 2, 1, 2)
    loader.set_encoder(spec.encoder, model.encoder)
    loader.set_decoder(spec.decoder, model.decoder)
    loader.set_linear(spec.decoder.projection, torch.nn.Linear(32, config.vocab_size, bias=False))
    spec.register_vocabulary([f"<{number}>" for number in range(config.vocab_size)])
    return spec


@pytest.mark.parametrize(("kind", "tolerance"), [("float32", 1e-5), ("float16", 2e-2)])
def test_ctranslate2_weights_are_the_model(
    voice, models, converted, kind: str, tolerance: float
) -> None:
    wave = voice(0.8)
    assert read_spec(converted[kind] / "model.bin") == "WhisperSpec"
    (found,) = encode(opened(converted[kind]), [wave])
    (wanted,) = encode(opened(models["whisper"]), [wave])
    np.testing.assert_allclose(found, wanted, atol=tolerance)


def test_quantised_weights_are_multiplied_out(models, converted) -> None:
    state = load_ctranslate2(converted["int8"]).state_dict()
    wanted = load_ctranslate2(converted["float32"]).state_dict()
    for name, tensor in wanted.items():
        scale = tensor.abs().max().clamp(min=1e-6)
        assert (state[name] - tensor).abs().max() / scale < 0.02, name


def test_damaged_ctranslate2_files_are_refused(converted, tmp_path: Path) -> None:
    data = (converted["float32"] / "model.bin").read_bytes()
    file = tmp_path / "model.bin"
    for bad in (
        b"",
        data[:3],
        data[:200],
        data[: len(data) // 2],
        b"\xff" * 64,
        data[:4] + b"\0\0",
    ):
        file.write_bytes(bad)
        with pytest.raises(ConfigError, match=r"truncated|damaged|no CTranslate2"):
            read_weights(file, "")


# --- refusal ----------------------------------------------------------------------------------


def test_settings_that_do_not_fit_are_refused(models: dict[str, Path], tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="layers 0 to 3"):
        opened(models["wav2vec2-layer"], layers=(4,))
    with pytest.raises(ConfigError, match="no weights, no layers"):
        opened("logmel", layers=(1,))
    with pytest.raises(ConfigError, match="holds no weights"):
        opened(tmp_path)


def test_a_model_of_another_kind_is_refused(tmp_path: Path) -> None:
    from transformers import BertConfig, BertModel

    config = BertConfig(
        hidden_size=8, num_hidden_layers=1, intermediate_size=8, num_attention_heads=2, vocab_size=9
    )
    BertModel(config).save_pretrained(tmp_path)
    with pytest.raises(ConfigError, match="does not read samples"):
        opened(tmp_path)
