"""What the stage-3 model promises whatever subset of modalities it is given."""

from __future__ import annotations

import itertools

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from mepr_fusion.model import FusionModel, FusionOutput

WIDTHS = {"audio": 6, "face": 4, "text": 5}
SWITCHES = {
    "graph_attention": "graph.",
    "cross_attention": ".attention.",
    "emotion_predict_projector": "emotion.predict_projector.",
    "trait_predict_projector": "traits.predict_projector.",
    "emotion_guide_bank": "emotion.guide_bank.",
    "trait_guide_bank": "traits.guide_bank.",
}


def make_model(**options) -> FusionModel:
    torch.manual_seed(0)
    return FusionModel(WIDTHS, **{"width": 16, "heads": 2, "dropout": 0.0, **options})


def make_inputs(batch: int = 5, seed: int = 0) -> tuple[dict[str, Tensor], Tensor, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    features = {m: torch.randn(batch, size, generator=generator) for m, size in WIDTHS.items()}
    emotion = torch.randn(batch, len(WIDTHS), 7, generator=generator)
    traits = torch.rand(batch, len(WIDTHS), 5, generator=generator)
    return features, emotion, traits


def subsets() -> Tensor:
    """`[7, 3]`: every non-empty subset of the three modalities."""
    rows = [row for row in itertools.product([False, True], repeat=len(WIDTHS)) if any(row)]
    return torch.tensor(rows)


def tensors(output: FusionOutput) -> dict[str, Tensor]:
    plain = output._asdict()
    return plain.pop("attention") | plain


# The full model, each block missing alone, and none of the blocks.
COMPONENTS = [{}, *({name: False} for name in SWITCHES), dict.fromkeys(SWITCHES, False)]


@pytest.mark.parametrize("components", COMPONENTS, ids=str)
def test_every_subset_of_modalities_gives_finite_outputs_and_gradients(components):
    model, present = make_model(**components), subsets()
    features, emotion, traits = make_inputs(len(present))
    for index, name in enumerate(WIDTHS):
        features[name][~present[:, index]] = torch.nan
    emotion[~present] = torch.nan
    traits[~present] = torch.nan
    output = model(features, emotion, traits, present)
    assert all(torch.isfinite(value).all() for value in tensors(output).values())
    assert output.emotion_logits.shape == (7, 7)
    assert output.trait_scores.shape == (7, 5)
    assert ((output.trait_scores > 0) & (output.trait_scores < 1)).all()
    (output.emotion_logits.square().sum() + output.trait_logits.square().sum()).backward()
    assert all(torch.isfinite(p.grad).all() for p in model.parameters() if p.grad is not None)


def test_absent_modality_has_exactly_zero_influence():
    model, present = make_model(), subsets()
    features, emotion, traits = make_inputs(len(present))
    inputs = [*features.values(), emotion, traits]
    for tensor in inputs:
        tensor.requires_grad_()
    output = model(features, emotion, traits, present)
    sum(value.sum() for value in output[:5]).backward()
    for index, name in enumerate(WIDTHS):
        assert (features[name].grad[~present[:, index]] == 0).all()
        assert (features[name].grad[present[:, index]] != 0).any()
    assert (emotion.grad[~present] == 0).all()
    assert (traits.grad[~present] == 0).all()

    other_features, other_emotion, other_traits = make_inputs(len(present), seed=1)
    with torch.no_grad():
        for index, name in enumerate(WIDTHS):
            keep = present[:, index, None]
            other_features[name] = torch.where(keep, features[name], other_features[name])
        keep = present.unsqueeze(-1)
        again = model(
            other_features,
            torch.where(keep, emotion, other_emotion),
            torch.where(keep, traits, other_traits),
            present,
        )
    for first, second in zip(output[:5], again[:5], strict=True):
        assert torch.equal(first, second)


def test_modality_absent_everywhere_leaves_its_projector_without_gradient():
    model = make_model()
    features, emotion, traits = make_inputs()
    present = torch.ones(5, 3, dtype=torch.bool)
    present[:, 1] = False
    output = model(features, emotion, traits, present)
    (output.emotion_logits.square().sum() + output.trait_logits.square().sum()).backward()
    assert all((p.grad == 0).all() for p in model.projector.projectors["face"].parameters())


def test_samples_of_a_batch_do_not_see_each_other():
    model, present = make_model().eval(), subsets()
    features, emotion, traits = make_inputs(len(present))
    whole = model(features, emotion, traits, present)
    order = torch.randperm(len(present), generator=torch.Generator().manual_seed(3))
    permuted = model(
        {name: value[order] for name, value in features.items()},
        emotion[order],
        traits[order],
        present[order],
    )
    for name, value in tensors(whole).items():
        torch.testing.assert_close(tensors(permuted)[name], value[order])
    alone = model(
        {name: value[2:3] for name, value in features.items()},
        emotion[2:3],
        traits[2:3],
        present[2:3],
    )
    torch.testing.assert_close(alone.emotion_logits, whole.emotion_logits[2:3])


@pytest.mark.parametrize("scoring", ["v2", "v1"])
@pytest.mark.parametrize("components", COMPONENTS, ids=str)
def test_every_parameter_gets_a_gradient(components, scoring):
    model = make_model(**components, graph_scoring=scoring, queries=2)
    present = subsets()
    output = model(*make_inputs(len(present)), present)
    (output.emotion_logits.square().sum() + output.trait_logits.square().sum()).backward()
    idle = [
        name
        for name, parameter in model.named_parameters()
        if parameter.grad is None or not (parameter.grad != 0).any()
    ]
    assert idle == []


@pytest.mark.parametrize("switch", SWITCHES)
def test_switched_off_component_takes_its_parameters_along(switch):
    def names(model):
        return {name for name, _ in model.named_parameters()}

    full, without = names(make_model()), names(make_model(**{switch: False}))
    gone = {name for name in full if SWITCHES[switch] in name}
    assert gone and without == full - gone


@pytest.mark.parametrize("components", [{}, {"graph_attention": False}], ids=["graph", "no graph"])
def test_shared_weight_is_a_parameter_that_both_tasks_use(components):
    model, present = make_model(**components), subsets()
    assert any(model.shared_weight() is parameter for parameter in model.parameters())
    for task in ("emotion_logits", "trait_logits"):
        output = model(*make_inputs(len(present)), present)
        (gradient,) = torch.autograd.grad(
            getattr(output, task).square().sum(), [model.shared_weight()]
        )
        assert (gradient != 0).any()


@pytest.mark.parametrize("components", [{}, {"graph_attention": False}], ids=["graph", "no graph"])
def test_trunk_and_branches_are_the_forward_pass_and_each_task_has_its_own_view(components):
    model, present = make_model(**components).eval(), subsets()
    features, emotion, traits = make_inputs(len(present))
    whole = model(features, emotion, traits, present)
    trunk = model.trunk(model.standardise(features, present), present)

    def answers(emotion_shared: Tensor, trait_shared: Tensor) -> FusionOutput:
        return model.branches(trunk, emotion_shared, trait_shared, emotion, traits, present)

    parts = answers(trunk.shared, trunk.shared)
    copies = answers(trunk.shared.clone(), trunk.shared.clone())
    for name, value in tensors(whole).items():
        assert torch.equal(tensors(parts)[name], value)
        assert torch.equal(tensors(copies)[name], value)
    other = answers(trunk.shared, torch.randn_like(trunk.shared))
    assert torch.equal(other.emotion_logits, whole.emotion_logits)
    assert not torch.allclose(other.trait_logits, whole.trait_logits)


@pytest.mark.parametrize("components", [{}, {"graph_attention": False}], ids=["graph", "no graph"])
def test_the_shared_features_are_the_shared_weight_times_their_input(components):
    model, present = make_model(**components).eval(), subsets()
    features, _, _ = make_inputs(len(present))
    trunk = model.trunk(model.standardise(features, present), present)
    weight = model.shared_weight()
    if components:
        expected = torch.stack([x @ w for x, w in zip(trunk.shared_input, weight, strict=True)])
        expected = expected + model.projector.adapters.up_bias
    else:
        expected = trunk.shared_input @ weight.T + model.graph.out.bias
    torch.testing.assert_close(trunk.shared, expected)


@pytest.mark.parametrize("task", ["emotion", "traits"])
def test_a_model_of_one_task_has_no_other_branch_and_answers_nan_for_it(task):
    model, present = make_model(tasks=(task,)), subsets()
    names = {name.split(".")[0] for name, _ in model.named_parameters()}
    assert names == {"projector", "graph", task}
    output = model(*make_inputs(len(present)), present)
    given, absent = (output.emotion_logits, output.trait_scores)[:: 1 if task == "emotion" else -1]
    assert torch.isfinite(given).all() and absent.isnan().all()
    full = make_model()
    full.load_state_dict(model.state_dict(), strict=False)
    whole = full(*make_inputs(len(present)), present)
    wanted = whole.emotion_logits if task == "emotion" else whole.trait_scores
    assert torch.equal(given, wanted)


def test_untrained_model_answers_with_the_unimodal_predictions():
    torch.manual_seed(0)
    model = FusionModel(WIDTHS, width=256).eval()
    features, emotion, traits = make_inputs(50)
    present = torch.zeros(50, 3, dtype=torch.bool)
    present[:, 2] = True
    output = model(features, emotion, traits, present)
    assert (output.emotion_logits - emotion[:, 2]).abs().max() < 0.3
    assert (output.trait_scores - traits[:, 2]).abs().max() < 0.05


def test_trait_predictions_at_the_ends_of_the_scale_stay_finite():
    model, present = make_model(), subsets()
    features, emotion, traits = make_inputs(len(present))
    output = model(features, emotion, traits.round(), present)
    assert torch.isfinite(output.trait_logits).all()


def test_modality_dropout_acts_in_training_only():
    model = make_model(modality_dropout=0.5)
    features, emotion, traits = make_inputs(64)
    present = torch.ones(64, 3, dtype=torch.bool)
    torch.manual_seed(0)
    model.train()
    dropped = model(features, emotion, traits, present)
    model.eval()
    full = model(features, emotion, traits, present)
    assert (dropped.attention["emotion"] == 0).any()
    assert (full.attention["emotion"] > 0).all()


def test_saved_and_loaded_model_gives_the_same_output(tmp_path):
    model, present = make_model(), subsets()
    model.projector.projectors["text"].standardise.fit(torch.randn(5), torch.rand(5) + 0.5)
    inputs = make_inputs(len(present))
    save_file(model.state_dict(), tmp_path / "weights.safetensors")
    torch.manual_seed(99)
    other = FusionModel(WIDTHS, width=16, heads=2, dropout=0.0)
    other.load_state_dict(load_file(tmp_path / "weights.safetensors"))
    for first, second in zip(model(*inputs, present)[:5], other(*inputs, present)[:5], strict=True):
        assert torch.equal(first, second)


def test_a_model_without_modalities_is_refused():
    with pytest.raises(ValueError, match="at least one modality"):
        FusionModel({})
