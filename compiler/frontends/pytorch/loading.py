"""An order as a module in memory, ready to be called."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from infc.diagnostics import Diagnostic, Severity, fail
from infc.frontends.pytorch import archives, checkpoints, user_models
from infc.frontends.pytorch.order import Order
from infc.frontends.pytorch.structure import replaced
from infc.frontends.pytorch.user_models import Examples
from infc.frontends.sniff import Kind

MAX_SHOWN = 10


@dataclass(frozen=True, slots=True)
class Loaded:
    """A module in evaluation mode, on the CPU.

    `module` is callable; `exported` is the torch.export program that it belongs to, `scripted` says
    whether it is TorchScript. `examples` are what it can be called with, where that is known.
    `widened` are the types of 16 bits that it was in before it was put in float32.
    """

    module: Any
    examples: Examples | None = None
    exported: Any = None
    scripted: bool = False
    notes: tuple[Diagnostic, ...] = ()
    widened: tuple[str, ...] = ()


def load(order: Order) -> Loaded:
    """Build or read the model.

    Raises:
        InfcError: E100, E111, E113, E114, E116, E117.
    """
    if order.kind is Kind.PYTHON:
        return _settled(Loaded(*user_models.make(order.path, order.home)))
    path = Path(order.path)
    if order.kind is Kind.TORCHSCRIPT:
        return archives.load_torchscript(path, order.options.allow_pickle)
    if order.kind is Kind.TORCH_EXPORT:
        return archives.load_exported(path, order.options.allow_pickle)
    return _settled(_weights(order, path))


def _weights(order: Order, path: Path) -> Loaded:
    """The module that a checkpoint belongs to, with its weights."""
    import torch

    if order.options.allow_pickle:
        user_models.make_importable(order.home)
    held = checkpoints.read(path, order.kind, order.options.allow_pickle)
    if isinstance(held, torch.nn.Module) and not order.options.model:
        return Loaded(held)
    if not order.options.model:
        raise fail(
            "E114",
            f"`{order.title}` holds weights, and not the model that they belong to",
            help="name it: `--model package.module:Class` or `--model file.py:function`",
        )
    module, examples = user_models.make(order.options.model, order.home)
    checkpoints.fill(module, held, order.title, order.options.model)
    return Loaded(module, examples)


def _settled(loaded: Loaded) -> Loaded:
    """The module in evaluation mode, on the CPU and in float32."""
    import torch

    module = loaded.module
    named = [*module.named_parameters(), *module.named_buffers()]
    absent = [name for name, tensor in named if tensor.is_meta]
    if absent:
        raise fail(
            "E114",
            f"{len(absent)} tensors of the module are on the meta device, without values: "
            + ", ".join(f"`{name}`" for name in absent[:MAX_SHOWN]),
            help="build it on the CPU, or give its weights: "
            "`infc compile WEIGHTS --model package.module:Class`",
        )
    module = module.to("cpu").eval()
    _bake(module)
    for parameter in module.parameters():
        parameter.requires_grad = False
    scripted = isinstance(module, torch.jit.ScriptModule)
    return replace(_widened(loaded, named), module=module, scripted=scripted)


def _bake(module: Any) -> None:
    """Weights that a parametrization makes of others become what they come to in evaluation."""
    from torch.nn.utils import parametrize

    for part in module.modules():
        if not parametrize.is_parametrized(part):
            continue
        for name in list(part.parametrizations):
            parametrize.remove_parametrizations(part, name, leave_parametrized=True)


def _widened(loaded: Loaded, named: list[tuple[str, Any]]) -> Loaded:
    """A module in float16 or bfloat16 in float32, which holds all of its weights."""
    import torch

    kinds = {tensor.dtype for _, tensor in named if tensor.is_floating_point()}
    if not kinds or not kinds <= {torch.float16, torch.bfloat16}:
        return loaded
    loaded.module.float()
    names = " and ".join(sorted(str(kind).removeprefix("torch.") for kind in kinds))
    short = "bf16" if kinds == {torch.bfloat16} else "fp16"
    note = Diagnostic(
        "E111",
        f"the module is in {names}; it is imported in float32, which holds the same weights",
        help=f"`--precision {short}` makes them small again, where the target computes in it",
        severity=Severity.NOTE,
    )
    return replace(
        loaded,
        examples=_wide(loaded.examples, kinds),
        notes=(*loaded.notes, note),
        widened=tuple(str(kind).removeprefix("torch.") for kind in kinds),
    )


def _wide(examples: Examples | None, kinds: set[Any]) -> Examples | None:
    """The examples as the module in float32 takes them."""
    if examples is None:
        return None
    args, kwargs = (
        replaced(value, lambda tensor: tensor.float() if tensor.dtype in kinds else tensor)
        for value in (examples.args, dict(examples.kwargs or {}))
    )
    return Examples(args, kwargs)
