"""Fine-tuned upper layers: padding never matters, every weight learns, the config rebuilds them."""

from __future__ import annotations

import json

import pytest
import torch

from mepr_shared.errors import ConfigError
from mepr_shared.nn.pretrained import PretrainedEncoder

pytest.importorskip("transformers", reason="comes with mepr-text")

CONFIG = {
    "model_type": "bert",
    "hidden_size": 16,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "intermediate_size": 32,
    "vocab_size": 1,
    "pad_token_id": 0,
}


def encoder(**changes) -> PretrainedEncoder:
    torch.manual_seed(0)
    options = {"width": 8, "dropout": 0.0, "input_dropout": 0.0, **changes}
    return PretrainedEncoder(json.loads(json.dumps(CONFIG)), **options)


def test_a_padded_batch_equals_its_clips_one_by_one():
    model = encoder().eval()
    torch.manual_seed(1)
    x = torch.randn(3, 7, 16)
    mask = torch.arange(7) < torch.tensor([[7], [4], [1]])
    x[~mask] = 1e4
    found = model(x, mask)
    for row, length in enumerate((7, 4, 1)):
        alone = model(x[row : row + 1, :length], mask[row : row + 1, :length])
        torch.testing.assert_close(found[row, :length], alone[0], atol=1e-5, rtol=1e-5)
        assert not found[row, length:].any()


def test_every_weight_gets_a_gradient():
    model = encoder()
    model(torch.randn(2, 5, 16), torch.ones(2, 5, dtype=torch.bool)).square().sum().backward()
    silent = [n for n, p in model.named_parameters() if p.grad is None or not p.grad.any()]
    # A key's bias shifts all scores of a query alike, which a softmax does not see.
    assert all(name.endswith("key.bias") for name in silent), silent


def test_dropout_acts_in_training_only():
    model = encoder(dropout=0.5, input_dropout=0.5)
    x, mask = torch.randn(2, 5, 16), torch.ones(2, 5, dtype=torch.bool)
    assert not torch.equal(model(x, mask), model(x, mask))
    model.eval()
    assert torch.equal(model(x, mask), model(x, mask))


def test_an_encoder_of_another_build_is_refused():
    with pytest.raises(ConfigError, match="'gpt2' encoder cannot be fine-tuned"):
        PretrainedEncoder(
            {"model_type": "gpt2", "n_layer": 1, "n_embd": 8, "n_head": 1, "vocab_size": 1},
            width=8,
            dropout=0.0,
            input_dropout=0.0,
        )
