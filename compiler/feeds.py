"""Input sets: seeded random ones at each size of the dynamic dimensions, or the user's own."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from infc.diagnostics import fail
from infc.request import VerifyOptions
from infc.signature import TensorSpec, load_tensors, numpy_dtype, save_tensors

if TYPE_CHECKING:
    import numpy as np

    Tensors = dict[str, np.ndarray[Any, Any]]

UNBOUNDED_BATCH = (1, 2, 3)
UNBOUNDED_DIM = (16, 24, 32)
"""What a dynamic dimension without bounds is tried at: low, typical, high."""


def make_feeds(
    inputs: Sequence[TensorSpec],
    options: VerifyOptions,
    scale_log2: int = 0,
    quantities: Collection[str] = (),
) -> list[Tensors]:
    """Return the input sets: the user's data, or seeded random ones at each size.

    A bounded dimension is tried at its least, typical and greatest value; one without bounds at
    three small sizes. Floats are normal with a deviation of 2 ** `scale_log2`, integers and
    booleans are 0 or 1, which are valid as indices, masks and token ids alike. Those called
    `quantities` stand for real numbers (`source_precision.quantities`) and take their whole range.

    Raises:
        InfcError: E110 where the user's data does not fit, E107 for an input of unknown rank.
    """
    if options.data is not None:
        return [_user_feeds(inputs, options.data)]
    if options.calibration:
        return [load_tensors(folder) for folder in options.calibration]
    import numpy as np

    rng = np.random.default_rng(options.seed)
    sizes = (0,) if all(spec.is_static for spec in inputs) else (0, 1, 2)
    return [
        {
            s.name: random_tensor(
                rng, s, shape_at(s, size, {}), scale_log2, quantity=s.name in quantities
            )
            for s in inputs
        }
        for size in sizes
        for _ in range(options.samples)
    ]


def typical_feeds(inputs: Sequence[TensorSpec], dims: Mapping[str, int]) -> Tensors:
    """One random input set, dynamic dimensions at `dims` or else their typical value.

    Raises:
        InfcError: E110 where `dims` names a dimension that no input has.
    """
    import numpy as np

    known = {d for spec in inputs for d in spec.shape or () if isinstance(d, str)}
    for name in dims:
        if name not in known:
            have = ", ".join(f"`{k}`" for k in sorted(known)) or "none"
            raise fail("E110", f"no input has a dimension `{name}`", help=f"there are: {have}")
    rng = np.random.default_rng(0)
    return {spec.name: random_tensor(rng, spec, shape_at(spec, 1, dims)) for spec in inputs}


def shape_at(spec: TensorSpec, size: int, dims: Mapping[str, int]) -> list[int]:
    """The shape of an input at its least (0), typical (1) or greatest (2) `size`, or at `dims`.

    Raises:
        InfcError: E107 where the rank is unknown.
    """
    if spec.shape is None:
        raise fail(
            "E107",
            f"the rank of input `{spec.name}` is unknown",
            help=f"give its shape: `--input {spec.name}=...`",
        )
    shape = []
    for axis, dim in enumerate(spec.shape):
        if isinstance(dim, int):
            shape.append(dim)
            continue
        bounds = (spec.bounds or {}).get(str(dim))
        default = UNBOUNDED_DIM if axis else UNBOUNDED_BATCH
        shape.append(dims.get(str(dim), (bounds or default)[size]))
    return shape


def random_tensor(
    rng: np.random.Generator,
    spec: TensorSpec,
    shape: Sequence[int],
    scale_log2: int = 0,
    *,
    quantity: bool = False,
) -> Any:
    """Normal floats with a deviation of 2 ** `scale_log2`; integers and booleans are 0 or 1.

    An integer `quantity` takes the whole range of its type. The first of each row is 1: in a mask
    that hides everything, what attention answers is 0, NaN or the mean, as each runtime likes.
    """
    import numpy as np

    dtype = numpy_dtype(spec.dtype)
    if quantity and np.issubdtype(dtype, np.integer):
        limits = np.iinfo(dtype)
        return rng.integers(limits.min, limits.max, shape, dtype, endpoint=True)
    if np.issubdtype(dtype, np.integer) or dtype == np.bool_:
        values = rng.integers(0, 2, shape)
        if len(shape) > 1:
            values[..., :1] = 1
        return values.astype(dtype)
    normal = rng.standard_normal(shape).astype(np.float32) * np.float32(2.0**scale_log2)
    return np.asarray(normal.astype(dtype))  # numpy makes a number of what has no dimensions


def _user_feeds(inputs: Sequence[TensorSpec], path: Path) -> Tensors:
    import numpy as np

    try:
        with np.load(path, allow_pickle=False) as data:
            missing = [s.name for s in inputs if s.name not in data]
            arrays = {s.name: data[s.name] for s in inputs if s.name in data}
    except (OSError, ValueError, EOFError) as error:
        raise fail("E110", f"`--verify-data {path}` cannot be read: {error}") from error
    if missing:
        raise fail(
            "E110",
            f"`--verify-data {path}` has no array " + ", ".join(f"`{m}`" for m in missing),
            help="name the arrays as the inputs: " + ", ".join(f"`{s.name}`" for s in inputs),
        )
    for spec in inputs:
        if arrays[spec.name].dtype != numpy_dtype(spec.dtype):
            raise fail(
                "E110",
                f"`--verify-data {path}`: `{spec.name}` is {arrays[spec.name].dtype}, "
                f"the model takes {spec.dtype}",
            )
    return arrays


def write_feeds(feeds: Sequence[Tensors], folder: Path) -> tuple[Path, ...]:
    """Write each input set to a tensor folder of its own."""
    paths = tuple(folder / f"feeds-{i}" for i in range(len(feeds)))
    for path, tensors in zip(paths, feeds, strict=True):
        save_tensors(path, tensors)
    return paths
