"""The model run once in eager mode, before it is exported: does it run, and always answer alike?"""

from __future__ import annotations

import contextlib
import re
from collections.abc import Iterable, Iterator
from typing import Any

from infc.diagnostics import fail
from infc.frontends.pytorch.calls import Call
from infc.frontends.pytorch.failures import blamed, message_of
from infc.frontends.pytorch.flat import Outputs, same
from infc.frontends.pytorch.structure import Leaf
from infc.frontends.pytorch.user_models import seed
from infc.signature import DTYPES
from infc.user_code import line_of

_INTEGERS = re.compile(r"scalar types?:? Long|Long, Int|indices.*Long|must be long", re.IGNORECASE)
_MAX_SHOWN = 5


@contextlib.contextmanager
def exactly() -> Iterator[None]:
    """Without gradients, and with float32 computed in float32, in the same order every time."""
    import torch

    torch.set_float32_matmul_precision("highest")
    torch.use_deterministic_algorithms(True, warn_only=True)
    with torch.inference_mode():
        yield


def probe(flat: Any, call: Call, outputs: Outputs) -> None:
    """Run the model on its examples, twice.

    Raises:
        InfcError: E107 where it raises, E108 for types that cannot cross the loader interface,
            E111 where the second answer is another.
    """
    before = {name: buffer.clone() for name, buffer in flat.named_buffers()}
    with exactly():
        first = _run(flat, call)
        changed = [n for n, b in flat.named_buffers() if _differs(before.get(n), b)]
        second = _run(flat, call)
    _require_types(
        [*zip(call.names, call.examples, strict=True), *zip(outputs.names, first, strict=True)]
    )
    if same(first, second):
        return
    if changed:
        shown = ", ".join(f"`{n.partition('.')[2]}`" for n in changed[:_MAX_SHOWN])
        raise fail(
            "E111",
            f"`forward` answers differently the second time: it changes its buffers {shown}",
            help="ONNX has no state: let `forward` take it as an input and return the new one",
        )
    seed()
    with exactly():
        again = _run(flat, call)
        seed()
        random = same(again, _run(flat, call))
    raise fail(
        "E111",
        "`forward` answers differently the second time: "
        + ("it draws random numbers" if random else "it keeps something from call to call"),
        help="switch dropout off in evaluation, or take the noise as an input"
        if random
        else "ONNX has no state: let `forward` take it as an input and return the new one",
    )


def _run(flat: Any, call: Call) -> tuple[Any, ...]:
    with blamed("E107", "`forward` raises", _help(call)):
        try:
            answers: tuple[Any, ...] = flat(*(e.clone() for e in call.examples))
        except Exception as error:
            floats = [i.name for i in call.inputs if i.example.is_floating_point()]
            if floats and _INTEGERS.search(str(error)):
                raise fail(
                    "E107",
                    f"`forward` raises {message_of(error)}",
                    where=line_of(error),
                    help=f"give the type of token ids and masks: `--input {floats[0]}=...:int64`",
                ) from error
            raise
        return answers


def _require_types(tensors: Iterable[Leaf]) -> None:
    for name, tensor in tensors:
        kind = str(tensor.dtype).removeprefix("torch.")
        if kind not in DTYPES:
            raise fail(
                "E108",
                f"`{name}` is {kind}, which cannot cross the loader interface",
                help="`torch.view_as_real` makes two numbers of a complex one"
                if tensor.is_complex()
                else f"make it one of {', '.join(DTYPES)}",
            )


def _help(call: Call) -> str:
    if not call.inputs:
        return "no tensor went in: give shapes with `--input`, or tensors as example inputs"
    shapes = (f"{i.name}={'x'.join(map(str, i.example.shape)) or 'scalar'}" for i in call.inputs)
    return f"it was called with {', '.join(shapes)}; `--input` gives other shapes"


def _differs(before: Any, after: Any) -> bool:
    import torch

    return before is None or before.shape != after.shape or not torch.equal(before, after)
