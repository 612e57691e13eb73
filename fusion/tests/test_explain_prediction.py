"""Attribution of one clip, through all stages down to its frames."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from mepr_fusion.app.clip_attribution import attribute, delete
from mepr_fusion.app.clip_chain import Chain, column_of, comparable_tensor
from mepr_fusion.app.explanation import (
    FAR,
    _by_word,
    _crop,
    explain,
    familiarity,
)
from mepr_fusion.calibrate import comparable
from mepr_fusion.predict import predictor as predictor_module
from mepr_fusion.predict.predictor import Predictor
from mepr_fusion.predict.sightings import Sighting
from mepr_shared.contract.schema import EmotionOutput
from mepr_shared.errors import ConfigError
from mepr_shared.labels import EMOTIONS, TRAITS
from mepr_shared.testing.toy_stages import sound


@pytest.fixture(scope="module")
def predictors(toys):
    """By corpus: softmax over `films`, sigmoids over `talks`."""
    patch = pytest.MonkeyPatch()
    found = [modality.discovered for modality in toys.modalities.values()]
    patch.setattr(predictor_module, "discover", lambda: found)
    yield {name: Predictor.load(toys.bundle, corpus=name) for name in ("films", "talks")}
    patch.undo()


@pytest.fixture(scope="module")
def clips(tmp_path_factory) -> list[Path]:
    """Different ones, two of which show nobody or say nothing."""
    folder = tmp_path_factory.mktemp("clips")
    names = [*(f"{n}.wav" for n in range(3)), "nobody.wav", "silent.wav"]
    return [sound(folder / name, 1.0, seed=n) for n, name in enumerate(names)]


@pytest.mark.parametrize("corpus", ["films", "talks"])
def test_contributions_add_up(predictors, clips, corpus: str) -> None:
    """To the shown number less that of the baseline clip, within 1 %, for frames and panels."""
    predictor = predictors[corpus]
    for file in clips:
        prediction, evidence = predictor.examine(file)
        for target in ("happiness", "agreeableness"):
            chain = Chain(evidence, predictor.answers)
            found = attribute(chain, target, [*EMOTIONS[:2], *TRAITS])
            assert found.completeness <= 0.01
            shown = {n: t.score for n, t in prediction.traits.items()}
            shown |= prediction.emotion.probabilities
            for name, panel in found.panels.items():
                assert panel.value == pytest.approx(shown[name], abs=1e-5)
                total = panel.baseline + panel.values.sum() + panel.residual
                assert total == pytest.approx(panel.value, abs=1e-6)
            # The same line, cut at two places: modality by modality the sums agree.
            difference = abs(found.chosen.value - found.chosen.baseline)
            for name, values in found.frames.items():
                row = found.chosen.values[found.modalities.index(name)]
                assert values.sum() == pytest.approx(row.sum(), abs=0.02 * difference + 2e-3)


def test_what_is_not_there_contributes_nothing(predictors, clips) -> None:
    predictor = predictors["films"]
    _, evidence = predictor.examine(clips[-2])
    found = attribute(Chain(evidence, predictor.answers), "fear", ["openness"])
    gone = [found.modalities.index(name) for name in ("face", "scene")]
    assert all((panel.values[gone] == 0).all() for panel in found.panels.values())
    assert set(found.frames) == {"audio", "text"}
    # Audio knows emotions alone.
    audio = found.panels["openness"].values[found.modalities.index("audio")]
    assert audio[3] == 0 and audio[1] == 0
    _, evidence = predictor.examine(clips[0])
    found = attribute(Chain(evidence, predictor.answers), "fear")
    assert found.frames["face"][0] == 0  # masked


def test_the_chain_is_the_prediction(predictors, clips) -> None:
    predictor = predictors["talks"]
    _, evidence = predictor.examine(clips[0])
    chain = Chain(evidence, predictor.answers)
    with torch.no_grad():
        batch = chain.batch(chain.points(torch.ones(1)))
    for name, values in evidence.batch.features.items():
        torch.testing.assert_close(batch.features[name], values, equal_nan=True)
    torch.testing.assert_close(
        batch.emotion_predictions, evidence.batch.emotion_predictions, equal_nan=True
    )


def test_frames_against_finite_differences(predictors, clips) -> None:
    """A plain midpoint sum of numeric derivatives along the line gives the same contributions."""
    predictor = predictors["films"]
    _, evidence = predictor.examine(clips[1])
    chain = Chain(evidence, predictor.answers)
    found = attribute(chain, "sadness")
    steps, width = 200, 1e-2
    at = (torch.arange(steps) + 0.5) / steps
    number = 2
    moved = chain.points(at)
    change = chain.frames["audio"][number] - chain.start["audio"][number]
    outputs = []
    for sign in (1, -1):
        versions = {name: x.clone() for name, x in moved.items()}
        versions["audio"][:, number] += sign * width * change
        with torch.no_grad():
            outputs.append(chain.outputs(chain.batch(versions))[:, column_of("sadness")].double())
    wanted = float(((outputs[0] - outputs[1]) / (2 * width)).mean())
    assert found.frames["audio"][number] == pytest.approx(wanted, rel=0.05, abs=2e-4)


def test_deletion_of_the_top_moves_more_than_of_any(predictors, clips) -> None:
    top, random = [], []
    for corpus, predictor in predictors.items():
        for file in clips:
            _, evidence = predictor.examine(file)
            chain = Chain(evidence, predictor.answers)
            for target in ("anger", "openness") if corpus == "films" else ("anger",):
                found = delete(chain, attribute(chain, target), share=0.25)
                top.append(found.top)
                random.append(found.random)
    assert np.mean(top) > 1.3 * np.mean(random)
    assert np.mean(np.array(top) > np.array(random)) > 0.7


def test_logits_become_comparable_as_in_a_table() -> None:
    logits = torch.randn(9, 7, generator=torch.Generator().manual_seed(0)) * 6
    for kind in ("sigmoid", "softmax"):
        output = EmotionOutput(kind, tuple(np.linspace(-0.5, 0.5, 7).tolist()), temperature=1.7)
        for multi_label in (False, True):
            ours = comparable_tensor(logits, output, multi_label=multi_label)
            wanted = comparable(logits.numpy(), output, multi_label=multi_label)
            np.testing.assert_allclose(ours.numpy(), wanted, atol=2e-4)


def test_unfamiliar_input_is_marked(predictors, clips) -> None:
    predictor = predictors["films"]
    prediction, evidence = predictor.examine(clips[0])
    chain = Chain(evidence, predictor.answers)
    usual = familiarity(chain)
    assert set(usual) == set(chain.parts)
    standardise = chain.model.projector.projectors["face"].standardise
    strange = dict(chain.row.features)
    strange["face"] = standardise.mean + 5 * standardise.std[None]
    chain.row = replace(chain.row, features=strange)
    found = familiarity(chain)
    assert found["face"] == pytest.approx(5, abs=1e-4) and found["audio"] == usual["audio"]
    explanation = replace(explain(prediction, evidence, predictor.answers), distance=found)
    assert "face" in explanation.unfamiliar and found["face"] > FAR


def test_key_frames_and_attention(predictors, clips) -> None:
    predictor = predictors["films"]
    prediction, evidence = predictor.examine(clips[0], pictures_px=30)
    found = explain(prediction, evidence, predictor.answers, target="openness")
    for name in ("face", "scene"):
        sizes = [abs(frame.contribution) for frame in found.key_frames[name]]
        assert len(sizes) == 3 and sizes == sorted(sizes, reverse=True)
        assert all(frame.number > 0 for frame in found.key_frames[name])  # the first is masked
        assert found.key_frames[name][0].picture is not None
    assert [(p.text, p.voice) for p in found.parts] == [("good", None), ("day", None)]
    for name, weights in found.attention.items():
        np.testing.assert_allclose(weights.sum(axis=-1), 1, atol=1e-5, err_msg=name)
    with pytest.raises(ConfigError, match="did you mean 'openness'"):
        explain(prediction, evidence, predictor.answers, target="opennes")


def test_tokens_become_words() -> None:
    text = "so unbelievable, yes"
    spans = [(0, 0), (0, 2), (3, 5), (5, 15), (15, 16), (17, 20), (20, 20)]
    words = _by_word(text, spans, np.array([9.0, 1, 2, 3, 4, 5, 9]))
    assert [(w.text, w.contribution) for w in words] == [
        ("so", 1.0),
        ("unbelievable,", 9.0),
        ("yes", 5.0),
    ]


def test_crops_follow_the_reduced_picture() -> None:
    picture = np.zeros((20, 40, 3), np.uint8)
    picture[5:10, 10:20] = 255
    one = np.ones(1)
    seen = Sighting(one, np.array([[20.0, 10, 40, 20]]), one > 0, one, one, (80, 40), [picture])
    crop = _crop(seen, 0)
    assert crop is not None and crop.shape == (7, 14, 3)
    assert (crop == 255).sum() == 5 * 10 * 3
