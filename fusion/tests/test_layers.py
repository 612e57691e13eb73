"""Each block against a written-out form, and what an absent modality may not do."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from mepr_fusion.layers import (
    GraphAttention,
    GuideBank,
    ModalityNorm,
    PredictProjector,
    ProjectorAdapter,
    Standardise,
    TaskQueryAttention,
    drop_modalities,
    masked_mean,
    masked_softmax,
)

PRESENT = torch.tensor([[1, 1, 1], [1, 0, 1], [0, 1, 0], [0, 1, 1]], dtype=torch.bool)


def tokens(width: int = 8) -> Tensor:
    return torch.randn(*PRESENT.shape, width)


def attention_by_loops(layer: GraphAttention, x: Tensor, present: Tensor) -> Tensor:
    """The formulas of the two GAT papers, one sample, head and pair at a time."""
    batch, nodes, width = x.shape
    inner = width // layer.heads
    result = torch.zeros_like(x)
    for b in range(batch):
        for i in range(nodes):
            heads = []
            for h in range(layer.heads):
                part = slice(h * inner, (h + 1) * inner)
                energies, values = [], []
                for j in range(nodes):
                    if not present[b, j]:
                        continue
                    value = (layer.source.weight @ x[b, j])[part]
                    if layer.target is not None:
                        own = (layer.target.weight @ x[b, i])[part]
                        energy = layer.score[h] @ functional.leaky_relu(own + value, 0.2)
                    else:
                        own = (layer.source.weight @ x[b, i])[part]
                        pair = torch.cat([own, value])
                        energy = functional.leaky_relu(layer.score[h] @ pair, 0.2)
                    energies.append(energy)
                    values.append(value)
                weights = torch.stack(energies).softmax(0)
                heads.append((weights[:, None] * torch.stack(values)).sum(0))
            out = layer.out(torch.cat(heads))
            result[b, i] = layer.norm(x[b, i] + out)
    return result


@pytest.mark.parametrize("scoring", ["v2", "v1"])
@pytest.mark.parametrize("heads", [1, 2, 4])
def test_graph_attention_equals_its_loops(scoring, heads):
    torch.manual_seed(0)
    layer, x = GraphAttention(8, heads, 0.0, scoring=scoring), tokens()
    found, weights = layer(x, PRESENT)
    expected = attention_by_loops(layer, x, PRESENT)
    torch.testing.assert_close(found[PRESENT], expected[PRESENT])
    assert weights.shape == (4, heads, 3, 3)
    torch.testing.assert_close(weights.sum(-1), torch.ones(4, heads, 3))


def test_v2_scoring_depends_on_the_target_in_its_ranking_and_v1_cannot():
    # Brody et al. 2022: with v1 every target ranks the sources alike ("static" attention).
    torch.manual_seed(1)
    x, all_present = torch.randn(64, 3, 8), torch.ones(64, 3, dtype=torch.bool)

    def rankings_differ(scoring) -> bool:
        layer = GraphAttention(8, 1, 0.0, scoring=scoring)
        best = layer(x, all_present)[1].argmax(-1)
        return bool((best != best[..., :1]).any())

    assert rankings_differ("v2")
    assert not rankings_differ("v1")


@pytest.mark.parametrize("scoring", ["v2", "v1"])
def test_absent_node_gets_no_weight_and_no_gradient_in_the_graph(scoring):
    torch.manual_seed(0)
    layer, x = GraphAttention(8, 2, 0.0, scoring=scoring), tokens().requires_grad_()
    found, weights = layer(x, PRESENT)
    absent = ~PRESENT[:, None, None, :].expand_as(weights)
    assert (weights[absent] == 0).all()
    found[PRESENT].square().sum().backward()
    assert (x.grad[~PRESENT] == 0).all()
    assert (x.grad[PRESENT] != 0).any(dim=-1).all()


def test_absent_token_gets_no_weight_and_no_gradient_from_the_queries():
    torch.manual_seed(0)
    layer, x = TaskQueryAttention(8, 2, 0.0, queries=3), tokens().requires_grad_()
    found, weights = layer(x, PRESENT)
    assert found.shape == (4, 8) and weights.shape == (4, 3, 3)
    assert (weights[~PRESENT[:, None].expand_as(weights)] == 0).all()
    found.square().sum().backward()
    assert (x.grad[~PRESENT] == 0).all()


def test_graph_refuses_a_width_its_heads_do_not_divide():
    with pytest.raises(ValueError, match="width 10 is not divisible by heads 4"):
        GraphAttention(10, 4, 0.0)


def randomise(layer: nn.Module) -> None:
    """Biases and norms too, which start at values that hide a mistake."""
    with torch.no_grad():
        for parameter in layer.parameters():
            parameter.normal_()


def ordinary_norm(norm: ModalityNorm, m: int) -> nn.LayerNorm:
    found = nn.LayerNorm(norm.weight.shape[-1])
    with torch.no_grad():
        found.weight.copy_(norm.weight[m, 0])
        found.bias.copy_(norm.bias[m, 0])
    return found


def ordinary_tokens(layer: ProjectorAdapter, features: dict[str, Tensor]) -> Tensor:
    """Tokens `[B, M, H]` from one ordinary projector and adapter per modality."""
    bank, found = layer.adapters, []
    for m, (name, projector) in enumerate(layer.projectors.items()):
        width, bottleneck = bank.down_weight.shape[1:]
        down, up = nn.Linear(width, bottleneck), nn.Linear(bottleneck, width)
        with torch.no_grad():
            down.weight.copy_(bank.down_weight[m].T)
            down.bias.copy_(bank.down_bias[m, 0])
            up.weight.copy_(bank.up_weight[m].T)
            up.bias.copy_(bank.up_bias[m, 0])
        x = ordinary_norm(layer.norm, m)(functional.gelu(projector.linear(features[name])))
        x = ordinary_norm(bank.norm, m)(x + up(functional.gelu(down(x))))
        found.append(x + layer.embedding[m])
    return torch.stack(found, dim=1)


def batched_tokens(layer: ProjectorAdapter, features: dict[str, Tensor]) -> Tensor:
    projected = layer.project(features)
    return layer.finish(projected, layer.adapters.up(layer.adapters.hidden(projected)))


def test_batched_norms_and_adapters_are_ordinary_layers_per_modality():
    torch.manual_seed(0)
    layer = ProjectorAdapter({"text": 5, "face": 3, "body": 4}, 8, dropout=0.0, bottleneck=6)
    randomise(layer)
    features = {"text": torch.randn(4, 5), "face": torch.randn(4, 3), "body": torch.randn(4, 4)}
    for values in features.values():
        values.requires_grad_()
    found, expected = batched_tokens(layer, features), ordinary_tokens(layer, features)
    assert found.shape == (4, 3, 8)
    torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-5)
    into = torch.randn_like(found)
    gradients = [
        torch.autograd.grad(tokens, list(features.values()), into) for tokens in (found, expected)
    ]
    for first, second in zip(*gradients, strict=True):
        torch.testing.assert_close(first, second, rtol=1e-5, atol=1e-5)


def test_norms_and_biases_that_are_stacked_are_spared_weight_decay():
    layer = ProjectorAdapter({"text": 5, "face": 3}, 8, dropout=0.0, bottleneck=6)
    spared = {n for n, p in layer.named_parameters() if getattr(p, "_no_weight_decay", False)}
    norms = {f"{norm}.{part}" for norm in ("norm", "adapters.norm") for part in ("weight", "bias")}
    assert spared == norms | {"adapters.down_bias", "adapters.up_bias"}


def test_projector_keeps_modalities_apart_and_ignores_what_absent_rows_hold():
    torch.manual_seed(0)
    layer = ProjectorAdapter({"text": 5, "face": 3}, width=8, dropout=0.0, bottleneck=4)
    text, face = torch.randn(2, 5), torch.randn(2, 3)
    present = torch.tensor([[True, True], [True, False]])

    def tokens_of(face: Tensor) -> Tensor:
        return batched_tokens(layer, layer.standardise({"text": text, "face": face}, present))

    before = tokens_of(face)
    poisoned = face.clone()
    poisoned[1] = math.nan
    torch.testing.assert_close(before, tokens_of(poisoned), rtol=0, atol=0)
    assert before.shape == (2, 2, 8)
    assert not torch.allclose(before[0, 0], before[0, 1])


@pytest.mark.parametrize("queries", [1, 3])
@pytest.mark.parametrize("heads", [1, 4])
def test_task_queries_equal_multihead_attention(queries, heads):
    torch.manual_seed(0)
    layer = TaskQueryAttention(8, heads, 0.0, queries=queries)
    randomise(layer)
    plain = nn.MultiheadAttention(8, heads, batch_first=True)
    with torch.no_grad():
        parts = (layer.query_weight, layer.key_weight, layer.value_weight)
        plain.in_proj_weight.copy_(torch.cat(parts))
        plain.in_proj_bias.copy_(torch.cat([layer.query_bias, torch.zeros(8), layer.value_bias]))
        plain.out_proj.weight.copy_(layer.out.weight)
        plain.out_proj.bias.copy_(layer.out.bias)
    x, other = tokens().requires_grad_(), None
    query = layer.query.detach().clone().requires_grad_()
    found, weights = layer(x, PRESENT)
    other = x.detach().clone().requires_grad_()
    each, expected_weights = plain(query.expand(4, -1, -1), other, other, key_padding_mask=~PRESENT)
    expected = layer.norm(each.mean(dim=1))
    torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(weights, expected_weights, rtol=1e-5, atol=1e-5)
    into = torch.randn_like(found)
    mine = torch.autograd.grad(found, [x, layer.query, *parts, layer.query_bias], into)
    theirs = torch.autograd.grad(
        expected, [other, query, plain.in_proj_weight, plain.in_proj_bias], into
    )
    theirs = (*theirs[:2], *theirs[2].chunk(3), theirs[3][:8])
    for first, second in zip(mine, theirs, strict=True):
        torch.testing.assert_close(first, second, rtol=1e-5, atol=1e-5)


def test_standardise_leaves_a_constant_feature_finite():
    layer = Standardise(2)
    layer.fit(torch.tensor([1.0, 5.0]), torch.tensor([2.0, 0.0]))
    torch.testing.assert_close(layer(torch.tensor([[3.0, 5.0]])), torch.tensor([[1.0, 0.0]]))


@pytest.mark.parametrize("learned", [False, True])
def test_predict_projector_starts_at_the_mean_of_the_given_predictions(learned):
    torch.manual_seed(0)
    layer = PredictProjector(3, 4, 8, learned_weights=learned)
    predictions = torch.randn(4, 3, 4)
    predictions[0, 1] = math.nan  # present, but without a prediction for this task
    given = PRESENT.clone()
    given[0, 1] = False
    _, output = layer(predictions, PRESENT)
    expected = torch.stack([predictions[b, given[b]].mean(0) for b in range(4)])
    torch.testing.assert_close(output, expected)


def test_predict_projector_without_any_prediction_gives_the_training_mean():
    layer = PredictProjector(2, 3, 8, learned_weights=True)
    mean = torch.tensor([0.1, -2.0, 3.0])
    layer.standardise.fit(mean, torch.ones(3))
    present = torch.tensor([[True, False]])
    added, output = layer(torch.full((1, 2, 3), math.nan), present)
    torch.testing.assert_close(output[0], mean)
    torch.testing.assert_close(added[0], layer.linear.bias)


def test_predict_projector_formula_with_learned_weights_and_scale():
    torch.manual_seed(0)
    layer = PredictProjector(2, 3, 8, learned_weights=True)
    mean, std = torch.tensor([0.1, -2.0, 3.0]), torch.tensor([1.0, 2.0, 0.5])
    layer.standardise.fit(mean, std)
    with torch.no_grad():
        layer.weights.normal_()
        layer.log_scale.normal_()
    predictions = torch.randn(1, 2, 3)
    added, output = layer(predictions, torch.tensor([[True, True]]))
    weights = layer.weights.exp() / layer.weights.exp().sum(0)
    average = (weights * predictions[0]).sum(0)
    torch.testing.assert_close(output[0], mean + layer.log_scale.exp() * (average - mean))
    torch.testing.assert_close(
        added[0], layer.linear.weight @ ((average - mean) / std) + layer.linear.bias
    )


def test_guide_bank_blends_similarity_over_temperature_into_the_head():
    torch.manual_seed(0)
    bank = GuideBank(5, 8, blend=0.25)
    with torch.no_grad():
        bank.log_temperature.fill_(math.log(0.5))
    representation, head = torch.randn(3, 8), torch.randn(3, 5)
    found = bank(representation, head)
    for b in range(3):
        for k in range(5):
            r, g = representation[b], bank.vectors[k]
            cosine = (r @ g) / (r.norm() * g.norm())
            expected = 0.75 * head[b, k] + 0.25 * cosine / 0.5
            torch.testing.assert_close(found[b, k], expected)


def test_masked_mean_and_softmax_over_nothing_are_zero():
    nothing = torch.zeros(1, 3, dtype=torch.bool)
    values = torch.full((1, 3, 2), math.nan)
    assert (masked_mean(values, nothing) == 0).all()
    assert (masked_softmax(torch.randn(1, 3), nothing) == 0).all()


def test_modality_dropout_drops_but_never_the_last_and_never_adds():
    torch.manual_seed(0)
    present = PRESENT.repeat(500, 1)
    kept = drop_modalities(present, 0.5)
    assert kept.any(dim=1).all()
    assert not (kept & ~present).any()
    assert (kept[present.sum(1) == 1] == present[present.sum(1) == 1]).all()
    both = present.sum(1) == 2
    # Of two, both are dropped with chance 1/4 and then one stays: 1.25 of 2 remain on average.
    assert kept[both].sum(1).float().mean().item() == pytest.approx(1.25, abs=0.05)
    assert (drop_modalities(present, 0.0) == present).all()
    assert (drop_modalities(present, 1.0).sum(1) == 1).all()
