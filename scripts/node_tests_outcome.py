"""What becomes of one node test: the way of `infc compile` from the neutral graph on."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnx_ir as ir
from onnx import numpy_helper

from infc import building, comparison
from infc.comparison import THRESHOLDS
from infc.diagnostics import InfcError
from infc.frontends.onnx import spec_of
from infc.request import Precision, WorkerLimits
from infc.signature import DTYPES, TensorSpec, load_tensors, save_tensors
from infc.targets import (
    BackEnd,
    BackEndError,
    BuildJob,
    RunJob,
    Target,
    back_end,
    onnxruntime,
)
from infc.targets.abilities import absence_of
from infc.verification.running import UNOPTIMIZED, run_artifact
from infc.verification.sets import Sets

LIMITS = WorkerLimits(timeout_s=60)
REFUSALS = ("E1", "E203", "E204", "E205")
DECIDING = {
    **dict.fromkeys(("Expand", "Reshape", "Split", "Squeeze", "Tile", "Unsqueeze"), (1,)),
    **dict.fromkeys(("CenterCropPad", "AffineGrid", "TopK", "Trilu", "Upsample"), (1,)),
    **dict.fromkeys(("CumProd", "CumSum", "OneHot", "Compress"), (1,)),
    **dict.fromkeys((f"Reduce{n}" for n in ("L1", "L2", "LogSum", "LogSumExp", "Max")), (1,)),
    **dict.fromkeys((f"Reduce{n}" for n in ("Mean", "Min", "Prod", "Sum", "SumSquare")), (1,)),
    **dict.fromkeys(("BlackmanWindow", "HammingWindow", "HannWindow", "ConstantOfShape"), (0,)),
    **dict.fromkeys(("Col2Im", "DFT", "Dropout"), (1, 2)),
    "MaxUnpool": (2,),
    "MelWeightMatrix": (0, 1, 2, 3, 4),
    "Pad": (1, 3),
    "Range": (0, 1, 2),
    "Resize": (1, 2, 3),
    "STFT": (1, 3),
    "Slice": (1, 2, 3, 4),
}
"""The operands of an operator that decide shapes, axes and counts: constants in real models."""
GIVEN_CONSTANTS = ("tvm",)
"""The back ends that get those as constants: no answer's shape may depend on values there."""
COARSE = {"float16": Precision.FP16, "bfloat16": Precision.BF16}


class Refused(Exception):  # noqa: N818
    """Nothing was built; the message is the reason."""


class Wrong(Exception):  # noqa: N818
    """The artifact answered something else."""


def outcome(test: Any, name: str, folder: Path) -> dict[str, Any]:
    """One row: the test, its operator, the verdict and the reason."""
    operator = operator_of(test)
    try:
        attempt(test, name, folder)
        verdict, reason = "right", ""
    except (Refused, BackEndError) as refusal:
        verdict, reason = "refused", str(refusal)
    except Wrong as error:
        verdict, reason = "wrong", str(error)
    except InfcError as error:
        verdict, reason = judged(error)
    except Exception as error:
        verdict, reason = "crashed", f"{type(error).__name__}: {error}"
    first_line = reason.strip().splitlines()[0] if reason.strip() else ""
    return {
        "test": test.name,
        "operator": operator,
        "verdict": verdict,
        "reason": first_line[:300],
    }


def operator_of(test: Any) -> str:
    """The operator that the test is about: that of its one node, or of the name without suffix."""
    nodes = test.model.graph.node
    if len(nodes) == 1:
        domain = nodes[0].domain
        return f"{domain}.{nodes[0].op_type}" if domain else str(nodes[0].op_type)
    return "(several)"


def judged(error: InfcError) -> tuple[str, str]:
    first = error.diagnostics[0]
    reason = first.notes[0] if first.code == "E203" and first.notes else first.message
    if first.code.startswith(REFUSALS):
        return "refused", f"{first.code}: {reason}"
    return ("wrong" if first.code == "E602" else "crashed"), f"{first.code}: {reason}"


def attempt(test: Any, name: str, folder: Path) -> None:
    """Build and run; return where every answer is right.

    Raises:
        Refused, BackEndError, InfcError, Wrong: what became of it.
    """
    end, target = back_end(name), Target(name, name, "")
    model = ir.from_proto(test.model)
    signature = specs(model.graph.inputs), specs(model.graph.outputs)
    feeds, answers = zip(*(sets(model, data) for data in test.data_sets), strict=True)
    if name in GIVEN_CONSTANTS and len(feeds) == 1:
        feeds = (fix_deciding_operands(model, feeds[0]),)
        signature = specs(model.graph.inputs), signature[1]
    model = building.raise_opset(model, end)
    end.legalize(model, target)
    place = end.worker(target)
    if place.script is None and not place.toolchain:
        here(test, end, target, model, signature, feeds, answers, folder)
        return
    refuse_unsupported(end, target, model, folder)
    artifact = building.build(
        model, test.name, end, target, signature, folder / "model", folder, LIMITS
    )
    given = Sets(
        tuple(write(folder / f"feeds-{i}", f) for i, f in enumerate(feeds)),
        tuple(write(folder / f"reference-{i}", a) for i, a in enumerate(answers)),
    )
    entry = folder / "model" / artifact.entry
    for threads in end.THREADS:
        places, _ = run_artifact(given, target, entry, folder, LIMITS, threads)
        found = [load_tensors(place) for place in places]
        judge(test, answers, found, coarse(signature[1]), threads)


def judge(
    test: Any,
    expected: Sequence[dict[str, Any]],
    found: Sequence[dict[str, Any]],
    computed_in: dict[str, Precision],
    threads: int,
) -> None:
    """Hold the answers to infc's threshold, or to the tolerance that the test itself states.

    Some expectations are written down with four digits.

    Raises:
        Wrong: an output is outside both.
    """
    pairs = list(zip(expected, found, strict=True))
    errors = comparison.compare(pairs, THRESHOLDS[Precision.FP32], computed_in=computed_in)
    for error in errors:
        if not error.ok and not all(close(w[error.name], f[error.name], test) for w, f in pairs):
            raise Wrong(
                f"`{error.name}` is off by {error.relative_error:.3g} of its peak "
                f"on {threads} threads"
            )


def close(expected: Any, answer: Any, test: Any) -> bool:
    """ONNX's own comparison of two float tensors."""
    same = (expected.dtype, expected.shape) == (answer.dtype, answer.shape)
    if not same or not comparison.is_floating(expected):
        return False
    wide = answer.astype(np.float64), expected.astype(np.float64)
    return bool(np.allclose(*wide, rtol=test.rtol, atol=test.atol, equal_nan=True))


def specs(values: Sequence[ir.Value]) -> tuple[TensorSpec, ...]:
    """The signature of these values.

    Raises:
        Refused: for what infc has no tensor for.
    """
    for value in values:
        if not isinstance(value.type, ir.TensorType):
            raise Refused("E1: an input or output is no tensor")
        if value.dtype is None or value.dtype.numpy().name not in DTYPES:
            kind = "" if value.dtype is None else value.dtype.name.lower()
            raise Refused(f"E1: {kind} cannot cross the interface of a loader")
    return tuple(spec_of(v) for v in values)


def fix_deciding_operands(model: ir.Model, feeds: dict[str, Any]) -> dict[str, Any]:
    """Make constants of what decides shapes, in a model of one node; the feeds that are left."""
    nodes = list(model.graph)
    if len(nodes) != 1:
        return feeds
    places = DECIDING.get(nodes[0].op_type, ())
    deciding = [v for i, v in enumerate(nodes[0].inputs) if i in places and v is not None]
    for value in [v for v in model.graph.inputs if v in deciding]:
        model.graph.inputs.remove(value)
        value.const_value = ir.tensor(feeds[value.name], name=value.name)
        model.graph.initializers.add(value)
    fixed = {v.name for v in deciding}
    return {name: array for name, array in feeds.items() if name not in fixed}


def sets(model: ir.Model, data: Any) -> tuple[dict[str, Any], dict[str, Any]]:
    """The inputs and the expected outputs by name."""
    constants = model.graph.initializers
    fed = [v.name for v in model.graph.inputs if v.name not in constants]
    inputs = dict(zip(fed, (array(a) for a in data[0]), strict=True))
    names = [v.name for v in model.graph.outputs]
    return inputs, dict(zip(names, (array(a) for a in data[1]), strict=True))


def array(value: Any) -> Any:
    return (
        numpy_helper.to_array(value) if isinstance(value, onnx.TensorProto) else np.asarray(value)
    )


def write(folder: Path, tensors: dict[str, Any]) -> Path:
    save_tensors(folder, tensors)
    return folder


def coarse(outputs: Sequence[TensorSpec]) -> dict[str, Precision]:
    return {s.name: COARSE[s.dtype] for s in outputs if s.dtype in COARSE}


def refuse_unsupported(end: BackEnd, target: Target, model: ir.Model, folder: Path) -> None:
    """Check without a process of its own: where a script builds, `check` needs no SDK."""
    building.save_model(model, folder / "checked.onnx")
    rows = end.check(folder / "checked.onnx", target)
    if rows:
        raise Refused(f"E203: `{rows[0].op_type}`: {rows[0].reason}")


def here(
    test: Any,
    end: BackEnd,
    target: Target,
    model: ir.Model,
    signature: tuple[tuple[TensorSpec, ...], tuple[TensorSpec, ...]],
    feeds: Sequence[dict[str, Any]],
    answers: Sequence[dict[str, Any]],
    folder: Path,
) -> None:
    """Build and run in this process, which is the back end's own environment."""
    inputs, outputs = signature
    refuse_unsupported(end, target, model, folder)
    output = folder / "model"
    output.mkdir()
    artifact = end.build(BuildJob(folder / "checked.onnx", output, target, inputs, outputs))
    names = tuple(s.name for s in outputs), tuple(s.name for s in inputs)
    if absence_of(end, target):
        judge_graph(test, names, feeds, answers, coarse(outputs), folder)
        return
    for threads in end.THREADS:
        run = end.open(RunJob(output / artifact.entry, target, *names, threads))
        judge(test, answers, [run(fed) for fed in feeds], coarse(outputs), threads)


def judge_graph(
    test: Any,
    names: tuple[tuple[str, ...], tuple[str, ...]],
    feeds: Sequence[dict[str, Any]],
    answers: Sequence[dict[str, Any]],
    computed_in: dict[str, Precision],
    folder: Path,
) -> None:
    """What was built cannot run here: run the graph that it was built of in ONNX Runtime.

    What ONNX Runtime gets wrong, or does not run, of the test as it is says nothing.

    Raises:
        Wrong: the legalised graph answers wrongly.
    """

    def run(path: Path) -> None:
        session = onnxruntime.open(RunJob(path, UNOPTIMIZED, *names, 1))
        judge(test, answers, [session(fed) for fed in feeds], computed_in, 1)

    try:
        onnx.save(test.model, folder / "itself.onnx")
        run(folder / "itself.onnx")
    except (BackEndError, Wrong):
        return
    run(folder / "checked.onnx")
