"""`infc finish`: the engine of a deferred bundle, built here or on another machine.

What `./finish` does on the device, with the same code (`infc.device`): the library runs in a
worker here, or over there (`infc.remote`), and the bundle is completed in one step.
"""

from __future__ import annotations

import errno
import os
from collections.abc import Mapping
from dataclasses import dataclass
from importlib.resources import as_file, files
from pathlib import Path
from typing import Any

from infc import bundle, report, targets, workers
from infc.bundle import Bundle
from infc.device import completing
from infc.device.device_error import DeviceError
from infc.diagnostics import Diagnostic, InfcError, Severity, fail
from infc.formatting import format_bytes
from infc.frontends.frameworks import of_back_ends
from infc.outcomes import FinishResult, Progress, silent
from infc.remote import Address, Errand, FarError
from infc.remote import produce as produce_there
from infc.request import WorkerLimits
from infc.targets import Target, Worker

_CODES = {
    "busy": "E701",
    "unwritable": "E701",
    "damaged": "E702",
    "machine": "E514",
    "disk": "E701",
    "time": "E503",
    "refused": "E204",
    "crashed": "E502",
    "wrong": "E602",
    "unverified": "E608",
}
"""What the device calls a trouble, and what infc calls it."""


def finish(
    path: Path,
    *,
    remote: str = "",
    stand_in: str = "",
    skip_verify: bool = False,
    again: bool = False,
    limits: WorkerLimits = WorkerLimits(),  # noqa: B008
    toolchains: Mapping[str, str] | None = None,
    progress: Progress = silent,
    log: Path | None = None,
    shown: Path | None = None,
) -> FinishResult:
    """Build the engine of the bundle in `path`, verify it, and complete the bundle in place.

    `remote` is the machine to do it on, "" for this one; `stand_in` the Python module that builds
    in place of the target's library. A bundle that is ready is left as it is unless `again`. `log`
    is the file that the log goes to, `shown` what messages call a bundle that is not published yet.

    Raises:
        InfcError: E110 where the bundle has its artifact from the start, E702 where it is damaged,
            E204, E50x, E602 where the engine answers wrongly, E512 to E515, E701.
    """
    address = Address.parse(remote) if remote else None
    subject = _deferred(path)
    if subject.manifest["state"] == "ready" and not again:
        return _unchanged(subject)
    try:
        with completing.held(path) as workshop:
            subject = bundle.open_bundle(path)
            completing.seed(path, subject.manifest)
            wish = _Wish(stand_in or None, not skip_verify, log or workshop / "log", progress)
            sent: dict[str, int] = {}
            if address is None:
                result = _produce_here(subject, workshop, wish, limits, toolchains)
            else:
                result, sent = _produce_there(subject, workshop, wish, limits, address)
            progress("", "completing the bundle")
            state = completing.complete(path, subject.manifest, result, _pages(path))
    except (DeviceError, FarError) as error:
        raise _told(error, address, shown or path) from error
    done = bundle.open_bundle(path, check_hashes=False)
    notes = (
        ()
        if state == "ready"
        else (_unverified(shown or path, result["reason"], wanted=skip_verify),)
    )
    return FinishResult(
        path,
        state,
        True,
        result["library"],
        result["gpu"],
        result["facts"],
        done.manifest["verification"],
        result["latency"],
        str(address or ""),
        sent,
        notes,
    )


def _deferred(path: Path) -> Bundle:
    """The bundle, which has to be one that is finished on the device."""
    subject = bundle.open_bundle(path, check_hashes=False)
    if "on_device" not in subject.manifest:
        raise fail(
            "E110",
            f"`{path}` has its artifact: there is nothing to finish",
            help=f"`infc verify {path}` proves it once more",
        )
    return subject


def _unchanged(subject: Bundle) -> FinishResult:
    notes = subject.manifest["artifact"]["notes"]
    ((module, version),) = notes["versions"].items()
    library, built = {"module": module, "version": version}, notes["built"]
    proof = subject.manifest["verification"]
    return FinishResult(subject.path, "ready", False, library, notes.get("gpu"), built, proof, None)


@dataclass(frozen=True, slots=True)
class _Wish:
    """How it is to be done: by which library, whether proved, and who is told."""

    module: str | None
    verify: bool
    log: Path
    progress: Progress


def _produce_here(
    subject: Bundle,
    workshop: Path,
    wish: _Wish,
    limits: WorkerLimits,
    toolchains: Mapping[str, str] | None,
) -> dict[str, Any]:
    """In a worker of this machine's."""
    recorded = Target.from_json(subject.manifest["target"])
    (target,) = targets.in_toolchains([recorded], of_back_ends(toolchains or {}))
    scratch = workshop / "worker"
    payload = {
        "bundle": str(subject.path.resolve()),
        "workshop": str(workshop.resolve()),
        "module": wish.module,
        "verify": wish.verify,
    }
    what = f"`{wish.module or subject.manifest['on_device']['module']}` while finishing the bundle"
    job = workers.Call(
        "infc.finishing_worker",
        "produce",
        payload,
        scratch,
        wish.log,
        what,
        Worker(target.toolchain),
    )
    wish.progress("", "building the engine")
    answer = workers.call(job, limits, lambda said: wish.progress("", str(said["line"])))
    if "trouble" in answer:
        raise DeviceError(**answer["trouble"])
    result: dict[str, Any] = answer["result"]
    return result


def _produce_there(
    subject: Bundle,
    workshop: Path,
    wish: _Wish,
    limits: WorkerLimits,
    address: Address,
) -> tuple[dict[str, Any], dict[str, int]]:
    """On the other machine; also what was sent."""
    with (
        as_file(files("infc.device")) as package,
        wish.log.open("a", encoding="utf-8") as log,
    ):

        def tell(line: str) -> None:
            log.write(f"{line}\n")
            log.flush()
            wish.progress("", line)

        errand = Errand(
            subject.path,
            subject.manifest,
            package,
            workshop,
            address,
            wish.module,
            wish.verify,
            limits.timeout_s,
            tell,
        )
        return produce_there(errand), errand.sent


def _pages(path: Path) -> completing.Pages:
    """The report, which tells of the engine now; the histograms stay those of the one before."""
    page = path / "report.html"
    before = page.read_text(encoding="utf-8") if page.is_file() else ""
    drawn = report.drawn_pictures(before)

    def pages(manifest: Mapping[str, Any]) -> dict[str, str]:
        # Parts of it are what another machine says: it has to fit before anything is replaced.
        bundle.check_schema(path / bundle.MANIFEST, manifest)
        return {page.name: report.render(manifest, drawn=drawn)}

    return pages


def _told(error: DeviceError | FarError, address: Address | None, path: Path) -> InfcError:
    """The trouble as a diagnostic."""
    message = str(error)
    code = _CODES[error.kind]
    if address is not None:
        message = f"on `{address}`: {message}"
        code = {"disk": "E515", "damaged": "E513", "busy": "E514"}.get(error.kind, code)
    if isinstance(error, FarError) and message.endswith(os.strerror(errno.ENOSPC)):
        message += f" ({format_bytes(error.free_bytes)} are free)"
    remedy = error.help or {"disk": "make room, and run this again"}.get(error.kind, "")
    details = tuple(filter(None, [error.details]))
    return fail(code, message, notes=details, help=remedy or f"`{path}` is as it was")


def _unverified(path: Path, reason: str, *, wanted: bool) -> Diagnostic:
    return Diagnostic(
        "E608",
        f"the engine of `{path}` is built, and not verified: {reason}",
        help="run `./finish` in the bundle on the device",
        severity=Severity.WARNING if wanted else Severity.ERROR,
    )
