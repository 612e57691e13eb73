"""The averaged teacher: its decay, its precision, what it shares with the student."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from mepr_shared.train.teacher import Teacher


def student(dtype=torch.float32) -> nn.Module:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(3, 4), nn.Dropout(0.5), nn.BatchNorm1d(4), nn.Linear(4, 2))
    model[3].requires_grad_(False)
    return model.to(dtype)


def move(model: nn.Module, to: float) -> None:
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.requires_grad:
                parameter.fill_(to)


def test_after_the_half_life_the_start_weighs_one_half():
    model = student()
    move(model, 1.0)
    teacher = Teacher(model, half_life=2.0, steps_per_epoch=300)
    assert teacher.decay == pytest.approx(0.5 ** (1 / 600))
    teacher.step = 10**6  # beyond the ramp
    move(model, 0.0)
    for _ in range(600):
        teacher.update()
    torch.testing.assert_close(teacher.averaged[0], torch.full((4, 3), 0.5), rtol=1e-4, atol=0)


def test_the_first_steps_follow_the_ramp_and_then_the_decay():
    model = student()
    teacher = Teacher(model, half_life=0.2, steps_per_epoch=50)
    decay, expected = 0.5 ** (1 / 10), model[0].weight.detach().clone().double()
    for step in range(1, 200):
        move(model, float(step % 7))
        teacher.update()
        keep = min(decay, (1 + step) / (10 + step))
        expected = keep * expected + (1 - keep) * (step % 7)
    torch.testing.assert_close(teacher.averaged[0].double(), expected, rtol=1e-5, atol=1e-5)
    assert teacher.step == 199


def test_without_a_half_life_it_is_the_model_itself():
    model = student()
    teacher = Teacher(model, half_life=0, steps_per_epoch=50)
    move(model, 0.123)
    teacher.update()
    assert all(torch.equal(a, b) for a, b in zip(teacher.averaged, teacher.live, strict=True))


def test_a_bf16_student_has_a_float32_teacher_that_takes_in_small_steps():
    model = student(torch.bfloat16)
    move(model, 1.0)
    teacher = Teacher(model, half_life=1.0, steps_per_epoch=1000)
    teacher.step = 10**6
    move(model, 1.0 + 2**-7)  # the next bf16 number: a thousandth of it is nothing in bf16
    for _ in range(100):
        teacher.update()
    assert all(tensor.dtype == torch.float32 for tensor in teacher.averaged)
    moved = (teacher.averaged[0] - 1) * 2**7
    torch.testing.assert_close(moved, torch.full((4, 3), 1 - 0.5**0.1), rtol=0.02, atol=0)


def test_it_stays_in_eval_mode_and_asks_for_no_gradient():
    model = student().train()
    teacher = Teacher(model, half_life=1.0, steps_per_epoch=10)
    model.train()
    teacher.update()
    assert not any(module.training for module in teacher.model.modules())
    assert not any(p.requires_grad for p in teacher.model.parameters())
    assert model.training and model[0].weight.requires_grad
    x = torch.randn(2, 3)
    assert torch.equal(teacher.model(x), teacher.model(x))


def test_frozen_parameters_and_buffers_are_the_students_own():
    model = student()
    teacher = Teacher(model, half_life=1.0, steps_per_epoch=10)
    assert teacher.model[3].weight is model[3].weight
    assert teacher.model[2].running_mean is model[2].running_mean
    assert teacher.model[0].weight is not model[0].weight
    assert teacher.names == ["0.weight", "0.bias", "2.weight", "2.bias"]


@pytest.mark.parametrize("fails", [False, True])
def test_applied_lends_its_weights_and_takes_them_back_whatever_happens(fails):
    model = student()
    teacher = Teacher(model, half_life=1.0, steps_per_epoch=10)
    move(model, 5.0)
    before = [p.detach().clone() for p in model.parameters()]
    identities = [id(p) for p in model.parameters()]
    try:
        with teacher.applied():
            for mine, theirs in zip(teacher.live, teacher.averaged, strict=True):
                assert torch.equal(mine, theirs) and (mine != 5).any()
            if fails:
                raise KeyboardInterrupt
    except KeyboardInterrupt:
        assert fails
    assert all(torch.equal(a, b) for a, b in zip(model.parameters(), before, strict=True))
    assert [id(p) for p in model.parameters()] == identities


def test_state_round_trip_goes_on_as_if_nothing_had_been():
    whole, first = student(), student()
    uninterrupted = Teacher(whole, half_life=0.5, steps_per_epoch=10)
    before = Teacher(first, half_life=0.5, steps_per_epoch=10)
    for step in range(20):
        move(whole, float(step))
        move(first, float(step))
        uninterrupted.update()
        if step == 8:
            state = {name: value.clone() for name, value in before.tensors().items()}
            before = Teacher(first, half_life=0.5, steps_per_epoch=10)
            before.load(state)
        before.update()
    # The copy was taken before step 8 was averaged in, and went on with it.
    for a, b in zip(uninterrupted.averaged, before.averaged, strict=True):
        assert torch.equal(a, b)
