"""Locks: what may stand in one, and that the shipped ones say what their toolchains do."""

from __future__ import annotations

import random
from importlib import metadata
from pathlib import Path

import pytest
from conftest import ROOT

from infc.diagnostics import InfcError
from infc.workers import installing, locks, toolchains
from infc.workers.locks import Lock, Pin

DIGEST = "0123456789abcdef" * 4
HEADER = """\
# infc toolchain lock 1
# name: tiny
# python: 3.7
# platform: linux-x86_64
# requires: tiny>=1,<2, other
# imports: tiny, other.part
"""
GOOD = f"{HEADER}\nTiny_Pkg==1.0 \\\n    --hash=sha256:{DIGEST}\n"


def test_a_lock_as_pip_would_read_it() -> None:
    text = (
        GOOD + f"# a comment\nother==2.0+cpu --hash=sha256:{DIGEST} \\\n --hash=sha256:{'f' * 64}\n"
    )
    lock = locks.parse(text, "tiny.lock")
    assert (lock.name, lock.python, lock.platform) == ("tiny", "3.7", "linux-x86_64")
    assert lock.requires == ("tiny>=1,<2", "other")
    assert lock.imports == ("tiny", "other.part")
    assert lock.packages == {"tiny-pkg": "1.0", "other": "2.0+cpu"}
    assert lock.pins[1].hashes == (DIGEST, "f" * 64)


def test_the_same_lock_gives_the_same_bytes() -> None:
    pins = [Pin(f"package-{i}", f"{i}.0", (DIGEST, f"{i:064x}")) for i in range(20)]
    fields = ("tiny", "3.7", "linux-x86_64", ("a", "b"), ("c",))
    text = Lock(*fields, tuple(pins)).render()
    for seed in range(5):
        random.Random(seed).shuffle(pins)
        shuffled = tuple(Pin(p.name, p.version, p.hashes[::-1]) for p in pins)
        assert Lock(*fields, shuffled).render() == text
    assert locks.parse(text, "x").render() == text
    assert Lock(*fields[:3], (), (), tuple(pins)).render().count(" \n") == 0


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("", "its first line is not"),
        ("tiny==1.0\n", "its first line is not"),
        (HEADER, "it lists no package"),
        (HEADER + "tiny\n", "`tiny` is not pinned"),
        (HEADER + f"tiny>=1.0 --hash=sha256:{DIGEST}\n", "`tiny>=1.0` is not pinned"),
        (HEADER + f"tiny==1.* --hash=sha256:{DIGEST}\n", "`tiny==1.*` is not pinned"),
        (HEADER + "tiny==1.0\n", "`tiny==1.0` has no `--hash=sha256:`"),
        (HEADER + f"tiny==1.0 --hash=md5:{DIGEST}\n", "`--hash=md5:"),
        (HEADER + "tiny==1.0 --hash=sha256:0123\n", "`--hash=sha256:0123`"),
        (HEADER + f"tiny[extra]==1.0 --hash=sha256:{DIGEST}\n", "is not pinned"),
        (HEADER + "--index-url https://example.com/\n", "`--index-url` is not pinned"),
        (HEADER + "-e .\n", "`-e` is not pinned"),
        (HEADER + "-r other.txt\n", "`-r` is not pinned"),
        (HEADER + f"https://example.com/tiny.whl --hash=sha256:{DIGEST}\n", "is not pinned"),
        (HEADER + f"tiny==1.0 --hash=sha256:{DIGEST} --index-url=x\n", "`--index-url=x`"),
        (GOOD + f"tiny.pkg==2.0 --hash=sha256:{DIGEST}\n", "`tiny-pkg` is listed twice"),
        (GOOD + "tiny==1.0 \\", "`tiny==1.0` has no `--hash=sha256:`"),
        (GOOD.replace("# platform: linux-x86_64\n", ""), "its header has no `platform:`"),
        (GOOD.replace("python: 3.7", "python: 2.7"), "`2.7` is not a version of Python"),
        (GOOD.replace("name: tiny", "name: ../tiny"), "cannot be the name of a toolchain"),
        (GOOD.replace("imports: tiny", "imports: os; x"), "is not the name of a module"),
        (GOOD.replace("lock 1", "lock 2"), "its first line is not"),
    ],
)
def test_what_is_no_lock(text: str, says: str, tmp_path: Path) -> None:
    path = tmp_path / "tiny.lock"
    path.write_text(text)
    with pytest.raises(InfcError) as caught:
        locks.load(path)
    (diagnostic,) = caught.value.diagnostics
    assert diagnostic.code == "E510"
    assert says in diagnostic.message


def test_files_that_cannot_be_read(tmp_path: Path) -> None:
    (tmp_path / "binary.lock").write_bytes(b"\xff\xfe\x00")
    with (tmp_path / "large.lock").open("wb") as stream:
        stream.truncate(locks.MAX_BYTES + 1)
    for name in ("absent.lock", "binary.lock", "large.lock", "."):
        with pytest.raises(InfcError) as caught:
            locks.load(tmp_path / name)
        assert caught.value.diagnostics[0].code == "E510"


@pytest.mark.parametrize(
    ("name", "platform", "says"),
    [("tiny", "plan9-pdp11", "platform `plan9-pdp11`"), ("other", "", "toolchain `tiny`")],
)
def test_a_lock_for_something_else(
    name: str, platform: str, says: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("INFC_HOME", str(tmp_path / "home"))
    path = tmp_path / "tiny.lock"
    path.write_text(GOOD.replace("linux-x86_64", platform or locks.this_platform()))
    with pytest.raises(InfcError, match="is a lock for") as caught:
        installing.install(name, path)
    assert caught.value.diagnostics[0].code == "E510"
    assert says in caught.value.diagnostics[0].message
    assert not (tmp_path / "home").exists()


@pytest.mark.parametrize("name", toolchains.known())
def test_the_shipped_locks_say_what_their_toolchains_do(name: str) -> None:
    row = toolchains.known()[name]
    files = sorted((ROOT / "targets" / "toolchains").glob(f"{name}.*.lock"))
    assert files
    for file in files:
        lock, text = locks.load(file)
        assert text == lock.render()
        assert file.name == f"{name}.{lock.platform}.lock"
        assert (lock.name, lock.python) == (name, row.python)
        assert lock.requires[: len(row.requirements)] == row.requirements
        own = {line for line in metadata.requires("infc") or () if "extra" not in line}
        beyond = set(lock.requires[len(row.requirements) :])
        assert beyond == (own if toolchains.runs_own_source(row.python) else set())
        assert lock.imports == row.modules
        for requirement in row.requirements:
            package, _, version = requirement.partition("==")
            assert lock.packages[locks.normal(package)] == version
        assert "://" not in text


def test_no_file_without_its_toolchain() -> None:
    files = [p for p in (ROOT / "targets" / "toolchains").iterdir() if p.suffix == ".lock"]
    assert {file.name.split(".")[0] for file in files} == set(toolchains.known())
