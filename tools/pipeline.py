"""Runs stages over every modality and corpus that fit together, with the commands people type.

    python tools/pipeline.py stage1 stage2 export stage3 --corpus A.parquet B.parquet --runs runs

`make stage1-all`, `stage2-all`, `export-all`, `stage3` and `demo` are this. What cannot be done
is said and left out; a failing command ends it. Commands are given `--resume`: called again,
what is finished stays, what was interrupted goes on, and a run made from other inputs is refused.

    RUNS/store  RUNS/MODALITY/{stage1-emotion,stage1-traits,stage2}  RUNS/exports  RUNS/stage3
    RUNS/last-export.json    ids of the last export; stage 3 is told to use these
"""

from __future__ import annotations

import argparse
import json
import shlex
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from mepr_shared.contract.files import write_json
from mepr_shared.contract.living import export_folders
from mepr_shared.corpora.index import Corpus
from mepr_shared.errors import ConfigError, DataError, MeprError, did_you_mean
from mepr_shared.labels import TASKS
from mepr_shared.plugin import Modality, discover

STAGES = ("stage1", "stage2", "export", "stage3")
BIN = Path(sys.executable).parent


@dataclass(frozen=True)
class Plan:
    """What one modality can do with the corpora.

    Attributes:
        modality: the modality.
        inputs: corpora with input for it; these are extracted and exported.
        labelled: task -> corpora with labelled input in both training and validation split.
        skipped: one line per combination that is left out, with its reason.
    """

    modality: Modality
    inputs: list[Corpus]
    labelled: dict[str, list[Corpus]]
    skipped: list[str]


def plan(modality: Modality, corpora: Sequence[Corpus]) -> Plan:
    """Which corpora a modality can use, and for what."""
    made = Plan(modality, [], {task: [] for task in TASKS}, [])
    for corpus in corpora:
        name = f"{modality.name} x {corpus.name}"
        given = has_input(corpus, modality.inputs)
        if not given.any():
            made.skipped.append(f"{name}: no clip has {' or '.join(modality.inputs)}")
            continue
        made.inputs.append(corpus)
        for task in TASKS:
            usable = given & has_labels(corpus, task)
            empty = [
                split for split in ("train", "val") if not usable[corpus.splits == split].any()
            ]
            alike = usable & (corpus.splits == "val")
            if empty:
                where = " or ".join(empty)
                made.skipped.append(f"{name} x {task}: no clip with labels and input in {where}")
            elif task == "emotion" and len(np.unique(corpus.emotion_targets()[alike], axis=0)) < 2:
                made.skipped.append(f"{name} x {task}: all clips in val have the same emotion")
            else:
                made.labelled[task].append(corpus)
    return made


def has_input(corpus: Corpus, kinds: Sequence[str]) -> np.ndarray:
    """`[N]` bool: clips that have one of these inputs (`text`, `media`)."""
    found = np.zeros(len(corpus), dtype=bool)
    for kind in kinds:
        found |= np.array([bool(value) for value in corpus.column(kind)], dtype=bool)
    return found


def has_labels(corpus: Corpus, task: str) -> np.ndarray:
    """`[N]` bool: clips labelled for a task."""
    if task == "emotion":
        return ~np.isnan(corpus.emotion_targets()).any(axis=1)
    return ~np.isnan(corpus.trait_values).all(axis=1)


@dataclass(frozen=True)
class Pipeline:
    """Commands over one `RUNS` folder.

    Attributes:
        runs: the folder.
        options: `--profile` and `--device`, for extraction and the modalities' commands.
        training: `--set` options of all trainings.
        device: `--device`, for the fusion's.
    """

    runs: Path
    options: tuple[str, ...]
    training: tuple[str, ...]
    device: tuple[str, ...]

    def extract(self, plans: Sequence[Plan]) -> None:
        """Extract the features of all modalities, in one pass over the videos."""
        names = [made.modality.name for made in plans if made.inputs]
        used = {corpus.name: corpus for made in plans for corpus in made.inputs}
        if names:
            where = ("--store", str(self.runs / "store"), "--modalities", ",".join(names))
            command = ["mepr", "extract", "--resume", *corpus_options(list(used.values())), *where]
            call([*command, *self.options])

    def stage1(self, made: Plan) -> bool:
        """Train one model per task. False: there was nothing to do."""
        if not made.inputs:
            return False
        for task, corpora in made.labelled.items():
            if corpora:
                run = ("--run", str(self._run(made, f"stage1-{task}")), "--resume")
                command = ("train", "stage1", "--task", task)
                self._call(made, *command, *run, *self.training, corpora=corpora)
        return True

    def stage2(self, made: Plan) -> bool:
        """Train both tasks over the two stage-1 models. False: one of them is missing."""
        first = [self._run(made, f"stage1-{task}") for task in TASKS]
        missing = [run for run in first if not (run / "metrics.json").is_file()]
        if missing:
            say(f"skip stage 2 of {made.modality.name}: {missing[0]} is not trained")
            return False
        corpora = [c for c in made.inputs if any(c in made.labelled[task] for task in TASKS)]
        run = ("--run", str(self._run(made, "stage2")), "--resume")
        inputs = ("--emotion-run", str(first[0]), "--traits-run", str(first[1]))
        self._call(made, "train", "stage2", *inputs, *run, *self.training, corpora=corpora)
        return True

    def export(self, made: Plan) -> bool:
        """Export every corpus from stage 2, or from the one stage-1 model. False: none is there."""
        run = self._exported(made)
        if run is None:
            say(f"skip export of {made.modality.name}: {self._run(made, 'stage2')} is not trained")
            return False
        where = ("--run", str(run), "--out", str(self.runs / "exports"))
        printed = self._call(
            made, "export", *where, "--resume", "--json", corpora=made.inputs, capture=True
        )
        ids = self.last_export()
        for line in printed.splitlines():
            record = json.loads(line)
            ids[f"{record['modality']}:{record['corpus']}"] = record["id"]
        write_json(self._ids, ids)
        return True

    def stage3(self, corpora: Sequence[Corpus]) -> bool:
        """Train on the exports and print the report. False: no corpus has exports."""
        exports = self.runs / "exports"
        joined = [corpus for corpus in corpora if export_folders(exports, corpus.name)]
        for corpus in corpora:
            if corpus not in joined:
                say(f"skip {corpus.name} in stage 3: it has no exports in {exports}")
        if not joined:
            return False
        names = {corpus.name for corpus in joined}
        chosen = [
            f"--export={place}={export_id}"
            for place, export_id in self.last_export().items()
            if place.partition(":")[2] in names
        ]
        run = str(self.runs / "stage3")
        where = ("--exports", str(exports), *chosen, "--run", run, "--resume")
        command = ["mepr-fusion", "train", *corpus_options(joined), *where]
        call([*command, *self.training, *self.device])
        call(["mepr-fusion", "report", "--run", run])
        return True

    def last_export(self) -> dict[str, str]:
        """`MODALITY:CORPUS` -> id of the last export made here."""
        return json.loads(self._ids.read_text("utf-8")) if self._ids.is_file() else {}

    def _exported(self, made: Plan) -> Path | None:
        """The run to export: a modality with labels for one task alone has no stage 2."""
        runs = [self._run(made, f"stage1-{task}") for task in TASKS]
        trained = [run for run in runs if (run / "metrics.json").is_file()]
        second = self._run(made, "stage2")
        if (second / "metrics.json").is_file():
            return second
        return trained[0] if len(trained) == 1 else None

    @property
    def _ids(self) -> Path:
        return self.runs / "last-export.json"

    def _run(self, made: Plan, name: str) -> Path:
        return self.runs / made.modality.name / name

    def _call(
        self, made: Plan, *words: str, corpora: Sequence[Corpus], capture: bool = False
    ) -> str:
        store = ("--store", str(self.runs / "store"))
        command = [made.modality.distribution, *words, *corpus_options(corpora), *store]
        return call([*command, *self.options], capture=capture)


def corpus_options(corpora: Sequence[Corpus]) -> list[str]:
    """`--corpus PATH` of each."""
    return [word for corpus in corpora for word in ("--corpus", str(corpus.path))]


def call(command: Sequence[str], *, capture: bool = False) -> str:
    """Run one of our commands, shown first; its failure ends the pipeline with its exit code."""
    say("$ " + shlex.join(command))
    done = subprocess.run(
        [str(BIN / command[0]), *command[1:]],
        stdout=subprocess.PIPE if capture else None,
        text=True,
        check=False,
    )
    if done.returncode:
        sys.exit(done.returncode)
    return done.stdout or ""


def run(arguments: argparse.Namespace) -> int:
    """Run the stages in order; 2 where one of them had nothing at all to do."""
    corpora = [Corpus.read(path) for path in arguments.corpus]
    names = [corpus.name for corpus in corpora]
    if len(set(names)) < len(names):
        raise DataError(f"two of the corpora have the same name: {', '.join(names)}")
    found = discover()
    for entry in found:
        if entry.problem:
            say(f"skip {entry.distribution}: it does not load: {entry.problem}")
    loaded = {entry.modality.name: entry.modality for entry in found if entry.modality}
    wanted = arguments.modalities.split(",") if arguments.modalities else list(loaded)
    for name in wanted:
        if name not in loaded:
            raise ConfigError(
                f"no installed modality {name!r}", hint=did_you_mean(name, list(loaded))
            )
    plans = [plan(loaded[name], corpora) for name in wanted]
    for line in (line for made in plans for line in made.skipped):
        say(f"skip {line}")
    device = ("--device", arguments.device)
    pipeline = Pipeline(
        arguments.runs,
        options=("--profile", arguments.profile, *device),
        training=tuple(f"--set={assignment}" for assignment in arguments.set),
        device=device,
    )
    for stage in STAGES:
        if stage not in arguments.stages:
            continue
        if stage == "stage3":
            done = [pipeline.stage3(corpora)]
        else:
            if stage == "stage1":
                pipeline.extract(plans)
            done = [getattr(pipeline, stage)(made) for made in plans]
        if not any(done):
            say(f"nothing to do for {stage}: see what was skipped, and why, above")
            return 2
    return 0


def say(text: str) -> None:
    """Talk goes to stderr; stdout has the commands' tables."""
    print(text, file=sys.stderr, flush=True)


def main(argv: Sequence[str] | None = None) -> int:
    """Parse and run; returns the exit code."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument(
        "stages", nargs="+", choices=STAGES, metavar="STAGE", help=", ".join(STAGES)
    )
    parser.add_argument("--corpus", type=Path, nargs="+", required=True, metavar="X.parquet")
    parser.add_argument("--runs", type=Path, default=Path("runs"), metavar="RUNS")
    parser.add_argument(
        "--modalities",
        metavar="A,B",
        help="extract, train and export these only (default: all installed); stage 3 joins all "
        "exports that are there",
    )
    parser.add_argument("--profile", default="small", help="small or paper (default: small)")
    parser.add_argument("--device", default="cpu", help="cpu, cuda, mps (default: cpu)")
    parser.add_argument(
        "--set", action="append", default=[], metavar="KEY=VALUE", help="given to every training"
    )
    try:
        return run(parser.parse_args(argv))
    except MeprError as error:
        print(f"pipeline: error: {error}", file=sys.stderr)
        return error.exit_code
    except KeyboardInterrupt:
        say("interrupted; the same command goes on from here")
        return 130


if __name__ == "__main__":
    sys.exit(main())
