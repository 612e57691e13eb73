"""`Predictor`: a bundle, loaded once, that answers for files."""

from __future__ import annotations

import threading
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from mepr_fusion.bundle.format import Bundle, open_bundle
from mepr_fusion.predict.answers import Answers
from mepr_fusion.predict.compose import Evidence, compose
from mepr_fusion.predict.media_input import Limits, check_input
from mepr_fusion.predict.parts import Part, Progress, encode, open_extractor, open_part
from mepr_fusion.predict.prediction import (
    LEFT_OUT,
    NOT_INSTALLED,
    SWITCHED_OFF,
    InputFacts,
    Prediction,
    TranscriptAnswer,
)
from mepr_fusion.predict.sightings import Sightings
from mepr_fusion.predict.speech import Ears, given_transcript, language_warnings
from mepr_fusion.predict.timeline import Span, spans, spread, texts
from mepr_fusion.train import build_model
from mepr_shared.errors import ConfigError, did_you_mean
from mepr_shared.plugin import ClipInput, Extractor, discover
from mepr_shared.train.checkpoint import load_weights

WINDOW_S = 30.0
TEXT = "text"  # the input that a transcript is for


class Predictor:
    """Answers for media files with the models of a bundle, which are loaded once.

    One file is worked on at a time; further calls from other threads wait.

    Attributes:
        bundle: what was loaded.
        parts: modality -> its loaded models.
        absent: modality that stage 3 knows -> (status, reason) why it does not take part.
    """

    def __init__(
        self,
        bundle: Bundle,
        parts: dict[str, Part],
        absent: dict[str, tuple[str, str]],
        answers: Answers,
        ears: Ears,
    ) -> None:
        self.bundle = bundle
        self.parts = parts
        self.absent = absent
        self._answers = answers
        self._ears = ears
        self._resampled: dict[int, dict[str, Extractor]] = {}
        self._turn = threading.RLock()

    @classmethod
    def load(
        cls,
        bundle: Path | str | Bundle,
        *,
        device: str = "cpu",
        modalities: Sequence[str] | None = None,
        corpus: str | None = None,
        speech: str = "small",
        language: str = "auto",
    ) -> Predictor:
        """Open a bundle and load its models and encoders.

        Args:
            bundle: its directory.
            device: where everything runs: `cpu`, `cuda`, ...
            modalities: which of them take part; all that the bundle has where None.
            corpus: as whose samples inputs are read: decisions are weighted as for it.
            speech: the recogniser for inputs without a transcript: `small`, `paper`, or the id or
                folder of a Whisper. Loaded when first needed.
            language: of the speech: a code, or `auto`.

        Raises:
            ContractError: damaged, too new, or an installed package does not fit the bundle.
            ConfigError: a modality or corpus that the bundle does not know; none is installed.
        """
        opened = bundle if isinstance(bundle, Bundle) else open_bundle(bundle)
        known = list(opened.config["modalities"])
        for name in modalities or ():
            if name not in known:
                raise ConfigError(
                    f"the bundle has no modality {name!r}", hint=did_you_mean(name, known)
                )
        model = build_model(opened.config)
        load_weights(model, opened.weights("stage3"))
        model = model.to(device).eval()
        answers = Answers(opened, model, corpus=corpus, device=device)
        installed = {entry.name: entry for entry in discover()}
        parts: dict[str, Part] = {}
        absent: dict[str, tuple[str, str]] = {}
        for name in known:
            found = installed.get(name)
            if modalities is not None and name not in modalities:
                absent[name] = SWITCHED_OFF, "switched off"
            elif name not in opened.modalities:
                absent[name] = LEFT_OUT, opened.left_out.get(name, "the bundle has no model of it")
            elif found is None:
                hint = f"pip install {opened.modalities[name]['distribution']}"
                absent[name] = NOT_INSTALLED, f"its package is not installed ({hint})"
            elif found.modality is None:
                absent[name] = NOT_INSTALLED, f"its package does not load: {found.problem}"
            else:
                parts[name] = open_part(opened, name, found, device)
        if not parts:
            reasons = "; ".join(f"{name}: {reason}" for name, (_, reason) in absent.items())
            raise ConfigError(f"none of the bundle's modalities can be used ({reasons})")
        reads = next(
            (
                e.modality
                for n in parts
                if (e := installed[n]).modality and TEXT in e.modality.inputs
            ),
            None,
        )
        ears = Ears(reads, model=speech, language=language, device=device)
        return cls(opened, parts, absent, answers, ears)

    @property
    def answers(self) -> Answers:
        """How the models' outputs are read."""
        return self._answers

    def narrowed(self, modalities: Sequence[str]) -> Predictor:
        """The same models with some of the modalities switched off; nothing is loaded again.

        Raises:
            ConfigError: a modality that is not there, or none is left.
        """
        for name in modalities:
            if name not in self.parts:
                known = list(self.parts)
                raise ConfigError(f"no modality {name!r} here", hint=did_you_mean(name, known))
        parts = {name: part for name, part in self.parts.items() if name in modalities}
        if not parts:
            raise ConfigError("no modality is left", hint="switch one on")
        off = {name: (SWITCHED_OFF, "switched off") for name in self.parts if name not in parts}
        reads = any(e.modality and TEXT in e.modality.inputs for e in discover() if e.name in parts)
        ears = self._ears if reads else Ears(None, model="", language="", device="")
        return Predictor(self.bundle, parts, self.absent | off, self._answers, ears)

    def open_ears(self) -> None:
        """Load the speech recogniser now rather than with the first input that needs it."""
        self._ears.open()

    def predict(
        self,
        path: Path | str,
        *,
        text: str | None = None,
        srt: Path | None = None,
        frames: int | None = None,
        window_s: float = WINDOW_S,
        hop_s: float | None = None,
        limits: Limits | None = None,
        progress: Progress | None = None,
    ) -> Prediction:
        """The answer to one file.

        Args:
            path: a video, a recording of sound, or a picture.
            text: its transcript; heard by the recogniser where neither it nor `srt` is given.
            srt: its transcript as subtitles.
            frames: how many frames of a window are looked at, in place of as many as in training.
            window_s, hop_s: a recording longer than a window is answered window by window.
            limits: what is refused; an hour and 2 GiB where None.
            progress: is told (part, how much of it is done, of how much).

        Raises:
            DataError: the input cannot be used; says why in one line.
            ConfigError: an option out of range.
        """
        return self.examine(
            path,
            text=text,
            srt=srt,
            frames=frames,
            window_s=window_s,
            hop_s=hop_s,
            limits=limits,
            progress=progress,
        )[0]

    def examine(
        self,
        path: Path | str,
        *,
        text: str | None = None,
        srt: Path | None = None,
        frames: int | None = None,
        window_s: float = WINDOW_S,
        hop_s: float | None = None,
        limits: Limits | None = None,
        pictures_px: int = 0,
        progress: Progress | None = None,
    ) -> tuple[Prediction, Evidence]:
        """The answer to one file, and what it was computed from; see `predict`.

        Args:
            pictures_px: keep the frames that were looked at, reduced to this longest side in
                pixels; 0 keeps none.
        """
        with self._turn:
            started = time.perf_counter()
            file = Path(path)
            facts = check_input(file, limits or Limits())
            windows = spans(facts.duration_s, window_s, hop_s)
            extractors = self._extractors(frames)
            clock = _Clock(started)
            clock.lap("probe")
            transcript, warnings = self._transcript(file, facts, text, srt, progress)
            clock.lap("transcribe")
            read, more = _texts_of(transcript, windows, facts)
            clips = [
                ClipInput(f"{number:06d}", said, (), file, window.start_s, window.end_s)
                for number, (window, said) in enumerate(zip(windows, read, strict=True))
            ]
            sightings = Sightings(pictures_px)
            encoded = encode(extractors, clips, progress=progress, watch=sightings.add)
            sightings.forget()
            clock.seconds |= encoded.seconds
            clock.skip()
            outputs = {
                name: [part.answer(f, self._answers.device) for f in encoded.features[name]]
                for name, part in self.parts.items()
            }
            clock.lap("stage 2")
            joined = self._answers.join(outputs, len(windows))
            batch = self._answers.batch(joined)
            fused = self._answers.fused(joined, batch)
            evidence = Evidence(
                windows,
                read,
                encoded,
                outputs,
                joined,
                batch,
                fused,
                sightings,
                self._answers.model,
                self.parts,
            )
            found = compose(facts, transcript, evidence, self._answers, self.absent)
            clock.lap("fusion")
            warnings += more + sightings.warnings() + self._frame_warnings(frames)
            seconds = {**clock.seconds, "total": time.perf_counter() - started}
            return replace(found, seconds=seconds, warnings=tuple(warnings)), evidence

    def _extractors(self, frames: int | None) -> dict[str, Extractor]:
        """The encoders, looking at as many frames as asked for; weights are shared."""
        trained = {name: part.extractor for name, part in self.parts.items()}
        if frames is None:
            return trained
        if frames < 1:
            raise ConfigError(f"{frames} frames", hint="it takes 1 or more")
        if frames not in self._resampled:
            installed = {entry.name: entry for entry in discover()}
            self._resampled[frames] = {
                name: self._resample(installed[name], extractor, frames)
                for name, extractor in trained.items()
            }
        return self._resampled[frames]

    def _resample(self, found: Any, extractor: Extractor, frames: int) -> Extractor:
        settings = extractor.spec["settings"]
        if settings.get("frames") in (None, frames):
            return extractor
        spec = {**extractor.spec, "settings": {**settings, "frames": frames}}
        return open_extractor(found.modality, found, spec, self._answers.device)

    def _frame_warnings(self, frames: int | None) -> list[str]:
        trained = {
            part.extractor.spec["settings"].get("frames", frames) for part in self.parts.values()
        }
        if frames is None or trained <= {frames}:
            return []
        return [f"{frames} frames were looked at, in training it were {max(trained)}"]

    def _transcript(
        self,
        file: Path,
        facts: InputFacts,
        text: str | None,
        srt: Path | None,
        progress: Progress | None,
    ) -> tuple[TranscriptAnswer, list[str]]:
        given = given_transcript(text, srt)
        if given is not None:
            return given, []
        if facts.audio_codec is None:
            reason = "the file has no audio stream"
            return TranscriptAnswer(status="no_audio", reason=reason), []
        if progress:
            progress("transcribe", 0, 1)
        heard = self._ears.hear(file)
        return heard, language_warnings(heard)


class _Clock:
    """Wall time of one part after the other."""

    def __init__(self, started: float) -> None:
        self.seconds: dict[str, float] = {}
        self._last = started

    def lap(self, part: str) -> None:
        """What has passed since the last call was this part."""
        now = time.perf_counter()
        self.seconds[part] = now - self._last
        self._last = now

    def skip(self) -> None:
        """What has passed since the last call is told elsewhere."""
        self._last = time.perf_counter()


def _texts_of(
    transcript: TranscriptAnswer, windows: Sequence[Span], facts: InputFacts
) -> tuple[list[str | None], list[str]]:
    """The text of each window, and what is to be said of how it was divided."""
    if not transcript.text:
        return [None] * len(windows), []
    if len(windows) == 1:
        return [transcript.text], []
    if transcript.segments:
        return [text or None for text in texts(transcript.segments, windows)], []
    words = spread(transcript.text, windows, facts.duration_s or 1.0)
    warning = "the transcript has no times: its words are spread evenly over the windows"
    return [text or None for text in words], [warning]
