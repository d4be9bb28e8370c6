"""The user's own code, named as `package.module:name` or `path/to/file.py:name`.

Nothing is imported before `load_module` is called, and that only in a worker.
"""

from __future__ import annotations

import re
import sys
import traceback
from dataclasses import dataclass
from pathlib import Path
from typing import Any

_REFERENCE = re.compile(
    r"(?P<module>.+\.py|[A-Za-z_]\w*(?:\.[A-Za-z_]\w*)*):(?P<name>[A-Za-z_]\w*)"
)


@dataclass(frozen=True, slots=True)
class Reference:
    """A name in a module: `module` is dotted, or a path that ends in `.py`."""

    module: str
    name: str

    @classmethod
    def parse(cls, text: str) -> Reference | None:
        """None where `text` is no such reference."""
        match = _REFERENCE.fullmatch(text)
        return cls(match["module"], match["name"]) if match else None

    @property
    def is_file(self) -> bool:
        """Whether `module` is a path."""
        return self.module.endswith(".py")


def load_module(reference: Reference, folder: Path) -> Any:
    """The module, with the place it is in on the path, as `python FILE` and `python -m` do.

    Raises:
        ImportError: for a file that is no Python source; besides, whatever its code raises.
    """
    from importlib import import_module, util

    path = folder / reference.module
    beside = str(path.parent if reference.is_file else folder)
    if beside not in sys.path:
        sys.path.insert(0, beside)
    if not reference.is_file:
        return import_module(reference.module)
    name = f"infc_user_{path.stem}"
    spec = util.spec_from_file_location(name, path)
    if spec is None or spec.loader is None:
        raise ImportError(f"`{reference.module}` is no Python source")
    module = util.module_from_spec(spec)
    sys.modules[name] = module  # dataclasses and pickle look modules up
    spec.loader.exec_module(module)
    return module


def line_of(error: BaseException) -> str:
    """`file.py:12 in samples`: the last of the user's own lines, "" where there is none."""
    if isinstance(error, SyntaxError) and error.filename:
        return f"{Path(error.filename).name}:{error.lineno}"
    users = [
        frame for frame in traceback.extract_tb(error.__traceback__) if is_users(frame.filename)
    ]
    return (
        f"{Path(users[-1].filename).name}:{users[-1].lineno} in {users[-1].name}" if users else ""
    )


def is_users(filename: str) -> bool:
    """Whether a file with code is the user's: neither Python's, nor a package's, nor infc's."""
    return (
        not filename.startswith("<")
        and not Path(filename).is_relative_to(Path(__file__).parent)
        and not _is_library(filename)
    )


def _is_library(filename: str) -> bool:
    """Whether a file belongs to Python or a package: its users are to blame."""
    import sysconfig

    paths = sysconfig.get_paths()
    return any(
        Path(filename).is_relative_to(paths[key]) for key in ("stdlib", "purelib", "platlib")
    )
