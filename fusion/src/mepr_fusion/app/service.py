"""What the app does, without its pages: one request in, prediction and explanation out."""

from __future__ import annotations

import contextvars
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from mepr_fusion.app.explanation import Explanation, explain
from mepr_fusion.app.sound import Envelope, envelope
from mepr_fusion.bundle.format import Bundle, open_bundle
from mepr_fusion.predict.media_input import Limits
from mepr_fusion.predict.parts import Progress
from mepr_fusion.predict.prediction import Prediction
from mepr_fusion.predict.predictor import Predictor
from mepr_fusion.settings import MODES
from mepr_shared.errors import ConfigError, DataError, did_you_mean
from mepr_shared.labels import EMOTIONS, TRAITS

# Longest side of the frames that key frames are cut from, in pixels.
PICTURES_PX = 640
APP_LIMITS = Limits(seconds=600.0, bytes=200_000_000)
Load = Callable[[Bundle, str], Predictor]


@dataclass(frozen=True)
class Options:
    """What a visitor may choose.

    Attributes:
        target: the emotion or trait that is explained; the one that stands out where None.
        modalities: which take part; all where None.
        frames: how many are looked at; as in training where None.
        text: the transcript; heard where None.
        device: where it runs; the service's own where None.
    """

    target: str | None = None
    modalities: tuple[str, ...] | None = None
    frames: int | None = None
    text: str | None = None
    device: str | None = None


@dataclass(frozen=True)
class AppResult:
    """The answer to one request; `sound` is None where there is none to draw."""

    prediction: Prediction
    explanation: Explanation
    sound: Envelope | None
    modalities: tuple[str, ...]


@dataclass
class Models:
    """Loaded predictors by bundle and device."""

    load: Load
    _held: dict[tuple[str, str], Predictor] = field(default_factory=dict)
    _turn: threading.Lock = field(default_factory=threading.Lock)

    def get(self, bundle: Bundle, device: str) -> Predictor:
        """The predictor, loaded when it is first asked for."""
        with self._turn:
            key = bundle.id, device
            if key not in self._held:
                self._held[key] = self.load(bundle, device)
            return self._held[key]


class AppService:
    """Answers requests one after the other, in the order in which they come.

    Args:
        bundle: the directory, or the opened bundle.
        device: where it runs unless a request says otherwise.
        devices: what a request may ask for.
        limits: what is refused.
        roots: folders that inputs may lie in; anywhere where None.
        samples: clips that the page offers.
        speech, language: see `Predictor.load`.
    """

    def __init__(
        self,
        bundle: Path | Bundle,
        *,
        device: str = "cpu",
        devices: Sequence[str] = (),
        limits: Limits = APP_LIMITS,
        roots: Sequence[Path] | None = None,
        samples: Sequence[Path] = (),
        speech: str = "small",
        language: str = "auto",
    ) -> None:
        self.bundle = bundle if isinstance(bundle, Bundle) else open_bundle(bundle)
        self.device, self.limits = device, limits
        self.devices = tuple(dict.fromkeys((device, *devices)))
        self.samples = tuple(samples)
        self.roots = None if roots is None else [Path(root).resolve() for root in roots]
        self.models = Models(
            lambda opened, where: Predictor.load(
                opened, device=where, speech=speech, language=language
            )
        )
        # One worker: requests are answered in their order, and memory is that of one of them.
        self._worker = ThreadPoolExecutor(1, thread_name_prefix="mepr-app")

    @property
    def targets(self) -> list[str]:
        """What can be explained: outputs that the model has."""
        tasks = MODES[self.bundle.config["settings"]["mode"]][1]
        return [*(EMOTIONS if "emotion" in tasks else ()), *(TRAITS if "traits" in tasks else ())]

    @property
    def modalities(self) -> list[str]:
        """Modalities that can be switched on and off."""
        return list(self.predictor().parts)

    def predictor(self, device: str | None = None) -> Predictor:
        """The loaded models.

        Raises:
            ConfigError: a device that is not offered.
        """
        where = device or self.device
        if where not in self.devices:
            raise ConfigError(f"no device {where!r} here", hint=did_you_mean(where, self.devices))
        return self.models.get(self.bundle, where)

    def answer(
        self, path: Path | str, options: Options | None = None, progress: Progress | None = None
    ) -> AppResult:
        """Prediction and explanation of one file; waits for the requests before it.

        Raises:
            DataError: the input cannot be used, or lies where it may not; one line.
            ConfigError: an option that does not exist.
        """
        context = contextvars.copy_context()
        given = (Path(path), options or Options(), progress)
        return self._worker.submit(lambda: context.run(self._answer, *given)).result()

    def predict(
        self, path: Path | str, options: Options | None = None, progress: Progress | None = None
    ) -> Prediction:
        """The prediction alone."""
        context = contextvars.copy_context()
        given = (Path(path), options or Options(), progress)
        return self._worker.submit(lambda: context.run(self._predict, *given)).result()

    def close(self) -> None:
        """Finish what is being answered, and refuse the rest."""
        self._worker.shutdown(cancel_futures=True)

    def _predict(self, path: Path, options: Options, progress: Progress | None) -> Prediction:
        file, predictor = self._checked(path, options)
        return predictor.predict(
            file, text=options.text, frames=options.frames, limits=self.limits, progress=progress
        )

    def _answer(self, path: Path, options: Options, progress: Progress | None) -> AppResult:
        file, predictor = self._checked(path, options)
        prediction, evidence = predictor.examine(
            file,
            text=options.text,
            frames=options.frames,
            limits=self.limits,
            pictures_px=PICTURES_PX,
            progress=progress,
        )
        if progress:
            progress("attribute", 0, 1)
        explanation = explain(prediction, evidence, predictor.answers, target=options.target)
        facts = prediction.input
        drawn = envelope(file, facts.duration_s) if facts.audio_codec else None
        return AppResult(prediction, explanation, drawn, evidence.joined.modalities)

    def _checked(self, path: Path, options: Options) -> tuple[Path, Predictor]:
        file = path.resolve()
        if self.roots is not None and not any(file.is_relative_to(root) for root in self.roots):
            raise DataError(f"{path.name} does not lie in the folder of uploads")
        if options.target is not None and options.target not in self.targets:
            raise ConfigError(
                f"{options.target!r} cannot be explained",
                hint=did_you_mean(options.target, self.targets),
            )
        predictor = self.predictor(options.device)
        if options.modalities is not None and set(options.modalities) != set(predictor.parts):
            predictor = predictor.narrowed(options.modalities)
        return file, predictor


def total_contribution(result: AppResult) -> dict[str, float]:
    """Modality -> its contribution to the explained target."""
    panel = result.explanation.attribution.chosen
    sums = np.asarray(panel.values).sum(axis=1).tolist()
    return dict(zip(result.explanation.attribution.modalities, sums, strict=True))
