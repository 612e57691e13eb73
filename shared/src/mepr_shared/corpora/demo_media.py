"""Media files of the demo corpus: short MP4 clips of a person who speaks.

The samples and the pictures are frozen like the rest of the generator. The bytes of the files are
not: they are what the encoders of the installed PyAV make of them (AAC at 64 kbit/s, MPEG-4).

Everything here is drawn from random streams of its own, per speaker and per clip, for the voice and
for each part of the picture: the texts and labels of a corpus do not depend on its media, nor a
clip on how many others have media, nor what is heard on what is seen.
"""

from __future__ import annotations

import os
import re
import shutil
from collections.abc import Callable, Iterable, Iterator, Sequence
from fractions import Fraction
from pathlib import Path
from typing import Any, Self

import numpy as np

from mepr_shared.corpora.demo_photo import require_photographs
from mepr_shared.corpora.demo_picture import HEIGHT, PICTURES_PER_S, WIDTH, Chances, Looks, pictures
from mepr_shared.corpora.demo_plan import Content, DemoPlan, random_state
from mepr_shared.corpora.demo_speech import Speaker, speak
from mepr_shared.corpora.demo_voice import RATE
from mepr_shared.errors import DataError, MissingDependency, require

FOLDER = "media"
_AUDIO_BITS_PER_S = 64_000
_VIDEO_BITS_PER_S = 190_000

# What the random streams are for; the first number keeps them apart from those of the text.
_STREAM = 0x6D656469
_CHOICE, _SPEAKER, _VOICE, _PICTURE, _LOOKS = range(5)


def media_rows(plan: DemoPlan) -> np.ndarray:
    """Rows of the clips that have a file, ascending; more of them include the fewer."""
    order = random_state([_STREAM, plan.seed, _CHOICE]).permutation(plan.clips)
    return np.sort(order[: plan.media_clips])


def clip_samples(plan: DemoPlan, content: Content, row: int) -> np.ndarray:
    """What is heard in a clip: float32 `[n]` at `RATE`, before encoding."""
    source = int(content.sources[row])
    speaker = Speaker.draw(random_state([_STREAM, plan.seed, _SPEAKER, source]))
    random = random_state([_STREAM, plan.seed, _VOICE, row])
    return speak(content.told[row], content.levels[row], speaker, random)


def clip_pictures(plan: DemoPlan, content: Content, row: int, count: int) -> Iterator[np.ndarray]:
    """What is seen in a clip: `count` pictures uint8 `[HEIGHT, WIDTH, 3]`, before encoding."""
    source = int(content.sources[row])
    looks = Looks.draw(random_state([_STREAM, plan.seed, _LOOKS, source]))
    parts = [random_state([_STREAM, plan.seed, _PICTURE, row, part]) for part in range(3)]
    return pictures(content.told[row], content.levels[row], looks, Chances(*parts), count)


def write_media(
    folder: Path,
    plan: DemoPlan,
    content: Content,
    sample_ids: Sequence[str],
    on_progress: Callable[[int, int], None] | None = None,
) -> None:
    """Write the files of `media_rows`.

    Args:
        folder: where to; it exists.
        plan, content, sample_ids: of all clips of the corpus.
        on_progress: called with (files done, files).
    """
    rows = media_rows(plan).tolist()
    for done, row in enumerate(rows, start=1):
        samples = clip_samples(plan, content, row)
        seen = clip_pictures(plan, content, row, round(len(samples) / RATE * PICTURES_PER_S))
        write_mp4(folder / file_name(sample_ids[row]), samples, seen)
        if on_progress:
            on_progress(done, len(rows))


def file_name(sample_id: str) -> str:
    """The name of a clip's file in the media folder."""
    return f"{sample_id}.mp4"


def write_mp4(path: Path, samples: np.ndarray, pictures: Iterable[np.ndarray]) -> None:
    """An MP4 file of AAC sound and H.264 pictures: what browsers show.

    Args:
        path: the file.
        samples: float32 `[n]` at `RATE`, in [-1, 1].
        pictures: uint8 `[HEIGHT, WIDTH, 3]`, `PICTURES_PER_S` of them for each second.

    Raises:
        MissingDependency: PyAV is not installed.
        OSError: the file cannot be written.
    """
    av = require_av()
    with av.open(str(path), "w", format="mp4") as container:
        video = container.add_stream("libx264", rate=PICTURES_PER_S, options={"preset": "veryfast"})
        video.width, video.height, video.pix_fmt = WIDTH, HEIGHT, "yuv420p"
        video.bit_rate = _VIDEO_BITS_PER_S
        # With several threads the bytes would depend on the machine.
        video.thread_count = 1
        audio = container.add_stream("aac", rate=RATE, layout="mono")
        audio.bit_rate = _AUDIO_BITS_PER_S
        for picture in pictures:
            container.mux(video.encode(av.VideoFrame.from_ndarray(picture, format="rgb24")))
        container.mux(video.encode(None))
        sound = av.AudioFrame.from_ndarray(samples[None], format="fltp", layout="mono")
        sound.sample_rate, sound.pts, sound.time_base = RATE, 0, Fraction(1, RATE)
        container.mux(audio.encode(sound))
        container.mux(audio.encode(None))


def require_media() -> None:
    """Ask for what writing media takes, before any work is done.

    Raises:
        MissingDependency: with the pip command, and how to do without.
    """
    require_av()
    require_photographs()


def require_av() -> Any:
    """PyAV.

    Raises:
        MissingDependency: with the pip command, and how to do without.
    """
    try:
        return require("av", extra="mepr-shared[media]")
    except MissingDependency as error:
        raise MissingDependency(
            error.message, hint=f"{error.hint}; --media-clips 0 makes the text corpora alone"
        ) from error


class replacing_media:
    """A temporary neighbour of a media folder that takes its place on `commit`.

    Attributes:
        path: write here.

    Raises:
        DataError: the folder exists and `overwrite` is not set, or it holds anything else than
            the files of a demo corpus.
    """

    def __init__(self, target: Path, corpus_name: str, *, overwrite: bool) -> None:
        if os.path.lexists(target) and not overwrite:
            raise DataError(f"{target} exists", hint="give another folder, or overwrite it")
        if os.path.lexists(target) and not _is_demo_media(target, corpus_name):
            raise DataError(
                f"{target} is not the media folder of a demo corpus, so it is not replaced",
                hint="give another folder",
            )
        self.target = target
        self.path = target.with_name(f".{target.name}.{os.getpid()}.tmp")
        self._old = target.with_name(f".{target.name}.{os.getpid()}.old")

    def __enter__(self) -> Self:
        self.path.mkdir(parents=True)
        return self

    def commit(self) -> None:
        """Put the finished folder in place; where that fails, the old one stays."""
        replaces = self.target.exists()
        if replaces:
            os.rename(self.target, self._old)
        try:
            os.rename(self.path, self.target)
        except OSError:
            if replaces:
                os.rename(self._old, self.target)
            raise
        shutil.rmtree(self._old, ignore_errors=True)

    def __exit__(self, *error: object) -> None:
        shutil.rmtree(self.path, ignore_errors=True)


def _is_demo_media(folder: Path, corpus_name: str) -> bool:
    if folder.is_symlink() or not folder.is_dir():
        return False
    ours = re.compile(re.escape(corpus_name) + r"_\d{6}\.mp4")
    return all(ours.fullmatch(path.name) and path.is_file() for path in folder.iterdir())
