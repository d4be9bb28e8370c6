"""Imports models as the worker does, many in one process: `tensorflow_importer.py JOB`.

Runs in the toolchain's Python, with infc's source where the job says it is. For each case the
answer has the interface, the operators before and after the passes, and the error of both graphs
against TensorFlow at the least, typical and greatest sizes, relative to the output's peak; or the
diagnostics.
"""

from __future__ import annotations

import json
import sys
import traceback
from collections import Counter
from pathlib import Path
from typing import Any


def main(job: dict[str, Any]) -> None:
    sys.path.insert(0, job["protocol"])
    import protocol

    sys.meta_path.insert(0, protocol._Packages(job["packages"]))
    from infc.diagnostics import InfcError

    answers = {}
    for name, case in job["cases"].items():
        try:
            answers[name] = imported(case, Path(job["output"]) / name)
        except InfcError as error:
            answers[name] = {"diagnostics": [d.to_json() for d in error.diagnostics]}
        except Exception:
            answers[name] = {"traceback": traceback.format_exc()}
    Path(job["answer"]).write_text(json.dumps(answers))


def imported(case: dict[str, Any], folder: Path) -> dict[str, Any]:
    from dataclasses import asdict

    import numpy as np

    from infc import pipeline
    from infc.feeds import make_feeds
    from infc.frontends import onnx, tensorflow
    from infc.frontends.sniff import sniff
    from infc.input_spec import InputSpec
    from infc.request import PassOptions, VerifyOptions
    from infc.source_precision import quantities
    from infc.targets import RunJob, Target
    from infc.targets import onnxruntime as judge

    folder.mkdir(parents=True)
    path = Path(case["path"])
    specs = [InputSpec.parse(text) for text in case["inputs"]]
    payload = {
        "path": str(path),
        "kind": sniff(path).name,
        "home": case["home"],
        "options": {"allow_pickle": False, **case["options"]},
        "inputs": [asdict(spec) for spec in specs],
        "output": str(folder),
    }
    answer = tensorflow.import_model(payload)
    source = onnx.load(folder / "model.onnx", specs)
    inputs, outputs = [v.name for v in source.inputs], [v.name for v in source.outputs]
    feeds = make_feeds(source.inputs, VerifyOptions(), quantities=quantities(source.model))
    target = Target("reference", "onnxruntime", "", options=answer["options"])
    names = tuple(outputs), tuple(inputs)
    reference = tensorflow.open(RunJob(Path(answer["entry"]), target, *names))
    before = Counter(node.op_type for node in source.model.graph)
    exact = Target("judge", "onnxruntime", "", options={"graph-optimization": "off"})
    runs = {"exported": judge.open(RunJob(folder / "model.onnx", exact, *names))}
    pipeline.run(source.model, PassOptions(), lambda name: None)
    import onnx_ir as ir

    ir.save(source.model, folder / "optimized.onnx")
    runs["optimized"] = judge.open(RunJob(folder / "optimized.onnx", exact, *names))
    errors = {}
    for what, run in runs.items():
        worst = 0.0
        for row in feeds:
            wanted, got = reference(row), run(row)
            for name in outputs:
                assert wanted[name].shape == got[name].shape, (name, what)
                assert wanted[name].dtype == got[name].dtype, (name, what)
                r, a = wanted[name].astype(np.float64), got[name].astype(np.float64)
                worst = max(worst, float(np.abs(r - a).max() / max(np.abs(r).max(), 1e-30)))
        errors[what] = worst
    return {
        "inputs": {v.name: [v.dtype, list(v.shape or ())] for v in source.inputs},
        "outputs": {v.name: [v.dtype, list(v.shape or ())] for v in source.outputs},
        "before": dict(before),
        "after": dict(Counter(node.op_type for node in source.model.graph)),
        "errors": errors,
        "versions": answer["versions"],
        "notes": answer["notes"],
    }


if __name__ == "__main__":
    main(json.loads(Path(sys.argv[1]).read_text()))
