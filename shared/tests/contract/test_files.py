"""Files that survive a crash, and paths that stay inside."""

from __future__ import annotations

import errno
import os
from pathlib import Path

import pytest

from mepr_shared.contract import files
from mepr_shared.errors import ContractError


@pytest.mark.parametrize(
    "relative",
    ["../out.parquet", "/etc/passwd", "a/../../b", "", "C:\\x", "a\\..\\b", "C:x", "samples/link"],
)
def test_a_path_out_of_the_folder_is_refused(tmp_path: Path, relative: str) -> None:
    root = tmp_path / "export"
    (root / "samples").mkdir(parents=True)
    (tmp_path / "secret").write_text("x")
    (root / "samples" / "link").symlink_to(tmp_path / "secret")
    with pytest.raises(ContractError):
        files.path_inside(root, relative)


def test_a_path_inside_the_folder_is_given(tmp_path: Path) -> None:
    assert files.path_inside(tmp_path, "samples/a b.parquet") == tmp_path / "samples/a b.parquet"


@pytest.mark.parametrize("name", ["", ".", "..", ".hidden", "a/b", "a\\b", "a:b", "a\0b"])
def test_a_name_that_is_no_folder_name_is_refused(name: str) -> None:
    with pytest.raises(ContractError):
        files.checked_name(name, "corpus name")


def test_an_interrupted_write_keeps_the_old_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    target = tmp_path / "manifest.json"
    files.write_json(target, {"a": 1})
    before = target.read_bytes()

    def full(descriptor: int) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(ContractError, match="free some space"), files.disk_errors(target):
        files.write_json(target, {"a": 2})
    assert target.read_bytes() == before


def test_a_folder_with_content_is_never_replaced(tmp_path: Path) -> None:
    for name in ("source", "target"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "file").write_text(name)
    with pytest.raises(FileExistsError):
        files.rename_directory(tmp_path / "source", tmp_path / "target")
    assert (tmp_path / "target" / "file").read_text() == "target"


def test_canonical_json_has_one_spelling() -> None:
    assert files.canonical_json({"b": "é", "a": [1, 2.5]}) == '{"a":[1,2.5],"b":"é"}'.encode()
    with pytest.raises(ValueError, match="not JSON compliant"):
        files.canonical_json(float("nan"))
