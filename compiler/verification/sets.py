"""Input sets, and the reference's answers to them: compared, and kept in the bundle.

The reference vectors go into the bundle (`reference/<i>/inputs` and `outputs`), so that the
artifact can be proved again where it is used, without the source model or its framework.
"""

from __future__ import annotations

import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from infc import native_types
from infc.bundle import Bundle
from infc.comparison import OutputError, Threshold, compare
from infc.diagnostics import fail
from infc.request import Precision
from infc.signature import TensorSpec, load_tensors

RECORDED_BYTES = 64 << 20
"""Reference vectors beyond this are not kept in the bundle."""


@dataclass(frozen=True, slots=True)
class Sets:
    """Input sets and the reference's answers, in tensor folders, side by side.

    The random floats among the inputs were multiplied by 2 ** `scale_log2`. `noise` names the
    outputs that are ill-conditioned all the same, with the relative error that rounding causes;
    `computed_in` those that the source model computes in less than float32; `same_arithmetic` says
    that the reference is ONNX Runtime's, which quantises the optimised graph the same way.
    `native` are the inputs and outputs that the artifact has in another type than the source model.
    """

    feeds: tuple[Path, ...]
    reference: tuple[Path, ...]
    scale_log2: int = 0
    noise: Mapping[str, float] = field(default_factory=dict)
    computed_in: Mapping[str, Precision] = field(default_factory=dict)
    same_arithmetic: bool = True
    native: Mapping[str, TensorSpec] = field(default_factory=dict)


def compare_sets(
    sets: Sets, answers: Sequence[Path], threshold: Threshold
) -> tuple[OutputError, ...]:
    """Compare the answers in the folders `answers` with the reference."""
    pairs = zip(sets.reference, answers, strict=True)
    loaded = ((load_tensors(r), load_tensors(a)) for r, a in pairs)
    return compare(loaded, threshold, sets.noise, sets.computed_in)


def record_sets(sets: Sets, finished: Path, least: int = 0) -> None:
    """Copy the reference vectors into the bundle, as many as `RECORDED_BYTES` allows.

    `least` of them are copied in any case.
    """
    left = RECORDED_BYTES
    for i, (feeds, reference) in enumerate(zip(sets.feeds, sets.reference, strict=True)):
        left -= sum(p.stat().st_size for f in (feeds, reference) for p in f.iterdir())
        if left < 0 and i >= least:
            return
        shutil.copytree(feeds, finished / "reference" / str(i) / "inputs")
        shutil.copytree(reference, finished / "reference" / str(i) / "outputs")


def recorded_sets(bundle: Bundle) -> Sets:
    """The reference vectors that the bundle holds.

    Raises:
        InfcError: E604 where it holds none.
    """
    folders = sorted((bundle.path / "reference").glob("[0-9]*"), key=lambda p: int(p.name))
    if not folders:
        raise fail(
            "E604",
            f"`{bundle.path}` holds no reference vectors",
            help="name the source model: `--source MODEL`",
        )
    proof = bundle.manifest["verification"]
    return Sets(
        tuple(f / "inputs" for f in folders),
        tuple(f / "outputs" for f in folders),
        noise=proof.get("noise", {}),
        computed_in={k: Precision(v) for k, v in proof.get("computed_in", {}).items()},
        native=native_types.converted((*bundle.inputs, *bundle.outputs)),
    )
