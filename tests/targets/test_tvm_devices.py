"""Devices over TVM RPC: the real server and TVM's own tracker, on this machine's loopback."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import parser

import infc
from infc import device_server
from infc.diagnostics import InfcError
from infc.request import WorkerLimits
from infc.targets import cross, look_up
from infc.targets.tvm_compiler.devices import tracker_client as device_tracker
from infc.targets.tvm_compiler.devices.address import DeviceAddress

KEY = "test-device"
WHEELS = "INFC_TVM_WHEELS"
NUMBERS = ", ".join(f"{i / 7 - 1:.4f}" for i in range(24))
TEXT = f"""<ir_version: 8, opset_import: ["" : 17]>
agraph (float[n, 6] x) => (float[n, 4] y) {{
    w = Constant<value = float[6, 4] {{{NUMBERS}}}>()
    m = MatMul(x, w)
    y = Relu(m)
}}
"""


@dataclass(frozen=True, slots=True)
class Place:
    """A tracker, and the folder of a server for this machine."""

    port: int
    server: Path

    def address(self, key: str = KEY) -> str:
        return f"tracker://127.0.0.1:{self.port}/{key}"

    @contextlib.contextmanager
    def device(
        self, key: str = KEY, emulator: tuple[str, ...] = ()
    ) -> Iterator[subprocess.Popen[str]]:
        """A device with this key, for a while."""
        program = (*emulator, self.server / "serve")
        words = [*program, "--tracker", f"127.0.0.1:{self.port}", "--key", key]
        temporary = self.server.parent / "temporary"
        temporary.mkdir(exist_ok=True)
        env = {**os.environ, "TMPDIR": str(temporary)}
        with ended(subprocess.Popen(words, stdout=subprocess.PIPE, text=True, env=env)) as process:
            assert process.stdout is not None
            assert f"{key} is offered" in process.stdout.readline()
            yield process


@contextlib.contextmanager
def ended(process: subprocess.Popen[str]) -> Iterator[subprocess.Popen[str]]:
    try:
        yield process
    finally:
        process.terminate()
        process.wait(10)
        if process.stdout is not None:
            process.stdout.close()


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Place]:
    for name in ("tvm", "tornado"):
        pytest.importorskip(name)
    folder = tmp_path_factory.mktemp("server") / "here"
    made = device_server.build(look_up("tvm"), folder, None, WorkerLimits())
    words = [sys.executable, "-m", "infc", "device", "tracker", "--port", "0"]
    with ended(subprocess.Popen(words, stdout=subprocess.PIPE, text=True)) as process:
        assert process.stdout is not None
        line = process.stdout.readline()
        yield Place(int(line.rpartition(":")[2]), made.path)


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("model") / "small.onnx"
    onnx.save(parser.parse_model(TEXT), path)
    return path


@pytest.fixture(scope="module")
def bundles(model: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """One in each form that is a shared library."""
    found = {}
    for form, inputs in (("vm", {}), ("library", {"x": "3x6"})):
        folder = tmp_path_factory.mktemp(form)
        (made,) = infc.compile(model, "tvm", folder, inputs=inputs, loaders=[]).results
        assert made.bundle is not None
        found[form] = made.bundle
    return found


@pytest.mark.parametrize("form", ["vm", "library"])
def test_a_bundle_is_verified_on_a_device(
    place: Place, bundles: dict[str, Path], form: str
) -> None:
    with place.device():
        result = infc.verify(bundles[form], remote=place.address())
    assert result.ran_on == place.address()
    assert result.errors and all(error.ok for error in result.errors)


def test_a_device_of_another_kind(
    place: Place, model: Path, tmp_path: Path, need_tool: Callable[[str], str]
) -> None:
    """A server for aarch64 in qemu: what is verified on it was compiled for it."""
    wheels = os.environ.get(WHEELS)
    if not wheels:
        pytest.skip(f"{WHEELS} names no folder with TVM's wheels for aarch64")
    need_tool("qemu-aarch64")
    target = look_up("raspberry-pi-4")
    emulator = cross.find_emulator("aarch64-linux-gnu", "cortex-a72")
    assert emulator is not None
    made = device_server.build(target, tmp_path / "there", Path(wheels), WorkerLimits())
    (row,) = infc.compile(
        model, "raspberry-pi-4", tmp_path, inputs={"x": "3x6"}, loaders=[], verify=True
    ).results
    assert row.bundle is not None
    there = replace(place, server=made.path)
    with there.device(emulator=emulator.command):
        result = infc.verify(row.bundle, remote=place.address())
    assert result.ran_on == place.address()
    assert result.errors and all(error.ok for error in result.errors)


def test_a_device_serves_again_after_a_session(place: Place, bundles: dict[str, Path]) -> None:
    with place.device():
        for bundle in bundles.values():
            infc.verify(bundle, remote=place.address())
        assert device_tracker.devices(DeviceAddress.parse(place.address())) == 1


def code_of(caught: pytest.ExceptionInfo[InfcError]) -> str:
    return caught.value.diagnostics[0].code


def test_no_tracker(bundles: dict[str, Path]) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        address = f"tracker://127.0.0.1:{taken.getsockname()[1]}/{KEY}"
        with pytest.raises(InfcError, match="the tracker at") as caught:
            infc.verify(bundles["vm"], remote=address)
    assert code_of(caught) == "E516"


def test_what_answers_is_no_tracker(bundles: dict[str, Path]) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        thread = threading.Thread(target=lambda: listener.accept()[0].sendall(b"HTTP/1.1 400\r\n"))
        thread.start()
        address = f"tracker://127.0.0.1:{listener.getsockname()[1]}/{KEY}"
        with pytest.raises(InfcError, match="does not speak a tracker's protocol") as caught:
            infc.verify(bundles["vm"], remote=address)
        thread.join()
    assert code_of(caught) == "E516"


def test_no_device_with_the_key(place: Place, bundles: dict[str, Path]) -> None:
    with (
        place.device("another"),
        pytest.raises(InfcError, match=f"has no device `{KEY}`") as caught,
    ):
        infc.verify(bundles["vm"], remote=place.address())
    (diagnostic,) = caught.value.diagnostics
    assert diagnostic.code == "E516"
    assert "`another`" in diagnostic.notes[0]


def test_all_devices_are_busy(place: Place) -> None:
    address = DeviceAddress.parse(place.address())
    with place.device():
        device_tracker.request(address)
        with pytest.raises(InfcError, match="is busy") as caught:
            device_tracker.request(address, busy_s=0.5)
    assert code_of(caught) == "E516"


def test_the_device_vanishes_in_the_middle(place: Place, bundles: dict[str, Path]) -> None:
    from infc.targets.tvm_compiler.devices.session import connect, lost_on_error

    address = DeviceAddress.parse(place.address())
    with place.device() as device:
        session = connect(address)
        assert list((place.server.parent / "temporary").glob("infc-device-*"))
        os.kill(device.pid, signal.SIGKILL)
        device.wait(10)
        began = time.monotonic()
        with pytest.raises(InfcError) as caught, lost_on_error(address, session):
            while True:
                session.get_function("infc.device.about")()
                assert time.monotonic() - began < 20
    assert code_of(caught) == "E517"


def test_a_session_that_takes_too_long_is_ended_by_the_device(place: Place) -> None:
    from infc.targets.tvm_compiler.devices.session import connect, lost_on_error

    address = DeviceAddress.parse(place.address())
    with place.device():
        session = connect(address, session_s=3)
        with pytest.raises(InfcError) as caught, lost_on_error(address, session):
            for _ in range(300):
                time.sleep(0.1)
                session.get_function("infc.device.about")()
    assert code_of(caught) == "E517"


def test_a_server_of_another_tvm(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    from infc.targets.tvm_compiler.devices import session as device_session

    monkeypatch.setattr(device_session, "ffi_version", lambda: "9.9.9")
    with place.device(), pytest.raises(InfcError, match=r"tvm_ffi 9\.9\.9") as caught:
        device_session.connect(DeviceAddress.parse(place.address()))
    assert code_of(caught) == "E516"


def test_files_stay_in_the_folder_of_the_session(place: Place, tmp_path: Path) -> None:
    from infc.targets.tvm_compiler.devices.session import connect

    with place.device():
        session = connect(DeviceAddress.parse(place.address()))
        for name in ("../outside", "/tmp/outside", ".hidden"):
            with pytest.raises(Exception, match="is no file's name"):
                session.upload(bytearray(b"x"), target=name)


@pytest.mark.parametrize(
    "text", ["tracker://", "tracker://host", "tracker://host:99999/k", "ssh://host", "host:9/k k"]
)
def test_an_address_that_is_none(bundles: dict[str, Path], text: str) -> None:
    with pytest.raises(InfcError, match="is not tracker://HOST") as caught:
        infc.verify(bundles["vm"], remote=text)
    assert code_of(caught) == "E110"


def test_a_tracker_of_ipv6() -> None:
    address = DeviceAddress.parse("tracker://[::1]:9000/rpi.4")
    assert (address.host, address.port, address.key) == ("::1", 9000, "rpi.4")
    assert str(address) == "tracker://[::1]:9000/rpi.4"


def test_a_remote_does_not_go_with_a_loader(bundles: dict[str, Path]) -> None:
    with pytest.raises(InfcError, match="do not go together") as caught:
        infc.verify(bundles["vm"], through="cpp", remote="tracker://127.0.0.1/k")
    assert code_of(caught) == "E110"


def candidates(count: int) -> list[object]:
    """As many of a kernel that adds one."""
    import tvm
    from tvm import te

    from infc.targets.tvm_compiler.tuning.measuring import Argument, Candidate

    x = te.placeholder((64,), name="x")
    y = te.compute((64,), lambda i: x[i] + np.float32(1), name="y")
    func = te.create_prim_func([x, y]).with_attr("global_symbol", "main")
    assert isinstance(func, tvm.tirx.PrimFunc)
    argument = Argument((64,), "float32")
    return [Candidate(func, (argument, argument)) for _ in range(count)]


def test_kernels_are_timed_on_two_devices_at_once(place: Place) -> None:
    from infc.targets.tvm_compiler.cpus import host
    from infc.targets.tvm_compiler.devices.measuring import DeviceMeasurer

    with place.device(), place.device():
        measurer = DeviceMeasurer(host(), place.address())
        assert measurer.places == 2
        found: list[object] = []
        threads = [
            threading.Thread(target=lambda: found.extend(measurer.measure(candidates(2))))  # type: ignore[arg-type]
            for _ in range(2)
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(60)
    assert len(found) == 4
    assert all(timing.seconds and timing.seconds < 1 for timing in found)  # type: ignore[attr-defined]


def test_a_measurer_whose_device_is_gone_says_so(
    place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    from infc.targets.tvm_compiler.cpus import host
    from infc.targets.tvm_compiler.devices import measuring as device_measuring
    from infc.targets.tvm_compiler.tuning.measuring import MeasuringError

    monkeypatch.setattr(device_measuring, "RETURN_S", 0.5)
    with place.device():
        measurer = device_measuring.DeviceMeasurer(host(), place.address())
    with pytest.raises(MeasuringError, match=f"has no device `{KEY}`"):
        measurer.measure(candidates(1))  # type: ignore[arg-type]


def test_a_server_for_another_machine_needs_its_wheels(
    tmp_path: Path, need_module: Callable[[str], None]
) -> None:
    need_module("tvm")
    need_module("ziglang")
    target = look_up("raspberry-pi-4")
    with pytest.raises(InfcError, match="TVM's libraries for aarch64-linux-gnu") as caught:
        device_server.build(target, tmp_path / "server", None, WorkerLimits())
    assert code_of(caught) == "E501"
    assert "pip download" in (caught.value.diagnostics[0].help or "")
    with pytest.raises(InfcError, match=r"has no `apache_tvm-.*aarch64\.whl`"):
        device_server.build(target, tmp_path / "server", tmp_path, WorkerLimits())
    assert not (tmp_path / "server").exists()
