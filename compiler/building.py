"""One back end at work: is it there, does it take every node, what did it build.

Everything that touches the vendor's SDK happens in a worker; this side prepares the legalised
graph, and turns the worker's answer into an `Artifact` or into diagnostics.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

from infc import doctor, sealing, workers
from infc.diagnostics import Diagnostic, InfcError, fail
from infc.request import WorkerLimits
from infc.signature import TensorSpec
from infc.targets import Artifact, BackEnd, Target, Worker, back_end, module_of
from infc.targets.abilities import deferral_of, require_tools
from infc.tuning_options import TuningOptions

if TYPE_CHECKING:
    import onnx_ir as ir

EMBEDDED_BYTES = 1 << 30
"""Weights above this go beside the protobuf, which cannot hold more than 2 GiB."""
KEPT_EXTERNAL_BYTES = 1 << 26
"""Weights above this stay beside the protobuf where the source has them there: they are then
copied from file to file and never in memory all at once."""


def require_toolchain(target: Target) -> None:
    """Refuse a target whose back end is not installed, before anything is built.

    Raises:
        InfcError: E501 with the command that installs it.
    """
    diagnostic = _not_installed(target)
    if diagnostic is not None:
        raise InfcError(diagnostic)


def require_any_toolchain(chosen: Sequence[Target]) -> None:
    """Refuse a command none of whose back ends is installed, before the model is read.

    Raises:
        InfcError: E501 for each of them.
    """
    distinct = {
        (t.back_end, t.toolchain, t.device, t.triple, *sorted(t.options.items())): t for t in chosen
    }.values()
    found = [d for d in map(_not_installed, distinct) if d is not None]
    if len(found) == len(distinct):
        raise InfcError(*dict.fromkeys(found))


def _not_installed(target: Target) -> Diagnostic | None:
    """E501 for what the target's workers lack, None where they lack nothing or work elsewhere."""
    end = back_end(target.back_end)
    ability = deferral_of(end)
    if ability is not None and ability.reason(target) is not None:
        return None
    try:
        place = end.worker(target)
        if place.toolchain:
            from infc.workers import toolchains

            toolchains.require(place.toolchain, own_source=place.script is None)
            return None
        if doctor.installed(end):
            require_tools(end, target)
            return None
    except InfcError as error:
        return error.diagnostics[0]
    module = next(m for m in end.MODULES if find_spec(m) is None)
    return Diagnostic(
        "E501",
        f"back end `{end.NAME}` needs the Python module `{module}`",
        help=doctor.remedy(end),
    )


def save_model(model: ir.Model, path: Path, *, external_data: bool | None = None) -> None:
    """Write `model`, its weights to `<file name>.data` beside it where `external_data` says so.

    None decides by the size of the weights. Otherwise they are inside the file, also those that
    lie in files of their own beside the source: `path` is in another folder.
    """
    import onnx_ir as ir

    values = [v for graph in model.graphs() for v in graph.initializers.values()]
    tensors = [v.const_value for v in values if v.const_value is not None]
    outside = [t for t in tensors if isinstance(t, ir.ExternalTensor)]
    if external_data is None:
        external_data = (
            sum(t.nbytes for t in tensors) > EMBEDDED_BYTES
            or sum(t.nbytes for t in outside) > KEPT_EXTERNAL_BYTES
        )
    if external_data:
        ir.save(model, path, external_data=f"{path.name}.data")
        return
    if outside:
        model = ir.external_data.load_to_model(model.clone())
    ir.save(model, path)


def raise_opset(model: ir.Model, end: BackEnd) -> ir.Model:
    """Return `model` converted up to the oldest opset of the default domain that `end` takes.

    Raises:
        InfcError: E204 where ONNX's converter cannot do it.
    """
    from infc.passes.opsets import OpsetError, at_opset

    try:
        return at_opset(model, end.MIN_OPSET)
    except OpsetError as error:
        raise fail(
            "E204",
            f"`{end.NAME}` takes opset {end.MIN_OPSET} or later, and the graph's opset "
            f"{model.opset_imports.get('')} cannot be converted: {error}",
            help="export the model again with a later opset",
        ) from error


def build(
    model: ir.Model,
    source_name: str,
    end: BackEnd,
    target: Target,
    signature: tuple[Sequence[TensorSpec], Sequence[TensorSpec]],
    output: Path,
    scratch: Path,
    limits: WorkerLimits,
    calibration: Sequence[Path] = (),
    tell: Callable[[str], None] | None = None,
    name: str = "model",
    tuning: TuningOptions = TuningOptions(),  # noqa: B008
) -> Artifact:
    """Build the artifact of the legalised `model` in the folder `output`.

    `signature` holds the inputs and the outputs; the worker's log goes to `scratch/log`.
    `calibration` are the tensor folders of samples, for a back end that quantises by itself.
    `tell` is called with how far a worker is, where it says so. `name` is the model's, for the
    symbols of what is linked. `tuning` says which records of measured kernels may be used.

    Raises:
        InfcError: E203 for every node the back end cannot take, E204, E5xx.
    """
    save_model(model, scratch / "model.onnx")
    payload = {
        **payload_for(scratch / "model.onnx", output, target, signature, tuning),
        "calibration": [str(folder.resolve()) for folder in calibration],
        "name": name,
    }
    worker = end.worker(target)
    # A script cannot look at the graph: its module does, here, and then it builds.
    steps = [("check", Worker()), ("build", worker)] if worker.script else [("build", worker)]
    value: dict[str, Any] = {}
    for action, place in steps:
        what = f"`{end.NAME}` while building"
        job = workers.Call(
            module_of(end.NAME), action, payload, scratch / action, scratch / "log", what, place
        )
        value = workers.call(job, limits, teller(tell, "building") if tell else None)
        if value.get("unsupported"):
            raise unsupported(model, source_name, end, value["unsupported"])
    artifact = _artifact(value, end, output)
    sealing.close(output / artifact.entry, target)
    return artifact


def payload_for(
    file: Path,
    output: Path,
    target: Target,
    signature: tuple[Sequence[TensorSpec], Sequence[TensorSpec]],
    tuning: TuningOptions,
) -> dict[str, Any]:
    """What a worker is told that builds the model in `file`, or measures its kernels."""
    inputs, outputs = signature
    return {
        "model": str(file.resolve()),
        "output": str(output.resolve()),
        "target": target.to_json(),
        "inputs": [s.to_json() for s in inputs],
        "outputs": [s.to_json() for s in outputs],
        "tuning": tuning.to_json(),
    }


def teller(tell: Callable[[str], None], doing: str) -> workers.Progress:
    """Tells what a worker reports: `building: Timing tactics, 3 of 5`, or the phase alone."""
    told = ""

    def pass_on(reported: Mapping[str, Any]) -> None:
        nonlocal told
        phase, done, total = (reported.get(key) for key in ("phase", "done", "total"))
        line = f"{doing}: {phase}" + (f", {done} of {total}" if total else "")
        # The driver looks again and again; a line stands for itself until there is another.
        if phase and total != 0 and line != told:
            told = line
            tell(line)

    return pass_on


def check(
    model: ir.Model,
    source_name: str,
    end: BackEnd,
    target: Target,
    file: Path,
    scratch: Path,
    limits: WorkerLimits,
) -> None:
    """Ask the back end about every node of `model`, saved in `file`; nothing is built.

    Raises:
        InfcError: E203 for every node the back end cannot take, E204, E5xx.
    """
    payload = {"model": str(file.resolve()), "target": target.to_json()}
    what = f"`{end.NAME}` while checking the graph"
    job = workers.Call(
        module_of(end.NAME), "check", payload, scratch / "check", scratch / "log", what
    )
    rows = workers.call(job, limits)["unsupported"]
    if rows:
        raise unsupported(model, source_name, end, rows)


def _artifact(value: dict[str, Any], end: BackEnd, output: Path) -> Artifact:
    """The worker's answer, checked against what is really there."""
    try:
        artifact = Artifact(str(value["entry"]), tuple(value["files"]), dict(value["notes"]))
        missing = [f for f in (artifact.entry, *artifact.files) if not (output / f).is_file()]
    except (KeyError, TypeError, ValueError) as error:
        raise fail("E504", f"`{end.NAME}` did not say what it built") from error
    if missing:
        raise fail("E504", f"`{end.NAME}` did not write {', '.join(missing)}")
    return artifact


def unsupported(
    model: ir.Model, source_name: str, end: BackEnd, rows: Sequence[Sequence[str]]
) -> InfcError:
    """E203 for every node, in graph order."""
    opsets = model.opset_imports
    found = []
    for node, op_type, domain, reason in rows:
        version = opsets.get(domain, 0)
        full = f"{domain}.{op_type}" if domain else op_type
        found.append(
            Diagnostic(
                "E203",
                f"`{full}` is not supported by `{end.NAME}`",
                where=f"{source_name}:{model.graph.name}/{node} ({op_type}-{version})",
                notes=(reason,) if reason else (),
                help="compile for another back end (`infc targets`), or replace the operator",
            )
        )
    return InfcError(*found)
