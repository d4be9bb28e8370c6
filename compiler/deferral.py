"""Deferred bundles: everything but the engine, which is built on the device that it is for.

    model/model.onnx   the graph, legalised, its types and Q/DQ written in it
    build_engine.py    the builder, verbatim, and build.json, what it is told
    finish, finishing/ what builds, verifies and completes the bundle there (`infc.device`)
    BUILD.md           the same for people, with the lines for trtexec

A back end that may have to defer offers `deferral` and `spec_of` (`infc.targets.abilities`). The
graph is run in ONNX Runtime, and held to what the engine will be held to.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path
from typing import TYPE_CHECKING, Any

from infc import building, comparison, trtexec, verification
from infc.bundle import Bundle
from infc.comparison import THRESHOLDS, OutputError
from infc.diagnostics import InfcError, fail
from infc.loaders.rendering import fill
from infc.request import Precision, Request, WorkerLimits
from infc.signature import TensorSpec
from infc.targets import Artifact, BackEnd, Target, back_end, module_of
from infc.targets.abilities import deferral_of
from infc.verification import UNOPTIMIZED, Sets

if TYPE_CHECKING:
    import onnx_ir as ir

ENGINE = "model.engine"
GRAPH = "model.onnx"
BUILDER, SPEC, GUIDE, PROGRAM = "build_engine.py", "build.json", "BUILD.md", "finish"
PACKAGE = "finishing"
"""What `infc.device` is called in a bundle."""


@dataclass(frozen=True, slots=True)
class Deferral:
    """Why an engine is not built here, and what the builder is told there."""

    reason: str
    spec: Mapping[str, Any]
    builder: Path
    module: str
    release: str

    @property
    def requires(self) -> dict[str, Any]:
        """Of the device."""
        wanted = self.spec.get("compute_capabilities")
        capabilities = list(wanted) if isinstance(wanted, list) else []
        return {"release": self.release, "compute_capabilities": capabilities}

    @property
    def needs(self) -> str:
        """The same in words."""
        library = f"TensorRT {self.release} or later".replace("  ", " ")
        capabilities = " or ".join(self.requires["compute_capabilities"])
        return f"{library}, a GPU of {capabilities}" if capabilities else f"{library} and its GPU"


def reason_of(target: Target, *, elsewhere: bool = False) -> str | None:
    """Why the artifact of `target` is not built here; None where it is.

    `elsewhere` says that the user wants it built on another machine.
    """
    ability = deferral_of(back_end(target.back_end))
    if ability is None:
        return None
    return "the user wants it built on another machine" if elsewhere else ability.reason(target)


def require_wanted(request: Request, chosen: Sequence[Target]) -> None:
    """Refuse `--no-deferred` for what can only be deferred, `--remote` for what never is.

    Raises:
        InfcError: E511, E205.
    """
    if request.remote:
        able = [t for t in chosen if deferral_of(back_end(t.back_end)) is not None]
        if not able:
            names = ", ".join(f"`{t.name}`" for t in chosen)
            raise fail(
                "E205",
                f"`--remote` builds TensorRT engines, and {names} has none",
                help="leave it out: the artifact is built here",
            )
        return
    if request.deferred:
        return
    found = [(t, reason_of(t)) for t in chosen]
    refused = [unwanted(t, reason) for t, reason in found if reason is not None]
    if len(refused) == len(chosen):
        raise InfcError(*(d for error in refused for d in error.diagnostics))


def unwanted(target: Target, reason: str) -> InfcError:
    """E511: `--no-deferred`."""
    return fail(
        "E511",
        f"the engine of `{target.name}` cannot be built here: {reason}",
        help="leave `--no-deferred` out for a bundle that is finished on the device, or build "
        "there: `--remote ssh://user@host`",
    )


def plan(
    target: Target,
    reason: str,
    signature: tuple[Sequence[TensorSpec], Sequence[TensorSpec]],
) -> Deferral:
    """What is done on the device instead."""
    ability = deferral_of(back_end(target.back_end))
    assert ability is not None
    return Deferral(
        reason,
        ability.spec_of(target, *signature),
        ability.builder,
        ability.module,
        ability.release_of(target),
    )


def write_graph(
    model: ir.Model,
    source_name: str,
    end: BackEnd,
    target: Target,
    folder: Path,
    scratch: Path,
    limits: WorkerLimits,
) -> tuple[str, ...]:
    """Write what the engine will be built of into the new `folder`; return its files.

    Raises:
        InfcError: E203 for every node that the back end cannot take, E204, E5xx.
    """
    folder.mkdir(parents=True)
    building.save_model(model, folder / GRAPH)
    building.check(model, source_name, end, target, folder / GRAPH, scratch, limits)
    return tuple(sorted(p.name for p in folder.iterdir()))


def check_graph(
    sets: Sets, target: Target, graph: Path, scratch: Path, limits: WorkerLimits
) -> tuple[OutputError, ...]:
    """Run the graph in ONNX Runtime, which has to answer as the engine will have to.

    Raises:
        InfcError: E602 where it does not.
    """
    names = list(_names(sets.feeds[0])), list(_names(sets.reference[0]))
    what, module = "the graph for the device", module_of(UNOPTIMIZED.back_end)
    answers = verification.run_entry(
        module, graph, UNOPTIMIZED, sets.feeds, names, scratch, limits, what
    )
    errors = verification.compare_sets(sets, answers, THRESHOLDS[target.precision])
    comparison.require(errors, "E602", what, "compile at a higher precision")
    return errors


def _names(folder: Path) -> tuple[str, ...]:
    from infc.signature import load_tensors

    return tuple(load_tensors(folder))


def held_to(sets: Sets | None, precision: Precision) -> dict[str, dict[str, float | None]]:
    """What each output of the engine may differ by."""
    if sets is None:
        return {}
    limits = {
        name: comparison.limits_of(name, THRESHOLDS[precision], sets.noise, sets.computed_in)
        for name in _names(sets.reference[0])
    }
    return {
        name: {
            "relative_error": _finite(limit.relative_error),
            "sqnr_db": _finite(limit.sqnr_db),
        }
        for name, limit in limits.items()
    }


def _finite(value: float) -> float | None:
    return value if math.isfinite(value) else None


def write_kit(
    finished: Path, name: str, how: Deferral, sets: Sets | None, precision: Precision
) -> dict[str, Any]:
    """Write what the device needs into the bundle; return the manifest's `on_device`."""
    import json

    limits = held_to(sets, precision)
    section = {
        "reason": how.reason,
        "module": how.module,
        "graph": f"model/{GRAPH}",
        "builder": BUILDER,
        "spec": SPEC,
        "requires": how.requires,
        "held_to": limits,
        "trtexec": trtexec.lines(how.spec, f"model/{GRAPH}", f"model/{ENGINE}"),
    }
    (finished / BUILDER).write_bytes(how.builder.read_bytes())
    (finished / SPEC).write_text(json.dumps(how.spec, indent=2) + "\n", encoding="utf-8")
    copy_package(finished)
    values = {
        "name": name,
        "needs": how.needs,
        "entry": f"model/{ENGINE}",
        "verified": bool(limits),
        **section,
        "held_to": [{"name": n, **_shown(row)} for n, row in limits.items()],
    }
    (finished / GUIDE).write_text(fill("finish/BUILD.md.j2", values), encoding="utf-8")
    program = finished / PROGRAM
    program.write_text(fill("finish/finish.sh.j2", values), encoding="utf-8")
    program.chmod(0o755)
    return section


def _shown(row: Mapping[str, float | None]) -> dict[str, str]:
    relative, sqnr = row["relative_error"], row["sqnr_db"]
    return {
        "relative_error": "any" if relative is None else f"{relative:.3g}",
        "sqnr_db": "any" if sqnr is None else f"{sqnr:.3g} dB",
    }


def copy_package(folder: Path) -> None:
    """Put `infc.device` into `folder`, under the name that it has in a bundle."""
    package = folder / PACKAGE
    package.mkdir(parents=True)
    for source in sorted(files("infc.device").iterdir(), key=lambda f: f.name):
        if source.name.endswith(".py"):
            (package / source.name).write_bytes(source.read_bytes())


def artifact_of(target: Target, files: Sequence[str], how: Deferral) -> tuple[Artifact, Artifact]:
    """The artifact as the loader will open it, and as it is in the bundle now."""
    notes = {"versions": {back_end(target.back_end).DISTRIBUTIONS[0]: how.release}}
    return Artifact(ENGINE, (ENGINE,), notes), Artifact(ENGINE, tuple(files), {})


def require_finished(subject: Bundle) -> None:
    """Refuse a bundle whose engine is not there.

    Raises:
        InfcError: E707.
    """
    if subject.manifest["state"] != "deferred":
        return
    raise fail(
        "E707",
        f"`{subject.path}` has no engine yet: it is built on the device",
        notes=(subject.manifest["on_device"]["reason"],),
        help=next_step(subject.path),
    )


def next_step(path: Path) -> str:
    """What a user of a deferred bundle does."""
    return f"run `./finish` in it on the device, or `infc finish {path} --remote ssh://user@host`"
