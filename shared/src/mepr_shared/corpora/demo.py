"""The demo corpus: seeded text with planted relations and a computable best possible answer.

**The generator is frozen** (`GENERATOR_VERSION`): the same arguments give the same corpus for good,
since tests and figures compare with it. A change makes a new version.

A clip is a short English monologue by one of several speakers (its source). Its *content* is the
emotions it tells of and five trait levels -2 .. 2; each of them is said in sentences of its own
(`demo_text`), so the text determines the content. Labels follow from the content with known noise:

* single label: the emotion told of with probability 0.9, else any other; several labels: each
  emotion told of is labelled with probability 0.9, each other one with 0.03;
* trait = 0.5 + 0.08 level + 0.06 (happiness told of - sadness told of) + symmetric noise.

Planted relations: that 0.06 term, and speakers of higher levels tell more often of happiness and
less often of sadness. `relations=False` plants neither, `shuffle_labels=True` cuts every tie
between content and labels. `oracle` gives the expected label given the content.

Some clips of `demo_both` can have media too (`demo_media`): a voice whose prosody carries the
emotions fully and the trait levels in part (`demo_speech`), and pictures of a person whose face,
body and background each carry both in part (`demo_picture`). Media are drawn apart from texts, so
that a clip can have both, either or neither, and the texts and labels are the same without them.

The features of `make_demo_features` (five modalities without media) are in `demo_features`.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from mepr_shared.corpora import demo_media, demo_text
from mepr_shared.corpora.demo_features import feature_oracle, make_demo_features
from mepr_shared.corpora.demo_plan import (
    GENERATOR_VERSION,
    Content,
    DemoPlan,
    Expected,
    random_state,
    source_layout,
)
from mepr_shared.corpora.index import Corpus, CorpusMeta
from mepr_shared.errors import DataError
from mepr_shared.labels import EMOTIONS, TRAITS, EmotionScale

__all__ = [
    "GENERATOR_VERSION",
    "feature_oracle",
    "make_demo",
    "make_demo_features",
    "oracle",
    "usual_media",
]

CLIPS, MEDIA_CLIPS = 600, 48
NAMES = {"emotion": "demo_emotion", "traits": "demo_traits", "both": "demo_both"}
HAPPINESS, SADNESS = EMOTIONS.index("happiness"), EMOTIONS.index("sadness")
EMOTION_SHARE = (0.28, 0.12, 0.12, 0.12, 0.12, 0.12, 0.12)
TELLS_TWO = 0.35  # of the clips with an emotion, where several may be told of
KEPT, FALSE_ALARM = 0.9, 0.03
LEVEL_EFFECT, EMOTION_EFFECT, TRAIT_NOISE = 0.08, 0.06, 0.15
TIE = 0.6  # of mean level to the odds of telling of happiness or sadness
WITHOUT_TEXT, WITHOUT_LABEL, PARTLY_LABELLED = 0.03, 0.2, 0.03


@dataclass(frozen=True)
class _Clips:
    """What clips tell, and the columns of the index that came of it."""

    content: Content
    columns: dict[str, Any]


def make_demo(
    out_dir: str | Path,
    *,
    clips: int = CLIPS,
    seed: int = 0,
    emotion_kind: str = "single_label",
    relations: bool = True,
    shuffle_labels: bool = False,
    media: int = 0,
    overwrite: bool = False,
    on_progress: Callable[[int, int], None] | None = None,
) -> dict[str, Path]:
    """Write `demo_emotion`, `demo_traits` (as in real life: one task each) and `demo_both`.

    Args:
        out_dir: gets the three indexes, and a folder `media` where there are any.
        clips: of each of the first two; `demo_both` has a third of it.
        seed: of everything.
        emotion_kind: `single_label` or `multi_label`.
        relations: plant the relations of emotion and traits.
        shuffle_labels: labels from other clips: nothing can be learned.
        media: how many clips of `demo_both` have a media file; 0 leaves `media` as it is.
        overwrite: replace what is there.
        on_progress: called with (media files done, media files).

    Returns:
        corpus name -> path of its index.

    Raises:
        DataError: too few clips for the splits or for the media, another emotion kind, or what
            is to be written exists.
        MissingDependency: media without PyAV or scikit-image.
    """
    if emotion_kind not in ("single_label", "multi_label"):
        raise DataError(f"the demo's emotions are single_label or multi_label, not {emotion_kind}")
    paths = {name: Path(out_dir) / f"{name}.parquet" for name in NAMES.values()}
    taken = [path for path in paths.values() if path.exists()]
    if taken and not overwrite:
        raise DataError(f"{taken[0]} exists", hint="give another folder, or overwrite it")
    options = (relations, shuffle_labels, emotion_kind)
    plans = [
        DemoPlan("emotion", clips, 3 * seed, *options),
        DemoPlan("traits", clips, 3 * seed + 1, *options),
        DemoPlan("both", clips // 3, 3 * seed + 2, *options, media_clips=media),
    ]
    folder = Path(out_dir).resolve() / demo_media.FOLDER
    if media:
        demo_media.require_media()
    drawn = [_draw(plan) for plan in plans]
    corpora = [_corpus(plan, one, folder) for plan, one in zip(plans, drawn, strict=True)]
    if media:
        ids = drawn[-1].columns["sample_id"]
        with demo_media.replacing_media(folder, NAMES["both"], overwrite=overwrite) as staged:
            demo_media.write_media(staged.path, plans[-1], drawn[-1].content, ids, on_progress)
            staged.commit()
    for corpus in corpora:
        corpus.write(paths[corpus.name], overwrite=overwrite)
    return paths


def usual_media(clips: int) -> int:
    """How many clips have media where nobody says: three fifths of `demo_both`, but not over 48.

    Args:
        clips: as in `make_demo`.
    """
    return min(MEDIA_CLIPS, 3 * (clips // 3) // 5)


def _corpus(plan: DemoPlan, clips: _Clips, folder: Path) -> Corpus:
    meta = CorpusMeta(
        NAMES[plan.part],
        EmotionScale(plan.emotion_kind),  # type: ignore[arg-type]
        version=f"generator {GENERATOR_VERSION}",
        licence="MIT (synthetic)",
        import_report=plan.to_report(),
    )
    ids = clips.columns["sample_id"]
    media: list[str | None] = [None] * plan.clips
    for row in demo_media.media_rows(plan):
        media[row] = str(folder / demo_media.file_name(ids[row]))
    return Corpus.build(meta, {**clips.columns, "media": media})


def oracle(corpus: Corpus) -> Expected:
    """The expected labels of every clip given its content: no model can do better on average.

    Emotions: the posterior probability of each label. Traits: the posterior mean (it minimises
    the squared error; the noise is symmetric, so it minimises the absolute error too). A text
    tells all of the content. A voice tells the emotions, but the trait levels only in part, and
    pictures tell both in part: for clips that have no text, the traits here are more than can be
    reached. A clip with neither
    gets the corpus mean.

    Args:
        corpus: made by `make_demo`, whole or in part (after a withdrawal, a new split).

    Raises:
        DataError: not a demo corpus of this generator version.
    """
    plan = DemoPlan.from_report(corpus.meta.import_report, corpus.name)
    clips = _draw(plan)
    probability, trait = _expected(clips.content.told, clips.content.levels, plan)
    silent = np.array([text is None for text in clips.columns["text"]])
    silent[demo_media.media_rows(plan)] = False
    silent |= plan.shuffle_labels
    probability[silent] = probability.mean(axis=0)
    trait[silent] = trait.mean(axis=0)
    row_of = {sample_id: row for row, sample_id in enumerate(clips.columns["sample_id"])}
    rows = [row_of[sample_id] for sample_id in corpus.sample_ids]
    return Expected(probability[rows], trait[rows])


def _expected(
    told: np.ndarray, levels: np.ndarray, plan: DemoPlan
) -> tuple[np.ndarray, np.ndarray]:
    if plan.emotion_kind == "single_label":
        probability = np.where(told > 0, KEPT, (1 - KEPT) / (len(EMOTIONS) - 1))
    else:
        probability = np.where(told > 0, KEPT, FALSE_ALARM)
        # Neutral is labelled exactly where none of the six is.
        probability[:, 0] = (1 - probability[:, 1:]).prod(axis=1)
    effect = EMOTION_EFFECT if plan.relations else 0.0
    tone = told[:, HAPPINESS] - told[:, SADNESS]
    return probability, 0.5 + LEVEL_EFFECT * levels + effect * tone[:, None]


def _draw(plan: DemoPlan) -> _Clips:
    random = random_state(plan.seed)
    sources, splits = source_layout(plan.clips, random)
    speaker_levels = random.randint(-2, 3, size=(sources.max() + 1, len(TRAITS)))
    steps = np.searchsorted([0.15, 0.85], random.random_sample((plan.clips, len(TRAITS)))) - 1
    levels = np.clip(speaker_levels[sources] + steps, -2, 2)
    told = _told(levels, plan, random)
    texts = _texts(told, levels, random)
    emotion, traits = _labels(told, levels, plan, random)
    if plan.shuffle_labels:
        emotion, traits = (
            emotion[random.permutation(plan.clips)],
            traits[random.permutation(plan.clips)],
        )
    _remove(texts, emotion, traits, plan, random)
    name = NAMES[plan.part]
    columns = {
        "sample_id": [f"{name}_{row:06d}" for row in range(plan.clips)],
        "split": splits.tolist(),
        "source_id": [f"{name}_speaker_{source:05d}" for source in sources],
        "speaker_id": [f"{name}_speaker_{source:05d}" for source in sources],
        "text": texts,
        "emotion": emotion.astype(np.float32),
        "traits": traits.astype(np.float32),
    }
    return _Clips(Content(sources, told, levels), columns)


def _told(levels: np.ndarray, plan: DemoPlan, random: np.random.RandomState) -> np.ndarray:
    share = np.tile(EMOTION_SHARE, (len(levels), 1))
    if plan.relations:
        mean = levels.mean(axis=1)
        share[:, HAPPINESS] *= np.exp(TIE * mean)
        share[:, SADNESS] *= np.exp(-TIE * mean)
    told = _one_of(share, random)
    if plan.emotion_kind == "multi_label":
        share = share * (1 - told)
        share[:, 0] = 0.0
        second = _one_of(share, random)
        two = (random.random_sample(len(levels)) < TELLS_TWO) & (told[:, 0] == 0)
        told = np.where(two[:, None], np.maximum(told, second), told)
    return told


def _one_of(share: np.ndarray, random: np.random.RandomState) -> np.ndarray:
    """One-hot `[N, K]` draws with the given shares (not normalised)."""
    edges = np.cumsum(share, axis=1)
    drawn = random.random_sample((len(share), 1)) * edges[:, -1:]
    return np.eye(share.shape[1])[(drawn >= edges).sum(axis=1)]


def _texts(told: np.ndarray, levels: np.ndarray, random: np.random.RandomState) -> list[str | None]:
    banks = demo_text.banks()
    texts: list[str | None] = []
    for emotions, row in zip(told, levels, strict=True):
        said = [(EMOTIONS[index], 0) for index in np.flatnonzero(emotions)] * 2
        said += [(trait, int(level)) for trait, level in zip(TRAITS, row, strict=True)]
        sentences = [banks[key][random.randint(len(banks[key]))] for key in said]
        texts.append(" ".join(sentences[position] for position in random.permutation(len(said))))
    return texts


def _labels(
    told: np.ndarray, levels: np.ndarray, plan: DemoPlan, random: np.random.RandomState
) -> tuple[np.ndarray, np.ndarray]:
    probability, expected = _expected(told, levels, plan)
    if plan.emotion_kind == "single_label":
        emotion = _one_of(probability, random)
    else:
        emotion = (random.random_sample(probability.shape) < probability).astype(float)
        emotion[:, 0] = emotion[:, 1:].sum(axis=1) == 0
    # The sum of two uniform draws: symmetric and bounded, so that no trait leaves [0, 1].
    noise = random.random_sample((2, *expected.shape)).sum(axis=0) - 1
    return emotion, expected + TRAIT_NOISE * noise


def _remove(
    texts: list[str | None],
    emotion: np.ndarray,
    traits: np.ndarray,
    plan: DemoPlan,
    random: np.random.RandomState,
) -> None:
    """Take away, in place, what real corpora lack: texts, a task's labels, single traits."""
    rows = len(texts)
    for row in np.flatnonzero(random.random_sample(rows) < WITHOUT_TEXT):
        texts[row] = None
    without = random.random_sample((2, rows)) < WITHOUT_LABEL
    emotion[without[0] if plan.part == "both" else np.full(rows, plan.part == "traits")] = np.nan
    traits[without[1] if plan.part == "both" else np.full(rows, plan.part == "emotion")] = np.nan
    partly = np.flatnonzero(random.random_sample(rows) < PARTLY_LABELLED)
    traits[partly, random.randint(len(TRAITS), size=len(partly))] = np.nan
