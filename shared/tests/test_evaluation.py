"""The object that `evaluate --json` prints, the group report, and the comparison of two models."""

from __future__ import annotations

import json
import time
from typing import Any

import numpy as np
import pytest

from mepr_shared.errors import DataError
from mepr_shared.evaluation import compare, evaluate, group_report
from mepr_shared.intervals import Resampling
from mepr_shared.labels import EMOTIONS, TRAITS, EmotionScale
from mepr_shared.metrics import multi_label_scores, single_label_scores, trait_scores
from mepr_shared.scoring import Constants, Labels, Predictions, constants_of

N = 240
HOW = Resampling(resamples=200)
SINGLE, MULTI = EmotionScale("single_label"), EmotionScale("multi_label")
THRESHOLDS = np.full(7, 0.5)

TOP = {"corpus", "split", "n", "n_dropped", "emotion", "traits", "baseline"}
EMOTION = {
    *("kind", "n", "n_sources", "uar", "mwacc", "mwacc_published_rule", "macro_f1"),
    *("weighted_f1", "accuracy", "auroc", "average_precision", "confusion", "undefined"),
    *("per_class", "ci"),
}
TRAIT = {"n", "n_sources", "macc", "ccc", "ccc_flat", "r2", "per_trait", "ci"}


def sample(seed: int = 0, n: int = N, sources: int = 40) -> dict[str, Any]:
    """Labels of both tasks, single-label and multi-label, and predictions that know something."""
    generator = np.random.default_rng(seed)
    single = np.eye(7)[generator.integers(0, 7, n)]
    multi = (generator.random((n, 7)) < 0.3).astype(float)
    multi[:, 0] = multi[:, 1:].sum(axis=1) == 0
    traits = generator.beta(4, 4, (n, 5))
    softmax = generator.random((n, 7)) + 0.5 * single
    return {
        "source_ids": [f"s{i:03d}" for i in generator.integers(0, sources, n)],
        "single": single,
        "softmax": softmax / softmax.sum(axis=1, keepdims=True),
        "multi": multi,
        "sigmoid": 0.3 * multi + 0.7 * generator.random((n, 7)),
        "traits": traits,
        "scores": 0.5 * traits + 0.25 + 0.05 * generator.standard_normal((n, 5)),
    }


def evaluate_single(data: dict[str, Any], **options: Any) -> dict[str, Any]:
    return evaluate(
        "corpus",
        "val",
        source_ids=data["source_ids"],
        emotion_targets=data["single"],
        emotion_scale=SINGLE,
        emotion_probabilities=data["softmax"],
        emotion_output="softmax",
        trait_targets=data["traits"],
        trait_scores=data["scores"],
        **{"resampling": HOW, **options},
    )


def evaluate_multi(data: dict[str, Any], **options: Any) -> dict[str, Any]:
    return evaluate(
        "corpus",
        "test",
        source_ids=data["source_ids"],
        emotion_targets=data["multi"],
        emotion_scale=MULTI,
        emotion_probabilities=data["sigmoid"],
        **{"thresholds": THRESHOLDS, "resampling": HOW, **options},
    )


def without_uncertainty(report: dict[str, Any]) -> dict[str, Any]:
    return {
        k: v for k, v in report.items() if k not in ("ci", "n_sources", "kind") and v is not None
    }


# --- the object ---


def test_the_object_has_exactly_these_keys_and_survives_json() -> None:
    data = sample()
    constants = constants_of(data["single"], data["traits"])
    result = evaluate_single(data, constants=constants)
    assert set(result) == TOP
    assert set(result["emotion"]) == set(result["baseline"]["emotion"]) == EMOTION
    assert set(result["traits"]) == TRAIT
    assert set(result["baseline"]) == {"emotion", "traits"}
    assert set(result["baseline"]["traits"]) == TRAIT | {"macc_median"}
    assert set(result["emotion"]["per_class"]) == set(EMOTIONS)
    assert set(result["traits"]["per_trait"]) == set(TRAITS)
    assert json.loads(json.dumps(result, allow_nan=False)) == result
    assert set(evaluate_multi(data)["emotion"]) == EMOTION


def test_the_scores_are_those_of_the_metrics() -> None:
    data = sample()
    result = evaluate_single(data)
    single = single_label_scores(data["single"], data["softmax"])
    assert without_uncertainty(result["emotion"]) == without_uncertainty(single)
    assert without_uncertainty(result["traits"]) == trait_scores(data["traits"], data["scores"])
    multi = multi_label_scores(data["multi"], data["sigmoid"], THRESHOLDS)
    found = evaluate_multi(data)
    assert without_uncertainty(found["emotion"]) == without_uncertainty(multi)
    assert found["traits"] is None
    assert found["baseline"] == {"emotion": None, "traits": None}
    assert (found["corpus"], found["split"], found["n"]) == ("corpus", "test", N)


def test_every_interval_holds_its_score() -> None:
    data = sample()
    for report, table, headlines in (
        (evaluate_single(data)["emotion"], "per_class", ("uar", "macro_f1", "weighted_f1")),
        (evaluate_multi(data)["emotion"], "per_class", ("uar", "mwacc", "weighted_f1")),
        (evaluate_single(data)["traits"], "per_trait", ("macc", "ccc", "ccc_flat", "r2")),
    ):
        for name in headlines:
            low, high = report["ci"][name]
            assert low < report[name] < high
        for row, columns in report["ci"][table].items():
            for column, (low, high) in columns.items():
                assert low <= report[table][row][column] <= high
    assert evaluate_single(data)["emotion"]["ci"]["mwacc"] is None


def test_with_few_sources_the_values_of_each_stand_in_for_the_interval() -> None:
    data = sample(sources=12)
    result = evaluate_single(data)
    for task in ("emotion", "traits"):
        assert result[task]["ci"] is None
        assert result[task]["n_sources"] == len(result[task]["per_source"]) == 12
    rows = np.array(data["source_ids"]) == "s003"
    expected = trait_scores(data["traits"][rows], data["scores"][rows])
    assert result["traits"]["per_source"]["s003"] == pytest.approx(
        {name: expected[name] for name in ("macc", "ccc", "ccc_flat", "r2")}
    )
    json.dumps(result, allow_nan=False)


def test_unlabelled_rows_do_not_count_and_unanswered_ones_are_dropped_by_name() -> None:
    data = sample()
    data["single"][:50] = np.nan
    data["traits"][:20] = np.nan  # 20 rows without any label
    data["softmax"][200:210] = np.nan
    data["scores"][200:210] = np.nan  # 10 rows that the model did not answer
    data["scores"][220:225] = np.nan  # 5 that it answered in part
    result = evaluate_single(data, n_dropped={"no_text": 3})
    assert result["n"] == N - 20 - 10
    assert result["emotion"]["n"] == N - 50 - 10
    assert result["traits"]["n"] == N - 20 - 10 - 5
    assert result["n_dropped"] == 13
    assert result["dropped"] == {"no_text": 3, "no_prediction": 10}
    assert evaluate_single(data, n_dropped=4)["n_dropped"] == 14
    kept = np.r_[50:200, 210:N]
    expected = single_label_scores(data["single"][kept], data["softmax"][kept])["uar"]
    assert result["emotion"]["uar"] == expected


def test_a_task_without_labels_or_without_predictions_is_null() -> None:
    data = sample()
    nothing = np.full((N, 7), np.nan)
    result = evaluate_single({**data, "single": nothing}, constants=Constants(np.full(7, 1 / 7)))
    assert result["emotion"] is None and result["baseline"]["emotion"] is None
    assert result["traits"] is not None
    empty = evaluate_single({**data, "single": nothing, "traits": np.full((N, 5), np.nan)})
    assert (empty["n"], empty["n_dropped"], empty["traits"]) == (0, 0, None)


# --- baseline ---


def test_the_baseline_is_what_a_constant_would_score() -> None:
    data = sample()
    generator = np.random.default_rng(3)
    training_emotions = np.eye(7)[generator.choice(7, 500, p=[0.1, 0.5, 0.1, 0.1, 0.1, 0.05, 0.05])]
    training_traits = generator.beta(2, 4, (500, 5))
    constants = constants_of(training_emotions, training_traits)
    baseline = evaluate_single(data, constants=constants)["baseline"]
    assert baseline["emotion"]["uar"] == pytest.approx(1 / 7)
    assert baseline["emotion"]["accuracy"] == data["single"][:, 1].mean()  # anger, the majority
    mean, median = training_traits.mean(axis=0), np.median(training_traits, axis=0)
    assert baseline["traits"]["macc"] == pytest.approx(1 - abs(data["traits"] - mean).mean())
    assert baseline["traits"]["macc_median"] == pytest.approx(
        1 - abs(data["traits"] - median).mean()
    )
    assert baseline["traits"]["ccc"] == 0
    many = evaluate_multi(data, constants=constants_of(data["multi"], None))["baseline"]["emotion"]
    assert many["mwacc"] == many["auroc"] == 0.5


def test_the_baseline_is_scored_on_the_samples_the_model_answered() -> None:
    data = sample()
    constants = constants_of(data["single"], data["traits"])
    data["scores"][: N // 2] = np.nan
    data["softmax"][: N // 3] = np.nan
    result = evaluate_single(data, constants=constants)
    for task in ("emotion", "traits"):
        assert result["baseline"][task]["n"] == result[task]["n"] < N


# --- subsets and groups ---


def test_the_unseen_sources_are_scored_by_themselves() -> None:
    data = sample()
    seen = np.array([int(source[1:]) < 10 for source in data["source_ids"]])
    constants = constants_of(data["single"], data["traits"])
    unseen = evaluate_single(data, seen_sources=seen, constants=constants)["unseen_sources"]
    expected = trait_scores(data["traits"][~seen], data["scores"][~seen])
    assert unseen["n"] == unseen["traits"]["n"] == (~seen).sum()
    assert unseen["traits"]["ccc"] == pytest.approx(expected["ccc"], rel=1e-12)
    assert unseen["baseline"]["traits"]["n"] == (~seen).sum()
    none_left = evaluate_single(data, seen_sources=np.ones(N, dtype=bool))["unseen_sources"]
    assert none_left["n"] == 0 and none_left["traits"] is None


def test_strong_labels_are_scored_beside_the_weak_ones() -> None:
    data = sample()
    strong = data["multi"] * (np.random.default_rng(4).random((N, 7)) < 0.5)
    result = evaluate_multi(data, strong_targets=strong)["emotion"]
    expected = multi_label_scores(strong, data["sigmoid"], THRESHOLDS)
    assert result["strong"]["mwacc"] == expected["mwacc"] != result["mwacc"]


def test_groups_are_scored_alike_and_their_gaps_named() -> None:
    data = sample()
    groups = ["f" if i % 2 else "m" for i in range(N)]
    groups[0] = None  # type: ignore[call-overload]
    groups[1:9] = ["x"] * 8
    rows = np.array(groups) == "f"
    data["scores"][rows] += 0.1  # this group is scored too high
    report = evaluate_single(data, groups={"gender": groups})["groups"]["gender"]
    assert set(report["groups"]) == {"f", "m", "x", "(none)"}
    assert report["groups"]["f"]["n"] == rows.sum()
    assert report["too_small"] == ["(none)", "x"]
    expected = trait_scores(data["traits"][rows], data["scores"][rows])
    assert report["groups"]["f"]["traits"]["per_trait"] == expected["per_trait"]
    values = {name: report["groups"][name]["traits"]["ccc"] for name in "fm"}
    gap = report["gap"]["traits"]["ccc"]
    assert gap["gap"] == pytest.approx(abs(values["f"] - values["m"]))
    assert (gap["lowest"], gap["highest"]) == ("f", "m")
    error = report["gap"]["traits"]["signed_error"]["openness"]
    assert error["highest"] == "f" and error["gap"] == pytest.approx(0.1, abs=0.03)
    assert report["gap"]["emotion"]["mwacc"] is None
    assert report["gap"]["emotion"]["uar"]["gap"] >= 0
    json.dumps(report, allow_nan=False)


def test_samples_without_a_group_are_scored_but_enter_no_gap() -> None:
    data = sample()
    data["scores"][: N // 2] = 0.5  # far the worst, were it a group
    labels = Labels(data["source_ids"], traits=data["traits"])
    values = [None if i < N // 2 else "ab"[i % 2] for i in range(N)]
    report = group_report(values, labels, Predictions(traits=data["scores"]), HOW)
    assert report["groups"]["(none)"]["n"] == N // 2
    assert {report["gap"]["traits"]["ccc"][end] for end in ("lowest", "highest")} == {"a", "b"}


def test_one_group_has_no_gap() -> None:
    data = sample()
    labels = Labels(data["source_ids"], traits=data["traits"])
    report = group_report(["a"] * N, labels, Predictions(traits=data["scores"]), HOW)
    assert report["gap"]["traits"]["ccc"] is None


# --- two models ---


def test_a_comparison_gives_both_scores_and_a_paired_interval_of_the_difference() -> None:
    data = sample()
    labels = Labels(data["source_ids"], data["single"], SINGLE, data["traits"])
    first = Predictions(data["softmax"], traits=data["scores"], output="softmax")
    better = 0.7 * data["scores"] + 0.3 * data["traits"]
    second = Predictions(data["softmax"], traits=better, output="softmax")
    report = compare(labels, first, second, HOW)
    assert report["n"] == report["traits"]["n"] == N
    found = report["traits"]["ccc"]
    assert found["first"] == pytest.approx(trait_scores(data["traits"], data["scores"])["ccc"])
    assert found["second"] == pytest.approx(trait_scores(data["traits"], better)["ccc"])
    assert found["difference"] == pytest.approx(found["second"] - found["first"])
    assert 0 < found["ci"][0] < found["difference"] < found["ci"][1]
    same = report["emotion"]["uar"]
    assert same["difference"] == 0 and same["ci"] == [0, 0]
    json.dumps(report, allow_nan=False)


def test_a_comparison_of_multi_label_models_uses_the_thresholds_of_each() -> None:
    data = sample()
    labels = Labels(data["source_ids"], data["multi"], MULTI)
    report = compare(
        labels,
        Predictions(data["sigmoid"], THRESHOLDS),
        Predictions(data["sigmoid"] / 2, THRESHOLDS / 2),
        HOW,
    )
    assert report["emotion"]["mwacc"]["difference"] == 0
    assert report["traits"] is None


def test_models_scored_on_different_samples_are_not_compared() -> None:
    data = sample()
    labels = Labels(data["source_ids"], traits=data["traits"])
    fewer = data["scores"].copy()
    fewer[:7] = np.nan
    with pytest.raises(DataError, match=r"n = 240 and 233, 7 differ"):
        compare(labels, Predictions(traits=data["scores"]), Predictions(traits=fewer), HOW)


def test_a_comparison_over_few_sources_gives_the_values_of_each() -> None:
    data = sample(sources=6)
    labels = Labels(data["source_ids"], traits=data["traits"])
    model = Predictions(traits=data["scores"])
    report = compare(labels, model, model, HOW)["traits"]
    assert report["ccc"]["ci"] is None
    assert report["n_sources"] == len(report["per_source"]["first"]) == 6


# --- errors, speed ---


def test_unusable_input_is_refused() -> None:
    data = sample()
    with pytest.raises(DataError, match="thresholds"):
        evaluate_multi(data, thresholds=None)
    with pytest.raises(DataError, match="seen_sources has 3 rows, there are 240 samples"):
        evaluate_single(data, seen_sources=np.ones(3, dtype=bool))
    with pytest.raises(DataError, match="trait_scores has 239 rows"):
        evaluate_single({**data, "scores": data["scores"][:-1]})


def test_columns_in_the_wrong_order_change_the_result() -> None:
    data = sample()
    right = evaluate_single(data)
    swapped = {
        **data,
        "softmax": data["softmax"][:, [1, 0, 2, 3, 4, 5, 6]],
        "scores": data["scores"][:, [4, 1, 2, 3, 0]],
    }
    wrong = evaluate_single(swapped)
    assert wrong["emotion"]["uar"] < right["emotion"]["ci"]["uar"][0]
    assert wrong["traits"]["ccc"] < right["traits"]["ci"]["ccc"][0]


def test_two_thousand_clips_with_a_thousand_resamples_take_less_than_three_seconds() -> None:
    data = sample(n=2000, sources=700)
    evaluate_multi(data)  # imports scikit-learn
    start = time.process_time()
    evaluate_single(data, resampling=Resampling())
    evaluate_multi(data, resampling=Resampling())
    assert time.process_time() - start < 3
