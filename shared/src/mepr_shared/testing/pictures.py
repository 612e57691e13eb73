"""Pictures and videos of a person, for tests of modalities that look. Needs `mepr-shared[demo]`.

The person is that of the demo corpus (`corpora.demo_picture`), made when the tests run.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
from PIL import Image

from mepr_shared.corpora.demo_media import write_mp4
from mepr_shared.corpora.demo_picture import PICTURES_PER_S, Chances, Looks, pictures
from mepr_shared.corpora.demo_voice import RATE
from mepr_shared.corpora.index import Corpus, CorpusMeta
from mepr_shared.labels import EMOTIONS
from mepr_shared.plugin import ClipInput

SPLITS = ("train", "train", "train", "train", "val", "val", "test")


def person(count: int, seed: int = 0) -> Iterator[np.ndarray]:
    """`count` pictures uint8 `[H, W, 3]` of one person, who feels something else for every seed."""
    random = np.random.RandomState(seed)
    told = np.eye(len(EMOTIONS))[seed % len(EMOTIONS)]
    chances = Chances(*(np.random.RandomState([seed, part]) for part in range(3)))
    return pictures(told, random.randint(-2, 3, size=5), Looks.draw(random), chances, count)


def person_video(path: Path, seconds: float, seed: int = 0) -> Path:
    """An MP4 of a person, with silent sound."""
    count = max(1, round(seconds * PICTURES_PER_S))
    write_mp4(path, np.zeros(round(seconds * RATE), np.float32), person(count, seed))
    return path


def person_clips(folder: Path) -> list[ClipInput]:
    """Two videos of different length and a picture, a person in each."""
    Image.fromarray(next(person(1, seed=3))).save(folder / "picture.png")
    return [
        ClipInput("short", media=person_video(folder / "short.mp4", 0.5, seed=1)),
        ClipInput("long", media=person_video(folder / "long.mp4", 1.5, seed=2)),
        ClipInput("picture", media=folder / "picture.png"),
    ]


def unreadable_clips(folder: Path) -> list[tuple[ClipInput, str]]:
    """Clips without anything to look at, and the status of each."""
    (folder / "text.mp4").write_text("words, not pictures")
    return [
        (ClipInput("none"), "no_media"),
        (ClipInput("gone", media=folder / "gone.mp4"), "no_media"),
        (ClipInput("text", media=folder / "text.mp4"), "decode_error"),
    ]


def empty_clips(folder: Path, status: str) -> list[tuple[ClipInput, str]]:
    """Pictures that show nobody, and the status they are to get."""
    Image.fromarray(np.full((90, 120, 3), 128, np.uint8)).save(folder / "grey.png")
    Image.fromarray(np.zeros((1, 1, 3), np.uint8)).save(folder / "pixel.png")
    names = ("grey", "pixel")
    return [(ClipInput(name, media=folder / f"{name}.png"), status) for name in names]


def picture_corpora(folder: Path, clips: int = 42) -> tuple[Path, Path]:
    """An emotion corpus and a traits corpus of PNG pictures, one-frame clips of a few people."""
    paths = []
    for number, task in enumerate(("emotion", "traits")):
        names = [f"{task}-{index:03d}" for index in range(clips)]
        files = [folder / f"{name}.png" for name in names]
        for index, file in enumerate(files):
            Image.fromarray(next(person(1, seed=1000 * number + index))).save(file)
        traits = np.random.RandomState(number).uniform(0.2, 0.8, (clips, 5))
        columns = {
            "sample_id": names,
            # Three pictures of each person.
            "source_id": [f"{task}-person-{index // 3}" for index in range(clips)],
            "split": [SPLITS[index // 3 % len(SPLITS)] for index in range(clips)],
            "media": [str(file) for file in files],
        }
        feelings = np.eye(len(EMOTIONS), dtype=np.float32)[np.arange(clips) % len(EMOTIONS)]
        labels = list(feelings) if task == "emotion" else list(traits.astype(np.float32))
        corpus = Corpus.build(CorpusMeta(f"people_{task}"), {**columns, task: labels})
        paths.append(folder / f"people_{task}.parquet")
        corpus.write(paths[-1])
    return paths[0], paths[1]
