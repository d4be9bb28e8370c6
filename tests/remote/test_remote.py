"""`--remote` over an sshd of the test's own: what arrives, what is left, what is said."""

from __future__ import annotations

import contextlib
import io
import json
import os
import shutil
import signal
import struct
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import onnx
import pytest
from command import Done, infc
from conftest import ROOT, missing
from loopback import Loopback, has_sshd

import infc as api
from infc import remote
from infc.bundle import open_bundle, sha256_of
from infc.diagnostics import InfcError
from infc.remote import far_side
from infc.remote.address import Address

DIGITS = ROOT / "examples" / "digits" / "digits.onnx"
STAND_IN = ("--stand-in", "tensorrt_rtx")
ROWS = 2048
WEIGHTS_BYTES = 2 * ROWS * ROWS
"""Of the large model in float16: 8 MiB."""
pytestmark = pytest.mark.xdist_group("sshd")


@pytest.fixture(scope="module", autouse=True)
def tools(need_tool: Callable[[str], str], need_module: Callable[[str], None]) -> None:
    for tool in ("ssh", "ssh-keygen"):
        need_tool(tool)
    if not has_sshd():
        missing("the program sshd")
    need_module("tensorrt_rtx")


@pytest.fixture(scope="module")
def machine(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Loopback]:
    loopback = Loopback(tmp_path_factory.mktemp("sshd") / "there")
    loopback.start()
    yield loopback
    loopback.stop()


@pytest.fixture
def there(machine: Loopback, monkeypatch: pytest.MonkeyPatch) -> Iterator[Loopback]:
    """The other machine as it should be, and as it is found again."""
    monkeypatch.setenv("INFC_SSH", f"ssh -F {machine.folder / 'config'}")
    monkeypatch.delenv("SSH_ASKPASS", raising=False)
    monkeypatch.setattr(remote, "PAUSES_S", (0.1, 0.1, 0.1))
    yield machine
    for name in ("pythonpath", "path", "largest-file", "limits", "reached"):
        (machine.folder / name).unlink(missing_ok=True)
    machine.trust("host")
    machine.identify("id")
    shutil.rmtree(machine.cache)
    machine.cache.mkdir()


def compiled(model: Path, folder: Path) -> Path:
    done = infc("compile", model, "-t", "jetson", "-o", folder, "-q", "--loader", "none")
    assert done.status == 0, done.err
    return Path(done.out.strip())


@pytest.fixture(scope="module")
def digits(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return compiled(DIGITS, tmp_path_factory.mktemp("digits"))


@pytest.fixture(scope="module")
def large(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A bundle whose graph takes a while to send."""
    folder = tmp_path_factory.mktemp("large")
    weights = np.random.default_rng(1).normal(size=(ROWS, ROWS)).astype(np.float32) / ROWS
    graph = onnx.helper.make_graph(
        [onnx.helper.make_node("MatMul", ["x", "w"], ["y"])],
        "large",
        [onnx.helper.make_tensor_value_info("x", onnx.TensorProto.FLOAT, [1, ROWS])],
        [onnx.helper.make_tensor_value_info("y", onnx.TensorProto.FLOAT, [1, ROWS])],
        [onnx.numpy_helper.from_array(weights, "w")],
    )
    opsets = [onnx.helper.make_opsetid("", 17)]
    onnx.save(onnx.helper.make_model(graph, opset_imports=opsets, ir_version=8), folder / "m.onnx")
    return compiled(folder / "m.onnx", folder)


@pytest.fixture
def bundle(digits: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(digits, tmp_path / "digits-jetson"))


@pytest.fixture
def large_bundle(large: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(large, tmp_path / "m-jetson"))


def finish(bundle: Path, there: Loopback, *words: object) -> Done:
    return infc("finish", bundle, "--remote", there.url, *STAND_IN, *words, "--json")


def codes(done: Done) -> list[str]:
    return [d["code"] for d in done.document["diagnostics"]]


def require_untouched(bundle: Path, there: Loopback) -> None:
    """The bundle is as it was, and nothing is left on the other machine."""
    assert open_bundle(bundle).manifest["state"] == "deferred"
    assert not list(bundle.rglob("*.engine"))
    assert there.left_behind == []


# What it does


def test_the_engine_is_built_there_and_comes_back(bundle: Path, there: Loopback) -> None:
    done = finish(bundle, there)
    assert codes(done) == ["E608"], done.out
    assert done.status == 3
    document = done.document
    assert document["state"] == "built"
    assert document["machine"] == f"127.0.0.1:{there.port}"
    assert document["sent"]["there"] == 0
    manifest = open_bundle(bundle).manifest
    assert manifest["verification"]["verdict"] == "not verified"
    engine = bundle / "model" / "model.engine"
    assert sha256_of(engine) == document["facts"]["sha256"]
    assert engine.read_bytes()[:4] == b"vtrt"
    assert (bundle / "timing.cache").stat().st_size > 0
    measured = json.loads((bundle / "finished.json").read_text())
    assert measured["facts"]["seconds"] > 0
    assert there.left_behind == []


def test_the_log_is_streamed(bundle: Path, there: Loopback) -> None:
    done = infc("finish", bundle, "--remote", there.url, *STAND_IN, "-v")
    assert done.status == 3
    steps = ("connecting to", "sending", "building on", "Building engine", "fetching the engine")
    places = [done.err.index(step) for step in steps]
    assert places == sorted(places)


def test_the_timing_cache_goes_there_and_serves(bundle: Path, there: Loopback) -> None:
    assert codes(finish(bundle, there)) == ["E608"]
    again = finish(bundle, there)
    assert codes(again) == ["E608"]
    assert again.document["facts"]["timing_cache"] is True


def test_compile_builds_there_while_it_waits(there: Loopback, tmp_path: Path) -> None:
    words = ("-t", "jetson", "-o", tmp_path, "--remote", there.url, *STAND_IN)
    done = infc("compile", DIGITS, *words, "--json")
    assert done.status == 3
    (row,) = done.document["results"]
    assert [d["code"] for d in row["diagnostics"]] == ["E608"]
    bundle = Path(row["bundle"])
    manifest = open_bundle(bundle).manifest
    assert manifest["state"] == "built"
    assert (bundle / "model" / "model.engine").is_file()
    assert not (bundle / ".finish").exists()
    assert "Building engine" in (Path(row["log"]) / "worker.log").read_text()
    assert there.left_behind == []


def test_compile_keeps_the_deferred_bundle_where_the_machine_fails(
    there: Loopback, tmp_path: Path
) -> None:
    """Calibration and search may have taken hours: nothing of that is lost."""
    words = ("-t", "jetson", "-o", tmp_path, "--remote", there.url, "--json")
    done = infc("compile", DIGITS, *words)
    assert done.status == 4
    (row,) = done.document["results"]
    assert not row["ok"]
    assert [d["code"] for d in row["diagnostics"]] == ["E514"]
    bundle = Path(row["bundle"])
    require_untouched(bundle, there)
    assert codes(finish(bundle, there)) == ["E608"]
    # A finished bundle is not replaced by one that is not.
    before = (bundle / "manifest.json").read_bytes()
    done = infc("compile", DIGITS, *words)
    assert done.status == 4
    assert (bundle / "manifest.json").read_bytes() == before
    # Nor is anything published where the user wants no deferred bundle.
    done = infc("compile", DIGITS, *words, "--no-deferred", "--name", "other")
    assert done.status == 4
    assert not (tmp_path / "other-jetson").exists()


def test_what_a_login_shell_says_is_no_frame(bundle: Path, there: Loopback) -> None:
    """A banner before the program speaks, on both streams."""
    python = there.folder / "bin" / "python3"
    kept = python.read_text()
    python.write_text(kept.replace("exec", "echo Welcome; echo to Orin >&2; exec"))
    try:
        assert codes(finish(bundle, there)) == ["E608"]
    finally:
        python.write_text(kept)


# Who may get in


def test_a_wrong_host_key(bundle: Path, there: Loopback) -> None:
    there.trust("other-host")
    done = finish(bundle, there)
    assert done.status == 4
    (row,) = done.document["diagnostics"]
    assert row["code"] == "E512"
    assert "is not the one in known_hosts" in row["message"]
    assert "ssh-keygen -R" in row["help"]
    require_untouched(bundle, there)


def test_an_unknown_host_key_is_not_accepted(bundle: Path, there: Loopback) -> None:
    there.trust(None)
    done = finish(bundle, there)
    assert done.status == 4
    (row,) = done.document["diagnostics"]
    assert row["code"] == "E512"
    assert "is not known here" in row["message"]
    assert (there.folder / "known_hosts").read_text() == ""
    require_untouched(bundle, there)


def test_a_configuration_without_host_keys_is_not_followed(bundle: Path, there: Loopback) -> None:
    there.trust("other-host")
    config = there.folder / "config"
    config.write_text(config.read_text() + "  StrictHostKeyChecking no\n")
    assert codes(finish(bundle, there)) == ["E512"]


def test_accept_new_is_the_users_to_choose(bundle: Path, there: Loopback) -> None:
    there.trust(None)
    config = there.folder / "config"
    config.write_text(config.read_text() + "  StrictHostKeyChecking accept-new\n")
    assert codes(finish(bundle, there)) == ["E608"]
    assert (there.folder / "known_hosts").read_text() != ""
    there.trust("other-host")
    assert codes(finish(bundle, there, "--again")) == ["E512"]


def test_a_wrong_key(bundle: Path, there: Loopback) -> None:
    there.identify("other-id")
    done = finish(bundle, there)
    assert done.status == 4
    (row,) = done.document["diagnostics"]
    assert row["code"] == "E512"
    assert "accepts none of your keys" in row["message"]
    assert "SSH_ASKPASS" in row["help"]
    require_untouched(bundle, there)


def test_a_wrong_password(
    bundle: Path, there: Loopback, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """SSH_ASKPASS is asked once, and never for anything but a password."""
    answers = tmp_path / "askpass"
    answers.write_text(f'#!/bin/sh\necho "$1" >> {tmp_path}/asked\necho wrong\n')
    answers.chmod(0o700)
    machine = Loopback(tmp_path / "passwords", passwords=True)
    machine.start()
    try:
        monkeypatch.setenv("INFC_SSH", f"ssh -F {machine.folder / 'config'}")
        monkeypatch.setenv("SSH_ASKPASS", str(answers))
        done = finish(bundle, machine)
        assert codes(done) == ["E512"]
        assert "accepts none of your keys" in done.document["diagnostics"][0]["message"]
        asked = (tmp_path / "asked").read_text().splitlines()
        assert len(asked) == 1
        assert "password" in asked[0]
        machine.trust(None)
        assert codes(finish(bundle, machine)) == ["E512"]
        assert (tmp_path / "asked").read_text().splitlines() == asked
    finally:
        machine.stop()
    require_untouched(bundle, machine)


def test_without_askpass_no_password_is_asked_for(
    bundle: Path, there: Loopback, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    machine = Loopback(tmp_path / "passwords", passwords=True)
    machine.start()
    try:
        monkeypatch.setenv("INFC_SSH", f"ssh -F {machine.folder / 'config'}")
        assert codes(finish(bundle, machine)) == ["E512"]
    finally:
        machine.stop()


def test_nobody_answers(bundle: Path, there: Loopback, tmp_path: Path) -> None:
    unstarted = Loopback(tmp_path / "unstarted")
    done = finish(bundle, unstarted)
    assert codes(done) == ["E512"]
    assert "does not answer" in done.document["diagnostics"][0]["message"]


def test_no_such_machine(bundle: Path, there: Loopback) -> None:
    done = infc("finish", bundle, "--remote", "ssh://no-such-machine.invalid", "--json")
    assert codes(done) == ["E512"]
    assert "there is no machine" in done.document["diagnostics"][0]["message"]


def test_no_ssh_here(bundle: Path, there: Loopback, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("INFC_SSH", "/nonexistent/ssh")
    assert codes(finish(bundle, there)) == ["E501"]


# What the machine lacks


def test_no_python(bundle: Path, there: Loopback) -> None:
    there.tell(path="/nonexistent")
    done = finish(bundle, there)
    assert done.status == 4
    assert codes(done) == ["E514"]
    assert "there is no Python 3 on" in done.document["diagnostics"][0]["message"]
    require_untouched(bundle, there)


def test_an_old_python(bundle: Path, there: Loopback, tmp_path: Path) -> None:
    from infc.workers import interpreters

    try:
        old = interpreters.find("3.7").path
    except InfcError:
        missing("Python 3.7")
    (tmp_path / "bin").mkdir()
    python = tmp_path / "bin" / "python3"
    python.write_text(f'#!/bin/sh\nexec {old} "$@"\n')
    python.chmod(0o755)
    there.tell(path=f"{tmp_path / 'bin'}:/usr/bin:/bin")
    done = finish(bundle, there)
    assert codes(done) == ["E514"]
    assert "is older than 3.8" in done.document["diagnostics"][0]["message"]
    require_untouched(bundle, there)


def test_the_oldest_python_that_will_do(bundle: Path, there: Loopback, tmp_path: Path) -> None:
    """It lacks the library, and can say so."""
    from infc.workers import interpreters

    try:
        python = interpreters.find("3.8").path
    except InfcError:
        pytest.skip("missing: Python 3.8")
    (tmp_path / "bin").mkdir()
    shim = tmp_path / "bin" / "python3"
    shim.write_text(f'#!/bin/sh\nexec {python} "$@"\n')
    shim.chmod(0o755)
    there.tell(path=f"{tmp_path / 'bin'}:/usr/bin:/bin")
    done = finish(bundle, there)
    assert codes(done) == ["E514"]
    assert "`tensorrt_rtx` cannot be imported" in done.document["diagnostics"][0]["message"]
    require_untouched(bundle, there)


def test_no_tensorrt(bundle: Path, there: Loopback) -> None:
    done = infc("finish", bundle, "--remote", there.url, "--json")
    assert done.status == 4
    assert codes(done) == ["E514"]
    message = done.document["diagnostics"][0]["message"]
    assert message.startswith(f"on `127.0.0.1:{there.port}`: ")
    assert "`tensorrt` cannot be imported" in message
    require_untouched(bundle, there)


@pytest.mark.parametrize(
    ("version", "said"), [("8.6.1", "tensorrt is 8.6.1 here"), ("10.3.0", "there is no GPU")]
)
def test_another_release_and_no_gpu(
    bundle: Path, there: Loopback, tmp_path: Path, version: str, said: str
) -> None:
    """A module `tensorrt` that is the stand-in by another name, and says which release it is."""
    text = f"from tensorrt_rtx import *\n__version__ = {version!r}\n"
    (tmp_path / "tensorrt.py").write_text(text)
    there.tell(pythonpath=tmp_path)
    done = infc("finish", bundle, "--remote", there.url, "--json")
    assert done.status == 4
    assert codes(done) == ["E514"]
    assert said in done.document["diagnostics"][0]["message"]
    require_untouched(bundle, there)


def test_a_file_that_may_not_grow(large_bundle: Path, there: Loopback) -> None:
    """A quota, met in the middle of the transfer."""
    there.tell(largest_file=WEIGHTS_BYTES // 2)
    done = finish(large_bundle, there)
    assert done.status == 1
    assert codes(done) == ["E515"]
    assert "model.onnx" in done.document["diagnostics"][0]["message"]
    require_untouched(large_bundle, there)
    (there.folder / "largest-file").unlink()
    assert codes(finish(large_bundle, there)) == ["E608"]


@pytest.fixture
def small_disk(there: Loopback) -> Iterator[Loopback]:
    """The other machine's cache on a file system of its own."""
    command = ["mount", "-t", "tmpfs", "-o", "size=10m", "none", str(there.cache)]
    if subprocess.run(command, capture_output=True, check=False).returncode:
        pytest.skip("missing: the right to mount a file system")
    yield there
    subprocess.run(["umount", str(there.cache)], check=True)


def test_a_disk_without_room_is_known_before_anything_is_sent(
    large_bundle: Path, small_disk: Loopback
) -> None:
    filler = small_disk.cache / "filler"
    filler.write_bytes(bytes(6 << 20))
    done = finish(large_bundle, small_disk)
    assert codes(done) == ["E515"]
    assert "there is room for" in done.document["diagnostics"][0]["message"]
    assert small_disk.left_behind == ["filler"]


def test_a_disk_that_is_full_when_the_engine_is_written(
    large_bundle: Path, small_disk: Loopback
) -> None:
    """The graph fits, the engine beside it does not."""
    done = finish(large_bundle, small_disk)
    assert codes(done) == ["E515"], done.out
    assert "No space left on device" in done.document["diagnostics"][0]["message"]
    require_untouched(large_bundle, small_disk)


# Interrupted


def test_a_connection_that_is_cut_is_made_again(large_bundle: Path, there: Loopback) -> None:
    """sshd's child is killed in the middle of the graph; the rest goes over the next connection."""
    there.tell(limits=f"cut:{WEIGHTS_BYTES // 2} -")
    done = finish(large_bundle, there)
    assert codes(done) == ["E608"], done.out
    sent = done.document["sent"]
    size = (large_bundle / "model" / "model.onnx").stat().st_size
    assert WEIGHTS_BYTES // 4 < sent["there"] <= size
    # What was under way at that moment is sent twice: a window of ssh's, 2 MiB, and the pipes.
    assert sent["sent"] < size + (3 << 20) < size + WEIGHTS_BYTES // 2
    assert there.left_behind == []


def test_what_has_arrived_is_not_sent_again(large_bundle: Path, there: Loopback) -> None:
    """The connection stays broken: one diagnostic. The next command sends the rest."""
    there.tell(limits=f"cut:{WEIGHTS_BYTES // 2} cut:0 cut:0 cut:0")
    done = finish(large_bundle, there)
    assert done.status == 1
    assert codes(done) == ["E513"]
    assert open_bundle(large_bundle).manifest["state"] == "deferred"
    parts = list(there.cache.rglob("*.part"))
    assert len(parts) == 1
    arrived = parts[0].stat().st_size
    assert arrived > WEIGHTS_BYTES // 4
    (there.folder / "limits").unlink()
    done = finish(large_bundle, there)
    assert codes(done) == ["E608"], done.out
    size = (large_bundle / "model" / "model.onnx").stat().st_size
    assert done.document["sent"]["there"] >= arrived
    assert done.document["sent"]["sent"] < size - arrived + (1 << 20)
    assert there.left_behind == []


def test_a_part_that_is_not_the_beginning_is_sent_anew(large_bundle: Path, there: Loopback) -> None:
    there.tell(limits=f"cut:{WEIGHTS_BYTES // 2} cut:0 cut:0 cut:0")
    assert codes(finish(large_bundle, there)) == ["E513"]
    (there.folder / "limits").unlink()
    (part,) = there.cache.rglob("*.part")
    with part.open("r+b") as stream:
        stream.write(b"something else")
    done = finish(large_bundle, there)
    assert codes(done) == ["E608"], done.out
    assert there.left_behind == []


def test_a_part_that_has_arrived_and_has_no_name_yet(large_bundle: Path, there: Loopback) -> None:
    """Cut between the last byte and the rename."""
    there.tell(limits=f"cut:{WEIGHTS_BYTES // 2} cut:0 cut:0 cut:0")
    assert codes(finish(large_bundle, there)) == ["E513"]
    (there.folder / "limits").unlink()
    (part,) = there.cache.rglob("*.part")
    shutil.copyfile(large_bundle / "model" / "model.onnx", part)
    done = finish(large_bundle, there)
    assert codes(done) == ["E608"], done.out
    assert there.left_behind == []


def start(bundle: Path, there: Loopback, *words: str) -> subprocess.Popen[str]:
    """`infc finish` in a process of its own."""
    # What a shell starts in the background has SIGINT ignored.
    heeds = "import signal; signal.signal(signal.SIGINT, signal.default_int_handler)"
    program = [sys.executable, "-c", f"{heeds}; from infc.cli import main; main()"]
    return subprocess.Popen(
        [*program, "finish", str(bundle), "--remote", there.url, *STAND_IN, "-v", *words],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def wait_for(path: Path) -> None:
    deadline = time.monotonic() + 60
    while not path.exists():
        assert time.monotonic() < deadline, path
        time.sleep(0.02)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_ctrl_c_in_the_middle_of_the_transfer(
    large_bundle: Path, there: Loopback, number: int
) -> None:
    there.tell(limits=f"hold:{WEIGHTS_BYTES // 2} -")
    process = start(large_bundle, there)
    wait_for(there.folder / "reached")
    process.send_signal(number)
    _, errors = process.communicate(timeout=60)
    assert process.returncode == 128 + number
    assert "interrupted" in errors
    require_untouched(large_bundle, there)


def test_ctrl_c_in_the_middle_of_the_build(bundle: Path, there: Loopback, tmp_path: Path) -> None:
    """The build there ends, too."""
    (tmp_path / "slow_trt.py").write_text(
        "import pathlib, time\n"
        f"pathlib.Path({str(tmp_path / 'building')!r}).touch()\n"
        "time.sleep(600)\n"
    )
    there.tell(pythonpath=tmp_path)
    process = start(bundle, there, "--stand-in", "slow_trt")
    wait_for(tmp_path / "building")
    process.send_signal(signal.SIGINT)
    process.communicate(timeout=60)
    assert process.returncode == 130
    require_untouched(bundle, there)
    assert str(there.cache) not in " ".join(commands())


def commands() -> list[str]:
    """Of all processes."""
    found = []
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        with contextlib.suppress(OSError):  # it has ended
            found.append(path.read_bytes().replace(b"\0", b" ").decode(errors="replace"))
    return found


def test_a_connection_that_is_cut_while_it_builds(
    bundle: Path, there: Loopback, tmp_path: Path
) -> None:
    """The build there ends with the connection, and is done again over the next one."""
    (tmp_path / "slow_once.py").write_text(
        "import pathlib, time\n"
        f"marker = pathlib.Path({str(tmp_path / 'building')!r})\n"
        "if not marker.exists():\n"
        "    marker.touch()\n"
        "    time.sleep(600)\n"
        "from tensorrt_rtx import *\n"
        "from tensorrt_rtx import __version__\n"
    )
    there.tell(pythonpath=tmp_path)
    process = start(bundle, there, "--stand-in", "slow_once", "--json")
    wait_for(tmp_path / "building")
    there.cut()
    out, errors = process.communicate(timeout=120)
    assert "was lost; again in" in errors
    assert [d["code"] for d in json.loads(out)["diagnostics"]] == ["E608"], errors
    assert there.left_behind == []


def test_another_infc_at_work_there(bundle: Path, there: Loopback, tmp_path: Path) -> None:
    (tmp_path / "slow_trt.py").write_text(
        "import pathlib, time\n"
        f"pathlib.Path({str(tmp_path / 'building')!r}).touch()\n"
        "time.sleep(600)\n"
    )
    there.tell(pythonpath=tmp_path)
    other = Path(shutil.copytree(bundle, tmp_path / "other"))
    process = start(bundle, there, "--stand-in", "slow_trt")
    try:
        wait_for(tmp_path / "building")
        done = finish(other, there)
        assert codes(done) == ["E514"]
        assert (
            "another infc is building the same there" in done.document["diagnostics"][0]["message"]
        )
    finally:
        process.send_signal(signal.SIGINT)
        process.communicate(timeout=60)
    require_untouched(bundle, there)


def test_a_machine_that_says_nothing_any_more(large_bundle: Path, there: Loopback) -> None:
    there.tell(limits=f"hold:{WEIGHTS_BYTES // 2} -")
    done = finish(large_bundle, there, "--timeout", "3")
    assert codes(done) == ["E503"]
    require_untouched(large_bundle, there)


def test_a_build_that_takes_too_long(bundle: Path, there: Loopback, tmp_path: Path) -> None:
    (tmp_path / "slow_trt.py").write_text("import time\ntime.sleep(600)\n")
    there.tell(pythonpath=tmp_path)
    words = ("--stand-in", "slow_trt", "--timeout", "3")
    done = infc("finish", bundle, "--remote", there.url, *words, "--json")
    assert codes(done) == ["E503"]
    assert "took more than 3 s" in done.document["diagnostics"][0]["message"]
    require_untouched(bundle, there)


def test_a_library_that_crashes_there(bundle: Path, there: Loopback, tmp_path: Path) -> None:
    text = "import os\nprint('before', flush=True)\nos.kill(os.getpid(), 11)\n"
    (tmp_path / "bad_trt.py").write_text(text)
    there.tell(pythonpath=tmp_path)
    done = infc("finish", bundle, "--remote", there.url, "--stand-in", "bad_trt", "--json")
    (row,) = done.document["diagnostics"]
    assert row["code"] == "E502"
    assert "SIGSEGV" in row["message"]
    assert "before" in row["notes"][0]
    require_untouched(bundle, there)


def test_old_folders_of_other_bundles_are_removed(bundle: Path, there: Loopback) -> None:
    old, young = (there.cache / "infc" / "remote" / name for name in ("0" * 32, "1" * 32))
    for folder in (old, young):
        folder.mkdir(parents=True)
        (folder / "model.onnx").write_bytes(b"x")
    os.utime(old, (0, 0))
    assert codes(finish(bundle, there)) == ["E608"]
    assert not old.exists()
    assert young.exists()


# What is no frame


def frame(header: object, payload: bytes = b"") -> bytes:
    text = json.dumps(header).encode()
    return struct.pack(">I", len(text)) + text + payload


def test_frames() -> None:
    stream = io.BytesIO(frame({"do": "a", "bytes": 3}, b"xyz") + frame({"do": "b"}))
    assert far_side.read_frame(stream) == ({"do": "a", "bytes": 3}, b"xyz")
    assert far_side.read_frame(stream) == ({"do": "b"}, b"")
    assert far_side.read_frame(stream) is None


@pytest.mark.parametrize(
    "data",
    [
        struct.pack(">I", 1 << 31),
        struct.pack(">I", 3) + b"not",
        frame([1]),
        frame({"bytes": 1 << 40}),
        frame({"bytes": -1}),
    ],
    ids=["header too large", "no JSON", "no object", "payload too large", "payload negative"],
)
def test_what_is_no_frame_is_not_allocated(data: bytes) -> None:
    with pytest.raises(ValueError):
        far_side.read_frame(io.BytesIO(data))


@pytest.mark.parametrize("size", [2, 6])
def test_a_frame_that_is_cut(size: int) -> None:
    whole = frame({"do": "a", "bytes": 3}, b"xyz")
    assert far_side.read_frame(io.BytesIO(whole[:size])) is None
    assert far_side.read_frame(io.BytesIO(whole[:-1])) is None


# Addresses


def test_addresses() -> None:
    assert Address.parse("ssh://orin") == Address("orin")
    assert Address.parse("ssh://nvidia@orin.local:2222/") == Address("orin.local", "nvidia", 2222)
    assert Address.parse("ssh://me@[fe80::1%eth0]:22").host == "fe80::1%eth0"
    assert Address.parse("ssh://me@orin:22").words == ["-p", "22", "-l", "me", "--", "orin"]


@pytest.mark.parametrize(
    "text",
    [
        *("orin", "ssh://", "http://orin", "ssh://-oProxyCommand=x", "ssh://a@-b", "ssh://-a@b"),
        *(
            "ssh://orin:99999",
            "ssh://orin/folder",
            "ssh://user:word@orin",
            "ssh://a b",
            "ssh://a;b",
        ),
    ],
)
def test_what_is_no_address(text: str, digits: Path) -> None:
    done = infc("finish", digits, "--remote", text)
    assert done.status == 2
    assert "error[E110]" in done.err


def test_the_python_api(bundle: Path, there: Loopback) -> None:
    steps: list[str] = []
    result = api.finish(
        bundle,
        remote=there.url,
        stand_in="tensorrt_rtx",
        skip_verify=True,
        progress=lambda _, step: steps.append(step),
    )
    assert result.state == "built"
    assert result.exit_code == 0
    assert any("sending" in step for step in steps)
