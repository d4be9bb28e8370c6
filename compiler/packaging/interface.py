"""The model's signature as Triton wants it: with or without a batch dimension, by Triton's names.

    x: float32 [batch, 3, 224, 224]  ->  max_batch_size: 8, name: "x", dims: [ 3, 224, 224 ]

The first dimension is a batch where it has one name in every input and output and is nowhere else,
and may be 1: Triton then leaves it out of `dims` and may put requests together.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

from infc.bundle import Bundle
from infc.diagnostics import fail
from infc.packaging.serving import DATA_TYPES, Serving
from infc.signature import TensorSpec
from infc.targets import Target

DEFAULT_BATCH = 8
"""The greatest batch of a model whose own says nothing."""


@dataclass(frozen=True, slots=True)
class TritonTensor:
    """An input or output; -1 is a dimension of any size.

    `is_scalar` is of a tensor that has no dimension besides the batch: Triton knows no empty
    `dims`, so it travels as one element and is reshaped.
    """

    name: str
    data_type: str
    dims: tuple[int, ...]
    is_scalar: bool = False
    source: str = ""
    """The model's own name, where Triton's is another one."""

    def to_json(self) -> dict[str, Any]:
        """A plain dict."""
        return {**asdict(self), "dims": list(self.dims)}


@dataclass(frozen=True, slots=True)
class Interface:
    """`max_batch` is 0 where requests are not put together: `dims` then are the whole shapes.

    `limit` is the greatest that the artifact takes, None for any.
    """

    max_batch: int
    inputs: tuple[TritonTensor, ...]
    outputs: tuple[TritonTensor, ...]
    limit: int | None = None


def interface_of(
    bundle: Bundle, serving: Serving, max_batch: int | None, kept: int | None = None
) -> Interface:
    """The interface of `bundle`; `max_batch` is what the user wants, None for what there is.

    Then it is `kept`, that of the versions which are there, where the artifact takes it.

    Raises:
        InfcError: E708 for what Triton cannot express, or a batch that the artifact cannot take.
    """
    batches = _batches(bundle)
    low, high = batches or (0, 0)
    batch = (high or DEFAULT_BATCH if low <= 1 else 0) if batches else 0
    if max_batch is not None:
        batch = max_batch
    elif kept is not None and (not kept or (low <= kept and (high is None or kept <= high))):
        batch = kept
    if batch and not batches:
        raise fail(
            "E708",
            f"`{bundle.path}` has no batch dimension: `--max-batch-size {batch}` makes no sense",
            help="a batch is the first dimension of every input and output, and dynamic",
        )
    if batch and (batch < low or (high is not None and batch > high)):
        raise fail(
            "E708",
            f"`{bundle.path}` was compiled for batches of {low} to {high}, not {batch}",
            help=f"compile it with `--input ...=1..{batch}x...`",
        )
    return Interface(
        batch,
        tuple(_tensor(s, "INPUT", i, serving, batch) for i, s in enumerate(bundle.inputs)),
        tuple(_tensor(s, "OUTPUT", i, serving, batch) for i, s in enumerate(bundle.outputs)),
        high if batches else None,
    )


def _batch_name(specs: Sequence[TensorSpec]) -> str | None:
    """The name of the first dimension of all `specs`, which none has elsewhere; None for none."""
    shapes = [spec.shape for spec in specs]
    firsts = {shape[0] if shape else None for shape in shapes}
    name = firsts.pop() if len(firsts) == 1 else None
    if not isinstance(name, str):
        return None
    return None if any(name in shape[1:] for shape in shapes if shape) else name


def _batches(bundle: Bundle) -> tuple[int, int | None] | None:
    """The least and the greatest batch that the artifact takes; None where it has no batch.

    The greatest is None where there is no limit.
    """
    name = _batch_name((*bundle.inputs, *bundle.outputs))
    if name is None or not bundle.inputs:
        return None
    target = Target.from_json(bundle.manifest["target"])
    if target.back_end == "tensorrt":
        return _profiled(target, bundle)
    ranges = [s.bounds[name] for s in bundle.inputs if s.bounds and name in s.bounds]
    highs = [high for _, _, high in ranges]
    return max((low for low, _, _ in ranges), default=1), min(highs, default=None)


def _profiled(target: Target, bundle: Bundle) -> tuple[int, int]:
    """The batches of an engine: those of any of its optimization profiles."""
    from infc.targets.tensorrt_spec import spec_of

    rows = [row["profiles"] for row in spec_of(target, bundle.inputs, bundle.outputs)["inputs"]]
    each = [
        (max(low[0] for low, _, _ in ranges), min(high[0] for _, _, high in ranges))
        for ranges in zip(*rows, strict=True)
    ]
    return min(low for low, _ in each), max(high for _, high in each)


def _tensor(spec: TensorSpec, role: str, place: int, serving: Serving, batch: int) -> TritonTensor:
    """One input or output.

    Raises:
        InfcError: E708.
    """
    if spec.shape is None:
        raise fail(
            "E708",
            f"the rank of `{spec.name}` is known only after a run, and Triton wants it before",
            help="fix the shapes that it depends on with `--input`",
        )
    dims = tuple(dim if isinstance(dim, int) else -1 for dim in spec.shape)
    dims = dims[1:] if batch else dims
    if 0 in dims:
        raise fail("E708", f"`{spec.name}` has a dimension of size 0, which Triton does not take")
    if not dims and not (batch and serving.scalars):
        raise fail(
            "E708",
            f"`{spec.name}` is a scalar, which Triton's back end `{serving.backend}` does not take",
            help="give it a dimension of size 1 in the model",
        )
    name = f"{role}__{place}" if serving.ordinal else spec.name
    return TritonTensor(
        name,
        DATA_TYPES[spec.dtype],
        dims or (1,),
        is_scalar=not dims,
        source=spec.name if serving.ordinal else "",
    )
