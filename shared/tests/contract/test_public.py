"""What other packages rely on: light imports, the documented reader, the provenance record."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

from mepr_shared import contract
from mepr_shared.contract.producer import producer
from mepr_shared.contract.reader import Export

README = Path(contract.__file__).with_name("README.md")


def test_every_public_name_is_there() -> None:
    for name in contract.__all__:
        assert getattr(contract, name)
    with pytest.raises(AttributeError):
        contract.Exporter  # noqa: B018


def test_statuses_cost_no_numpy_and_nothing_costs_torch() -> None:
    modules = sorted(path.stem for path in README.parent.glob("[a-z]*.py"))
    script = f"""
import sys, importlib
from mepr_shared.contract import STATUSES
assert "numpy" not in sys.modules and "pyarrow" not in sys.modules
for name in {modules!r}:
    importlib.import_module("mepr_shared.contract." + name)
assert "torch" not in sys.modules and "mepr_shared.corpora" not in sys.modules
"""
    subprocess.run([sys.executable, "-c", script], check=True)


def test_the_documented_reader_reads_an_export_without_our_code(export: Path) -> None:
    (code,) = re.findall(r"```python\n(.*?)```", README.read_text("utf-8"), re.DOTALL)
    assert len([line for line in code.splitlines() if line]) <= 15
    assert "mepr_shared" not in code
    command = [sys.executable, "-c", code, str(export)]
    printed = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    opened = Export.open(export)
    first = printed.splitlines()[0]
    assert first.startswith(f"{opened.sample_ids[0]} {opened.split[0]} {opened.status[0]}")
    assert printed.splitlines()[-1].startswith("20 rows; emotions: neutral, anger")


def test_a_producer_knows_its_version_and_runtime() -> None:
    record = producer("mepr-shared", "mepr_shared")
    assert record.version != "unknown"
    assert record.python is not None
    assert record.python.startswith("3.")
    assert producer("no-such-thing", "no_such_thing").version == "unknown"
    # Installed from a wheel: no repository of ours around it, whatever folder it lies in.
    assert producer("pyarrow", "pyarrow").git_commit is None
