"""Hyper-parameter search over any objective: Optuna's TPE, a grid, or one parameter at a time.

The study is an SQLite file, so a search that was interrupted goes on, and `optuna-dashboard` can
show it. Trials run in worker processes.
"""

from __future__ import annotations

import itertools
import json
import math
import multiprocessing
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mepr_shared.config import merge
from mepr_shared.errors import ConfigError, MeprError, require

Parameters = dict[str, Any]
# (trial number, parameters) -> validation scores; must be importable by a worker process.
Objective = Callable[[int, Parameters], Mapping[str, float]]


@dataclass(frozen=True)
class Choice:
    """A parameter with a few values."""

    values: tuple[Any, ...]


@dataclass(frozen=True)
class Range:
    """A number between two bounds, inclusive; whole where both bounds are."""

    low: float
    high: float
    log: bool = False


Space = dict[str, Choice | Range]


@dataclass(frozen=True)
class SearchResult:
    """The best trial and how many there were."""

    parameters: Parameters
    value: float
    trials: int
    rows: list[dict[str, Any]]


def parse_space(table: Mapping[str, Any], where: str) -> Space:
    """A search space from TOML: `"fit.learning_rate" = {low = 1e-5, high = 1e-3, log = true}` or
    `"model.width" = [64, 128]`. Nested tables are joined with dots.

    Raises:
        ConfigError: anything else, or nothing.
    """
    space: Space = {}
    for key, value in table.items():
        if isinstance(value, list) and value:
            space[key] = Choice(tuple(value))
        elif isinstance(value, Mapping) and {"low", "high"} <= set(value) <= {"low", "high", "log"}:
            space[key] = Range(value["low"], value["high"], bool(value.get("log", False)))
            if not value["low"] < value["high"]:
                raise ConfigError(f"{where}: {key}: low is not below high")
        elif isinstance(value, Mapping):
            inner = parse_space(value, where)
            space |= {f"{key}.{name}": part for name, part in inner.items()}
        else:
            raise ConfigError(
                f"{where}: {key} = {value!r} is no search space",
                hint="a list of values, or {low = 1e-5, high = 1e-3, log = true}",
            )
    if not space:
        raise ConfigError(f"{where} holds no parameters to search")
    return space


def as_settings(parameters: Mapping[str, Any]) -> dict[str, Any]:
    """A parameter set as a layer of settings: `{"fit.epochs": 3}` is `{"fit": {"epochs": 3}}`."""
    layers = []
    for name, value in parameters.items():
        nested: Any = value
        for part in reversed(name.split(".")):
            nested = {part: nested}
        layers.append(nested)
    return merge(*layers)


def settings_of_space(space: Space) -> Iterator[dict[str, Any]]:
    """Layers of settings in which every value of a list and both ends of a range occur once.

    A key or value that does not exist can so be refused before the first training.
    """
    for name, part in space.items():
        for value in part.values if isinstance(part, Choice) else (part.low, part.high):
            yield as_settings({name: value})


def best_toml(result: SearchResult, metric: str, given: Mapping[str, Any] | None = None) -> str:
    """The best settings for `train --config`, with how many configurations were tried.

    Args:
        result: of `search`.
        metric: what was maximised.
        given: nested settings that all trials shared, written down as well.
    """
    settings = merge(given or {}, as_settings(result.parameters))
    settings["configurations_tried"] = result.trials
    lines = [f"# best of {result.trials} by validation {metric} = {result.value:.4f}"]
    return "\n".join([*lines, *_toml_lines(settings)]) + "\n"


def search(
    objective: Objective,
    space: Space,
    study_folder: Path,
    *,
    trials: int,
    sampler: str = "tpe",
    metric: str = "score",
    workers: int = 1,
    seed: int = 0,
    on_trial: Callable[[int, float, Parameters], None] | None = None,
) -> SearchResult:
    """Maximise a validation metric; trials that an earlier call finished count.

    Args:
        objective: gives the validation scores of one set of parameters.
        trials: of all calls together. A grid or greedy search stops when it is through.
        sampler: `tpe`, `grid` (every combination of lists) or `greedy` (the lists one after the
            other, the others held at the best so far).
        metric: which of the objective's scores is maximised.
        workers: processes; results do not depend on it for grid and greedy.

    Raises:
        MissingDependency: Optuna is not installed.
        ConfigError: a range in a grid or greedy search, an unknown metric, another space than the
            study was begun with.
        MeprError: every trial failed.
    """
    optuna = require("optuna", extra="mepr-shared[search]")
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    study_folder.mkdir(parents=True, exist_ok=True)
    study = optuna.create_study(
        storage=f"sqlite:///{study_folder / 'study.db'}",
        study_name="search",
        direction="maximize",
        load_if_exists=True,
        sampler=optuna.samplers.TPESampler(seed=seed, constant_liar=workers > 1),
    )
    _same_question(study, {"metric": metric, "sampler": sampler, "space": repr(space)})
    for trial in study.get_trials(states=[optuna.trial.TrialState.RUNNING]):
        # Its process is gone. The parameters are tried again.
        study.tell(trial.number, state=optuna.trial.TrialState.FAIL)
        study.enqueue_trial(trial.params, skip_if_exists=False)
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(workers, mp_context=context) as pool:
        for batch in _proposals(study, space, sampler, trials):
            _run_batch(study, space, batch, objective, metric, pool, workers, on_trial)
    return _result(study, metric)


def _proposals(
    study: Any, space: Space, sampler: str, trials: int
) -> Iterator[list[Parameters | None]]:
    """Batches of parameter sets that may run at once; None lets TPE choose."""
    done = len(_finished(study))
    if sampler == "tpe":
        yield [None] * max(0, trials - done)
        return
    choices = {}
    for name, part in space.items():
        if isinstance(part, Range):
            raise ConfigError(f"a {sampler} search takes lists only, {name!r} is a range")
        choices[name] = part.values
    if sampler == "grid":
        every = itertools.product(*choices.values())
        combinations = [dict(zip(choices, values, strict=True)) for values in every]
        yield _new(study, combinations)[: max(0, trials - done)]
        return
    best = {name: values[0] for name, values in choices.items()}
    for name, values in choices.items():
        batch = _new(study, [{**best, name: value} for value in values])
        yield batch[: max(0, trials - len(_finished(study)))]
        known = {_key(t.params): t.value for t in _finished(study)}
        tried = [v for v in values if _key({**best, name: v}) in known]
        if tried:
            best[name] = max(tried, key=lambda v: known[_key({**best, name: v})])


def _run_batch(
    study: Any,
    space: Space,
    batch: Sequence[Parameters | None],
    objective: Objective,
    metric: str,
    pool: ProcessPoolExecutor,
    workers: int,
    on_trial: Callable[[int, float, Parameters], None] | None,
) -> None:
    waiting = list(batch)
    running: dict[Future[Mapping[str, float]], Any] = {}
    while waiting or running:
        while waiting and len(running) < workers:
            wanted = waiting.pop(0)
            if wanted is not None:
                study.enqueue_trial(wanted)
            trial = study.ask()
            parameters = {name: _suggest(trial, name, part) for name, part in space.items()}
            running[pool.submit(objective, trial.number, parameters)] = trial
        finished, _ = wait(running, return_when=FIRST_COMPLETED)
        for future in finished:
            trial = running.pop(future)
            try:
                scores = future.result()
            except MeprError as error:
                # One bad corner (a diverged training) must not end the search.
                trial.set_user_attr("problem", str(error))
                study.tell(trial, state=_states().FAIL)
                continue
            if metric not in scores:
                study.tell(trial, state=_states().FAIL)
                raise ConfigError(
                    f"--metric {metric!r} is not among the validation scores",
                    hint="known: " + ", ".join(sorted(scores)),
                )
            trial.set_user_attr("scores", dict(scores))
            study.tell(trial, scores[metric])
            if on_trial:
                on_trial(trial.number, scores[metric], trial.params)


def _toml_lines(settings: Mapping[str, Any], prefix: str = "") -> list[str]:
    lines = []
    for name, value in settings.items():
        if isinstance(value, Mapping):
            lines += _toml_lines(value, f"{prefix}{name}.")
        else:
            # JSON writes strings, numbers, booleans and lists of them as TOML does.
            lines.append(f"{prefix}{name} = {json.dumps(value)}")
    return lines


def _suggest(trial: Any, name: str, part: Choice | Range) -> Any:
    if isinstance(part, Choice):
        return trial.suggest_categorical(name, part.values)
    if isinstance(part.low, int) and isinstance(part.high, int):
        return trial.suggest_int(name, part.low, part.high, log=part.log)
    return trial.suggest_float(name, part.low, part.high, log=part.log)


def _same_question(study: Any, question: dict[str, str]) -> None:
    for name, value in question.items():
        before = study.user_attrs.get(name, value)
        if before != value:
            raise ConfigError(
                f"this study was begun with another {name}: {before}, now {value}",
                hint="give another --study",
            )
        study.set_user_attr(name, value)


def _result(study: Any, metric: str) -> SearchResult:
    finished = _finished(study)
    if not finished:
        problems = {t.user_attrs.get("problem", "no reason given") for t in study.trials}
        raise MeprError(
            "every trial failed: " + "; ".join(sorted(problems)) if problems else "no trials"
        )
    rows = [
        {"trial": t.number, metric: t.value, **t.params}
        for t in sorted(finished, key=lambda t: -t.value)
    ]
    best = max(finished, key=lambda t: t.value)
    return SearchResult(dict(best.params), float(best.value), len(finished), rows)


def _finished(study: Any) -> list[Any]:
    complete = study.get_trials(deepcopy=False, states=[_states().COMPLETE])
    return [trial for trial in complete if math.isfinite(trial.value)]


def _new(study: Any, combinations: list[Parameters]) -> list[Parameters | None]:
    known = {_key(trial.params) for trial in _finished(study)}
    return [combination for combination in combinations if _key(combination) not in known]


def _key(parameters: Mapping[str, Any]) -> str:
    return repr(sorted(parameters.items()))


def _states() -> Any:
    return require("optuna", extra="mepr-shared[search]").trial.TrialState
