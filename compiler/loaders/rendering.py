"""jinja2 as the loaders use it: layout only, and an error for every name that is not there."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import cache
from importlib.resources import files
from pathlib import Path
from typing import TYPE_CHECKING, Any

from infc import __version__

if TYPE_CHECKING:
    import jinja2

LINE_LENGTH = 100


@cache
def _environment() -> jinja2.Environment:
    import jinja2

    environment = jinja2.Environment(
        loader=jinja2.FunctionLoader(plain),
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
        autoescape=False,
    )
    environment.filters["c_string"] = c_string
    return environment


def fill(template: str, values: Mapping[str, Any]) -> str:
    """Render `templates/<template>`; `version` is infc's own."""
    return _environment().get_template(template).render(version=__version__, **values)


def plain(path: str, root: Path | None = None) -> str:
    """The text of `templates/<path>`, or of `path` in `root`: a file that is copied as it is."""
    return (root or files("infc.templates")).joinpath(path).read_text(encoding="utf-8")


def plain_folder(path: str, root: Path | None = None) -> dict[str, str]:
    """The texts of the files in that folder, by name; none where there is no folder."""
    folder = (root or files("infc.templates")).joinpath(path)
    if not folder.is_dir():
        return {}
    return {f.name: f.read_text(encoding="utf-8") for f in folder.iterdir() if f.is_file()}


def c_string(text: str) -> str:
    """`text` as a C string literal of ASCII characters, UTF-8 in octal: names are untrusted."""
    escaped = "".join(
        chr(b) if 32 <= b < 127 and b not in b'\\"?' else f"\\{b:03o}" for b in text.encode()
    )
    return f'"{escaped}"'


def call(head: str, arguments: Sequence[str], tail: str = ")") -> str:
    """`head` and its arguments, broken into lines the way clang-format does."""
    lines, line = [], head
    for i, argument in enumerate(arguments):
        text = argument + ("," if i + 1 < len(arguments) else tail)
        gap = "" if line == head or not line.strip() else " "
        if len(line) + len(gap) + len(text) > LINE_LENGTH and line != head:
            lines.append(line)
            line, gap = " " * min(len(head), LINE_LENGTH // 2), ""
        line += gap + text
    return "\n".join([*lines, line if arguments else line + tail])
