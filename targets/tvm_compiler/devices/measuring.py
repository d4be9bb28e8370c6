"""Kernels timed on devices that a tracker has, over TVM RPC.

A round is done in a child process with a session of its own, as on this machine: it compiles for
the device, sends the kernels there, and may be ended at any time without the device minding. What
a candidate does to the device's session ends that session alone; where the device itself is gone,
and no other one has its key, nothing can be measured any more.
"""

from __future__ import annotations

import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from infc.diagnostics import InfcError, fail
from infc.targets import cross
from infc.targets.tvm_compiler.devices.address import DeviceAddress
from infc.targets.tvm_compiler.devices.session import alive, connect
from infc.targets.tvm_compiler.devices.tracker_client import devices
from infc.targets.tvm_compiler.errors import last_line
from infc.targets.tvm_compiler.forms.vm import linker
from infc.targets.tvm_compiler.tuning.host_measuring import HostMeasurer, random_arguments, time_all
from infc.targets.tvm_compiler.tuning.measuring import Candidate

if TYPE_CHECKING:
    from infc.targets.tvm_compiler.cpus import Cpu

STEP_S = 90.0
"""For one step of a candidate, waiting for a device that others have among them."""
SESSION_S = 300
"""After so long a device ends a round by itself."""
RETURN_S = 15.0
"""How long a device may take to offer itself again, after a session was cut."""
BIG = 1
"""TVM's mode of a pool of threads that prefers the faster cores."""


class DeviceMeasurer(HostMeasurer):
    """Times kernels for `cpu` on the devices that `remote` names, on one thread."""

    def __init__(self, cpu: Cpu, remote: str, compiler: str = "", step_s: float = STEP_S) -> None:
        """`compiler` is the one that the user names for the processor.

        Raises:
            InfcError: E110, E501, E516.
        """
        super().__init__(cpu, step_s)
        self._address = DeviceAddress.parse(remote)
        self._compiler = cross.find_compiler(cpu.triple, compiler, cpu.flags).c
        self.places = devices(self._address)
        if not self.places:
            raise fail(
                "E516",
                f"the tracker has no device `{self._address.key}`",
                help=f"start the device's server with `--key {self._address.key}`",
            )

    def work(
        self, candidates: Sequence[Candidate], numbers: Sequence[int], tell: Callable[..., None]
    ) -> None:
        """Have a device, and time the candidates on it."""
        try:
            session = self._connected()
        except InfcError as error:
            tell(gone=error.diagnostics[0].message)
            return
        with tempfile.TemporaryDirectory(prefix="infc-tuning-") as folder:

            def ready(number: int, candidate: Candidate) -> Callable[[int], float]:
                with _cut(session):
                    return self._sent(session, number, candidate, Path(folder))

            time_all(candidates, numbers, ready, tell)

    def _connected(self) -> Any:
        """A session; a device whose last one was cut is given the time to come back."""
        deadline = time.monotonic() + RETURN_S
        while True:
            try:
                session = connect(self._address, SESSION_S)
                session.get_function("runtime.config_threadpool")(BIG, 1)
                return session
            except InfcError:
                if time.monotonic() > deadline:
                    raise
            time.sleep(0.5)

    def _sent(
        self, session: Any, number: int, candidate: Candidate, folder: Path
    ) -> Callable[[int], float]:
        """The candidate compiled, and on the device with its arguments."""
        import tvm

        target = tvm.target.Target(self._cpu.target())
        module = tvm.tirx.build(tvm.IRModule({"main": candidate.func}), target=target)
        library = folder / f"kernel-{number}.so"
        place = folder / str(number)
        place.mkdir()
        module.export_library(str(library), fcompile=linker(self._compiler, place))
        session.upload(str(library), target=library.name)
        device = session.cpu()
        loaded = session.load_module(library.name)
        arguments = [a.copyto(device) for a in random_arguments(candidate.arguments)]

        def run(count: int) -> float:
            with _cut(session):
                evaluator = loaded.time_evaluator("main", device, number=count, repeat=1)
                return float(evaluator(*arguments).results[0])

        return run


class _cut:  # noqa: N801  (a context, as `contextlib.suppress` is)
    """Tells a session that was cut from a candidate that fails.

    Raises:
        ConnectionError: the session is gone.
    """

    def __init__(self, session: Any) -> None:
        self._session = session

    def __enter__(self) -> None:
        return None

    def __exit__(self, kind: Any, error: BaseException | None, where: Any) -> None:
        if isinstance(error, Exception) and not alive(self._session):
            raise ConnectionError(last_line(error)) from error
