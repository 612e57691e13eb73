"""What a command prints: data on stdout, talk on stderr, known errors as one line and exit 2."""

from __future__ import annotations

import argparse
import json
import math
import os
import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, NoReturn

from mepr_shared.errors import MeprError, did_you_mean

Handler = Callable[[argparse.Namespace], int]


class Parser(argparse.ArgumentParser):
    """argparse with one-line errors and did-you-mean for verbs."""

    def error(self, message: str) -> NoReturn:
        """Print one line and exit with 2."""
        self.exit(2, f"{self.prog}: error: {message} (see {self.prog} --help)\n")

    def _check_value(self, action: argparse.Action, value: Any) -> None:
        if action.choices is not None and value not in action.choices:
            hint = did_you_mean(str(value), [str(choice) for choice in action.choices])
            raise argparse.ArgumentError(action, f"{value!r} is unknown; {hint}")


def common_options() -> argparse.ArgumentParser:
    """Options that every verb has."""
    options = Parser(add_help=False)
    options.add_argument("--json", action="store_true", help="print JSON, one object per line")
    options.add_argument("--debug", action="store_true", help="show the trace of an error")
    return options


def run_command(parser: argparse.ArgumentParser, argv: Sequence[str] | None) -> int:
    """Parse, run the verb's handler, and turn known errors into one line and an exit code."""
    arguments = parser.parse_args(argv)
    handler: Handler | None = getattr(arguments, "handler", None)
    if handler is None:
        (getattr(arguments, "group", None) or parser).print_help()
        return 2
    try:
        return handler(arguments)
    except MeprError as error:
        if arguments.debug:
            raise
        print(f"{parser.prog}: error: {error}", file=sys.stderr)
        return error.exit_code
    except KeyboardInterrupt:
        later = "; --resume goes on from here" if hasattr(arguments, "resume") else ""
        print(f"{parser.prog}: interrupted{later}", file=sys.stderr)
        return 130
    except BrokenPipeError:
        # The reader (head, less) has gone: nothing more to say, and no trace at shutdown.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except OSError as error:  # no permission, a folder in place of a file, a full disk
        if arguments.debug:
            raise
        place = f"{error.filename}: " if error.filename else ""
        print(f"{parser.prog}: error: {place}{error.strerror or error}", file=sys.stderr)
        return MeprError.exit_code


def say(text: str) -> None:
    """Talk: progress, warnings, what comes next. Goes to stderr."""
    print(text, file=sys.stderr, flush=True)


def emit_json(record: Mapping[str, Any] | Sequence[Any]) -> None:
    """One JSON value on one line of stdout; what is not a number (NaN) becomes null."""
    text = json.dumps(_finite(record), ensure_ascii=False, default=_plain, allow_nan=False)
    print(text, flush=True)


def emit_table(
    rows: Iterable[Sequence[object]], columns: Sequence[str], *, title: str | None = None
) -> None:
    """A table for people on stdout."""
    from rich.console import Console
    from rich.table import Table

    table = Table(*columns, title=title, title_justify="left")
    for row in rows:
        table.add_row(*(_cell(value) for value in row))
    # A pipe has no width of its own: the table must not be cut to 80 columns there.
    console = Console() if sys.stdout.isatty() else Console(width=160)
    console.print(table)


def emit(
    arguments: argparse.Namespace,
    records: Sequence[Mapping[str, Any]],
    columns: Sequence[str],
    *,
    title: str | None = None,
) -> None:
    """Records as JSON lines or as a table of the given columns, as `--json` says."""
    if arguments.json:
        for record in records:
            emit_json(record)
    else:
        emit_table([[record.get(c) for c in columns] for record in records], columns, title=title)


def _cell(value: object) -> str:
    if value is None:
        return "-"
    return f"{value:.4f}" if isinstance(value, float) else str(value)


def _finite(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {key: _finite(inner) for key, inner in value.items()}
    if isinstance(value, (list, tuple)):
        return [_finite(inner) for inner in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def _plain(value: Any) -> Any:
    if hasattr(value, "tolist"):
        return value.tolist()
    return str(value)
