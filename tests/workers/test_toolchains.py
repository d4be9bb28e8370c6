"""Toolchains: installed whole or not at all, from locks that leave nothing open.

The installations are real ones, of small packages from the package index, with the running
interpreter's version.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from command import infc, write_model
from conftest import missing

from infc import workers
from infc.diagnostics import InfcError
from infc.targets import Worker
from infc.workers import installing, resolving, toolchains
from infc.workers.locks import Lock, Pin, this_platform
from infc.workers.toolchains import State

RUNNING = f"{sys.version_info.major}.{sys.version_info.minor}"
OLD = Pin(
    "iniconfig", "1.1.1", ("011e24c64b7f47f6ebd835bb12a743f2fbe9a26d4cecaa7f53bc4f35ee9da8b3",)
)
NEW = Pin(
    "iniconfig", "2.0.0", ("b6a85871a79d2e3b22d2d1b94ac2824226a63c6b741c88f7ae975f18b6778374",)
)
INFC = [sys.executable, "-c", "from infc.cli import main; main()"]


@pytest.fixture(scope="session")
def index(tmp_path_factory: pytest.TempPathFactory) -> None:
    """A package index that pip can reach."""
    folder = tmp_path_factory.mktemp("download")
    done = subprocess.run(
        [sys.executable, "-m", "pip", "download", "-q", "--no-deps", "-d", str(folder),
         "iniconfig==2.0.0"],
        capture_output=True, check=False,
    )  # fmt: skip
    if done.returncode:
        missing("a package index that pip can reach")


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("INFC_HOME", str(tmp_path / "home"))
    return tmp_path / "home"


def lock_file(
    folder: Path, *pins: Pin, name: str = "tiny", imports: tuple[str, ...] = ("iniconfig",)
) -> Path:
    lock = Lock(name, RUNNING, this_platform(), ("iniconfig",), imports, pins or (NEW,))
    path = folder / f"{name}.lock"
    path.write_text(lock.render())
    return path


def environments(home: Path) -> list[str]:
    """Everything in the folder but the empty files that processes wait on."""
    return sorted(p.name for p in (home / "toolchains").iterdir() if p.suffix != ".lock")


def code_of(caught: pytest.ExceptionInfo[InfcError]) -> str:
    (diagnostic,) = caught.value.diagnostics
    return diagnostic.code


def test_install_use_and_remove(
    index: None, home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    lock = lock_file(tmp_path)
    assert toolchains.find("tiny") is None
    document = infc("toolchain", "install", "tiny", "--lock", lock, "--json").document
    assert document["ok"]
    assert document["changed"]
    assert document["packages"] == {"iniconfig": "2.0.0"}

    environment = toolchains.require("tiny")
    program = "import iniconfig, sys; print(sys.version.split()[0], iniconfig.__file__)"
    done = subprocess.run(
        [environment.python, "-I", "-c", program], capture_output=True, text=True, check=True
    )
    version, file = done.stdout.split()
    assert version == environment.python_version
    assert Path(file).is_relative_to(environment.folder)
    assert Path(document["path"]).resolve() == environment.folder

    with monkeypatch.context() as patch, workers._interpreter(Worker("tiny")) as command:
        patch.setenv("PYTHONPATH", "/elsewhere")
        program = "import sys; print(hash('a'), sys.path)"
        words = [*command[:-1], "-c", program]
        answers = {
            subprocess.check_output(words, env=workers._environment(Worker("tiny")), text=True)
            for _ in range(3)
        }
    (answer,) = answers  # sets of names lie in the same order every time
    assert "/elsewhere" not in answer, "nor is anything imported from elsewhere"

    again = infc("toolchain", "install", "tiny", "--json").document
    assert not again["changed"], "from the lock that was kept"
    assert toolchains.require("tiny") == environment
    assert infc("toolchain", "install", "tiny", "-q").out == document["path"] + "\n"
    assert "checking" not in infc("toolchain", "install", "tiny", "-v").err
    forced = infc("toolchain", "install", "tiny", "--force", "--json").document
    assert forced["changed"]
    assert len(environments(home)) == 2, "the link and the one it leads to"

    rows = infc("toolchain", "list", "--json").document["toolchains"]
    (row,) = (row for row in rows if row["name"] == "tiny")
    assert (row["state"], row["own_lock"]) == ("ready", True)
    assert row["bytes"] > 1_000_000, "pip is in it"
    assert "tiny" in infc("toolchain", "list").out
    groups = {g["name"]: g for g in infc("doctor", "tiny", "--json").document["groups"]}
    assert groups["toolchain tiny"]["ready"]

    assert infc("toolchain", "remove", "tiny", "--json").document["files_gone"]
    assert environments(home) == []
    assert toolchains.state("tiny") is State.MISSING
    assert infc("toolchain", "remove", "tiny").err.startswith("error[E110]")


def test_two_installs_at_once(index: None, home: Path, tmp_path: Path) -> None:
    words = [*INFC, "toolchain", "install", "tiny", "--lock", str(lock_file(tmp_path)), "--json"]
    both = [subprocess.Popen(words, stdout=subprocess.PIPE) for _ in range(2)]
    documents = [json.loads(process.communicate()[0]) for process in both]
    assert [process.returncode for process in both] == [0, 0]
    assert sorted(document["changed"] for document in documents) == [False, True]
    assert len(environments(home)) == 2


def interrupted(home: Path, lock: Path, number: signal.Signals) -> subprocess.Popen[bytes]:
    """An install that got `number` while pip was at work."""
    words = [*INFC, "toolchain", "install", "tiny", "--lock", str(lock), "--force"]
    process = subprocess.Popen(words, stderr=subprocess.PIPE)
    before = set(environments(home)) if (home / "toolchains").is_dir() else set()
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline:
        made = set(home.glob("toolchains/.tiny.*/lib/python*/site-packages/pip"))
        if {p.relative_to(home / "toolchains").parts[0] for p in made} - before:
            break
        assert process.poll() is None, "it ended before it could be interrupted"
        time.sleep(0.02)
    process.send_signal(number)
    process.wait(30)
    return process


def working_in(home: Path) -> list[str]:
    """The command lines of running processes that name `home`."""
    lines = []
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            words = path.read_bytes().decode(errors="replace")
        except OSError:
            continue
        if str(home) in words:
            lines.append(words)
    return lines


def test_killed_in_the_middle(index: None, home: Path, tmp_path: Path) -> None:
    """The old one stays in use; the next command sweeps, and installs."""
    installing.install("tiny", lock_file(tmp_path, OLD))
    old = toolchains.require("tiny")
    lock = lock_file(tmp_path, NEW)
    process = interrupted(home, lock, signal.SIGKILL)
    assert process.returncode == -signal.SIGKILL
    assert len(environments(home)) == 3, "what it left"
    assert toolchains.require("tiny") == old
    deadline = time.monotonic() + 10
    while working_in(home) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert working_in(home) == [], "its pip died with it"

    done = installing.install("tiny", lock)
    assert done.changed
    assert toolchains.require("tiny").packages == {"iniconfig": "2.0.0"}
    assert len(environments(home)) == 2
    assert not old.folder.exists()


def test_what_another_name_left_is_swept_too(index: None, home: Path, tmp_path: Path) -> None:
    interrupted(home, lock_file(tmp_path), signal.SIGKILL)
    assert len(environments(home)) == 1
    installing.install("other", lock_file(tmp_path, name="other"))
    left = [name for name in environments(home) if "tiny" in name]
    assert left == []


def test_interrupted_it_cleans_up_by_itself(index: None, home: Path, tmp_path: Path) -> None:
    process = interrupted(home, lock_file(tmp_path), signal.SIGTERM)
    assert process.returncode == 128 + signal.SIGTERM
    assert environments(home) == []
    assert working_in(home) == []


def test_a_wrong_hash(index: None, home: Path, tmp_path: Path) -> None:
    """One diagnostic; what was installed before stays."""
    installing.install("tiny", lock_file(tmp_path))
    before = environments(home)
    wrong = Pin("iniconfig", "2.0.0", ("0" * 64,))
    done = infc("toolchain", "install", "tiny", "--lock", lock_file(tmp_path, wrong))
    assert done.status == 4
    assert done.err.startswith("error[E509]: toolchain `tiny` cannot be installed: a package does")
    assert done.err.count("error[") == 1
    assert "the last lines of its log" in done.err
    (log,) = (home / "log").iterdir()
    assert "DO NOT MATCH THE HASHES" in log.read_text()
    assert environments(home) == before
    assert toolchains.state("tiny") is State.READY


def test_a_module_that_cannot_be_imported(index: None, home: Path, tmp_path: Path) -> None:
    lock = lock_file(tmp_path, imports=("iniconfig", "a_module_that_nobody_has"))
    with pytest.raises(InfcError) as caught:
        installing.install("tiny", lock)
    assert code_of(caught) == "E509"
    text = caught.value.diagnostics[0].render()
    assert "`a_module_that_nobody_has` cannot be imported" in text
    assert "ModuleNotFoundError" in text
    assert environments(home) == []


def test_an_impossible_version(index: None, home: Path, tmp_path: Path) -> None:
    with pytest.raises(InfcError, match="does not have what it asks for"):
        installing.install("tiny", lock_file(tmp_path, Pin("iniconfig", "0.0.1", ("0" * 64,))))
    assert environments(home) == []


def test_it_is_not_deleted_while_a_worker_runs_in_it(
    index: None, home: Path, tmp_path: Path
) -> None:
    installing.install("tiny", lock_file(tmp_path, OLD))
    old = toolchains.require("tiny")
    with old.held():
        installing.install("tiny", lock_file(tmp_path, NEW))
        assert old.python.exists()
        new = toolchains.require("tiny")
        with new.held():
            document = infc("toolchain", "remove", "tiny", "--json").document
            assert not document["files_gone"]
            assert new.python.exists()
            assert toolchains.find("tiny") is None
    with pytest.raises(InfcError) as caught:
        installing.remove("tiny")
    assert code_of(caught) == "E110"
    installing.install("other", lock_file(tmp_path, name="other"))
    assert not old.folder.exists()
    assert not new.folder.exists()
    with pytest.raises(InfcError) as caught, old.held():
        pass
    assert code_of(caught) == "E501"


@pytest.fixture
def known(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, home: Path) -> Iterator[Path]:
    """A folder of shipped toolchains with one in it: `tiny`."""
    folder = tmp_path / "shipped"
    folder.mkdir()
    text = f'summary = "a test"\npython = "{RUNNING}"\nrequirements = ["iniconfig"]\n'
    (folder / "tiny.toml").write_text(text + 'modules = ["iniconfig"]\n')
    lock = lock_file(folder, OLD)
    lock.rename(folder / f"tiny.{this_platform()}.lock")
    monkeypatch.setattr(toolchains, "_shipped", lambda: folder)
    yield folder


def test_a_newer_lock_makes_it_outdated(index: None, known: Path, tmp_path: Path) -> None:
    with pytest.raises(InfcError) as caught:
        toolchains.require("tiny")
    assert code_of(caught) == "E501"
    assert caught.value.diagnostics[0].help == "infc toolchain install tiny"
    assert infc("toolchain", "remove", "tiny").err.startswith("error[E501]")

    assert infc("toolchain", "install", "tiny").status == 0
    assert toolchains.state("tiny") is State.READY
    lock_file(known, NEW).rename(known / f"tiny.{this_platform()}.lock")
    assert toolchains.state("tiny") is State.OUTDATED
    with pytest.raises(InfcError) as caught:
        toolchains.require("tiny")
    assert code_of(caught) == "E507"
    assert caught.value.diagnostics[0].help == "infc toolchain install tiny"
    (group,) = (
        g for g in infc("doctor", "tiny", "--json").document["groups"]
        if g["name"] == "toolchain tiny"
    )  # fmt: skip
    assert group["items"][0]["remedy"] == "(outdated) infc toolchain install tiny"

    assert installing.install("tiny").changed
    assert toolchains.require("tiny").packages == {"iniconfig": "2.0.0"}
    own = installing.install("tiny", lock_file(tmp_path, OLD))
    assert own.environment.own_lock
    assert toolchains.state("tiny") is State.READY, "the user chose that lock"


def test_a_damaged_one_is_made_anew(index: None, known: Path, home: Path) -> None:
    environment = installing.install("tiny").environment
    environment.python.unlink()
    (home / "toolchains" / "tiny" / "bin" / "python").symlink_to("/nowhere/python3")
    with pytest.raises(InfcError) as caught:
        toolchains.require("tiny")
    assert code_of(caught) == "E507"
    (environment.folder / "toolchain.json").write_text("{ not json")
    assert toolchains.state("tiny") is State.DAMAGED
    assert installing.install("tiny").changed
    assert toolchains.state("tiny") is State.READY
    assert len(environments(home)) == 2


def test_no_lock_for_this_platform(known: Path) -> None:
    (known / f"tiny.{this_platform()}.lock").unlink()
    assert toolchains.state("tiny") is State.UNAVAILABLE
    for action in (lambda: toolchains.require("tiny"), lambda: installing.install("tiny")):
        with pytest.raises(InfcError, match="has no lock for") as caught:
            action()
        assert code_of(caught) == "E501"


def test_a_home_that_is_no_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("INFC_HOME", str(tmp_path / "file"))
    with pytest.raises(InfcError) as caught:
        installing.install("tiny", lock_file(tmp_path))
    assert code_of(caught) == "E509"
    assert toolchains.installed() == ()
    assert toolchains.find("tiny") is None


@pytest.mark.parametrize("name", ["", "..", "../tiny", ".tiny", "Tiny", "a/b", "a" * 65, "-x"])
def test_impossible_names(name: str, home: Path, tmp_path: Path) -> None:
    with pytest.raises(InfcError) as caught:
        installing.install(name, lock_file(tmp_path))
    assert code_of(caught) == "E110"
    assert toolchains.find(name) is None
    assert not home.exists()


def test_unknown_names(home: Path) -> None:
    done = infc("toolchain", "install", "mindspore-lit")
    assert (done.status, done.err.startswith("error[E110]")) == (2, True)
    assert "did you mean `mindspore-lite`?" in done.err
    assert infc("toolchain", "remove", "mindspore-lit").status == 2
    done = infc("toolchain", "remove", "mindspore-lite")
    assert (done.status, done.err.startswith("error[E501]")) == (4, True)


@pytest.mark.slow
def test_any_back_end_can_run_in_one(
    index: None, home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The way of a user who needs another version of a runtime: lock, install, compile, verify."""
    lock = tmp_path / "mine.lock"
    words = ["onnxruntime==1.23.2", "--python", RUNNING, "--import", "onnxruntime", "-o", lock]
    done = infc("toolchain", "lock", "mine", *words, "--json")
    assert done.status == 0, done.err
    assert done.document["packages"]["onnxruntime"] == "1.23.2"
    assert "onnx-ir" in done.document["packages"], "infc's source runs there"
    assert infc("toolchain", "install", "mine", "--lock", lock).status == 0

    model = write_model(tmp_path / "small.onnx")
    choice = ["--toolchain", "onnxruntime=mine"]
    done = infc("compile", model, "-t", "cpu", *choice, "-o", tmp_path, "-q", "--loader", "cpp")
    assert done.status == 0, done.err
    bundle = Path(done.out.strip())
    manifest = json.loads((bundle / "manifest.json").read_text())
    assert manifest["toolchain"]["onnxruntime"] == "1.23.2"
    assert manifest["target"]["toolchain"] == "mine"
    assert infc("verify", bundle).status == 0
    assert infc("bench", bundle, "--toolchain", "onnxruntime=", "--runs", "1").status == 0

    assert infc("toolchain", "remove", "mine").status == 0
    done = infc("verify", bundle)
    assert (done.status, done.err.startswith("error[E501]")) == (4, True)
    assert "infc toolchain install mine --lock FILE" in done.err
    assert infc("verify", bundle, "--toolchain", "onnxruntime=").status == 0
    monkeypatch.setenv("INFC_TOOLCHAIN_ONNXRUNTIME", "absent")
    assert "toolchain `absent` is not installed" in infc("verify", bundle).err


def test_infcs_source_needs_a_python_that_runs_it(
    index: None, home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    installing.install("tiny", lock_file(tmp_path))
    monkeypatch.setattr(toolchains, "OWN_SOURCE", (3, 99))
    model = write_model(tmp_path / "small.onnx")
    done = infc("compile", model, "-o", tmp_path / "out", "--toolchain", "onnxruntime=tiny")
    assert (done.status, done.err.startswith("error[E501]")) == (4, True)
    assert "need 3.99 or later" in done.err
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("choice", "says"),
    [
        ("tiny", "is not BACKEND=NAME"),
        ("=tiny", "is not BACKEND=NAME"),
        ("openvino=tiny", "no target here has the back end `openvino`"),
        ("onnxruntim=tiny", "did you mean `onnxruntime`?"),
    ],
)
def test_a_choice_that_makes_no_sense(choice: str, says: str, home: Path, tmp_path: Path) -> None:
    done = infc("compile", tmp_path / "none.onnx", "--toolchain", choice)
    assert (done.status, done.err.startswith("error[E110]")) == (2, True)
    assert says in done.err


@pytest.mark.slow
def test_resolving_is_repeatable(index: None, monkeypatch: pytest.MonkeyPatch) -> None:
    """Twice the same bytes, with all that a requirement brings, pinned, and no address."""
    monkeypatch.setattr(toolchains, "OWN_SOURCE", (3, 99))
    words = ("jsonschema==4.23.0", "iniconfig >=2, <2.1")
    first, second = (
        resolving.resolve("mine", RUNNING, words, (), this_platform()) for _ in range(2)
    )
    assert first.render() == second.render()
    assert first.requires == ("jsonschema==4.23.0", "iniconfig >=2,<2.1")
    assert first.packages["jsonschema"] == "4.23.0"
    assert first.packages["iniconfig"] == "2.0.0"
    assert {"attrs", "referencing", "rpds-py"} <= set(first.packages)
    assert "://" not in first.render()
    assert os.sep not in first.render()
    with pytest.raises(InfcError) as caught:
        resolving.resolve("mine", RUNNING, ("iniconfig==0.0.1",), (), this_platform())
    assert code_of(caught) == "E509"
    assert "cannot be locked" in caught.value.diagnostics[0].message


@pytest.mark.parametrize(
    "requirement",
    ["-r other.txt", "./wheel.whl", "a @ https://example.com/a.whl", "", "--index-url=x", "a\nb"],
)
def test_what_is_no_requirement_of_the_index(requirement: str) -> None:
    with pytest.raises(InfcError) as caught:
        resolving.resolve("mine", RUNNING, (requirement,), (), this_platform())
    assert code_of(caught) == "E110"


@pytest.mark.slow
def test_a_lock_for_another_machine(index: None, monkeypatch: pytest.MonkeyPatch) -> None:
    """Other files, of the same versions; not where the machine decides what is needed."""
    monkeypatch.setattr(toolchains, "OWN_SOURCE", (3, 99))
    other = "linux-x86_64" if this_platform() == "linux-aarch64" else "linux-aarch64"
    words = ("markupsafe==3.0.2", "iniconfig==2.0.0")
    here, there = (resolving.resolve("m", RUNNING, words, (), p) for p in (this_platform(), other))
    assert there.platform == other
    assert there.packages == here.packages
    digests = [{pin.name: pin.hashes for pin in lock.pins} for lock in (here, there)]
    assert digests[0]["iniconfig"] == digests[1]["iniconfig"]
    assert digests[0]["markupsafe"] != digests[1]["markupsafe"]
    with pytest.raises(InfcError, match="depends on the machine") as caught:
        resolving.resolve("m", RUNNING, ("sqlalchemy==2.0.36",), (), other)
    assert code_of(caught) == "E509"


def test_a_lock_for_another_system() -> None:
    with pytest.raises(InfcError, match="cannot be made here") as caught:
        resolving.resolve("m", RUNNING, ("iniconfig",), (), "win32-amd64")
    assert code_of(caught) == "E110"
