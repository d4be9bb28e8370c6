"""Keep sympy out of `import onnx_ir` until symbolic arithmetic is really done.

`onnx_ir` imports sympy at its top for arithmetic on symbolic dimensions, which infc's passes do
not do: 0.3 s and 35 MB of the 0.65 s and 110 MB that importing onnx_ir costs, in every command
that touches a model. `install` puts a finder before the others; when onnx_ir is imported for the
first time, its modules get, in the place of sympy, a stand-in whose attributes are looked up in
the real sympy on use. After that import the finder and the stand-in are gone from
`sys.meta_path` and `sys.modules`: whoever else imports sympy gets the real one, and onnx_ir
itself behaves as before. Where sympy or onnx_ir is already imported, nothing is done.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from importlib import import_module
from importlib.machinery import ModuleSpec, PathFinder
from types import ModuleType
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from importlib.abc import Loader, MetaPathFinder
else:
    # Importing the abstract classes costs 10 ms in every command, and nothing asks for them.
    Loader = MetaPathFinder = object


def install() -> None:
    """Make the first import of onnx_ir in this process leave sympy unloaded."""
    if "sympy" in sys.modules or "onnx_ir" in sys.modules:
        return
    if not any(isinstance(finder, _Finder) for finder in sys.meta_path):
        sys.meta_path.insert(0, _Finder())


class _StandIn(ModuleType):
    """Has every attribute of sympy, the real one's, from the moment onnx_ir is imported.

    While it is being imported (`onnx_ir._symbolic_shapes` fills a table with functions), an
    attribute is a function that looks the real one up when it is called.
    """

    importing = True

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)
        if self.importing:
            return _deferred(name)
        return getattr(import_module("sympy"), name)


def _deferred(name: str) -> Callable[..., Any]:
    def call(*args: Any, **kwargs: Any) -> Any:
        return getattr(import_module("sympy"), name)(*args, **kwargs)

    return call


class _Finder(MetaPathFinder):
    """Finds onnx_ir, once, and wraps its loader."""

    def find_spec(
        self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        if fullname != "onnx_ir":
            return None
        sys.meta_path.remove(self)
        spec = PathFinder.find_spec(fullname, path, target)
        if spec is not None and spec.loader is not None and "sympy" not in sys.modules:
            spec.loader = _Loader(spec.loader)
        return spec


class _Loader(Loader):
    """Runs another loader while the stand-in is in `sys.modules`."""

    def __init__(self, real: Loader) -> None:
        self._real = real

    def create_module(self, spec: ModuleSpec) -> ModuleType | None:
        return self._real.create_module(spec)

    def exec_module(self, module: ModuleType) -> None:
        stand_in = _StandIn("sympy")
        sys.modules["sympy"] = stand_in
        try:
            self._real.exec_module(module)
        finally:
            stand_in.importing = False
            if sys.modules.get("sympy") is stand_in:
                del sys.modules["sympy"]
        spec = module.__spec__
        if spec is not None:
            spec.loader = module.__loader__ = self._real

    def __getattr__(self, name: str) -> Any:
        return getattr(self._real, name)
