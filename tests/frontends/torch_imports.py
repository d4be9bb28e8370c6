"""An import as the worker does it, in the test's own process, compared with eager PyTorch."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from infc.diagnostics import Diagnostic
from infc.feeds import make_feeds
from infc.frontends import importing, onnx
from infc.frontends.sniff import sniff
from infc.import_options import ImportOptions
from infc.input_spec import InputSpec
from infc.request import VerifyOptions
from infc.targets import RunJob, Target

HERE = Path(__file__).parent


@dataclass(frozen=True)
class Imported:
    answer: dict[str, Any]
    path: Path
    inputs: dict[str, tuple[int | str | None, ...]]
    outputs: dict[str, tuple[int | str | None, ...]]
    error: float
    """The largest relative to the peak of its output, at the least, typical and greatest sizes."""

    @property
    def notes(self) -> list[str]:
        return [Diagnostic.from_json(row).message for row in self.answer["notes"]]


def import_model(
    source: str | Path,
    *inputs: str,
    folder: Path,
    home: Path = HERE,
    model: str = "",
    allow_pickle: bool = False,
) -> Imported:
    """Import, run both at three sizes and compare; the worker's refusals come through."""
    from infc.frontends import pytorch

    specs = [InputSpec.parse(text) for text in inputs]
    output = folder / "import"
    output.mkdir(parents=True)
    options = ImportOptions(model, allow_pickle)
    answer = pytorch.import_model(
        {
            "path": str(source),
            "kind": sniff(Path(source)).name,
            "home": str(home),
            "options": {**options.to_json(), "allow_pickle": allow_pickle},
            "inputs": [asdict(spec) for spec in specs],
            "output": str(output),
        }
    )
    path = output / importing.MODEL
    read = onnx.load(path, specs)
    names = tuple(o.name for o in read.outputs), tuple(i.name for i in read.inputs)
    run = pytorch.open(
        RunJob(Path(answer["entry"]), Target("reference", "onnxruntime", ""), *names)
    )
    session = _session(path)
    error = 0.0
    for feeds in make_feeds(read.inputs, VerifyOptions(samples=1)):
        expected = run(dict(feeds))
        given = {i.name: feeds[i.name] for i in session.get_inputs()}
        for name, value in zip(names[0], session.run(None, given), strict=True):
            assert value.shape == expected[name].shape
            assert value.dtype == expected[name].dtype
            gap = np.abs(value.astype("f8") - expected[name].astype("f8")).max(initial=0)
            error = max(error, gap / (np.abs(expected[name]).max(initial=0) + 1e-12))
    return Imported(
        answer,
        path,
        {i.name: i.shape or () for i in read.inputs},
        {o.name: o.shape or () for o in read.outputs},
        error,
    )


def _session(path: Path) -> Any:
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    return onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
