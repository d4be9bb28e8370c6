"""The PyTorch frontend, in a worker: a model of PyTorch's becomes ONNX, and answers as it is.

    source -> module -> flat module -> eager probe -> torch.export -> ONNX -> the user's names

`import_model` is the action `import` of `infc.frontends.importing`; `open` builds the same module
once more and runs it in eager mode, for the reference. Sources: torch 2.13, torch.export and
torch.onnx.
"""

from __future__ import annotations

import faulthandler
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from infc.frontends.importing import CRASH, MODEL
from infc.targets import RunJob, Target

if TYPE_CHECKING:
    from infc.targets import Runner, Tensors


def import_model(payload: Mapping[str, Any]) -> dict[str, Any]:
    """Export the model, with the answer that the driver awaits.

    Raises:
        InfcError: E100, E106, E107, E111, E113 to E117.
    """
    from infc.frontends.pytorch import (
        autocast,
        calls,
        exporting,
        flat,
        loading,
        naming,
        probing,
        state,
    )
    from infc.frontends.pytorch.order import Order
    from infc.frontends.pytorch.user_models import at_home

    order = Order.of(payload)
    folder = Path(payload["output"])
    loaded = loading.load(order)
    call = calls.plan(loaded, order.inputs)
    module, outputs = flat.flatten(loaded.module, call)
    with at_home(order.home), autocast.disabled() as under:
        probing.probe(module, call, outputs)
        entry = order.save(folder)
        state.save(module, folder)
        exported = exporting.export(loaded, module, call, folder)
    naming.write(exported, call.names, outputs.names, folder / MODEL)
    exporting.clear(folder)
    notes = (*loaded.notes, *autocast.note(under), *outputs.note(), *exported.notes)
    return {
        "exporter": exported.exporter,
        "versions": _versions(exported.model),
        "entry": str(entry),
        "options": {},
        "notes": [note.to_json() for note in notes],
    }


def open(job: RunJob) -> Runner:
    """The model itself, in eager mode, with the weights that it was exported with."""
    import json

    import torch

    from infc.frontends.pytorch import autocast, calls, flat, loading, probing, state
    from infc.frontends.pytorch.order import Order
    from infc.frontends.pytorch.user_models import at_home

    if job.threads:
        torch.set_num_threads(job.threads)
    order = Order.of(json.loads(job.entry.read_text(encoding="utf-8")))
    loaded = loading.load(order)
    call = calls.plan(loaded, order.inputs)
    module, outputs = flat.flatten(loaded.module, call)
    state.restore(module, job.entry.parent)

    def run(feeds: Tensors) -> dict[str, Any]:
        tensors = [torch.from_numpy(feeds[name].copy()) for name in call.names]
        with at_home(order.home), autocast.disabled(), probing.exactly():
            results = module(*tensors)
        return {n: t.contiguous().numpy() for n, t in zip(outputs.names, results, strict=True)}

    return run


def device(target: Target) -> str:
    """Always the CPU."""
    return "CPU"


def _versions(model: Any) -> dict[str, str]:
    """The packages that had a part in the export, and the opset that came out."""
    from importlib.metadata import version

    import torch

    opset = {"opset": str(model.opset_imports[""])}
    return {"torch": torch.__version__} | {n: version(n) for n in ("onnx-ir", "onnxscript")} | opset


def _import(payload: Mapping[str, Any]) -> dict[str, Any]:
    """`import_model`; where native code takes the process down, Python's stack is left behind."""
    with (Path(payload["output"]) / CRASH).open("w") as stream:
        faulthandler.enable(stream)
        try:
            return import_model(payload)
        finally:
            faulthandler.disable()


ACTIONS: dict[str, Callable[[Mapping[str, Any]], dict[str, Any]]] = {"import": _import}
