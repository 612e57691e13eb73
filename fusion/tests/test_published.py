"""The published model: equal to its description, and importable from its file and nothing else."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from mepr_fusion.layers import drop_modalities
from mepr_fusion.published.model import MODALITIES, PublishedModel, build_published
from mepr_shared.errors import ConfigError

WIDTHS = {"body": 2048, "face": 1024, "scene": 1536, "audio": 512, "text": 512}
SMALL = {"body": 6, "face": 4, "scene": 8, "audio": 10, "text": 2}


def make_model(widths=SMALL, **options) -> PublishedModel:
    torch.manual_seed(0)
    model = PublishedModel(widths, **{"width": 16, "heads": 8, "dropout": 0.2, **options})
    for name, parameter in model.named_parameters():  # norms and biases must not be trivial
        if parameter.ndim == 1:
            torch.nn.init.normal_(parameter, mean=float("weight" in name), std=0.3)
    return model.eval()


def make_inputs(widths, batch: int, seed: int = 0) -> tuple[dict[str, Tensor], Tensor, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    features = {m: torch.randn(batch, size, generator=generator) for m, size in widths.items()}
    emotion = 2 * torch.randn(batch, len(widths), 7, generator=generator)
    traits = torch.rand(batch, len(widths), 5, generator=generator)
    return features, emotion, traits


def some_present(batch: int, modalities: int) -> Tensor:
    torch.manual_seed(1)
    everything = torch.ones(batch, modalities, dtype=torch.bool)
    return torch.cat([drop_modalities(everything[1:], 0.5), everything[:1]])


# ---- the description of SYSTEM, section 6, written out over samples and modalities, in float64


def layer_norm(x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    centred = x - x.mean()
    return centred / torch.sqrt((centred**2).mean() + 1e-5) * weight + bias


def linear(state: dict[str, Tensor], name: str, x: Tensor) -> Tensor:
    return state[f"{name}.weight"] @ x + state[f"{name}.bias"]


def attend(state: dict[str, Tensor], query: Tensor, nodes: list[Tensor], heads: int) -> Tensor:
    """Scaled dot-product attention of one query over nodes, head by head."""
    width = len(query)
    weight = state["cross_attn.in_proj_weight"].split(width)
    bias = state["cross_attn.in_proj_bias"].split(width)
    q = weight[0] @ query + bias[0]
    keys = [weight[1] @ node + bias[1] for node in nodes]
    values = [weight[2] @ node + bias[2] for node in nodes]
    gathered = []
    for head in range(heads):
        part = slice(head * width // heads, (head + 1) * width // heads)
        scores = [torch.exp(q[part] @ key[part] / math.sqrt(width / heads)) for key in keys]
        total = sum(scores)
        gathered.append(sum(s / total * v[part] for s, v in zip(scores, values, strict=True)))
    return linear_out(state, torch.cat(gathered))


def linear_out(state: dict[str, Tensor], x: Tensor) -> Tensor:
    return state["cross_attn.out_proj.weight"] @ x + state["cross_attn.out_proj.bias"]


def cosine(x: Tensor, y: Tensor) -> Tensor:
    return x @ y / (torch.sqrt(x @ x) * torch.sqrt(y @ y))


def reference(
    state: dict[str, Tensor],
    features: dict[str, Tensor],
    emotion_logits: dict[str, Tensor],
    trait_scores: dict[str, Tensor],
    *,
    heads: int,
    trait_guide: bool,
) -> tuple[Tensor, Tensor]:
    """One sample, the modalities that it has: `([7] logits, [5] scores)`."""
    state = {name: value.double() for name, value in state.items()}
    tokens = []
    for name, x in features.items():
        p = f"projectors.{name}"
        h = linear(state, f"{p}.0.proj.0", x.double()).clamp_min(0)
        h = layer_norm(h, state[f"{p}.0.proj.3.weight"], state[f"{p}.0.proj.3.bias"])
        inner = linear(state, f"{p}.1.adapter.0", h).clamp_min(0)
        h = h + linear(state, f"{p}.1.adapter.3", inner)
        tokens.append(
            layer_norm(h, state[f"{p}.1.layernorm.weight"], state[f"{p}.1.layernorm.bias"])
        )
    u = [state["graph_attn.W.weight"] @ h for h in tokens]
    nodes = []
    for target in u:
        raw = [state["graph_attn.a"][:, 0] @ torch.cat([target, source]) for source in u]
        energy = [torch.exp(e if e > 0 else 0.2 * e) for e in raw]
        total = sum(energy)
        nodes.append(sum(e / total * source for e, source in zip(energy, u, strict=True)))
    emotion = attend(state, state["emo_query"][0, 0], nodes, heads)
    traits = attend(state, state["pkl_query"][0, 0], nodes, heads)
    mean = sum(emotion_logits[name].double() for name in features) / len(features)
    emotion = emotion + linear(state, "emo_logit_proj", mean)
    mean = sum(trait_scores[name].double() for name in features) / len(features)
    traits = traits + linear(state, "per_logit_proj", mean)
    guides = state["guide_bank_emo.embeddings"]
    similar = torch.stack([cosine(emotion, guide) for guide in guides])
    logits = (linear(state, "emo_head", emotion) + similar) / 2
    scores = 1 / (1 + torch.exp(-linear(state, "pkl_head", traits)))
    if trait_guide:
        guides = state["guide_bank_pkl.embeddings"]
        similar = torch.stack([cosine(traits, guide) for guide in guides])
        scores = (scores + 1 / (1 + torch.exp(-similar))) / 2
    return logits, scores


def compare(model: PublishedModel, widths, present: Tensor, *, heads: int, trait_guide: bool):
    features, emotion, traits = make_inputs(widths, len(present))
    hidden = {
        n: f.masked_fill(~present[:, i, None], torch.nan)
        for i, (n, f) in enumerate(features.items())
    }
    absent = ~present.unsqueeze(-1)
    with torch.no_grad():
        output = model(
            hidden,
            emotion.masked_fill(absent, torch.nan),
            traits.masked_fill(absent, torch.nan),
            present,
        )
    state = model.state_dict()
    for row, here in enumerate(present.tolist()):
        names = [name for name, there in zip(widths, here, strict=True) if there]
        index = {name: i for i, name in enumerate(widths)}
        logits, scores = reference(
            state,
            {name: features[name][row] for name in names},
            {name: emotion[row, index[name]] for name in names},
            {name: traits[row, index[name]] for name in names},
            heads=heads,
            trait_guide=trait_guide,
        )
        assert (output.emotion_logits[row] - logits).abs().max() <= 1e-6
        assert (output.trait_scores[row] - scores).abs().max() <= 1e-6
        assert torch.allclose(output.trait_logits[row].double(), torch.logit(scores), atol=1e-5)


@pytest.mark.parametrize("trait_guide", [True, False])
@pytest.mark.parametrize("modalities", [MODALITIES, ("face",), ("text", "gaze", "body")])
def test_equals_its_description_with_any_modalities(modalities, trait_guide):
    widths = {name: {**SMALL, "gaze": 12}[name] for name in modalities}
    model = make_model(widths, trait_guide=trait_guide)
    compare(model, widths, some_present(12, len(widths)), heads=8, trait_guide=trait_guide)


def test_equals_its_description_at_the_published_size():
    model = make_model(WIDTHS, width=256, trait_guide=True)
    compare(model, WIDTHS, some_present(3, 5), heads=8, trait_guide=True)


def expected_shapes(widths, h: int) -> dict[str, tuple[int, ...]]:
    """The published file's names and shapes, in its order."""
    shapes = {"emo_query": (1, 1, h), "pkl_query": (1, 1, h)}
    for name, size in widths.items():
        p = f"projectors.{name}"
        shapes |= {f"{p}.0.proj.0.weight": (h, size), f"{p}.0.proj.0.bias": (h,)}
        shapes |= {f"{p}.0.proj.3.weight": (h,), f"{p}.0.proj.3.bias": (h,)}
        shapes |= {f"{p}.1.adapter.0.weight": (h // 2, h), f"{p}.1.adapter.0.bias": (h // 2,)}
        shapes |= {f"{p}.1.adapter.3.weight": (h, h // 2), f"{p}.1.adapter.3.bias": (h,)}
        shapes |= {f"{p}.1.layernorm.weight": (h,), f"{p}.1.layernorm.bias": (h,)}
    shapes |= {"graph_attn.a": (2 * h, 1), "graph_attn.W.weight": (h, h)}
    shapes |= {"cross_attn.in_proj_weight": (3 * h, h), "cross_attn.in_proj_bias": (3 * h,)}
    shapes |= {"cross_attn.out_proj.weight": (h, h), "cross_attn.out_proj.bias": (h,)}
    shapes |= {"emo_head.weight": (7, h), "emo_head.bias": (7,)}
    shapes |= {"pkl_head.weight": (5, h), "pkl_head.bias": (5,)}
    shapes |= {"guide_bank_emo.embeddings": (7, h), "guide_bank_pkl.embeddings": (5, h)}
    shapes |= {"emo_logit_proj.weight": (h, 7), "emo_logit_proj.bias": (h,)}
    return shapes | {"per_logit_proj.weight": (h, 5), "per_logit_proj.bias": (h,)}


@pytest.mark.parametrize(("widths", "width"), [(WIDTHS, 256), (SMALL, 16)])
def test_parameters_are_those_of_the_published_file(widths, width):
    state = make_model(widths, width=width).state_dict()
    shapes = {name: tuple(value.shape) for name, value in state.items()}
    assert list(shapes.items()) == list(expected_shapes(widths, width).items())


@pytest.mark.parametrize("trait_guide", [True, False])
def test_absent_modality_has_exactly_zero_influence_and_gradient(trait_guide):
    model, present = make_model(trait_guide=trait_guide), some_present(16, 5)
    features, emotion, traits = make_inputs(SMALL, 16)
    for tensor in (*features.values(), emotion, traits):
        tensor.requires_grad_()
    output = model(features, emotion, traits, present)
    (output.emotion_logits.square().sum() + output.trait_logits.square().sum()).backward()
    for index, name in enumerate(SMALL):
        absent = ~present[:, index]
        assert (features[name].grad[absent] == 0).all()
        assert (features[name].grad[~absent] != 0).any()
        assert (emotion.grad[absent, index] == 0).all() and (traits.grad[absent, index] == 0).all()
    unknown = {
        n: f.detach().masked_fill(~present[:, i, None], torch.nan)
        for i, (n, f) in enumerate(features.items())
    }
    absent = ~present.unsqueeze(-1)
    model.zero_grad()
    again = model(
        unknown,
        emotion.detach().masked_fill(absent, torch.nan),
        traits.detach().masked_fill(absent, torch.nan),
        present,
    )
    assert torch.equal(again.emotion_logits, output.emotion_logits)
    assert torch.equal(again.trait_scores, output.trait_scores)
    again.trait_scores.sum().backward()
    assert all(p.grad.isfinite().all() for p in model.parameters() if p.grad is not None)


def test_a_missing_prediction_or_half_is_left_out():
    model, present = make_model(), torch.ones(2, 5, dtype=torch.bool)
    features, emotion, traits = make_inputs(SMALL, 2)
    emotion[0, 1:] = torch.nan
    emotion[1] = torch.nan
    features["body"][:, 3:] = torch.nan
    output = model(features, emotion, traits, present)
    assert output.emotion_logits.isfinite().all() and output.trait_scores.isfinite().all()
    emotion[0] = emotion[0, 0]
    features["body"][:, 3:] = 0
    again = model(features, emotion, traits, present)
    assert torch.allclose(again.emotion_logits, output.emotion_logits, atol=1e-6)


def test_branches_on_copies_give_the_same_answers_and_the_same_weight_gradient():
    model, present = make_model(trait_guide=True), some_present(6, 5)
    features, emotion, traits = make_inputs(SMALL, 6)
    output = model(features, emotion, traits, present)
    loss = output.emotion_logits.square().sum() + output.trait_scores.square().sum()
    (whole,) = torch.autograd.grad(loss, model.shared_weight())
    trunk = model.trunk(model.standardise(features, present), present)
    leaves = [trunk.shared.detach().requires_grad_() for _ in range(2)]
    parts = model.branches(trunk, *leaves, emotion, traits, present)
    for one, other in zip(parts[:3], output[:3], strict=True):
        assert torch.allclose(one, other, atol=1e-6)
    (parts.emotion_logits.square().sum() + parts.trait_scores.square().sum()).backward()
    cotangent = leaves[0].grad + leaves[1].grad
    product = torch.einsum("bmo,bmi->oi", cotangent, trunk.shared_input)
    assert torch.allclose(product, whole, atol=1e-5, rtol=1e-5)
    rows = torch.ones(1, 6, dtype=torch.bool)
    norms = model.shared_gradient_norms(trunk.shared_input, cotangent.unsqueeze(0), rows)
    assert torch.allclose(norms, whole.norm().unsqueeze(0), rtol=1e-5)


def test_settings_build_it_and_blocks_it_needs_cannot_be_switched_off():
    options = {"width": 16, "heads": 8, "dropout": 0.1, "modality_dropout": 0.3}
    components = {"trait_guide_bank": True, "emotion_guide_bank": False, "graph_attention": True}
    model = build_published(SMALL, options, components)
    assert (model.trait_guide, model.emotion_guide, model.modality_dropout) == (True, False, 0.3)
    with pytest.raises(ConfigError, match="cross_attention"):
        build_published(SMALL, options, {"cross_attention": False})
    with pytest.raises(ConfigError, match="divisible"):
        build_published(SMALL, {**options, "width": 20}, {})


@pytest.mark.parametrize(("task", "other"), [("emotion", "traits"), ("traits", "emotion")])
def test_one_task_alone_answers_as_before_and_only_it_learns(task, other):
    inputs, present = make_inputs(SMALL, 4), torch.ones(4, 5, dtype=torch.bool)
    options = {"width": 16, "heads": 8, "dropout": 0.2}
    alone = build_published(SMALL, options, {}, tasks=(task,)).eval()
    both = make_model()
    alone.load_state_dict(both.state_dict())
    place = {"emotion": 0, "traits": 2}
    output = alone(*inputs, present)
    assert torch.equal(output[place[task]], both(*inputs, present)[place[task]])
    assert output[place[other]].isnan().all()
    output[place[task]].sum().backward()
    heads = {"emotion": alone.emo_head, "traits": alone.pkl_head}
    assert heads[task].weight.grad is not None and heads[other].weight.grad is None


def test_training_hides_modalities_where_asked():
    model = make_model(modality_dropout=0.9, dropout=0.0).train()
    output = model(*make_inputs(SMALL, 64), torch.ones(64, 5, dtype=torch.bool))
    attended = output.attention["emotion"].squeeze(1) > 0
    assert attended.any(dim=1).all() and attended.float().mean() < 0.5
