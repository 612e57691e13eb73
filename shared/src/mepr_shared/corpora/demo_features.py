"""Five modalities as tables of embeddings and predictions, without any media (frozen, version 1).

Linear-Gaussian, so that the posterior is closed-form. A clip has latent variables
`z ~ N(0, I_11)`: one axis for each of six emotions, one for each trait. With relations, every
trait also leans on the happiness axis (up) and on the sadness axis (down).

* emotion c is present where `z_c + N(0, 0.5^2)` exceeds a threshold (several may be);
* trait k = 0.5 + 0.12 t_k + N(0, 0.05^2) with `t_k` its axis (and leanings), unit variance;
* modality m shows `x = B_m z + N(0, s_m^2)` in two parts, an emotion and a trait embedding. `B_m`
  is fixed and blind to some axes, so that modalities complement each other;
* its predictions are the best from that modality alone, plus noise: they add nothing to the
  embeddings, and the oracle need not look at them.

Each modality is missing in a quarter of the clips (never all). In training half of the labels of
either task are missing; validation and test are fully labelled.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from statistics import NormalDist

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from mepr_shared.corpora.columns import label_array, label_matrix
from mepr_shared.corpora.demo_plan import (
    GENERATOR_VERSION,
    DemoPlan,
    Expected,
    random_state,
    source_layout,
)
from mepr_shared.corpora.files import replacing
from mepr_shared.corpora.index import Corpus, CorpusMeta
from mepr_shared.errors import DataError
from mepr_shared.labels import EMOTIONS, TRAITS, EmotionScale

NAME = "demo_features"
WIDTH = 16  # of each embedding
# Modality -> status of an absent clip, noise, and the latent axes it is blind to.
MODALITIES = {
    "audio": ("no_audio", 1.6, (2, 6, 7)),
    "text": ("no_text", 1.4, (1, 5, 8)),
    "face": ("no_face", 1.3, (3, 7, 10)),
    "body": ("no_person", 2.2, (0, 4, 6, 9)),
    "scene": ("no_video", 2.6, (2, 3, 5, 8)),
}
AXES = len(EMOTIONS) - 1 + len(TRAITS)
HAPPY_AXIS, SAD_AXIS = EMOTIONS.index("happiness") - 1, EMOTIONS.index("sadness") - 1
PREVALENCE = (0.25, 0.2, 0.15, 0.5, 0.3, 0.15)
LEANING = 0.35
EMOTION_NOISE, TRAIT_EFFECT, TRAIT_NOISE = 0.5, 0.12, 0.05
PREDICTION_NOISE = 0.3
MISSING_MODALITY, MISSING_LABEL = 0.25, 0.5


@dataclass(frozen=True)
class _Posterior:
    """Gaussian knowledge of z: `mean [N, 11]`, `covariance [N, 11, 11]`."""

    mean: np.ndarray
    covariance: np.ndarray


def make_demo_features(
    out_dir: str | Path,
    *,
    clips: int = 2000,
    seed: int = 0,
    relations: bool = True,
    shuffle_labels: bool = False,
    overwrite: bool = False,
) -> dict[str, Path]:
    """Write the index `demo_features.parquet` and one table per modality, `<modality>.parquet`.

    The tables have the columns that `mepr export create` takes: `sample_id, status,
    emotion_logits, trait_scores, emotion_embedding, trait_embedding`; one row per clip.

    Args:
        out_dir: gets the files.
        clips, seed: how many, and of everything.
        relations: let the traits lean on the axes of happiness and sadness.
        shuffle_labels: labels from other clips: nothing can be learned.
        overwrite: replace what is there.

    Returns:
        `corpus` and each modality -> path.

    Raises:
        DataError: too few clips, or a file exists.
    """
    folder = Path(out_dir)
    plan = DemoPlan("features", clips, seed, relations, shuffle_labels, "multi_label")
    paths = {name: folder / f"{name}.parquet" for name in MODALITIES}
    index = folder / f"{NAME}.parquet"
    taken = [path for path in (index, *paths.values()) if path.exists()]
    if taken and not overwrite:
        raise DataError(f"{taken[0]} exists", hint="give another folder, or overwrite it")
    random = random_state(seed)
    sources, splits = source_layout(clips, random)
    latent = _latent(sources, random)
    emotion, traits = _labels(latent, plan, random)
    if shuffle_labels:
        emotion, traits = emotion[random.permutation(clips)], traits[random.permutation(clips)]
    training = splits == "train"
    for labels in (emotion, traits):
        labels[training & (random.random_sample(clips) < MISSING_LABEL)] = np.nan
    ids = [f"{NAME}_{row:06d}" for row in range(clips)]
    absent = random.random_sample((clips, len(MODALITIES))) < MISSING_MODALITY
    absent[absent.all(axis=1), random.randint(len(MODALITIES))] = False
    folder.mkdir(parents=True, exist_ok=True)
    for number, (modality, path) in enumerate(paths.items()):
        table = _modality_table(modality, ids, latent, absent[:, number], plan, random)
        with replacing(path) as staged:
            pq.write_table(table, staged.path, compression="zstd")
            staged.commit()
    meta = CorpusMeta(
        NAME,
        EmotionScale("multi_label"),
        version=f"generator {GENERATOR_VERSION}",
        licence="MIT (synthetic)",
        import_report=plan.to_report(),
    )
    columns = {
        "sample_id": ids,
        "split": splits.tolist(),
        "source_id": [f"{NAME}_speaker_{source:05d}" for source in sources],
        "emotion": emotion.astype(np.float32),
        "traits": traits.astype(np.float32),
    }
    Corpus.build(meta, columns).write(index, overwrite=overwrite)
    return {"corpus": index, **paths}


def feature_oracle(corpus: Corpus, tables: Mapping[str, str | Path]) -> Expected:
    """The expected labels of every clip given the embeddings of all its modalities.

    The six emotions and the traits are exact; `neutral` (none of the six) is the product of the
    six complements, as if they were independent given the embeddings.

    Args:
        corpus: made by `make_demo_features`.
        tables: modality -> its table; fewer than five give the oracle for those.

    Raises:
        DataError: not such a corpus, or a table without its clips.
    """
    plan = DemoPlan.from_report(corpus.meta.import_report, corpus.name)
    if plan.part != "features":
        raise DataError(f"corpus {corpus.name!r} has no feature tables")
    observed = {}
    for modality, path in tables.items():
        table = pq.read_table(path)
        row_of = {sample_id: row for row, sample_id in enumerate(table["sample_id"].to_pylist())}
        missing = [sample_id for sample_id in corpus.sample_ids if sample_id not in row_of]
        if missing:
            raise DataError(f"{path} has no row for {missing[0]}")
        rows = [row_of[sample_id] for sample_id in corpus.sample_ids]
        names = ("emotion_embedding", "trait_embedding")
        parts = [label_matrix(table[name], WIDTH)[rows] for name in names]
        observed[modality] = np.hstack(parts).astype(np.float64)
    if plan.shuffle_labels:
        observed = {modality: np.full_like(x, np.nan) for modality, x in observed.items()}
    return _expected(_posterior(observed, len(corpus)), plan)


def _latent(sources: np.ndarray, random: np.random.RandomState) -> np.ndarray:
    """`[N, 11]`, unit variance, half of it the speaker's own."""
    speakers = random.standard_normal((sources.max() + 1, AXES))
    return np.sqrt(0.5) * (speakers[sources] + random.standard_normal((len(sources), AXES)))


def _trait_directions(relations: bool) -> np.ndarray:
    """`[5, 11]` unit vectors: trait k is its direction times z."""
    lean = LEANING if relations else 0.0
    directions = np.zeros((len(TRAITS), AXES))
    directions[:, len(EMOTIONS) - 1 :] = np.sqrt(1 - 2 * lean**2) * np.eye(len(TRAITS))
    directions[:, HAPPY_AXIS], directions[:, SAD_AXIS] = lean, -lean
    return directions


def _labels(
    latent: np.ndarray, plan: DemoPlan, random: np.random.RandomState
) -> tuple[np.ndarray, np.ndarray]:
    six = latent[:, : len(EMOTIONS) - 1]
    shown = six + EMOTION_NOISE * random.standard_normal(six.shape)
    present = (shown > _thresholds()).astype(float)
    emotion = np.hstack([present.sum(axis=1, keepdims=True) == 0, present])
    traits = latent @ _trait_directions(plan.relations).T
    noise = TRAIT_NOISE * random.standard_normal(traits.shape)
    return emotion, np.clip(0.5 + TRAIT_EFFECT * traits + noise, 0, 1)


def _thresholds() -> np.ndarray:
    quantiles = [NormalDist().inv_cdf(1 - share) for share in PREVALENCE]
    return np.array(quantiles) * np.sqrt(1 + EMOTION_NOISE**2)


def _mixing(modality: str) -> np.ndarray:
    """`[2 * WIDTH, 11]`: fixed, whatever the seed, so that models carry over between corpora."""
    number = list(MODALITIES).index(modality)
    mixing = random_state(1000 + number).standard_normal((2 * WIDTH, AXES)) / np.sqrt(AXES)
    mixing[:, list(MODALITIES[modality][2])] = 0
    return mixing


def _posterior(observed: Mapping[str, np.ndarray], rows: int) -> _Posterior:
    """Knowledge of z from `x_m [N, 2 * WIDTH]`; a row of NaN was not observed."""
    precision = np.tile(np.eye(AXES), (rows, 1, 1))
    weighted = np.zeros((rows, AXES))
    for modality, x in observed.items():
        mixing, noise = _mixing(modality), MODALITIES[modality][1]
        seen = ~np.isnan(x).any(axis=1)
        precision[seen] += mixing.T @ mixing / noise**2
        weighted[seen] += x[seen] @ mixing / noise**2
    covariance = np.linalg.inv(precision)
    return _Posterior(np.einsum("nij,nj->ni", covariance, weighted), covariance)


def _expected(posterior: _Posterior, plan: DemoPlan) -> Expected:
    count = len(EMOTIONS) - 1
    variance = np.diagonal(posterior.covariance, axis1=1, axis2=2)[:, :count]
    distance = posterior.mean[:, :count] - _thresholds()
    spread = np.sqrt(2 * (variance + EMOTION_NOISE**2))
    six = 0.5 + 0.5 * np.vectorize(math.erf)(distance / spread)
    neutral = (1 - six).prod(axis=1, keepdims=True)
    traits = posterior.mean @ _trait_directions(plan.relations).T
    return Expected(np.hstack([neutral, six]), 0.5 + TRAIT_EFFECT * traits)


def _modality_table(
    modality: str,
    ids: list[str],
    latent: np.ndarray,
    absent: np.ndarray,
    plan: DemoPlan,
    random: np.random.RandomState,
) -> pa.Table:
    status, noise, _ = MODALITIES[modality]
    x = latent @ _mixing(modality).T + noise * random.standard_normal((len(ids), 2 * WIDTH))
    # What is stored is what the oracle sees.
    x = x.astype(np.float32).astype(np.float64)
    alone = _expected(_posterior({modality: x}, len(ids)), plan)
    probability = np.clip(alone.emotion_probability, 1e-4, 1 - 1e-4)
    logits = np.log(probability / (1 - probability))
    logits += PREDICTION_NOISE * random.standard_normal(logits.shape)
    error = TRAIT_EFFECT * PREDICTION_NOISE * random.standard_normal(alone.trait_mean.shape)
    columns = {
        "emotion_logits": logits,
        "trait_scores": np.clip(alone.trait_mean + error, 0, 1),
        "emotion_embedding": x[:, :WIDTH],
        "trait_embedding": x[:, WIDTH:],
    }
    for values in columns.values():
        values[absent] = np.nan
    return pa.table(
        {
            "sample_id": pa.array(ids, pa.string()),
            "status": pa.array(np.where(absent, status, "ok").tolist(), pa.string()),
            **{name: label_array(values) for name, values in columns.items()},
        }
    )
