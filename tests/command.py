"""The command line, run inside the test's own process: no interpreter to start."""

from __future__ import annotations

import contextlib
import io
import json
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from unittest import mock

import onnx

from infc import cli


@dataclass(frozen=True)
class Done:
    status: int
    out: str
    err: str

    @property
    def document(self) -> Any:
        """Standard output as the one JSON document it has to be."""
        return json.loads(self.out)


def infc(*words: object) -> Done:
    out, err = io.StringIO(), io.StringIO()
    status: Any = None
    with (
        mock.patch.object(sys, "argv", ["infc", *map(str, words)]),
        contextlib.redirect_stdout(out),
        contextlib.redirect_stderr(err),
    ):
        try:
            cli.main()
        except SystemExit as leaving:
            status = leaving.code
    assert isinstance(status, int)
    return Done(int(status), out.getvalue(), err.getvalue())


SMALL = """
<ir_version: 8, opset_import: ["" : 17]>
small (float[batch,3,8,8] image) => (float[batch,4,8,8] scores)
<float[4,3,1,1] w = {0.5,-1,2, 1,1,1, -0.25,0.75,0.1, 0,1,-1}, float[4] b = {0,1,-1,0.5}>
{
  once = Identity(image)
  mixed = Conv(once, w, b)
  scores = Relu(mixed)
}
"""


def write_model(path: Path, text: str = SMALL) -> Path:
    """The model in ONNX's textual form, as a file."""
    onnx.save(onnx.parser.parse_model(text), path)
    return path
