"""How a model that is not ONNX is read: what the user says that the file does not."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

from infc.diagnostics import fail
from infc.user_code import Reference

LAYOUTS = ("", "nchw")


@dataclass(frozen=True, slots=True)
class ImportOptions:
    """What `infc` is told about the source.

    `model` is the `package.module:Class` or `file.py:Class` that a checkpoint's weights belong to.
    `allow_pickle` lets the file run code when it is loaded. `signature` names one of a
    SavedModel's. `outputs` are those of a frozen graph. `layout` of "nchw" moves the channels of
    image inputs first; "" keeps the interface that the model has.
    """

    model: str = ""
    allow_pickle: bool = False
    signature: str = ""
    outputs: tuple[str, ...] = ()
    layout: str = ""

    def __post_init__(self) -> None:
        if self.model and Reference.parse(self.model) is None:
            help = "for example `--model my_package.models:Net`"
            raise fail(
                "E110",
                f"`--model {self.model}` is neither package.module:Class nor file.py:Class",
                help=help,
            )
        if self.layout not in LAYOUTS:
            raise fail("E110", f"there is no layout `{self.layout}`", help="there is `nchw`")

    def to_json(self) -> dict[str, Any]:
        """What was said, as in the manifest; `allow_pickle` is left out: it is said each time."""
        rows = {**asdict(self), "outputs": list(self.outputs)}
        return {k: v for k, v in rows.items() if v and k != "allow_pickle"}

    @classmethod
    def from_json(cls, data: Mapping[str, Any], *, allow_pickle: bool = False) -> ImportOptions:
        """The inverse of `to_json`."""
        outputs = tuple(data.get("outputs", ()))
        return cls(**{**data, "outputs": outputs, "allow_pickle": allow_pickle})
