"""An artifact on a device, over TVM RPC: sent there, run there, its answers brought back.

A library for TVM's runtime is loaded by the server as TVM's clients do it. One that needs no TVM
is run by functions that infc's server has (`templates/tvm/device/server.cc`).
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any

from infc.diagnostics import InfcError, fail
from infc.targets import BackEndError
from infc.targets.tvm_compiler.devices.address import DeviceAddress
from infc.targets.tvm_compiler.devices.tracker_client import request
from infc.targets.tvm_compiler.errors import last_line
from infc.targets.tvm_compiler.forms.vm import ffi_version

if TYPE_CHECKING:
    from infc.targets import RunJob

SESSION_S = 600
"""After so long the device ends a session by itself."""
ABOUT = "infc.device.about"
PROTOCOL = "1"


def connect(address: DeviceAddress, session_s: int = SESSION_S) -> Any:
    """A session of TVM's with a device that goes with this TVM.

    Raises:
        InfcError: E516.
    """
    from tvm import rpc

    host, port, words = request(address)
    try:
        session = rpc.connect(host, port, words, session_timeout=session_s)
        about = str(session.get_function(ABOUT)()).split()
    except Exception as error:
        raise fail(
            "E516",
            f"the device `{address.key}` at {host}:{port}: {last_line(error)}",
            help="it has to be reachable from here, and its server one of `infc device server`",
        ) from error
    if about[:2] != ["infc", PROTOCOL] or about[2:4] != ["tvm_ffi", ffi_version()]:
        raise fail(
            "E516",
            f"the device's server has {' '.join(about)}, and this is infc {PROTOCOL} tvm_ffi "
            f"{ffi_version()}",
            help="build it again with `infc device server`",
        )
    return session


@contextlib.contextmanager
def lost_on_error(address: DeviceAddress, session: Any) -> Iterator[None]:
    """Tell an error of the artifact from one of the connection.

    Raises:
        InfcError: E517, the device does not answer any more.
        BackEndError: it does: the artifact failed there.
    """
    try:
        yield
    except InfcError:
        raise
    except Exception as error:
        if alive(session):
            raise BackEndError(last_line(error)) from error
        raise fail(
            "E517",
            f"the device `{address.key}` was lost: {last_line(error)}",
            help="look at what its server says; the same command can be run again",
        ) from error


def alive(session: Any) -> bool:
    """Whether the device still answers."""
    try:
        return bool(str(session.get_function(ABOUT)()))
    except Exception:
        return False


class Remote:
    """An artifact that was opened on a device; `run` takes and gives arrays by name."""

    def __init__(self, job: RunJob) -> None:
        from infc.targets.tvm import VM_ENTRY

        self._job = job
        self._address = DeviceAddress.parse(job.remote)
        self._session = connect(self._address)
        with lost_on_error(self._address, self._session):
            self._session.upload(str(job.entry), target=job.entry.name)
            if job.entry.name == VM_ENTRY:
                self._call = self._machine()
            else:
                self._call = self._library()

    def run(self, feeds: Mapping[str, Any]) -> dict[str, Any]:
        """Run once.

        Raises:
            InfcError: E517.
            BackEndError: a kernel refuses, or an input is of another type or shape.
        """
        import numpy as np

        arrays = [np.asarray(feeds[name], order="C") for name in self._job.inputs]
        with lost_on_error(self._address, self._session):
            answers = self._call(arrays)
        return dict(zip(self._job.outputs, answers, strict=True))

    def _machine(self) -> Any:
        import tvm
        from tvm import relax

        device = self._session.cpu()
        module = self._session.load_module(self._job.entry.name)
        machine = relax.VirtualMachine(module, device)

        def call(arrays: list[Any]) -> list[Any]:
            found = machine["main"](*(tvm.runtime.tensor(a, device) for a in arrays))
            tensors = [found] if hasattr(found, "numpy") else list(found)
            return [tensor.numpy() for tensor in tensors]

        return call

    def _library(self) -> Any:
        import numpy as np
        import tvm

        device, name = self._session.cpu(), self._job.entry.name
        describe = self._session.get_function("infc.device.describe")
        run = self._session.get_function("infc.device.run")
        types = _types(str(describe(name, self._job.threads)))

        def call(arrays: list[Any]) -> list[Any]:
            for key, array, wanted in zip(self._job.inputs, arrays, types[0], strict=True):
                if (array.dtype.name, array.shape) != wanted:
                    raise BackEndError(
                        f"`{key}` is {array.dtype.name} {array.shape}, not {wanted[0]} {wanted[1]}"
                    )
            given = [tvm.runtime.tensor(a, device) for a in arrays]
            made = [tvm.runtime.empty(shape, dtype, device) for dtype, shape in types[1]]
            run(name, self._job.threads, *given, *made)
            return [np.asarray(tensor.numpy()) for tensor in made]

        return call


def _types(text: str) -> tuple[list[tuple[str, tuple[int, ...]]], ...]:
    """Type and shape of each input, and of each output, of the lines that the server gives."""
    from infc.targets.tvm_compiler.forms.opened import DTYPE_NAMES

    found: tuple[list[tuple[str, tuple[int, ...]]], ...] = ([], [])
    for line in text.splitlines():
        output, code, *shape = map(int, line.split())
        found[output].append((DTYPE_NAMES[code], tuple(shape)))
    return found
