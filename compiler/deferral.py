"""Deferred bundles: everything but the engine, which is built on the device that it is for.

    model/model.onnx   the graph, legalised, its types and Q/DQ written in it
    build_engine.py    the builder, verbatim, and build.json, what it is told
    finish, finishing/ what builds, verifies and completes the bundle there (`infc.device`)
    BUILD.md           the same for people, with the lines for trtexec

A back end that may have to defer offers `deferral` and `spec_of` (`infc.targets.abilities`). The
graph is run in ONNX Runtime, and held to what the engine will be held to (`infc.handed_over`).
"""

from __future__ import annotations

import json
import math
import shutil
from collections.abc import Mapping, Sequence
from importlib.resources import files
from pathlib import Path
from typing import TYPE_CHECKING, Any

from infc import building, comparison, trtexec
from infc.bundle import MANIFEST, Bundle, sha256_of
from infc.comparison import THRESHOLDS
from infc.diagnostics import InfcError, fail
from infc.formatting import format_requirements
from infc.loaders.recipe import Recipe, recipe_of
from infc.loaders.rendering import fill
from infc.remote.address import Address
from infc.request import Precision, Request, WorkerLimits
from infc.signature import TensorSpec, load_tensors
from infc.targets import Artifact, BackEnd, Target, back_end
from infc.targets.abilities import Deferring, deferral_of
from infc.verification.sets import Sets
from infc.workers.versions import NOTE

if TYPE_CHECKING:
    import onnx_ir as ir

ENGINE = "model.engine"
GRAPH = "model.onnx"
BUILDER, SPEC, GUIDE, PROGRAM = "build_engine.py", "build.json", "BUILD.md", "finish"
PACKAGE = "finishing"
"""What `infc.device` is called in a bundle."""


def reason_of(target: Target, *, elsewhere: bool = False) -> str | None:
    """Why the artifact of `target` is not built here; None where it is.

    `elsewhere` says that the user wants it built on another machine.
    """
    ability = deferral_of(back_end(target.back_end))
    if ability is None:
        return None
    reason = ability.reason(target)
    return "the user wants it built on another machine" if elsewhere and not reason else reason


def require_wanted(request: Request, chosen: Sequence[Target]) -> None:
    """Refuse `--no-deferred` for what can only be deferred, `--remote` for what never is.

    Raises:
        InfcError: E511, E205, E110.
    """
    if request.stand_in and not request.remote:
        raise fail("E110", "`--stand-in` says nothing without `--remote`")
    if request.remote:
        Address.parse(request.remote)
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


def write_graph(
    model: ir.Model,
    source_name: str,
    end: BackEnd,
    target: Target,
    folder: Path,
    scratch: Path,
    limits: WorkerLimits,
) -> Artifact:
    """Write what the engine will be built of into the new `folder`.

    The artifact is what is there of it: the entry is the engine, the files are the graph's.

    Raises:
        InfcError: E203 for every node that the back end cannot take, E204, E5xx.
    """
    folder.mkdir(parents=True)
    building.save_model(model, scratch / GRAPH)
    building.check(model, source_name, end, target, scratch / GRAPH, scratch, limits)
    files = tuple(n for n in (GRAPH, f"{GRAPH}.data") if (scratch / n).exists())
    for name in files:
        shutil.copyfile(scratch / name, folder / name)
    return Artifact(ENGINE, files)


def for_loader(
    target: Target, signature: tuple[Sequence[TensorSpec], Sequence[TensorSpec]], folder: Path
) -> tuple[Artifact, Recipe]:
    """The artifact as the loader will open it, and how it builds one of what is in `folder`.

    Raises:
        InfcError: what the back end has against the shapes: E107, E205, E206.
    """
    ability, end = _ability(target), back_end(target.back_end)
    notes = {NOTE: {end.DISTRIBUTIONS[0]: ability.release_of(target)}}
    names = [n for n in (GRAPH, f"{GRAPH}.data") if (folder / n).exists()]
    (graph, digest), *weights = [(f"{folder.name}/{n}", sha256_of(folder / n)) for n in names]
    recipe = recipe_of(ability.spec_of(target, *signature), graph, digest, *weights)
    return Artifact(ENGINE, (ENGINE,), notes), recipe


def held_to(sets: Sets | None, precision: Precision) -> dict[str, dict[str, Any]]:
    """What each output of the engine may differ by."""
    if sets is None:
        return {}
    limits = {
        name: comparison.limits_of(name, THRESHOLDS[precision], sets.noise, sets.computed_in)
        for name in load_tensors(sets.reference[0])
    }
    return {
        name: {
            "relative_error": _finite(limit.relative_error),
            "sqnr_db": _finite(limit.sqnr_db),
            **({"codes": True} if sets.computed_in.get(name) is Precision.INT8 else {}),
        }
        for name, limit in limits.items()
    }


def _finite(value: float) -> float | None:
    return value if math.isfinite(value) else None


def write_kit(
    finished: Path,
    name: str,
    target: Target,
    reason: str,
    signature: tuple[Sequence[TensorSpec], Sequence[TensorSpec]],
    sets: Sets | None,
) -> dict[str, Any]:
    """Write what the device needs into the bundle; return the manifest's `on_device`.

    `sets` are the reference's vectors, which the bundle has, too.

    Raises:
        InfcError: what the back end has against the shapes: E107, E205, E206.
    """
    ability = _ability(target)
    spec = ability.spec_of(target, *signature)
    limits = held_to(sets, target.precision)
    capabilities = spec.get("compute_capabilities")
    section: dict[str, Any] = {
        "reason": reason,
        "module": ability.module,
        "graph": f"model/{GRAPH}",
        "builder": BUILDER,
        "spec": SPEC,
        "requires": {
            "release": ability.release_of(target),
            "compute_capabilities": capabilities if isinstance(capabilities, list) else [],
        },
        "held_to": limits,
        "trtexec": trtexec.lines(spec, f"model/{GRAPH}", f"model/{ENGINE}"),
    }
    (finished / BUILDER).write_bytes(ability.builder.read_bytes())
    (finished / SPEC).write_text(json.dumps(spec, indent=2) + "\n", encoding="utf-8")
    copy_package(finished)
    values = {
        "name": name,
        "needs": format_requirements(section["requires"]),
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


def _ability(target: Target) -> Deferring:
    ability = deferral_of(back_end(target.back_end))
    assert ability is not None, target
    return ability


def _shown(row: Mapping[str, Any]) -> dict[str, str]:
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


def fields(on_device: Mapping[str, Any], proof: Mapping[str, Any]) -> dict[str, Any]:
    """What a deferred bundle's manifest says otherwise than others do."""
    verdict = "skipped" if proof["verdict"] == "skipped" else "deferred"
    return {
        "state": "deferred",
        "verification": {**proof, "verdict": verdict},
        "on_device": on_device,
    }


def is_finished(path: Path) -> bool:
    """Whether there is a bundle in `path` that has its artifact."""
    try:
        state = json.loads((path / MANIFEST).read_text(encoding="utf-8"))["state"]
    except (OSError, ValueError, KeyError, TypeError):
        return False
    return bool(state != "deferred")


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
