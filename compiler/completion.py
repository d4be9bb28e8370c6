"""What the shell offers after TAB: names from the tables, model files, bundles.

Runs on every key press, so it imports nothing slow and swallows nothing but a folder that cannot
be listed.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from pathlib import Path

import click
from click.shell_completion import CompletionItem, ShellComplete, get_completion_class

MODEL_SUFFIXES = {
    *(".onnx", ".pt", ".pth", ".pt2", ".jit", ".safetensors"),
    *(".keras", ".h5", ".hdf5", ".tflite", ".pb"),
}
"""Only for completion: what a file is, its bytes say."""

Completer = Callable[[click.Context, click.Parameter, str], list[CompletionItem]]


def script(command: click.Command, shell: str) -> str:
    """The text that makes `shell` (bash, zsh or fish) complete `infc`."""
    cls = get_completion_class(shell)
    assert cls is not None
    # The base class: bash's own runs bash to check its version, which the user's shell decides.
    return ShellComplete.source(cls(command, {}, "infc", "_INFC_COMPLETE"))


def targets(ctx: click.Context, param: click.Parameter, incomplete: str) -> list[CompletionItem]:
    """Target names, with their summaries."""
    from infc.targets import profiles

    return _items(((t.name, t.summary) for t in profiles().values()), incomplete)


def schemes(ctx: click.Context, param: click.Parameter, incomplete: str) -> list[CompletionItem]:
    """The names of the INT8 schemes."""
    from infc.targets.schemes import SCHEMES

    return _items(((name, "") for name in SCHEMES), incomplete)


def passes(ctx: click.Context, param: click.Parameter, incomplete: str) -> list[CompletionItem]:
    """Pass names, with their summaries."""
    from infc.passes import PIPELINE

    rows = ((spec.name, spec.summary) for phase in PIPELINE for spec in phase.passes)
    return _items(dict(rows).items(), incomplete)


def toolchains(ctx: click.Context, param: click.Parameter, incomplete: str) -> list[CompletionItem]:
    """Toolchains, with their summaries."""
    from infc.workers.toolchains import entries

    return _items(((e.name, e.summary) for e in entries()), incomplete)


def codes(ctx: click.Context, param: click.Parameter, incomplete: str) -> list[CompletionItem]:
    """Diagnostic codes, with their titles."""
    from infc.diagnostics import CODES

    return _items(((code.id, code.title) for code in CODES.values()), incomplete.upper())


def _items(rows: Iterable[tuple[str, str]], incomplete: str) -> list[CompletionItem]:
    return [CompletionItem(n, help=text) for n, text in rows if n.startswith(incomplete)]


def models(ctx: click.Context, param: click.Parameter, incomplete: str) -> list[CompletionItem]:
    """Files named as models are, SavedModels, and the folders on the way to them."""
    return _paths(incomplete, _is_model)


def bundles(ctx: click.Context, param: click.Parameter, incomplete: str) -> list[CompletionItem]:
    """Folders with a manifest, and the folders on the way to them."""
    return _paths(incomplete, _is_bundle)


def models_and_bundles(
    ctx: click.Context, param: click.Parameter, incomplete: str
) -> list[CompletionItem]:
    """Either."""
    return _paths(incomplete, lambda path: _is_model(path) or _is_bundle(path))


def _is_model(path: Path) -> bool:
    return path.suffix in MODEL_SUFFIXES or (path / "saved_model.pb").is_file()


def _is_bundle(path: Path) -> bool:
    return (path / "manifest.json").is_file()


def _paths(incomplete: str, wanted: Callable[[Path], bool]) -> list[CompletionItem]:
    """Paths that begin with `incomplete` and are `wanted`, or folders.

    A shell puts a blank after the only candidate, so a folder that is the only one is replaced
    by what it holds.
    """
    while True:
        parent, _, start = incomplete.rpartition("/")
        base = parent + "/" if "/" in incomplete else ""
        try:
            entries = sorted(Path(base or ".").expanduser().iterdir())
        except (OSError, RuntimeError):
            return []
        entries = [p for p in entries if p.name.startswith(start)]
        if not start.startswith("."):
            entries = [p for p in entries if not p.name.startswith(".")]
        found = [base + p.name for p in entries if wanted(p)]
        others = (p for p in entries if not wanted(p) and p.suffix != ".log")
        folders = [f"{base}{p.name}/" for p in others if p.is_dir()]
        if found or len(folders) != 1:
            return [CompletionItem(text) for text in (*found, *folders)]
        incomplete = folders[0]
