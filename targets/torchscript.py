"""TorchScript: the artifact is a scripted, frozen `model.pt` (or `model.ptl`), run by libtorch.

    ONNX -> TorchScript source (targets/torchscript_lowering) -> torch.jit -> freeze -> model.pt

The graph is written as source and compiled, not traced: tracing a module that interprets the graph
would bake in every Python number that a shape becomes, and one branch of every `If`. Compiled
source keeps dynamic dimensions, branches and loops as they are. It needs no example inputs, so
the archive holds none.

onnx2torch 1.5.15 was weighed and left: it makes an fx.GraphModule whose modules can only be traced
(`torch.Size(tensor)`, lists built from tensors), it has 106 operators, none of them LSTM, GRU, RNN,
If, Loop, Scan, ScatterElements, GroupNormalization or Q/DQ, hardly any newer than opset 16, and
it requires torchvision. Its last release is from 2024.

bf16 is written into the graph: half the size, and on a CPU with AVX512_BF16 or AMX oneDNN computes
in it (one thread of a Zen 5: densenet121 239 -> 197 ms, ResNet-50 181 -> 116 ms, ShuffleNet 18 ->
23 ms). fp16 is not offered: without AVX512_FP16 torch's convolutions fall back to plain loops,
densenet121 156 -> 1744 ms, ultraface slim-320 12 -> 75 ms.

int8-dynamic packs the weights of linear layers for `quantized::linear_dynamic`; the packed weights
are in the archive as int8, and are packed again for the CPU that loads them.

`forward` takes the inputs in the model's order and always returns a tuple, of one tensor too.
Source: torch 2.13, torch.jit and torch/csrc/jit/frontend (the language that is compiled).
"""

from __future__ import annotations

import contextlib
import warnings
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from infc.diagnostics import fail
from infc.request import Precision
from infc.targets import (
    Artifact,
    BackEndError,
    BuildJob,
    LoaderSpec,
    RunJob,
    Target,
    Unsupported,
    Worker,
    choice,
)
from infc.targets.arithmetic import Arithmetic
from infc.targets.dynamic import Dynamic

if TYPE_CHECKING:
    import onnx_ir as ir

    from infc.targets import Runner, Tensors
    from infc.targets.torchscript_lowering.emission import Packed, Program

NAME = "torchscript"
SUMMARY = "TorchScript: .pt for libtorch (CPU)"
EXTRA = "torchscript"
DISTRIBUTIONS = ("torch",)
MODULES = ("torch",)
OPTIONS = {
    "path": "auto | ir | direct: through the graph, or what torch traces of a PyTorch model; auto "
    "keeps the direct one where it is clearly faster (auto)",
    "freeze": "on | off: fold the weights into the graph and optimise it (on)",
    "optimize-for-inference": "on | off: convert weights to oneDNN's layouts at loading (off)",
    "mobile": "on | off: add the bytecode that the lite interpreter runs, model.ptl (off)",
}
PRECISIONS = (Precision.FP32, Precision.BF16, Precision.INT8_DYNAMIC)
ARITHMETIC = {Precision.BF16: Arithmetic(converts=True, opset=22)}
DYNAMIC = Dynamic("weights")
MIN_OPSET = 7
THREADS = (1,)


def _sdk() -> dict[str, str]:
    return {"Torch_DIR": str(_torch_folder() / "share" / "cmake" / "Torch")}


def _library_path() -> list[Path]:
    return [_torch_folder() / "lib"]


LOADER = LoaderSpec("torchscript", _sdk, _library_path)


def worker(target: Target) -> Worker:
    """Any environment that has the package."""
    return Worker(target.toolchain)


def require_options(target: Target) -> None:
    """A path, and switches."""
    choice(target, "path", ("auto", "ir", "direct"), "auto")
    for option in OPTIONS.keys() - {"path"}:
        _on(target, option, default=False)


def legalize(model: ir.Model, target: Target) -> None:
    """Replace operators that have no lowering by the function that ONNX defines them as."""
    from infc.targets.function_bodies import expand_functions
    from infc.targets.torchscript_dynamic import fuse_dynamic_linear
    from infc.targets.torchscript_lowering import table

    expand_functions(model, table())
    if target.precision is Precision.INT8_DYNAMIC:
        fuse_dynamic_linear(model)


def check(model: Path, target: Target) -> Sequence[Unsupported]:
    """Return the nodes that have no lowering, or none for their attributes and types."""
    return _emit(model)[1]


def build(job: BuildJob) -> Artifact:
    """Write the source, compile it and freeze it.

    Raises:
        BackEndError: TorchScript's compiler refuses the source.
    """
    program, _ = _emit(job.model)
    if job.target.device != "CPU":
        raise BackEndError(f"device {job.target.device}: only CPU is built for")
    module = compile_program(program, freeze=_on(job.target, "freeze", default=True))
    mobile = _on(job.target, "mobile", default=False)
    name = "model.ptl" if mobile else "model.pt"
    with _quiet():
        save = module._save_for_lite_interpreter if mobile else module.save
        save(str(job.output / name))
    return Artifact(name, (name,))


def open(job: RunJob) -> Runner:
    """Load the module; tensors share the memory of the arrays where they can."""
    import torch

    if job.threads:
        torch.set_num_threads(job.threads)
    with _quiet():
        module = torch.jit.load(str(job.entry), map_location="cpu").eval()
        if _on(job.target, "optimize-for-inference", default=False):
            # Not in the file: torch cannot write the constants it makes.
            module = torch.jit.optimize_for_inference(module)

    def run(feeds: Tensors) -> dict[str, Any]:
        with torch.inference_mode():
            results = module(*(_tensor(feeds[name]) for name in job.inputs))
        return {n: _array(t) for n, t in zip(job.outputs, results, strict=True)}

    return run


def device(target: Target) -> str:
    """Always the CPU."""
    return "CPU"


def _emit(path: Path) -> tuple[Program, list[Unsupported]]:
    import onnx_ir as ir

    return program_of(ir.load(path))


def program_of(model: ir.Model) -> tuple[Program, list[Unsupported]]:
    """Infer the types of `model`, in place; return its program and the nodes without a lowering."""
    from onnx_ir.passes.common import ShapeInferencePass

    from infc.targets.torchscript_lowering.emission import emit

    ShapeInferencePass(check_type=False, strict_mode=False)(model)
    return emit(model)


def compile_program(program: Program, *, freeze: bool) -> Any:
    """Return the ScriptModule of `program`.

    Raises:
        BackEndError: with the compiler's message.
    """
    import torch

    # The class gives the module its name in the archive.
    named = type("Model", (torch.nn.Module,), {"__module__": "infc"})
    try:
        with _quiet():
            unit = torch.jit.CompilationUnit()
            unit.define(program.functions, {"torch": torch}.get)
            module = _script(named, program, unit)
            return torch.jit.freeze(module.eval()) if freeze else module.eval()
    except (RuntimeError, ValueError) as error:
        raise BackEndError(str(error)) from error


def _script(model: Any, program: Program, unit: Any) -> Any:
    """Define `forward` on a module with the constants as buffers.

    `torch.jit.script` wants a file with the source of a class; this is the same without a file,
    and without its path in the archive.
    """
    import torch

    builder = torch._C.ConcreteModuleTypeBuilder(model)
    builder.add_attribute("training", torch._C.BoolType.get(), False, False)
    for name in program.constants:
        builder.add_attribute(name, torch._C.TensorType.get(), False, True)
    packs = {name: _packed(weights) for name, weights in program.packed.items()}
    for name, weights in packs.items():
        kind = torch._C._jit_try_infer_type(weights).type()
        builder.add_attribute(name, kind, False, False)
    concrete = builder.build()
    module = torch._C._create_module_with_type(concrete.jit_type)
    module.setattr("training", False)
    for name, tensor in program.constants.items():
        module.setattr(name, _tensor(tensor.numpy()))
    for name, weights in packs.items():
        module.setattr(name, weights)

    def resolve(name: str) -> Any:
        return torch if name == "torch" else unit.find_function(name)

    module._define(concrete, program.forward, resolve)
    return torch.jit._recursive.wrap_cpp_module(module)


def _packed(weights: Packed) -> Any:
    """The weights of a quantised linear layer, as its kernel takes them."""
    import torch

    scale = _tensor(weights.scale.numpy())
    rows = torch._make_per_channel_quantized_tensor(
        _tensor(weights.rows.numpy()), scale, torch.zeros(len(scale), dtype=torch.int64), 0
    )
    bias = None if weights.bias is None else _tensor(weights.bias.numpy())
    return torch.ops.quantized.linear_prepack(rows, bias)


def _tensor(array: Any) -> Any:
    """The array as a tensor; bfloat16 by its bits, as numpy has no such type of its own."""
    import numpy as np
    import torch

    contiguous = np.require(array, requirements=["C", "W"])
    if array.dtype.name == "bfloat16":
        return torch.from_numpy(contiguous.view(np.int16)).view(torch.bfloat16)
    return torch.from_numpy(contiguous)


def _array(tensor: Any) -> Any:
    """The tensor as an array of its own."""
    import ml_dtypes
    import torch

    whole = tensor.detach().contiguous()
    if whole.dtype == torch.bfloat16:
        return whole.view(torch.int16).numpy().view(ml_dtypes.bfloat16)
    return whole.numpy()


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Say nothing of TorchScript's deprecation: torch 2.13 does at each use, to no purpose here."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "(`torch.jit|Lite Interpreter)", DeprecationWarning)
        yield


def _on(target: Target, option: str, *, default: bool) -> bool:
    return choice(target, option, ("on", "off"), "on" if default else "off") == "on"


def _torch_folder() -> Path:
    """The folder of the installed torch, found without importing it.

    Raises:
        InfcError: E501 where there is none, or one without what C++ needs.
    """
    from importlib.util import find_spec

    spec = find_spec("torch")
    if spec is None or spec.origin is None:
        raise fail("E501", "no libtorch was found", help="pip install torch")
    folder = Path(spec.origin).parent
    if not (folder / "share" / "cmake" / "Torch" / "TorchConfig.cmake").is_file():
        raise fail(
            "E501",
            "the installed torch has no TorchConfig.cmake, which a C++ loader needs",
            help="install a wheel from PyPI or download.pytorch.org instead",
        )
    return folder
