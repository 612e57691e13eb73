"""On the demo corpus the best possible score is known: how much of the way to it is learned."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from mepr_shared.config import build, read_toml
from mepr_shared.contract.frames import FrameStore
from mepr_shared.corpora.demo import make_demo, oracle
from mepr_shared.corpora.index import Corpus
from mepr_shared.extract.engine import extract_corpus
from mepr_shared.metrics import single_label_scores, trait_scores
from mepr_shared.train.evaluate_run import evaluate_run
from mepr_shared.train.settings import Stage1Settings
from mepr_shared.train.stages import train_stage1
from mepr_text.plugin import TEXT, TextEncoderSettings

SETTINGS = {
    "model": {"width": 64, "feedforward": 128, "dropout": 0.2},
    "trait_loss": {"loss": "mse+0.05*ccc"},
    "fit": {"epochs": 20, "batch_size": 32, "learning_rate": 1e-3},
}


def learned(folder: Path, *, shuffle: bool) -> dict[str, tuple[float, float]]:
    """Task -> (score of stage 1, best possible score) on the held-out clips that have text."""
    make_demo(folder, clips=600, seed=3, shuffle_labels=shuffle)
    table = read_toml(TEXT.profiles["small"])["encoder"]
    extractor = TEXT.open_extractor(build(TextEncoderSettings, table), device="cpu")
    found = {}
    for task in ("emotion", "traits"):
        corpus = Corpus.read(folder / f"demo_{task}.parquet")
        store = FrameStore.open(extract_corpus(TEXT, extractor, corpus, folder / "store").store)
        settings = build(Stage1Settings, SETTINGS)
        run = train_stage1(TEXT, task, [corpus], [store], settings, folder / task)
        scores = evaluate_run(run, corpus, store, "test")[task]
        rows = [r for r in corpus.select(split="test") if corpus.texts[r]]
        best = oracle(corpus)
        if task == "emotion":
            possible = single_label_scores(
                corpus.emotion_targets()[rows], best.emotion_probability[rows]
            )
            found[task] = scores["uar"], possible["uar"]
        else:
            possible = trait_scores(corpus.trait_values[rows], best.trait_mean[rows])
            found[task] = scores["ccc"], possible["ccc"]
    return found


@pytest.mark.slow
def test_stage1_closes_most_of_the_gap_to_the_oracle(tmp_path):
    """At least 70 % of the way from a constant (1/7, 0) to the best possible score."""
    found = learned(tmp_path, shuffle=False)
    for task, constant in (("emotion", 1 / 7), ("traits", 0.0)):
        score, possible = found[task]
        assert (score - constant) / (possible - constant) > 0.7, found


@pytest.mark.slow
def test_nothing_is_learned_from_shuffled_labels(tmp_path):
    """The same training then stays at the constant, within what 90 test clips can show."""
    found = learned(tmp_path, shuffle=True)
    assert found["emotion"][0] < 1 / 7 + 0.15
    assert np.abs(found["traits"][0]) < 0.15
