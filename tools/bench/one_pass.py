"""Face, body and scene of whole videos: one pass, three runs, and the straightforward pipeline.

    python tools/bench.py one_pass

The straightforward pipeline does what the published code does, with the same weights: every frame
to RGB, faces by facenet-pytorch's MTCNN at its defaults, picture by picture, and one forward pass
of EfficientNet-Lite0 per crop. Videos are the demo corpus' person, 1280 x 720.
"""

from __future__ import annotations

import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from mepr_shared import config
from mepr_shared.plugin import ClipInput, Work, get_modality
from mepr_shared.testing.pictures import person

VIDEOS, SECONDS, RATE, ROUNDS = 2, 4, 25, 3
WIDTH, HEIGHT = 1280, 720
NAMES = ("face", "body", "scene")


def run() -> list[dict[str, Any]]:
    """Rows `name, value, unit, reference, ratio`."""
    with tempfile.TemporaryDirectory() as folder:
        clips = [ClipInput(str(n), media=_video(Path(folder), n)) for n in range(VIDEOS)]
        extractors = {name: _open(name) for name in NAMES}
        ways: dict[str, Callable[[], None]] = {
            "one pass": lambda: _together(extractors, clips),
            "three runs": lambda: _one_by_one(extractors, clips),
            "straightforward": lambda: _plain(extractors, clips),
        }
        ways["one pass"]()
        # Side by side, so that a busy machine slows all of them.
        taken: dict[str, list[float]] = {name: [] for name in ways}
        for _ in range(ROUNDS):
            for name, way in ways.items():
                started = time.perf_counter()
                way()
                taken[name].append((time.perf_counter() - started) / len(clips))
    seconds = {name: float(np.median(values)) for name, values in taken.items()}
    ours = seconds["one pass"]
    return [
        {
            "name": f"{SECONDS} s of video, face + body + scene: one pass / {name}",
            "value": ours,
            "unit": "s/video",
            "reference": seconds[name],
            "ratio": seconds[name] / ours,
        }
        for name in ("three runs", "straightforward")
    ]


def _open(name: str) -> Any:
    modality = get_modality(name)
    table = config.read_toml(modality.profiles["small"])["encoder"]
    settings: Any = config.build(modality.encoder_settings, table)
    return modality.open_extractor(settings, device="cpu")


def _together(extractors: dict[str, Any], clips: list[ClipInput]) -> None:
    one_pass = extractors["face"].one_pass(extractors)
    for _ in one_pass.run(Work(clip, NAMES) for clip in clips):
        pass
    assert one_pass.decoded == len(clips)


def _one_by_one(extractors: dict[str, Any], clips: list[ClipInput]) -> None:
    for extractor in extractors.values():
        extractor.extract(clips)


def _plain(extractors: dict[str, Any], clips: list[ClipInput]) -> None:
    """Every frame to RGB, the library's detector and one forward pass per picture."""
    import av
    import facenet_pytorch
    from PIL import Image

    detector = facenet_pytorch.MTCNN(keep_all=True)
    for clip in clips:
        with av.open(str(clip.media)) as container:
            every = [frame.to_ndarray(format="rgb24") for frame in container.decode(video=0)]
        chosen = [every[i] for i in np.linspace(0, len(every) - 1, 30).round().astype(int)]
        for image in chosen:
            boxes, _ = detector.detect(Image.fromarray(image))
            face = boxes[0] if boxes is not None else (0, 0, 100, 100)
            left, top, right, bottom = (float(edge) for edge in face)
            wide = (2 * left - right, top, 2 * right - left, float(HEIGHT))
            whole = (0.0, 0.0, float(WIDTH), float(HEIGHT))
            regions = {"face": (left, top, right, bottom), "body": wide, "scene": whole}
            for name, extractor in extractors.items():
                size = extractor.encoder.size
                box = tuple(np.clip(regions[name], 0, [WIDTH, HEIGHT] * 2))
                picture = Image.fromarray(image).crop(box).resize((size, size), 3)
                extractor.encoder.encode(np.asarray(picture)[None], [extractor.readout])


def _video(folder: Path, seed: int) -> Path:
    import av
    from PIL import Image

    path = folder / f"{seed}.mp4"
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=RATE)
        stream.width, stream.height, stream.pix_fmt = WIDTH, HEIGHT, "yuv420p"
        for picture in person(SECONDS * 8, seed):
            large = np.asarray(Image.fromarray(picture).resize((WIDTH, HEIGHT)))
            for _ in range(RATE // 8):
                frame = av.VideoFrame.from_ndarray(large, format="rgb24")
                container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    return path
