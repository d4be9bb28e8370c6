"""The search for an interpreter: what runs is taken, in the order nearest first."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from infc.diagnostics import InfcError
from infc.workers import interpreters

RUNNING = f"{sys.version_info.major}.{sys.version_info.minor}"


@pytest.fixture(autouse=True)
def nowhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """No interpreter on the path, in pyenv or through uv; /bin/sh is named by the scripts."""
    (tmp_path / "bin").mkdir()
    monkeypatch.setenv("PATH", str(tmp_path / "bin"))
    monkeypatch.setenv("PYENV_ROOT", str(tmp_path / "pyenv"))
    monkeypatch.delenv("INFC_PYTHON_3_99", raising=False)


def program(path: Path, text: str) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(f"#!/bin/sh\n{text}\n")
    path.chmod(0o755)
    return path


def python(path: Path, version: str, kind: str = "CPython") -> Path:
    """A program that answers the probe as an interpreter of `version` would."""
    answer = f'{{"version": "{version}", "kind": "{kind}", "path": "{path}"}}'
    return program(path, f"echo '{answer}'")


def test_the_running_one_is_the_nearest(tmp_path: Path) -> None:
    python(tmp_path / "bin" / f"python{RUNNING}", f"{RUNNING}.999")
    found = interpreters.find(RUNNING)
    assert found.path == Path(sys.executable)
    assert found.version == sys.version.split()[0]


def test_a_dead_shim_on_the_path_is_passed_over(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    program(tmp_path / "bin" / "python3.99", "echo 'pyenv: python3.99: not found' >&2; exit 127")
    other = python(tmp_path / "more" / "python3.99", "3.99.4")
    monkeypatch.setenv("PATH", f"{tmp_path / 'bin'}:{tmp_path / 'more'}")
    assert interpreters.find("3.99") == interpreters.Interpreter(other, "3.99.4")


@pytest.mark.parametrize("text", ["echo nonsense", "echo '{}'", "echo '[1]'", "kill -SEGV $$"])
def test_what_does_not_answer_is_no_interpreter(tmp_path: Path, text: str) -> None:
    assert interpreters.probe(str(program(tmp_path / "p", text))) is None


def test_only_cpython_will_do(tmp_path: Path) -> None:
    assert interpreters.probe(str(python(tmp_path / "p", "3.99.1", "PyPy"))) is None


def test_the_latest_of_pyenv(tmp_path: Path) -> None:
    for release in ("3.99.9", "3.99.10", "3.99.2", "3.99.11rc1"):
        python(tmp_path / "pyenv" / "versions" / release / "bin" / "python3.99", release)
    assert interpreters.find("3.99").version == "3.99.10"


def test_uv_is_asked_last_and_told_to_download_nothing(tmp_path: Path) -> None:
    there = python(tmp_path / "uv" / "python3.99", "3.99.0")
    text = f'[ "$UV_PYTHON_DOWNLOADS" = never ] && [ "$1 $2" = "python find" ] && echo {there}'
    program(tmp_path / "bin" / "uv", text)
    assert interpreters.find("3.99").path == there


def test_the_one_that_is_named_comes_first(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    python(tmp_path / "bin" / "python3.99", "3.99.1")
    named = python(tmp_path / "named", "3.99.7")
    monkeypatch.setenv("INFC_PYTHON_3_99", str(named))
    assert interpreters.find("3.99").version == "3.99.7"


@pytest.mark.parametrize("what", ["absent", "another"])
def test_a_named_one_that_will_not_do(
    what: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    python(tmp_path / "bin" / "python3.99", "3.99.1")
    python(tmp_path / "another", "3.98.1")
    monkeypatch.setenv("INFC_PYTHON_3_99", str(tmp_path / what))
    with pytest.raises(InfcError) as caught:
        interpreters.find("3.99")
    (diagnostic,) = caught.value.diagnostics
    assert diagnostic.code == "E508"
    assert "INFC_PYTHON_3_99=" in diagnostic.message


def test_none_at_all(tmp_path: Path) -> None:
    shim = program(tmp_path / "bin" / "python3.99", "exit 127")
    python(tmp_path / "pyenv" / "versions" / "3.98.1" / "bin" / "python3.98", "3.98.1")
    with pytest.raises(InfcError) as caught:
        interpreters.find("3.99")
    (diagnostic,) = caught.value.diagnostics
    assert diagnostic.code == "E508"
    assert diagnostic.help.splitlines()[0] == "uv python install 3.99"
    assert "pyenv install 3.99" in diagnostic.help
    assert diagnostic.notes == (f"`{shim}` does not run",)
    assert diagnostic.exit_code == 4


@pytest.mark.parametrize("version", ["3", "2.7", "3.7.16", "3.x", "", "../3.7"])
def test_what_is_no_version(version: str) -> None:
    with pytest.raises(InfcError) as caught:
        interpreters.find(version)
    assert caught.value.diagnostics[0].code == "E110"
