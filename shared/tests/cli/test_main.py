"""`mepr` itself: light, quick to help, and clear about what it does not know."""

from __future__ import annotations

import subprocess
import sys
import time

import pytest

from mepr_shared import __version__
from mepr_shared.errors import DataError

HEAVY = ("numpy", "pyarrow", "torch", "sklearn", "rich")
VERBS = [
    *(("corpus", verb) for verb in ("demo", "show", "audit", "split", "withdraw")),
    *(("corpus", "import", name) for name in ("fiv2", "meld", "mosei", "table")),
    *(("export", verb) for verb in ("verify", "create", "list", "diff", "alias", "gc")),
    *(("runs", verb) for verb in ("list", "compare")),
    ("modalities",),
    ("doctor",),
]


def python(code: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)


def test_help_is_quick_and_imports_nothing_heavy() -> None:
    code = (
        "import sys, mepr_shared.cli.main as m\n"
        "try: m.main(['--help'])\n"
        "except SystemExit: pass\n"
        f"print('loaded:', [name for name in {HEAVY!r} if name in sys.modules])"
    )
    seconds = []
    for _ in range(3):  # the quickest of three: other work on the machine is not ours
        start = time.perf_counter()
        done = python(code)
        seconds.append(time.perf_counter() - start)
        assert done.returncode == 0, done.stderr
        assert done.stdout.splitlines()[-1] == "loaded: []"
    assert min(seconds) < 0.5


@pytest.mark.parametrize("verb", VERBS, ids=" ".join)
def test_every_verb_has_help_json_and_debug(mepr, verb: tuple[str, ...]) -> None:
    outcome = mepr(*verb, "--help")
    assert outcome.code == 0
    assert "--json" in outcome.out and "--debug" in outcome.out


def test_version(mepr) -> None:
    assert mepr("--version").out.strip() == __version__


@pytest.mark.parametrize("group", [(), ("corpus",), ("corpus", "import"), ("export",), ("runs",)])
def test_a_group_alone_prints_its_verbs(mepr, group: tuple[str, ...]) -> None:
    outcome = mepr(*group)
    assert outcome.code == 2
    assert outcome.out.startswith(" ".join(("usage: mepr", *group)))


@pytest.mark.parametrize(
    ("arguments", "wanted"),
    [
        (("corpsu",), "did you mean 'corpus'?"),
        (("corpus", "sho"), "did you mean 'show'?"),
        (("corpus", "import", "fiv", "here"), "did you mean 'fiv2'?"),
        (("export", "verfy", "here"), "did you mean 'verify'?"),
    ],
)
def test_an_unknown_verb_gets_a_suggestion(refused, arguments, wanted: str) -> None:
    assert wanted in refused(*arguments).err


def test_the_console_script_exits_with_the_code(tmp_path) -> None:
    code = "import sys; from mepr_shared.cli.main import main; sys.exit(main(sys.argv[1:]))"
    done = subprocess.run(
        [sys.executable, "-c", code, "corpus", "show", str(tmp_path / "none.parquet")],
        capture_output=True,
        text=True,
    )
    assert (done.returncode, done.stdout) == (2, "")
    assert len(done.stderr.splitlines()) == 1 and "none.parquet" in done.stderr


def test_debug_shows_the_trace(mepr, tmp_path) -> None:
    with pytest.raises(DataError, match=r"none\.parquet"):
        mepr("corpus", "show", tmp_path / "none.parquet", "--debug")


def test_what_the_system_refuses_is_one_line_too(refused, index, tmp_path) -> None:
    place = tmp_path / "file"
    place.write_text("in the way")
    assert str(place) in refused("corpus", "demo", place / "inside").err
