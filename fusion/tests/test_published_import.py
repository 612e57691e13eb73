"""Importing the published weights: a run that answers as they do, or one line and nothing left."""

from __future__ import annotations

import hashlib
import json
import pickle
import zipfile
from collections import OrderedDict
from pathlib import Path

import numpy as np
import pytest
import torch

import mepr_fusion
from mepr_fusion.cli import main
from mepr_fusion.published.model import PublishedModel
from mepr_fusion.settings import FusionSettings
from mepr_fusion.train import build_model
from mepr_shared import config
from mepr_shared.errors import ContractError, DataError
from mepr_shared.train.checkpoint import save_weights
from mepr_shared.train.runs import Run

# Not the order of the published file: which a dictionary has does not matter.
WIDTHS = {"text": 4, "body": 6, "audio": 2, "face": 8, "scene": 4}
ORDER = ("body", "face", "scene", "audio", "text")


def make_state(width: int = 16, widths=WIDTHS) -> OrderedDict[str, torch.Tensor]:
    torch.manual_seed(0)
    return OrderedDict(PublishedModel(widths, width=width).state_dict())


def save(content, path: Path) -> Path:
    torch.save(content, path)
    return path


def inputs(batch: int = 6) -> tuple[dict, dict, dict]:
    torch.manual_seed(1)
    features = {name: torch.randn(batch, size) for name, size in WIDTHS.items()}
    emotion = {name: torch.randn(batch, 7) for name in WIDTHS}
    return features, emotion, {name: torch.rand(batch, 5) for name in WIDTHS}


def stacked(mapping: dict[str, torch.Tensor]) -> torch.Tensor:
    return torch.stack([mapping[name] for name in ORDER], dim=1)


@pytest.fixture(scope="module")
def file(tmp_path_factory) -> Path:
    return save(make_state(), tmp_path_factory.mktemp("file") / "published.pt")


@pytest.fixture(scope="module")
def run(file) -> Path:
    path = file.parent / "run"
    assert main(["import-published", str(file), "--run", str(path)]) == 0
    return path


@pytest.mark.parametrize("trait_guide", [True, False])
def test_an_imported_run_answers_as_the_model_with_these_weights(
    file, tmp_path, trait_guide, capsys
):
    options = [] if trait_guide else ["--no-trait-guide"]
    command = ["import-published", str(file), "--run", str(tmp_path / "run"), "--json", *options]
    assert main(command) == 0
    record = json.loads(capsys.readouterr().out)
    assert record["trait_guide"] is trait_guide and record["width"] == 16
    model = PublishedModel({n: WIDTHS[n] for n in ORDER}, width=16, trait_guide=trait_guide).eval()
    model.load_state_dict(make_state())
    features, emotion, traits = inputs()
    present = torch.ones(6, 5, dtype=torch.bool)
    expected = model(features, stacked(emotion), stacked(traits), present)
    loaded = mepr_fusion.Run.load(tmp_path / "run")
    assert loaded.modalities == ORDER and loaded.is_published
    output = loaded.forward(features, emotion, traits)
    assert torch.allclose(output.emotion_logits, expected.emotion_logits, rtol=0, atol=1e-6)
    assert torch.allclose(output.trait_scores, expected.trait_scores, rtol=0, atol=1e-6)


def test_the_run_says_where_its_weights_come_from(file, run):
    opened = Run.load(run)
    assert opened.kind == "stage3"
    source = opened.config["imported_from"]
    assert source["file"] == "published.pt"
    assert source["sha256"] == hashlib.sha256(file.read_bytes()).hexdigest()
    assert opened.config["modalities"] == {name: [WIDTHS[name] // 2] * 2 for name in ORDER}
    assert opened.config["labels"]["emotions"][0] == "neutral"
    assert opened.metrics["parameters"] == sum(value.numel() for value in make_state().values())
    assert sorted(path.name for path in run.parent.iterdir()) == ["published.pt", "run"]


def test_absent_modalities_may_be_left_out_or_be_nan(run):
    loaded = mepr_fusion.Run.load(run)
    features, emotion, traits = inputs()
    names = ("face", "text")
    few = loaded.forward(
        {n: features[n] for n in names},
        {n: emotion[n] for n in names},
        {n: traits[n] for n in names},
    )
    unknown = {n: f if n in names else torch.full_like(f, torch.nan) for n, f in features.items()}
    again = loaded.forward(unknown, emotion, traits)
    assert torch.equal(few.emotion_logits, again.emotion_logits)
    assert torch.equal(few.trait_scores, again.trait_scores)
    arrays = loaded.forward(
        {n: features[n].numpy().astype(np.float64) for n in names},
        stacked(emotion).numpy(),
        stacked(traits),
    )
    assert torch.equal(few.emotion_logits, arrays.emotion_logits)
    everything = loaded.forward(features, emotion, traits)
    assert not torch.allclose(few.emotion_logits, everything.emotion_logits)


def test_forward_refuses_what_does_not_fit(run):
    loaded = mepr_fusion.Run.load(run)
    features, emotion, traits = inputs()
    with pytest.raises(DataError, match=r"no modality 'fase'.*did you mean 'face'"):
        loaded.forward({"fase": features["face"]}, emotion, traits)
    with pytest.raises(
        DataError, match=r"features\['face'\] has shape \[6, 4\], expected \[B, 8\]"
    ):
        loaded.forward({"face": features["text"]}, emotion, traits)
    with pytest.raises(DataError, match=r"emotion_logits\['face'\] has shape \[2, 7\]"):
        loaded.forward(features, {"face": emotion["face"][:2]}, traits)
    with pytest.raises(DataError, match=r"trait_scores has shape \[6, 5\]"):
        loaded.forward(features, emotion, traits["face"])
    features = {"face": features["face"].clone()}
    features["face"][2] = torch.nan
    with pytest.raises(DataError, match="1 of 6 samples have no modality, the first is row 2"):
        loaded.forward(features, emotion, traits)


def test_forward_of_a_single_task_run_takes_the_half_its_mode_reads(tmp_path):
    settings = config.build(FusionSettings, {"mode": "traits->traits", "model": {"width": 8}})
    pairs = {"text": [4, 2], "face": [5, 3]}
    content = {"settings": config.to_dict(settings), "modalities": pairs}
    run = Run.create(tmp_path / "run", kind="stage3", config=content)
    save_weights(build_model(run.config).state_dict(), run.path / "weights.safetensors")
    loaded = mepr_fusion.Run.load(run.path)
    assert loaded.widths == {"text": 2, "face": 3}
    output = loaded.forward({"text": torch.randn(4, 2)}, {}, {"text": torch.rand(4, 5)})
    assert output.trait_scores.isfinite().all() and output.emotion_logits.isnan().all()


def test_forward_opens_runs_trained_here_and_passes_gradients_to_the_inputs(tmp_path):
    settings = config.build(FusionSettings, {"model": {"width": 16, "heads": 2}})
    pairs = {"text": [4, 0], "face": [5, 3]}
    content = {"settings": config.to_dict(settings), "modalities": pairs}
    run = Run.create(tmp_path / "run", kind="stage3", config=content)
    torch.manual_seed(3)
    model = build_model(run.config).eval()
    save_weights(model.state_dict(), run.path / "weights.safetensors")
    features, emotion, traits = inputs()
    loaded = mepr_fusion.Run.load(str(run.path))
    assert loaded.modalities == ("text", "face") and not loaded.is_published
    face = features["face"].clone().requires_grad_()
    output = loaded.forward({"face": face}, {"face": emotion["face"]}, {"face": traits["face"]})
    present = torch.tensor([[False, True]]).expand(6, 2)
    expected = model(
        {"text": torch.zeros(6, 4), "face": features["face"]},
        torch.stack([emotion["text"], emotion["face"]], dim=1),
        torch.stack([traits["text"], traits["face"]], dim=1),
        present,
    )
    assert torch.allclose(output.emotion_logits, expected.emotion_logits, rtol=0, atol=1e-6)
    assert torch.allclose(output.trait_scores, expected.trait_scores, rtol=0, atol=1e-6)
    output.emotion_logits.sum().backward()
    assert (face.grad != 0).any()
    assert not any(parameter.requires_grad for parameter in loaded.model.parameters())
    stage2 = Run.create(tmp_path / "stage2", kind="stage2", config={})
    with pytest.raises(ContractError, match="is a stage2 run"):
        mepr_fusion.Run.load(stage2.path)


@pytest.mark.parametrize(("width", "widths"), [(48, WIDTHS), (8, {"audio": 10, "gaze": 4})])
def test_any_width_and_any_modalities_are_imported(tmp_path, width, widths):
    half = OrderedDict((n, v.half()) for n, v in make_state(width, widths).items())
    file = save(half, tmp_path / "other.pt")
    assert main(["import-published", str(file), "--run", str(tmp_path / "run")]) == 0
    assert set(mepr_fusion.Run.load(tmp_path / "run").widths.items()) == set(widths.items())


def without(name: str) -> dict:
    return {n: v for n, v in make_state().items() if n != name}


class Payload:
    """What a pickle must never be able to do."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self):
        return Path.touch, (self.path,)


CONTENTS = {
    "missing": (lambda: without("graph_attn.a"), "missing: graph_attn.a"),
    "missing input": (
        lambda: without("projectors.face.0.proj.0.weight"),
        "missing: projectors.face.0.proj.0.weight",
    ),
    "missing query": (lambda: without("emo_query"), "missing: emo_query"),
    "unexpected": (lambda: {**make_state(), "extra.bias": torch.ones(2)}, "unexpected: extra.bias"),
    "odd module": (
        lambda: {**make_state(), "projectors.pop.0.proj.0.weight": torch.ones(16, 4)},
        "unexpected: projectors.pop.0.proj.0.weight",
    ),
    "wrong shape": (
        lambda: {**make_state(), "emo_head.weight": torch.ones(6, 16)},
        "emo_head.weight [6, 16] instead of [7, 16]",
    ),
    "odd width": (lambda: make_state(16, {"face": 5}), "odd width"),
    "indivisible": (
        lambda: dict(PublishedModel(WIDTHS, width=12, heads=4).state_dict()),
        "width 12, which is not divisible by 2 and by 8 heads",
    ),
    "another model": (lambda: {"layer.weight": torch.ones(2)}, "not the published stage-3 model"),
    "nested": (lambda: {"model": make_state(), "epoch": 3}, "'model' is of type OrderedDict"),
    "list": (lambda: [torch.ones(2)], "it holds a list"),
    "integers": (lambda: {**make_state(), "emo_head.bias": torch.arange(7)}, "no plain tensor"),
    "not finite": (
        lambda: {**make_state(), "emo_head.bias": torch.full((7,), torch.nan)},
        "NaN or infinite: emo_head.bias",
    ),
    "a claim": (
        lambda: {"projectors.face.0.proj.0.weight": torch.ones(1).expand(16, 1 << 40)},
        "claims more than",
    ),
    "a module": (lambda: PublishedModel({"face": 2}, width=8), "is not a bare state dict"),
}


@pytest.mark.parametrize("case", CONTENTS)
def test_another_content_is_refused_in_one_line(case, tmp_path, capsys):
    content, words = CONTENTS[case]
    refused(save(content(), tmp_path / "file.pt"), words, capsys)


def refused(file: Path, words: str, capsys) -> None:
    """Exit code 2, one line, and nothing where the run would be."""
    before = sorted(file.parent.iterdir())
    assert main(["import-published", str(file), "--run", str(file.parent / "run")]) == 2
    captured = capsys.readouterr()
    assert captured.out == "" and captured.err.count("\n") == 1
    assert words in captured.err
    assert sorted(file.parent.iterdir()) == before


def test_a_pickle_with_other_objects_is_not_run(tmp_path, capsys):
    state = {**make_state(), "payload": Payload(tmp_path / "touched")}
    file = save(state, tmp_path / "file.pt")
    refused(file, "is not a bare state dict", capsys)
    file.write_bytes(pickle.dumps(Payload(tmp_path / "touched")))
    refused(file, "damaged, or was not written by torch.save", capsys)
    assert not (tmp_path / "touched").exists()


def test_damaged_files_are_refused(file, tmp_path, capsys):
    content = file.read_bytes()
    damaged = tmp_path / "file.pt"
    damaged.write_bytes(content[: len(content) // 2])
    refused(damaged, "damaged", capsys)
    damaged.write_bytes(b"")
    refused(damaged, "damaged", capsys)
    place = content.index(make_state()["emo_query"].numpy().tobytes())
    damaged.write_bytes(content[:place] + b"\x00" + content[place + 1 :])
    refused(damaged, "checksum", capsys)
    with zipfile.ZipFile(file) as source, zipfile.ZipFile(damaged, "w") as target:
        for entry in source.infolist():
            target.writestr(entry.filename, source.read(entry), zipfile.ZIP_DEFLATED)
    refused(damaged, "compressed", capsys)
    torch.save(make_state(), damaged, _use_new_zipfile_serialization=False)
    refused(damaged, "not written by torch.save of torch 1.6", capsys)
    refused(tmp_path, "cannot read", capsys)
    damaged.unlink()
    refused(damaged, "No such file", capsys)


def test_an_empty_folder_may_become_the_run(file, tmp_path):
    (tmp_path / "deep" / "run").mkdir(parents=True)
    assert main(["import-published", str(file), "--run", str(tmp_path / "deep" / "run")]) == 0
    assert [path.name for path in (tmp_path / "deep").iterdir()] == ["run"]
    assert Run.load(tmp_path / "deep" / "run").weights_path.exists()


def test_a_run_that_exists_is_kept(file, run, capsys):
    before = {path: path.read_bytes() for path in run.iterdir()}
    assert main(["import-published", str(file), "--run", str(run)]) == 2
    assert "already something" in capsys.readouterr().err
    assert {path: path.read_bytes() for path in run.iterdir()} == before


def test_an_imported_run_cannot_be_evaluated(run, capsys):
    assert main(["evaluate", "--run", str(run)]) == 2
    error = capsys.readouterr().err
    assert error.count("\n") == 1 and "import" in error
