"""A model for Relax's virtual machine: the same kernels, with dimensions that may stay open.

    kernels -> memory planned as far as sizes are known -> bytecode -> one shared library

The library holds the kernels, the bytecode and the weights. It runs on libtvm_runtime and
libtvm_ffi, which allocate what no plan can hold.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from infc.targets.tvm_compiler.errors import last_line
from infc.targets.tvm_compiler.forms.library import rendered, run_compiler

if TYPE_CHECKING:
    from infc.targets.tvm_compiler.cpus import Cpu


@dataclass(frozen=True, slots=True)
class Machine:
    """What `write_machine` made: how many kernels, and the bytes of the library."""

    kernels: int
    library: int


def write_machine(
    module: Any, cpu: Cpu, output: Path, scratch: Path, compiler: Sequence[str]
) -> Machine:
    """Write the shared library `output` of `module`, a Relax module of scheduled kernels.

    `compiler` is the command of a C compiler for the processor.

    Raises:
        CompilerError: the C compiler is missing or refuses.
    """
    import tvm
    from tvm import relax

    target = tvm.target.Target(cpu.target())
    with target, tvm.transform.PassContext(opt_level=3):
        executable = relax.build(module, target=target, relax_pipeline=_lowering())
    scratch.mkdir(parents=True, exist_ok=True)
    facts = scratch / "machine.c"
    facts.write_text(
        rendered(
            "machine.c.j2",
            ffi_version=ffi_version(),
            instructions=cpu.instructions,
            abilities=cpu.abilities,
        ),
        encoding="utf-8",
    )
    executable.export_library(
        str(output),
        fcompile=linker(compiler, scratch),
        addons=[str(facts)],
        workspace_dir=str(scratch),
    )
    count = sum(isinstance(f, tvm.tirx.PrimFunc) for f in module.functions.values())
    return Machine(count, output.stat().st_size)


def ffi_version() -> str:
    """What the tvm_ffi that is installed calls itself: its wheel may be called otherwise."""
    import ctypes

    from tvm_ffi import libinfo

    numbers = (ctypes.c_uint32 * 3)()
    ctypes.CDLL(libinfo.find_libtvm_ffi()).TVMFFIGetVersion(numbers)
    return ".".join(map(str, numbers))


def _lowering() -> Any:
    """What is left of TVM's pipeline once the kernels are there."""
    import tvm
    from tvm.relax import transform

    return tvm.transform.Sequential(
        [
            transform.RewriteDataflowReshape(),
            transform.ToNonDataflow(),
            transform.RemovePurityChecking(),
            transform.CallTIRRewrite(),
            transform.StaticPlanBlockMemory(),
            transform.LowerAllocTensor(),
            transform.KillAfterLastUse(),
            transform.LowerRuntimeBuiltin(),
            transform.ComputePrimValue(),
            transform.VMShapeLower(),
            transform.AttachGlobalSymbol(),
            tvm.transform.module_pass(_in_order, opt_level=0, name="InOrder"),
        ]
    )


def _in_order(module: Any, _: Any) -> Any:
    """`module` with the sizes of tensors computed in the order of where they go.

    TVM orders them by the addresses of their expressions, and the library would be another one
    each time. None of them depends on another: all are made of the inputs' dimensions.
    """
    from tvm import tirx

    for name, func in module.functions.items():
        if not isinstance(func, tirx.PrimFunc) or "tirx.is_host_func" not in (func.attrs or {}):
            continue
        if isinstance(func.body, tirx.SeqStmt):
            stores = sorted(func.body.seq, key=lambda store: int(store.indices[0]))
            module.update_func(name, func.with_body(tirx.SeqStmt(stores)))
    return module


def linker(compiler: Sequence[str], scratch: Path) -> Callable[..., None]:
    """What TVM calls with the object files; the same ones give the same bytes."""

    def link(output: str, files: Sequence[str], **_: Any) -> None:
        made = scratch / "made.so"
        # The library names what it needs itself: a program may have loaded it for itself alone.
        stub, empty = scratch / "libtvm_ffi.so", scratch / "empty.c"
        empty.write_text("", encoding="utf-8")
        run_compiler(
            [*compiler, "-shared", str(empty), f"-Wl,-soname,{stub.name}", "-o", str(stub)],
            scratch,
        )
        options = ["-shared", "-fPIC", "-O2", "-s", "-Wl,-Bsymbolic", "-Wl,--build-id=none"]
        command = [*compiler, *options, "-Wl,-z,noexecstack", "-Wl,--no-as-needed"]
        run_compiler([*command, *map(str, files), str(stub), "-lm", "-o", str(made)], scratch)
        shutil.move(made, output)

    return link


class Model:
    """A library that was opened in this process; `run` takes and gives arrays by name."""

    def __init__(
        self, path: Path, inputs: Sequence[str], outputs: Sequence[str], threads: int
    ) -> None:
        import os

        if threads:
            # Read when the first kernel wants threads, and a worker opens one artifact.
            os.environ["TVM_NUM_THREADS"] = str(threads)
        os.environ["TVM_BIND_THREADS"] = "0"
        import tvm
        from tvm import relax

        self._tensor = tvm.runtime.tensor
        self._inputs, self._outputs = tuple(inputs), tuple(outputs)
        self._machine = relax.VirtualMachine(tvm.runtime.load_module(str(path)), tvm.cpu())

    def run(self, feeds: Any) -> dict[str, Any]:
        """Run once.

        Raises:
            BackEndError: a kernel refuses, or an input is of another type or shape.
        """
        import numpy as np

        from infc.targets import BackEndError

        arrays = [np.ascontiguousarray(feeds[name]) for name in self._inputs]
        shaped = [a.reshape(np.shape(feeds[n])) for a, n in zip(arrays, self._inputs, strict=True)]
        try:
            found = self._machine["main"](*map(self._tensor, shaped))
        except Exception as error:
            raise BackEndError(last_line(error)) from error
        answers = [found] if hasattr(found, "numpy") else list(found)
        return dict(zip(self._outputs, (a.numpy() for a in answers), strict=True))
