"""`--input`: the shapes that the user gives, as `NAME=DIMxDIMx...[:DTYPE]`.

Commas separate the dimensions as well, which a name with an `x` in it needs. A dimension is

    224             fixed
    batch           symbolic; renames the model's own dimension
    1..8            dynamic, with bounds
    1..8@4          dynamic, with bounds and the typical value
    ?               as the model has it

`NAME=scalar` has no dimension, and a comma may end the list: `ids=max_len,` has one. A model that
does not say the types of its inputs takes them from the end: `ids=1..8x128:int64`.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from infc.diagnostics import did_you_mean, fail
from infc.signature import DTYPES, TensorSpec


@dataclass(frozen=True, slots=True)
class Dim:
    """One dimension of an input: fixed (`low == high`), bounded, or symbolic without bounds.

    Without anything it is left as the model has it.
    """

    name: str | None = None
    low: int | None = None
    typical: int | None = None
    high: int | None = None

    @property
    def fixed(self) -> int | None:
        """The value, where there is only one."""
        return self.low if self.low is not None and self.low == self.high else None

    def __str__(self) -> str:
        if self.fixed is not None:
            return str(self.fixed)
        if self.low is None:
            return self.name or "?"
        at = f"@{self.typical}" if self.typical not in (None, self.low) else ""
        return f"{self.low}..{self.high}{at}"


_DIM = re.compile(
    r"(?P<fixed>[0-9]{1,10})"
    r"|(?P<low>[0-9]{1,10})\.\.(?P<high>[0-9]{1,10})(?:@(?P<typical>[0-9]{1,10}))?"
    r"|(?P<name>[A-Za-z_][\w.\-]{0,99})"
    r"|(?P<any>\?)"
)
MAX_DIM = 2**31 - 1


@dataclass(frozen=True, slots=True)
class InputSpec:
    """A shape the user gave for the input `name`; `dtype` is "" where it is left to the model."""

    name: str
    dims: tuple[Dim, ...]
    dtype: str = ""

    @classmethod
    def parse(cls, text: str) -> InputSpec:
        """Parse `NAME=SHAPE`.

        Raises:
            InfcError: E110, with the part that does not parse.
        """
        name, equals, shape = text.rpartition("=")
        if not equals or not name:
            raise fail(
                "E110",
                f"`--input {text}` is not NAME=SHAPE",
                help="for example `--input images=1x3x224x224`",
            )
        shape, colon, dtype = shape.partition(":")
        if colon and dtype not in DTYPES:
            help = f"{did_you_mean(dtype, DTYPES)}it is one of {', '.join(DTYPES)}"
            raise fail("E110", f"`{dtype}` in `--input {text}` is not an element type", help=help)
        if not shape:
            raise fail("E110", f"`--input {text}` gives no shape", help=f"`{name}=scalar` has none")
        if shape == "scalar":
            return cls(name, (), dtype)
        parts = shape.removesuffix(",").split(",") if "," in shape else shape.split("x")
        return cls(name, tuple(_parse_dim(part.strip(), text) for part in parts), dtype)

    @classmethod
    def of(cls, spec: TensorSpec) -> InputSpec:
        """What the user would have to write to get `spec`, whose rank is known."""
        bounds = spec.bounds or {}

        def dim(given: int | str | None) -> Dim:
            if isinstance(given, int):
                return Dim(low=given, typical=given, high=given)
            if given is not None and given in bounds:
                low, typical, high = bounds[given]
                return Dim(low=low, typical=typical, high=high)
            return Dim(name=given)

        return cls(spec.name, tuple(dim(d) for d in spec.shape or ()), spec.dtype)

    def __str__(self) -> str:
        shape = "x".join(map(str, self.dims)) or "scalar"
        return f"{self.name}={shape}" + (f":{self.dtype}" if self.dtype else "")


def _parse_dim(part: str, text: str) -> Dim:
    match = _DIM.fullmatch(part)
    if match is None:
        raise fail(
            "E110",
            f"`{part}` in `--input {text}` is not a dimension",
            help="a dimension is a number, a name, MIN..MAX, MIN..MAX@TYPICAL or `?`; "
            "separate them by commas where a name holds an `x`",
        )
    if match["any"]:
        return Dim()
    if match["name"]:
        return Dim(name=match["name"])
    low = int(match["fixed"] or match["low"])
    high = int(match["fixed"] or match["high"])
    typical = int(match["typical"]) if match["typical"] else low
    if not 0 < low <= typical <= high <= MAX_DIM:
        raise fail(
            "E110",
            f"`{part}` in `--input {text}` is not in order: MIN <= TYPICAL <= MAX",
            help=f"dimensions lie between 1 and {MAX_DIM}",
        )
    return Dim(low=low, typical=typical, high=high)
