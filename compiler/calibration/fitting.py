"""Whether a sample is what an input takes, and the array that the model is then given.

A *row* is what one place in the data holds: either a whole value of the input (its rank is the
input's) or a piece of one, without the batch dimension. Pieces are put together until the batch is
full. Dimensions of 1 may be missing or too many where all others are fixed.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from infc.diagnostics import InfcError, did_you_mean, fail
from infc.preprocessing import Preprocess
from infc.signature import TensorSpec, numpy_dtype

if TYPE_CHECKING:
    import numpy as np

    Array = np.ndarray[Any, Any]

Shape = tuple[int, ...]
MAX_ROW_BYTES = 1 << 31
"""A sample above this is no sample; nothing is allocated for it."""


def shown(shape: Sequence[object]) -> str:
    """`1x3x224x224` for a shape, `?` for what it leaves open."""
    return "x".join("?" if d is None else str(d) for d in shape) or "scalar"


@dataclass(frozen=True, slots=True)
class Fit:
    """How a row of one shape becomes a value of an input: reshaped to `shape`, and batched or not.

    `whole` rows are values as they are; the others lack the leading dimension.
    """

    shape: Shape
    whole: bool


def fit_shape(spec: TensorSpec, shape: Shape, batch: int = 1) -> Fit | None:
    """How a row of `shape` becomes a value of `spec`, None where it cannot.

    `batch` above 1 makes pieces also of rows with a leading dimension of 1.
    """
    wanted = spec.shape
    if wanted is None:
        return Fit(shape, True)
    first, *rest = wanted or (None,)
    fixed_batch = isinstance(first, int) and first > 1
    one = len(shape) == len(wanted) and shape[:1] == (1,)
    if wanted and one and (fixed_batch or batch > 1) and _matches(spec, rest, shape[1:]):
        return Fit(shape[1:], False)
    if _matches(spec, wanted, shape):
        return Fit(shape, True)
    if wanted and _matches(spec, rest, shape):
        return Fit(shape, False)
    fixed = tuple(d for d in rest if isinstance(d, int))
    if wanted and len(fixed) == len(rest) and _without_ones(fixed) == _without_ones(shape):
        return Fit(fixed, False)
    return None


def _without_ones(shape: Shape) -> Shape:
    return tuple(d for d in shape if d != 1)


def _matches(spec: TensorSpec, wanted: Sequence[int | str | None], shape: Shape) -> bool:
    if len(wanted) != len(shape):
        return False
    for want, size in zip(wanted, shape, strict=True):
        if isinstance(want, int):
            if want != size:
                return False
        elif want is not None and spec.bounds and want in spec.bounds:
            low, _, high = spec.bounds[want]
            if not low <= size <= high:
                return False
    return True


def require_fit(spec: TensorSpec, shape: Shape, where: str, batch: int = 1) -> Fit:
    """`fit_shape`, for a row called `where` in a diagnostic.

    Raises:
        InfcError: E403 where it does not fit.
    """
    fit = fit_shape(spec, shape, batch)
    if fit is not None:
        return fit
    wanted = spec.shape or ()
    ranges = [f"{name} from {b[0]} to {b[2]}" for name, b in (spec.bounds or {}).items()]
    notes = [f"with {', '.join(ranges)}"] if ranges else []
    swapped = len(shape) >= 3 and (*shape[:-3], shape[-1], *shape[-3:-1])
    if swapped and fit_shape(spec, swapped, batch):
        help = "the channels come last; the model wants them before height and width"
    elif len(shape) >= 3 and fit_shape(spec, (*shape[:-3], *shape[-2:], shape[-3]), batch):
        help = "the channels come before height and width; the model wants them last"
    elif wanted:
        help = f"one sample is {shown(wanted[1:])}, or {shown(wanted)} with the batch dimension"
    else:
        help = "one sample is a single number"
    raise fail(
        "E403",
        f"a sample is {shown(shape)}, but `{spec.name}` takes {shown(wanted)}",
        where=where,
        help=help,
        notes=notes,
    )


def batch_size(inputs: Sequence[TensorSpec], shapes: Mapping[str, Shape], batch: int) -> int:
    """How many rows make one run of the model: 1 where each is a whole value of every input.

    Raises:
        InfcError: E403 where a row does not fit, or the inputs' batches differ.
    """
    sizes: dict[int, str] = {}
    pieces = 0
    for spec in inputs:
        if require_fit(spec, shapes[spec.name], f"input `{spec.name}`", batch).whole:
            continue
        pieces += 1
        lead = (spec.shape or ())[0]
        if isinstance(lead, int):
            sizes.setdefault(lead, spec.name)
    if len(sizes) > 1:
        (a, x), (b, y) = list(sizes.items())[:2]
        raise fail(
            "E403",
            f"`{x}` takes {a} samples in one run, `{y}` takes {b}",
            help="give whole values of every input, with the batch dimension",
        )
    return next(iter(sizes), batch if pieces else 1)


def scale(array: Array, spec: Preprocess | None, where: str) -> Array:
    """`(x * range / 255 - mean) / std * scale`, float32; `array` itself where nothing is asked for.

    Values for each channel go along the axis that `layout` says, else along the only one with as
    many elements.

    Raises:
        InfcError: E110 where there is no such axis.
    """
    import numpy as np

    if spec is None or not spec.scales:
        return array
    out = array.astype(np.float32)
    if spec.range != 255.0:
        out *= np.float32(spec.range / 255.0)
    count = max(len(spec.mean), len(spec.std), len(spec.scale))
    shape = [1] * out.ndim
    if count > 1:
        shape[_channel_axis(out.shape, count, spec.layout, where)] = count
    for values, apply in (
        (spec.mean, np.subtract),
        (spec.std, np.divide),
        (spec.scale, np.multiply),
    ):
        if values:
            one = np.asarray(values, np.float32)
            apply(out, one.reshape(shape) if len(values) > 1 else one[0], out=out)
    return out


def _channel_axis(shape: Shape, count: int, layout: str | None, where: str) -> int:
    if layout is not None:
        axis = -3 if layout.endswith("chw") else -1
        axes = [axis] if len(shape) >= -axis and shape[axis] == count else []
    else:
        axes = [i for i, size in enumerate(shape) if size == count]
    if len(axes) == 1:
        return axes[0]
    raise fail(
        "E110",
        f"`--preprocess` has {count} channels, and a sample of {shown(shape)} has "
        + ("several axes" if axes else "no axis")
        + " like that",
        where=where,
        help="" if layout else "say where the channels are: `layout=nchw` or `layout=nhwc`",
    )


def cast(array: Array, spec: TensorSpec, where: str, *, text: bool = False) -> Array:
    """`array` in the input's element type, finite, native byte order.

    A conversion may round floats, never change the kind of a number: floats become integers only
    where they were `text`.

    Raises:
        InfcError: E404 for a type or a value that the input does not take, E406 for NaN or Inf.
    """
    import numpy as np

    wanted = numpy_dtype(spec.dtype)
    if spec.dtype == "bfloat16" and array.dtype == np.dtype("V2"):  # what numpy.save makes of it
        array = array.view(wanted)
    floats = wanted.kind == "f" or spec.dtype == "bfloat16"
    source_floats = array.dtype.kind == "f" or array.dtype == wanted
    if array.dtype.kind not in "fiub" and array.dtype != wanted:
        raise _wrong_type(spec, array, where, "its elements are not numbers")
    if source_floats and not np.isfinite(array).all():
        raise _not_finite(array, spec, where)
    if array.dtype == wanted:
        return array
    if floats:
        with np.errstate(over="ignore"):
            out = array.astype(wanted)
        if not np.isfinite(out).all():
            raise _not_finite(out, spec, where)
        return out
    if source_floats and not text:
        raise _wrong_type(spec, array, where, "a conversion would cut off fractions")
    with np.errstate(invalid="ignore"):
        out = array.astype(wanted)
    if not (out == array).all():
        raise _wrong_type(spec, array, where, f"its values do not fit {spec.dtype}")
    return out


def _wrong_type(spec: TensorSpec, array: Array, where: str, why: str) -> InfcError:
    return fail(
        "E404",
        f"a sample is {array.dtype}, `{spec.name}` takes {spec.dtype}: {why}",
        where=where,
    )


def _not_finite(array: Array, spec: TensorSpec, where: str) -> InfcError:
    import numpy as np

    bad = ~np.isfinite(array)
    at = [int(i) for i in np.unravel_index(int(bad.argmax()), array.shape)]
    return fail(
        "E406",
        f"{int(bad.sum())} of {array.size} values for `{spec.name}` are NaN or Inf, "
        f"the first at {at}",
        where=where,
        help="a range cannot be measured on it: leave the sample out, or mend it",
    )


def by_name(values: Mapping[str, Any], inputs: Sequence[TensorSpec], where: str) -> dict[str, Any]:
    """Those of `values` that are inputs, in the model's order; others are left alone.

    `numpy.savez` without names calls arrays `arr_0`, `arr_1`, ...: these go in order.

    Raises:
        InfcError: E405 where an input has no value.
    """
    unnamed = [f"arr_{i}" for i in range(len(inputs))]
    if set(values) == set(unnamed):
        return {s.name: values[key] for s, key in zip(inputs, unnamed, strict=True)}
    missing = [s.name for s in inputs if s.name not in values]
    if not missing:
        return {s.name: values[s.name] for s in inputs}
    have = ", ".join(f"`{name}`" for name in list(values)[:8]) or "nothing"
    raise fail(
        "E405",
        "nothing there is called " + ", ".join(f"`{name}`" for name in missing),
        where=where,
        help=did_you_mean(next(iter(values), ""), missing)
        + f"arrays are named as the inputs; there is {have}",
    )


def row_bytes(shape: Shape, itemsize: int, where: str) -> int:
    """The size of a row in bytes.

    Raises:
        InfcError: E402 above `MAX_ROW_BYTES`.
    """
    size = math.prod(shape) * itemsize
    if size > MAX_ROW_BYTES:
        raise fail(
            "E402",
            f"one sample would have {size} bytes, above the limit of {MAX_ROW_BYTES}",
            where=where,
        )
    return size
