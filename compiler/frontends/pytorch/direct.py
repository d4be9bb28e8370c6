"""TorchScript made of the module itself, without ONNX in between.

    module -> flat module -> trace (or script, and trace over that) -> freeze -> model.pt

A trace follows the operators that one call runs: sizes stay open where the code takes them from
tensors, and one branch is taken of every `if`. Where a second call, of other sizes, shows that the
trace has not kept one of them, the user's module is scripted. A module that is TorchScript already
keeps its control flow as it is.

int8-dynamic is torch's own: `quantize_dynamic` of Linear per channel, and of LSTM and GRU.

The archive names no source file: the records for debuggers, which hold the paths of the user's
code, are left out. Source: torch 2.13, torch.jit, caffe2/serialize/inline_container.
"""

from __future__ import annotations

import contextlib
import json
import warnings
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from infc.targets import BackEndError

MODEL = "model.pt"
UNNEEDED = (".debug_pkl",)
WRITTEN_BY_ITSELF = ("version", ".data/serialization_id")
LARGER = 2
"""What a dynamic dimension is longer by in the second call."""


def build(payload: Mapping[str, Any]) -> dict[str, Any]:
    """Write `MODEL` into the folder `output`; the answer says how it was made.

    `entry` is the reference's (`open` of the package), `inputs` and `outputs` the names in the
    order of the artifact, `dynamic` whether int8-dynamic is asked for, `freeze` whether it is
    frozen.

    Raises:
        BackEndError: neither way makes a module that answers as the model does.
    """
    import torch

    from infc.frontends.pytorch import autocast, calls, flat, loading, probing, state
    from infc.frontends.pytorch.order import Order
    from infc.frontends.pytorch.user_models import at_home

    torch.set_num_threads(1)
    entry = Path(payload["entry"])
    order = Order.of(json.loads(entry.read_text(encoding="utf-8")))
    loaded = loading.load(order)
    call = calls.plan(loaded, order.inputs)
    module, outputs = flat.flatten(loaded.module, call)
    state.restore(module, entry.parent)
    with at_home(order.home), autocast.disabled(), _quiet():
        if payload["dynamic"]:
            _quantize(module)
        with probing.exactly():
            module(*call.examples)  # names the outputs
        names = call.names, outputs.names
        if isinstance(module.module, torch.fx.GraphModule):
            _loosen(module.module)
        finished, method = _made(module, call, loaded.scripted, (names, payload))
        if payload["freeze"]:
            finished = torch.jit.freeze(finished.eval())
    raw = Path(payload["output"]) / "raw.pt"
    raw.parent.mkdir(parents=True, exist_ok=True)
    with _quiet():
        finished.save(str(raw))
    _strip(raw, raw.with_name(MODEL))
    raw.unlink()
    return {"entry": MODEL, "files": [MODEL], "notes": {"method": method}}


def _made(module: Any, call: Any, scripted: bool, names: Any) -> tuple[Any, str]:
    """The TorchScript of `module`, and how it was made."""
    import torch

    reasons = []
    for method in ("script",) if scripted else ("trace", "script"):
        try:
            if method == "script" and not scripted:
                module.module = torch.jit.script(module.module)
            made = _traced(module, call, *names)
        except Exception as error:
            # Whatever the tracer, the compiler or the user's code raises.
            reasons.append(f"{method}: {_first_line(error)}")
            continue
        return made, method
    raise BackEndError("; ".join(reasons))


def _traced(
    module: Any,
    call: Any,
    names: tuple[Sequence[str], Sequence[str]],
    payload: Mapping[str, Any],
) -> Any:
    """A trace, with inputs and outputs in the artifact's order, that follows other sizes too.

    Raises:
        ValueError: it gives something else than the module does.
    """
    import torch

    inputs, outputs = payload["inputs"], payload["outputs"]
    if set(names[0]) != set(inputs) or not set(outputs) <= set(names[1]):
        raise ValueError("its inputs and outputs are not those of the graph")
    into = [inputs.index(name) for name in names[0]]
    out = [names[1].index(name) for name in outputs]

    class Model(torch.nn.Module):  # type: ignore[misc]
        def __init__(self) -> None:
            super().__init__()
            self.flat = module

        def forward(self, *tensors: Any) -> tuple[Any, ...]:
            results = self.flat(*(tensors[i] for i in into))
            return tuple(results[i].contiguous() for i in out)

    model = Model()
    model.training = False  # a program of torch.export refuses `eval`
    examples = [call.examples[names[0].index(name)] for name in inputs]
    # Not in inference mode: what is computed of weights in it cannot be saved.
    with torch.no_grad():
        traced = torch.jit.trace(model, tuple(examples), check_trace=False, _store_inputs=False)
        rows = {i.name: i for i in call.inputs}
        for tensors in (examples, _other(examples, [rows[name] for name in inputs])):
            _require_same(model(*tensors), traced(*tensors))
    return traced


def _other(examples: Sequence[Any], inputs: Sequence[Any]) -> list[Any]:
    """Inputs that are longer along every dimension with a label, as long where labels are equal."""
    import torch

    sizes: dict[str, int] = {}
    for example, row in zip(examples, inputs, strict=True):
        for axis, label in enumerate(row.labels):
            if label:
                high = row.dims[axis].high if row.dims else None
                longer = example.shape[axis] + LARGER
                sizes.setdefault(label, min(longer, high) if high else longer)
    found = []
    for example, row in zip(examples, inputs, strict=True):
        wanted = [
            sizes.get(row.labels[axis], size) if row.labels else size
            for axis, size in enumerate(example.shape)
        ]
        index = [torch.arange(size) % old for size, old in zip(wanted, example.shape, strict=True)]
        found.append(example[torch.meshgrid(*index, indexing="ij")] if index else example)
    return found


def _require_same(expected: Sequence[Any], found: Sequence[Any]) -> None:
    import torch

    for a, b in zip(expected, found, strict=True):
        if a.shape != b.shape or a.dtype != b.dtype:
            raise ValueError("it keeps a size that the code looks at")
        if not torch.allclose(a, b, rtol=1e-3, atol=1e-4, equal_nan=True):
            raise ValueError("it keeps a branch or a number that the code looks at")


def _loosen(program: Any) -> None:
    """Let a program of torch.export be traced: sizes asked for as modules do, no assertions.

    That it answers alike is seen afterwards, at two sizes.
    """
    import torch

    aten = torch.ops.aten
    checks = {aten._assert_scalar.default, aten._assert_tensor_metadata.default}
    checks |= {aten.sym_constrain_range.default, aten.sym_constrain_range_for_size.default}
    # The tracer knows these as methods, and not with sizes as an exported program has them.
    methods = {
        aten.sym_size.int: "size",
        aten.view.default: "view",
        aten.reshape.default: "reshape",
        aten._unsafe_view.default: "reshape",
        aten.expand.default: "expand",
        aten.repeat.default: "repeat",
    }
    for node in reversed(program.graph.nodes):
        if node.target in checks or node.target == "_guards_fn":
            program.graph.erase_node(node)
        elif node.target in methods and not node.kwargs:
            node.op, node.target = "call_method", methods[node.target]
    program._forward_pre_hooks.clear()  # the one that compares the inputs with the exported ones
    program._forward_pre_hooks_with_kwargs.clear()
    program.graph.eliminate_dead_code()
    program.recompile()


def _quantize(module: Any) -> None:
    """Replace the layers in `module` that torch has dynamic kernels of.

    Raises:
        BackEndError: there is none.
    """
    import torch
    from torch.ao.quantization import (
        default_dynamic_qconfig,
        per_channel_dynamic_qconfig,
        quantize_dynamic,
    )

    kinds = {
        torch.nn.Linear: per_channel_dynamic_qconfig,
        torch.nn.LSTM: default_dynamic_qconfig,
        torch.nn.GRU: default_dynamic_qconfig,
    }
    inner = module.module
    if isinstance(inner, torch.jit.ScriptModule | torch.fx.GraphModule):
        raise BackEndError("torch quantises modules, not TorchScript or exported programs")
    if not any(type(part) in kinds for part in inner.modules()):
        raise BackEndError("there is no Linear, LSTM or GRU in it")
    module.module = quantize_dynamic(inner, kinds)


def _strip(source: Path, output: Path) -> None:
    """Copy a TorchScript archive without what only debuggers read."""
    import torch

    reader = torch._C.PyTorchFileReader(str(source))
    writer = torch._C.PyTorchFileWriter(str(output))
    for name in reader.get_all_records():
        if not name.endswith(UNNEEDED) and name not in WRITTEN_BY_ITSELF:
            data = reader.get_record(name)
            writer.write_record(name, data, len(data))
    writer.write_end_of_file()


def _first_line(error: Exception) -> str:
    text = " ".join(str(error).split()) or type(error).__name__
    return text[:200]


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Say nothing of deprecations, nor of what the tracer thinks of the user's code."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield


ACTIONS = {"direct": build}
