"""Stage 2: two frozen models and the same clip."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from mepr_shared.nn.cross_task import CrossTaskModel
from mepr_shared.nn.sequence import build_sequence_encoder
from mepr_shared.nn.unimodal import UnimodalModel


def stage1(outputs: int, *, width: int = 12, kind: str = "transformer") -> UnimodalModel:
    encoder = build_sequence_encoder(
        kind, input_width=10, width=width, layers=1, dropout=0.5, input_dropout=0.5
    )
    return UnimodalModel(encoder, width=width, outputs=outputs, dropout=0.5)


def build(*, dropout: float = 0.0, trained: bool = True) -> CrossTaskModel:
    torch.manual_seed(0)
    emotion, traits = stage1(7), stage1(5, width=20, kind="mamba")
    model = CrossTaskModel(emotion, traits, width=16, heads=4, dropout=dropout)
    if trained:  # away from the start, where the heads are zero and let no gradient through
        for branch in (model.emotion_branch, model.trait_branch):
            torch.nn.init.normal_(branch.get_parameter("head.2.weight"))
    return model


def batch() -> tuple[Tensor, Tensor]:
    mask = torch.tensor([[1, 1, 1, 1, 1, 1], [1, 1, 0, 0, 0, 0], [1, 0, 1, 1, 0, 0]]).bool()
    return torch.randn(3, 6, 10) * mask.unsqueeze(-1), mask


def test_shapes_and_ranges() -> None:
    output = build()(*batch())
    assert output.emotion_logits.shape == (3, 7)
    assert output.trait_logits.shape == output.trait_scores.shape == (3, 5)
    assert output.emotion_embedding.shape == output.trait_embedding.shape == (3, 16)
    assert torch.equal(output.trait_scores, output.trait_logits.sigmoid())


def test_stage_1_has_no_live_dropout_while_stage_2_trains() -> None:
    model = build().train()
    x, mask = batch()
    assert model.training
    assert not any(m.training for m in model.emotion_model.modules())
    assert not any(m.training for m in model.trait_model.modules())
    first, second = model(x, mask), model(x, mask)
    assert torch.equal(first.emotion_logits, second.emotion_logits)
    assert torch.equal(first.trait_logits, second.trait_logits)


def test_stage_1_gets_no_gradient_and_everything_else_does() -> None:
    model = build().train()
    output = model(*batch())
    loss = output.emotion_logits.square().sum() + output.trait_logits.square().sum()
    loss.backward()
    frozen = ("emotion_model.", "trait_model.")
    for name, parameter in model.named_parameters():
        if name.startswith(frozen):
            assert not parameter.requires_grad, name
            assert parameter.grad is None, name
        else:
            assert parameter.grad is not None, name
            assert parameter.grad.any(), name


def test_its_own_dropout_is_live() -> None:
    model = build(dropout=0.5).train()
    x, mask = batch()
    assert not torch.equal(model(x, mask).emotion_logits, model(x, mask).emotion_logits)


def test_training_starts_from_the_predictions_of_stage_1() -> None:
    model = build(trained=False).eval()
    x, mask = batch()
    output = model(x, mask)
    torch.testing.assert_close(output.emotion_logits, model.emotion_model(x, mask).logits)
    torch.testing.assert_close(output.trait_logits, model.trait_model(x, mask).logits)


def test_the_blend_starts_halfway_between_stage_1_and_the_new_prediction() -> None:
    model = build().eval()
    x, mask = batch()
    stage1_logits = model.emotion_model(x, mask).logits
    branch = model.emotion_branch
    new = stage1_logits + branch.head(
        branch.embed(model.features(model.frozen(x, mask), mask).shared)
    )
    torch.testing.assert_close(model(x, mask).emotion_logits, (new + stage1_logits) / 2)
    for blend, expected in ((-100.0, stage1_logits), (100.0, new)):
        torch.nn.init.constant_(branch.blend, blend)
        torch.testing.assert_close(model(x, mask).emotion_logits, expected)


def test_the_shared_weight_is_the_last_linear_before_the_branches() -> None:
    model = build().eval()
    x, mask = batch()
    features = model.features(model.frozen(x, mask), mask)
    assert torch.equal(model.shared(features.shared_input), features.shared)
    # One task's gradient at the shared weight, from its leaf copy and a matrix product alone.
    leaf = features.shared.detach().requires_grad_()
    model.predict(features, leaf, features.shared.detach()).emotion_logits.sum().backward()
    assert leaf.grad is not None
    found = leaf.grad.T @ features.shared_input
    (expected,) = torch.autograd.grad(model(x, mask).emotion_logits.sum(), model.shared_weight())
    torch.testing.assert_close(found, expected)


def test_both_directions_read_what_stage_1_gave() -> None:
    """With the roles of the two tasks exchanged the results are exchanged too."""
    model = build().eval()
    other = CrossTaskModel(model.trait_model, model.emotion_model, width=16, heads=4).eval()
    exchanged = {}
    for name, value in model.state_dict().items():
        new = name.replace("emotion", "?").replace("trait", "emotion").replace("?", "trait")
        if name.startswith(("pooled_norm.", "shared.weight")):
            value = value.roll(16, dims=-1)  # the two tasks' halves
        exchanged[new] = value
    other.load_state_dict(exchanged)
    x, mask = batch()
    one, two = model(x, mask), other(x, mask)
    torch.testing.assert_close(one.emotion_logits, two.trait_logits)
    torch.testing.assert_close(one.trait_logits, two.emotion_logits)
    torch.testing.assert_close(one.emotion_embedding, two.trait_embedding)


def test_each_task_attends_to_the_other() -> None:
    model = build().eval()
    sequences = [torch.randn(1, 6, 16, requires_grad=True) for _ in range(2)]
    mask = torch.tensor([[1, 1, 1, 1, 0, 0]]).bool()
    refined = model.emotion_from_trait(*sequences, mask)
    (gradient,) = torch.autograd.grad(refined.square().sum(), sequences[1])
    reached = gradient[0].abs().sum(-1) > 0
    assert reached.tolist() == [True] * 4 + [False] * 2


@pytest.mark.parametrize("row", [0, 1, 2])
def test_a_padded_batch_equals_the_clips_one_by_one(row: int) -> None:
    model = build().eval()
    x, mask = batch()
    length = int(mask[row].nonzero().max()) + 1
    together = model(x, mask)
    alone = model(x[row : row + 1, :length], mask[row : row + 1, :length])
    for name, value in together._asdict().items():
        assert (value[row] - getattr(alone, name)[0]).abs().max() <= 1e-5, name
