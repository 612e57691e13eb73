"""What a linear model makes of the same embeddings: the baseline that a network must beat.

Class-weighted logistic regression for emotions and ridge regression for traits, on the
standardised embeddings of all modalities side by side. A modality that a sample lacks is zeros,
and a presence bit says so. How strongly coefficients are held back is chosen on validation.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import numpy as np
import torch

from mepr_fusion.answers import Outputs
from mepr_fusion.join import Joined
from mepr_shared.metrics import (
    best_thresholds,
    multi_label_scores,
    single_label_scores,
    trait_scores,
)

NAME = "embeddings_linear"

# Penalty per training sample, from strong to weak: independent of how many samples there are.
PENALTIES = (100.0, 10.0, 1.0, 0.1, 0.01, 0.001)
# Values in the largest table that is fitted at once (400 MB in float32); beyond it rows are drawn.
MAXIMUM_VALUES = 100_000_000
CHUNK = 4096
ITERATIONS = 100
# Log-odds of a class of which training shows no example, or nothing else.
CERTAIN = 12.0
KINDS = ("softmax", "sigmoid")

Array = np.ndarray


@dataclass(frozen=True)
class LinearModel:
    """Standardisation and coefficients; `D` features of all modalities and `M` presence bits.

    Attributes:
        arrays: `mean [D]`, `scale [D]` (0 for a constant feature); per kind of corpus
            (`sigmoid`, `softmax`) `KIND.weight [D + M, 7]`, `KIND.bias [7]` of calibrated logits,
            and `KIND.shift [7]` to be added before a decision; `sigmoid.thresholds [7]` on the
            decision probabilities; `traits.weight [D + M, 5]`, `traits.bias [5]`. What no
            training row could teach is not there.
        record: rows, penalties, validation scores and seconds, ready for JSON.
    """

    arrays: dict[str, Array]
    record: dict[str, Any] = field(default_factory=dict)

    def outputs(self, joined: Joined, rows: Array) -> Outputs:
        """Calibrated emotion logits and trait scores of `rows` `[n]`, NaN where nothing is known.

        `decision_shift` turns the logits into those on which decisions are taken.
        """
        logits = np.full((len(rows), 7), np.nan, dtype=np.float32)
        scores = np.full((len(rows), 5), np.nan, dtype=np.float32)
        for start in range(0, len(rows), CHUNK):
            part = slice(start, start + CHUNK)
            inputs = self._inputs(joined, rows[part])
            for kind in KINDS:
                here = _of_kind(joined, rows[part], kind)
                if f"{kind}.weight" in self.arrays:
                    logits[part][here] = self._apply(kind, inputs[here])
            if "traits.weight" in self.arrays:
                scores[part] = np.clip(self._apply("traits", inputs), 0, 1)
        return Outputs(logits, scores)

    def decision_shift(self, joined: Joined, rows: Array) -> Array:
        """`[n, 7]`: the class weights of the fit, as log odds."""
        shift = np.zeros((len(rows), 7), dtype=np.float32)
        for kind in KINDS:
            here = _of_kind(joined, rows, kind)
            shift[here] = self.arrays.get(f"{kind}.shift", 0.0)
        return shift

    @property
    def thresholds(self) -> list[float] | None:
        """`[7]` on the decision probabilities of multi-label corpora."""
        found = self.arrays.get("sigmoid.thresholds")
        return None if found is None else found.tolist()

    def _inputs(self, joined: Joined, rows: Array) -> Array:
        return design_matrix(joined, rows, self.arrays["mean"], self.arrays["scale"])

    def _apply(self, name: str, inputs: Array) -> Array:
        return inputs @ self.arrays[f"{name}.weight"] + self.arrays[f"{name}.bias"]


def fit_linear_model(joined: Joined, *, seed: int = 0) -> LinearModel:
    """Fit on the training rows, choose penalties on validation.

    Args:
        joined: the table; labels that are NaN teach nothing.
        seed: of the draw of training rows, where there are more than fit into memory.
    """
    started = time.perf_counter()
    train, val = (joined.select(split=split) for split in ("train", "val"))
    width = sum(values.shape[1] for values in joined.features.values()) + len(joined.modalities)
    most = max(1000, MAXIMUM_VALUES // width)
    if len(train) > most:
        train = np.sort(np.random.default_rng(seed).choice(train, most, replace=False))
    arrays = dict(zip(("mean", "scale"), _moments(joined, train), strict=True))
    inputs = design_matrix(joined, train, arrays["mean"], arrays["scale"])
    against = design_matrix(joined, val, arrays["mean"], arrays["scale"])
    record: dict[str, Any] = {"width": width, "train_rows": len(train), "chosen": {}}

    for name, task in (("softmax", "emotion"), ("sigmoid", "emotion"), ("traits", "trait")):
        targets = getattr(joined, f"{task}_targets")
        known, judged = (
            np.flatnonzero(_of_kind(joined, rows, name) & ~np.isnan(targets[rows]).any(axis=1))
            for rows in (train, val)
        )
        if not len(known):
            continue
        examples = inputs[known], targets[train[known]]
        judges = against[judged], targets[val[judged]]
        corpus_of = joined.corpus_of[val[judged]]
        if name == "traits":
            found, choice = _fit_traits(examples, judges, corpus_of)
        else:
            found, choice = _fit_emotion(name, examples, judges, corpus_of)
        arrays |= {f"{name}.{part}": values for part, values in found.items()}
        record["chosen"][name] = choice
    record["seconds"] = round(time.perf_counter() - started, 2)
    return LinearModel(arrays, record)


def design_matrix(joined: Joined, rows: Array, mean: Array, scale: Array) -> Array:
    """`[n, D + M]` float32: standardised features, 0 where there is none, and presence bits."""
    present = joined.present[rows]
    width = len(mean)
    matrix = np.empty((len(rows), width + present.shape[1]), dtype=np.float32)
    matrix[:, width:] = present
    at = 0
    for index, name in enumerate(joined.modalities):
        values = joined.features[name][rows]
        here = slice(at, at + values.shape[1])
        at = here.stop
        standard = (values - mean[here]) * scale[here]
        standard[~present[:, index]] = 0
        matrix[:, here] = np.nan_to_num(standard, copy=False)
    return matrix


def ridge(inputs: Array, targets: Array, penalty: float) -> tuple[Array, Array]:
    """Coefficients `[D, K]` and intercept `[K]` of ridge regression, by the normal equations.

    Minimises the mean squared error plus `penalty` times the squared coefficients, intercept free
    (Hoerl and Kennard 1970).
    """
    (found,) = _ridge_path(inputs, targets, (penalty,))
    return found


def _ridge_path(
    inputs: Array, targets: Array, penalties: tuple[float, ...]
) -> list[tuple[Array, Array]]:
    count, width = inputs.shape
    mean, middle = inputs.mean(axis=0, dtype=np.float64), targets.mean(axis=0, dtype=np.float64)
    gram, moment = np.zeros((width, width)), np.zeros((width, targets.shape[1]))
    for start in range(0, count, CHUNK):
        block = inputs[start : start + CHUNK] - mean.astype(np.float32)
        gram += block.T @ block
        moment += block.T.astype(np.float64) @ (targets[start : start + CHUNK] - middle)
    solved = []
    for penalty in penalties:
        held = torch.from_numpy(gram + count * penalty * np.eye(width))
        factor = torch.linalg.cholesky(held)
        weight = torch.cholesky_solve(torch.from_numpy(moment), factor).numpy()
        solved.append((weight, middle - mean @ weight))
    return solved


def _fit_traits(
    train: tuple[Array, Array], val: tuple[Array, Array], corpus_of: Array
) -> tuple[dict[str, Array], dict[str, Any]]:
    path = _ridge_path(*train, PENALTIES)
    scores = [_mean_over(corpus_of, partial(_ccc, val, fit)) for fit in path]
    weight, bias = path[_best(scores)]
    found = {"weight": weight.astype(np.float32), "bias": bias.astype(np.float32)}
    return found, _choice(scores, "ccc", len(train[0]))


def _ccc(val: tuple[Array, Array], fit: tuple[Array, Array], rows: Array) -> float:
    inputs, targets = val
    said = np.clip(inputs[rows] @ fit[0] + fit[1], 0, 1)
    return trait_scores(targets[rows], said)["ccc"] or 0.0


def _fit_emotion(
    kind: str, train: tuple[Array, Array], val: tuple[Array, Array], corpus_of: Array
) -> tuple[dict[str, Array], dict[str, Any]]:
    """Logistic regression: multinomial for softmax, one against the rest for sigmoid."""
    fit_path = _softmax_path if kind == "softmax" else _sigmoid_path
    shift, path = fit_path(*train)

    def decided(fit: tuple[Array, Array]) -> Array:
        return _probabilities(kind, val[0] @ fit[0] + fit[1])

    def score(probabilities: Array, rows: Array) -> float:
        targets, said = val[1][rows], probabilities[rows]
        if kind == "softmax":
            return single_label_scores(targets, said)["uar"] or 0.0
        return multi_label_scores(targets, said, best_thresholds(targets, said))["mwacc"] or 0.0

    scores = [_mean_over(corpus_of, partial(score, decided(fit))) for fit in path]
    weight, bias = path[_best(scores)]
    found = {"weight": weight, "bias": bias - shift, "shift": shift}
    if kind == "sigmoid" and len(val[0]):
        found["thresholds"] = best_thresholds(val[1], decided((weight, bias)))
    name = "uar" if kind == "softmax" else "mwacc"
    return {key: value.astype(np.float32) for key, value in found.items()}, _choice(
        scores, name, len(train[0])
    )


def _softmax_path(inputs: Array, targets: Array) -> tuple[Array, list[tuple[Array, Array]]]:
    """`[7]` shift, and per penalty `[D, 7]` weights and `[7]` biases of the weighted logits."""
    classes, label = np.unique(targets.argmax(axis=1), return_inverse=True)
    shift = np.zeros(7)
    shift[classes] = np.log(len(label) / (len(classes) * np.bincount(label)))
    path = []
    for weights, biases in _logistic_path(inputs, label):
        weight, bias = np.zeros((inputs.shape[1], 7)), np.full(7, -CERTAIN)
        if len(classes) > 2:
            weight[:, classes], bias[classes] = weights.T, biases
        elif len(classes) == 2:  # one vector, for the second class against the first
            weight[:, classes] = np.stack([-weights[0], weights[0]], axis=1) / 2
            bias[classes] = np.array([-biases[0], biases[0]]) / 2
        else:
            bias[classes] = CERTAIN
        path.append((weight, bias))
    return shift, path


def _sigmoid_path(inputs: Array, targets: Array) -> tuple[Array, list[tuple[Array, Array]]]:
    shift = np.zeros(7)
    path = [(np.zeros((inputs.shape[1], 7)), np.zeros(7)) for _ in PENALTIES]
    for index in range(7):
        label = (targets[:, index] > 0.5).astype(np.int64)
        share = label.mean()
        if share in (0, 1):
            for _, bias in path:
                bias[index] = CERTAIN * (2 * share - 1)
            continue
        shift[index] = np.log((1 - share) / share)
        fits = _logistic_path(inputs, label)
        for (weight, bias), (weights, biases) in zip(path, fits, strict=True):
            weight[:, index], bias[index] = weights[0], biases[0]
    return shift, path


def _logistic_path(inputs: Array, label: Array) -> list[tuple[Array, Array]]:
    """Coefficients and intercepts per penalty, each fit starting from the stronger one."""
    import warnings

    from sklearn.exceptions import ConvergenceWarning
    from sklearn.linear_model import LogisticRegression

    if len(np.unique(label)) < 2:
        return [(np.zeros((1, inputs.shape[1])), np.zeros(1)) for _ in PENALTIES]
    model = LogisticRegression(
        class_weight="balanced", warm_start=True, tol=1e-3, max_iter=ITERATIONS
    )
    path = []
    with warnings.catch_warnings():
        # A weak penalty on separable classes has its optimum far away: stopping on the way there
        # is one more way of holding back, and validation judges it.
        warnings.simplefilter("ignore", ConvergenceWarning)
        for penalty in PENALTIES:
            model.set_params(C=1 / (penalty * len(label))).fit(inputs, label)
            path.append((model.coef_.copy(), model.intercept_.copy()))
    return path


def _probabilities(kind: str, logits: Array) -> Array:
    if kind == "sigmoid":
        return 1 / (1 + np.exp(-np.clip(logits, -60, 60)))
    odds = np.exp(logits - logits.max(axis=1, keepdims=True))
    return odds / odds.sum(axis=1, keepdims=True)


def _moments(joined: Joined, rows: Array) -> tuple[Array, Array]:
    """Mean and 1 / deviation of all features side by side, over the rows that have them."""
    means, scales = [], []
    for index, name in enumerate(joined.modalities):
        values = joined.features[name][rows[joined.present[rows, index]]]
        known = ~np.isnan(values)
        count = np.maximum(known.sum(axis=0), 1)
        mean = np.where(known, values, 0).sum(axis=0, dtype=np.float64) / count
        square = np.where(known, values - mean, 0).astype(np.float64) ** 2
        deviation = np.sqrt(square.sum(axis=0) / count)
        means.append(mean)
        scales.append(np.where(deviation > 1e-6, 1 / np.maximum(deviation, 1e-6), 0))
    return np.concatenate(means).astype(np.float32), np.concatenate(scales).astype(np.float32)


def _of_kind(joined: Joined, rows: Array, name: str) -> Array:
    """`[n]` bool: which rows the coefficients of this name are for."""
    multi_label = joined.multi_label[rows]
    return {"softmax": ~multi_label, "sigmoid": multi_label}.get(name, multi_label | True)


def _mean_over(corpus_of: Array, score: Callable[[Array], float]) -> float:
    """Mean over corpora of a score of their rows; NaN without any."""
    found = [score(np.flatnonzero(corpus_of == number)) for number in np.unique(corpus_of)]
    return float(np.mean(found)) if found else float("nan")


def _best(scores: list[float]) -> int:
    """The best, the stronger penalty among equals; the middle one without validation rows."""
    return len(scores) // 2 if np.isnan(scores).any() else int(np.argmax(scores))


def _choice(scores: list[float], name: str, rows: int) -> dict[str, Any]:
    return {
        "rows": rows,
        "penalty": PENALTIES[_best(scores)],
        "score": name,
        "validation": [None if np.isnan(score) else round(score, 6) for score in scores],
    }
