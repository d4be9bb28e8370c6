"""What an exporter could not do, as one diagnostic in the user's terms."""

from __future__ import annotations

import re
from typing import Any

from infc.diagnostics import InfcError, fail
from infc.frontends.pytorch.failures import message_of, quoted_line, root_of
from infc.user_code import line_of


class UnconvertedError(Exception):
    """A program that has no ONNX; `place` is the user's line that the operation comes from."""

    def __init__(self, place: str) -> None:
        super().__init__(place)
        self.place = place


def refusal(error: Exception) -> InfcError:
    """E111 for what torch.export, or the conversion of its program, raised."""
    cause = root_of(error)
    text = f"{error}\n{cause}"
    place = error.place if isinstance(error, UnconvertedError) else line_of(error)
    place = place or line_of(cause) or quoted_line(text)
    return fail("E111", _plain(cause), where=place, help=_remedy(text))


def place_of_node(text: str, program: Any) -> str:
    """The user's line that the node of `program` comes from that an exporter's `text` is about."""
    named = re.search(r"translating node %(\w+)", text)
    if named is None:
        return ""
    # The conversion works on a program of simpler operators: `linalg_svd` is `_linalg_svd` there.
    name = named[1].strip("_")
    stacks = (n.meta.get("stack_trace") or "" for n in program.graph.nodes if n.name == name)
    return next(map(quoted_line, stacks), "")


def _plain(error: BaseException) -> str:
    text = str(error)
    operator = re.search(r"No ONNX function found for <OpOverload\(op='([\w.:]+)'", text)
    if operator:
        return f"`{operator[1]}` has no counterpart in ONNX"
    fake = re.search(r"no fake impl registered for <CustomOpDef\(([\w:]+)\)>", text)
    if fake:
        return f"`{fake[1]}` is an operator of its own, which torch.export cannot look into"
    if "PackedParams" in text:
        return "the module is quantised by PyTorch, and its packed weights cannot be exported"
    if "data-dependent" in text:
        return "what `forward` does depends on the values of a tensor, not on its shape alone"
    return message_of(error)


def _remedy(text: str) -> str:
    if "PackedParams" in text:
        return "give infc the float module, with `--precision int8-dynamic` or `--precision int8`"
    if "data-dependent" in text:
        return "choose with `torch.where`, or with `torch.cond`, which keeps both branches"
    if "fake impl" in text or "No ONNX function" in text:
        return "compute it with torch's own operators where the model is exported"
    return "the log has the exporter's own words"
