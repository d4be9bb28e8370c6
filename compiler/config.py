"""`--config FILE.toml`: defaults for the options of a verb; the command line wins.

    [compile]
    target = ["cpu", "jetson"]
    input = {images = "1x3x224x224"}

    [calibration]
    data = "photos"
    preprocess = {resize = "240x320", color = "rgb", mean = [123.7, 116.3, 103.5]}

A table is named after a verb and its keys after the verb's options, without the dashes. The table
`calibration` is for every verb that calibrates. A list repeats an option; a table writes its
KEY=VALUE pairs. Paths are relative to the file. No file is read that is not named.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import click

from infc.diagnostics import InfcError, did_you_mean, fail

CALIBRATION = "calibration"
CALIBRATION_KEYS = {
    "data": "calibration",
    "preprocess": "preprocess",
    "samples": "calibration-samples",
    "batch": "calibration-batch",
    "method": "method",
    "percentile": "percentile",
}
"""Keys of the table `calibration`, and the options they stand for."""
LOCATED = (CALIBRATION, "labelled", "metric")
"""Options that may be paths, `file.py:function` among them, or something else."""


def _read(ctx: click.Context, param: click.Parameter, path: Path | None) -> Path | None:
    """Make the file's values the verb's defaults, before any other option is looked at."""
    if path is not None and not ctx.resilient_parsing:
        ctx.default_map = {**(ctx.default_map or {}), **defaults(path, ctx)}
    return path


config_option: Callable[[Any], Any] = click.option(
    "--config",
    type=click.Path(path_type=Path),
    metavar="FILE.toml",
    is_eager=True,
    expose_value=False,
    callback=_read,
    help="Defaults for these options; the command line wins.",
)


def defaults(path: Path, ctx: click.Context) -> dict[str, Any]:
    """The defaults that the file at `path` has for the verb of `ctx`, by parameter.

    Raises:
        InfcError: E110 for a file that cannot be read, or a table, key or value that makes no
            sense; also in the tables of other verbs.
    """
    document = _load(path)
    group = ctx.parent.command if ctx.parent is not None else None
    verbs = dict(group.commands) if isinstance(group, click.Group) else {}
    verb = ctx.info_name or ""
    verbs.setdefault(verb, ctx.command)
    found: dict[str, Any] = {}
    for table, rows in document.items():
        if table not in verbs and table != CALIBRATION:
            hint = did_you_mean(table, [*verbs, CALIBRATION])
            raise _wrong(
                path, f"there is no table `{table}`", f"{hint}a table is named after a verb"
            )
        if not isinstance(rows, dict):
            raise _wrong(path, f"`{table}` is no table", f"write `[{table}]` above its options")
        options = _options(verbs.get(table, ctx.command))
        for key, value in rows.items():
            option = _option(path, table, key, options)
            if option is not None and table in (verb, CALIBRATION):
                found[option.name or ""] = _value(path, f"{table}.{key}", value, option, ctx)
    return found


def _load(path: Path) -> dict[str, Any]:
    import tomllib

    try:
        return tomllib.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise fail("E110", f"`--config {path}` cannot be read: {error.strerror}") from error
    except ValueError as error:  # no UTF-8, or no TOML
        raise fail("E110", f"`--config {path}` is no TOML: {error}") from error


def _options(command: click.Command) -> dict[str, click.Option]:
    """What a file may set, by key: the long name, or the short one where there is no other."""
    out = {}
    for param in command.params:
        if isinstance(param, click.Option) and param.expose_value:
            long = [name.removeprefix("--") for name in param.opts if name.startswith("--")]
            for name in long or [name.removeprefix("-") for name in param.opts]:
                out[name] = param
    return out


def _option(
    path: Path, table: str, key: str, options: Mapping[str, click.Option]
) -> click.Option | None:
    """The option that `key` stands for, None where this verb does not calibrate."""
    if table == CALIBRATION:
        if key not in CALIBRATION_KEYS:
            listed = ", ".join(f"`{k}`" for k in CALIBRATION_KEYS)
            hint = did_you_mean(key, CALIBRATION_KEYS)
            raise _wrong(path, f"there is no `{table}.{key}`", f"{hint}there are: {listed}")
        return options.get(CALIBRATION_KEYS[key])
    if key.replace("_", "-") not in options:
        hint = did_you_mean(key, options)
        raise _wrong(
            path, f"there is no `{table}.{key}`", f"{hint}`infc {table} --help` lists them"
        )
    return options[key.replace("_", "-")]


def _value(path: Path, name: str, value: Any, option: click.Option, ctx: click.Context) -> Any:
    """`value` as the command line would have given it."""
    if option.is_flag:
        if not isinstance(value, bool):
            raise _wrong(path, f"`{name}` is `true` or `false`")
        return value
    try:
        if option.multiple:
            texts = list(_pairs(value)) if isinstance(value, dict) else value
            texts = [_text(v) for v in (texts if isinstance(texts, list) else [texts])]
        else:
            texts = ",".join(_pairs(value)) if isinstance(value, dict) else _text(value)
        texts = _located(texts, option, path.parent)
        option.type_cast_value(ctx, texts)
    except TypeError as error:
        raise _wrong(path, f"`{name}` is {error}") from error
    except click.UsageError as error:
        why = error.message.rstrip(".")
        raise _wrong(path, f"`{name}`: {why[:1].lower()}{why[1:]}") from error
    return texts


def _pairs(table: Mapping[str, Any]) -> Iterator[str]:
    for key, value in table.items():
        texts = value if isinstance(value, list) else [value]
        yield f"{key}={':'.join(_text(v) for v in texts)}"


def _text(value: Any) -> str:
    """A string or a number as on the command line."""
    if isinstance(value, bool) or not isinstance(value, (str, int, float)):
        raise TypeError("neither text nor a number")
    return str(value)


def _located(value: Any, option: click.Option, folder: Path) -> Any:
    """Paths, which are relative to the file, as they are from here."""
    if isinstance(option.type, click.Path):
        return str(folder / value)
    if option.name not in LOCATED:
        return value
    is_path = re.search(r"\.py:\w+$", value) or (folder / value).exists()
    return str(folder / value) if is_path and value != "random" else value


def _wrong(path: Path, what: str, help: str = "") -> InfcError:
    return fail("E110", f"`--config {path}`: {what}", help=help)
