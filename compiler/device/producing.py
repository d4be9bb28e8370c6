"""An engine and what is known of it: library and GPU looked at, built, run, compared.

Everything is made in one folder, the *workshop*, which outlives an interrupted run: a finished
engine is not built again for the same graph, library and GPU, and the timing cache serves the next
build in any case.
"""

from __future__ import annotations

import hashlib
import json
import shutil
from pathlib import Path
from typing import TYPE_CHECKING, Any

from . import comparing, processes, requirements, trtexec
from .device_error import DeviceError

if TYPE_CHECKING:
    from collections.abc import Mapping

    from .processes import Log

PLAN = "plan"
"""The engine in the workshop. It has its real name only once it is part of the bundle."""
TIMING_CACHE = "timing.cache"
BUILT = "built.json"
"""What `plan` was built of, and the builder's facts; written when it is whole."""
_AHEAD: dict[str, Any] = {
    "compute_capabilities": [],
    "dla_core": None,
    "version_compatible": False,
    "hardware_compatible": "none",
}
"""What a library that builds for GPUs which are not here is told: any that it knows."""


class Order:
    """What is to be done: the bundle's folder, its manifest, and the user's wishes.

    `module` is the library that builds, by default the bundle's. `verify` of False leaves the
    engine unproved.
    """

    def __init__(
        self,
        bundle: Path,
        manifest: Mapping[str, Any],
        workshop: Path,
        module: str | None = None,
        verify: bool = True,
        timeout_s: float | None = None,
    ) -> None:
        self.bundle = bundle
        self.manifest = manifest
        self.how: Mapping[str, Any] = manifest["on_device"]
        self.workshop = workshop
        self.module = module or self.how["module"]
        self.verify = verify
        self.timeout_s = timeout_s

    @property
    def is_stand_in(self) -> bool:
        """Whether another library than the target's builds."""
        return bool(self.module != self.how["module"])

    def file(self, key: str) -> str:
        """The absolute path of what `on_device` names."""
        return str((self.bundle / self.how[key]).resolve())

    @property
    def spec(self) -> dict[str, Any]:
        """What the builder is told; what a stand-in cannot do without a GPU is left out."""
        spec: dict[str, Any] = json.loads(Path(self.file("spec")).read_text(encoding="utf-8"))
        return dict(spec, **_AHEAD) if self.is_stand_in else spec

    def sets(self) -> list[tuple[Path, Path]]:
        """The tensor folders of the reference: inputs and outputs."""
        folders = (self.bundle / "reference").glob("[0-9]*")
        return [(f / "inputs", f / "outputs") for f in sorted(folders, key=lambda f: int(f.name))]


def produce(order: Order, log: Log) -> dict[str, Any]:
    """Build and verify; the engine is `plan` in the workshop.

    The result has `key` (of what went into it), `facts` (the builder's), `library`, `gpu` (None
    without one), `verdict` (`passed`, `not verified`, `skipped`), `reason`, `comparison` and
    `latency` (None where the engine was not run).

    Raises:
        DeviceError: machine, refused, crashed, time, wrong.
    """
    order.workshop.mkdir(parents=True, exist_ok=True)
    machine = requirements.look_around(order, log)
    key = _key(order, machine)
    facts = _build(order, key, log, machine.get("trtexec"))
    result = {
        "key": key,
        "facts": facts,
        "library": {"module": order.module, "version": machine["version"]},
        "gpu": machine["gpu"] if "reason" not in machine["gpu"] else None,
        "verdict": "not verified",
        "reason": "",
        "comparison": None,
        "latency": None,
    }
    stand_in = f"built with {order.module} in place of {order.how['module']}"
    instead = [stand_in] if order.is_stand_in else []
    sets = order.sets()
    if not sets:
        skipped = order.manifest["verification"]["verdict"] == "skipped"
        verdict = "skipped" if skipped else "not verified"
        return dict(result, verdict=verdict, reason="the bundle keeps no answers to compare with")
    if not order.verify:
        return dict(result, reason="left out by the user")
    if "trtexec" in machine:
        reason = f"trtexec built it, and there is no Python module `{order.module}` to run it with"
        return dict(result, reason=reason)
    if result["gpu"] is None:
        return dict(result, reason="; ".join([*instead, machine["gpu"]["reason"]]))
    comparison, latency = _verify(order, sets, log)
    if not comparison["ok"]:
        (order.workshop / PLAN).unlink()  # the next build may choose other kernels
        raise _wrong(comparison)
    result = dict(result, comparison=comparison, latency=latency)
    if order.is_stand_in:
        return dict(result, reason=stand_in)
    return dict(result, verdict="passed")


def _build(order: Order, key: str, log: Log, program: str | None) -> dict[str, Any]:
    """Build the engine, unless the workshop has it already; the builder's facts.

    `program` is trtexec, where that builds.
    """
    plan, record = order.workshop / PLAN, order.workshop / BUILT
    try:
        known = json.loads(record.read_text(encoding="utf-8"))
        if known["key"] == key and known["facts"]["sha256"] == sha256_of(plan):
            log("the engine is there already, from a run that was interrupted")
            facts: dict[str, Any] = known["facts"]
            return facts
    except (OSError, ValueError, KeyError, TypeError):
        pass  # nothing that could be used
    request: dict[str, Any] = {
        "builder": order.file("builder"),
        "module": order.module,
        "spec": order.spec,
        "graph": order.file("graph"),
        "engine": str((order.workshop / PLAN).resolve()),
        "timing_cache": str((order.workshop / TIMING_CACHE).resolve()),
    }
    if program is None:
        facts = processes.call("build", request, order.workshop, log, order.timeout_s)
    else:
        version = trtexec.version_of(program)
        places = {
            "--onnx": request["graph"],
            "--saveEngine": request["engine"],
            "--timingCacheFile": request["timing_cache"],
        }
        line = order.how["trtexec"][version.partition(".")[0]]
        facts = trtexec.build(program, line, places, log, order.timeout_s)
        facts.update(sha256=sha256_of(plan), module=order.module, version=version)
    record.write_text(json.dumps({"key": key, "facts": facts}), encoding="utf-8")
    return facts


def _key(order: Order, machine: Mapping[str, Any]) -> str:
    """Of what the engine depends on."""
    files = [sha256_of(Path(order.file(key))) for key in ("builder", "spec", "graph")]
    weights = Path(order.file("graph") + ".data")
    files += [sha256_of(weights)] if weights.exists() else []
    document = json.dumps([files, order.module, machine], sort_keys=True)
    return hashlib.sha256(document.encode()).hexdigest()


def _verify(
    order: Order, sets: list[tuple[Path, Path]], log: Log
) -> tuple[dict[str, Any], dict[str, Any]]:
    """Run the engine on the reference's inputs: the comparison, and how long a run takes."""
    answers = order.workshop / "answers"
    shutil.rmtree(str(answers), ignore_errors=True)
    folders = [answers / str(i) for i in range(len(sets))]
    request = {
        "builder": order.file("builder"),
        "module": order.module,
        "spec": order.spec,
        "engine": str((order.workshop / PLAN).resolve()),
        "sets": [
            [str(given.resolve()), str(folder.resolve())]
            for (given, _), folder in zip(sets, folders)  # noqa: B905
        ],
    }
    latency = processes.call("run", request, order.workshop, log, order.timeout_s)
    pairs = (
        (read_tensors(outputs), read_tensors(folder))
        for (_, outputs), folder in zip(sets, folders)  # noqa: B905
    )
    comparison = comparing.compare(pairs, order.how["held_to"])
    shutil.rmtree(str(answers), ignore_errors=True)
    return comparison, latency


def _wrong(comparison: Mapping[str, Any]) -> DeviceError:
    failed = [row for row in comparison["outputs"] if not row["ok"]]
    lines = [
        f"`{row['name']}`: relative error {row['relative_error']}, max abs error "
        f"{row['max_abs_error']}, SQNR {row['sqnr_db']} dB"
        for row in failed
    ]
    return DeviceError(
        "wrong",
        "the engine does not answer as the source model does",
        "the bundle stays as it is; compile at a higher precision",
        "\n".join(lines),
    )


def read_tensors(folder: Path) -> dict[str, comparing.Tensor]:
    """Read a tensor folder."""
    rows = json.loads((folder / "tensors.json").read_text(encoding="utf-8"))
    return {
        row["name"]: (row["dtype"], tuple(row["shape"]), (folder / row["file"]).read_bytes())
        for row in rows
    }


def sha256_of(path: Path) -> str:
    """The SHA-256 of a file, in hex."""
    digest = hashlib.sha256()
    with path.open("rb") as stream:
        for block in iter(lambda: stream.read(1 << 20), b""):
            digest.update(block)
    return digest.hexdigest()
