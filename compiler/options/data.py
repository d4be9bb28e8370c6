"""Data with labels, and what makes the model's input of data."""

from __future__ import annotations

import click

from infc.budget import TOP1
from infc.options.declaring import together
from infc.preprocessing import EXAMPLE

preprocess_option = click.option(
    "--preprocess",
    metavar="KEY=VALUE,...",
    help=f"What makes the model's input of the data: {EXAMPLE}.",
)
metric_options = together(
    click.option(
        "--metric",
        default=TOP1,
        show_default=True,
        metavar="top1|MODULE:FUNCTION",
        help="Taken of (outputs, labels) on `--labelled`; also FILE.py:FUNCTION.",
    ),
    click.option(
        "--labelled",
        metavar="DATA",
        help="A .npz with an array `labels`, a .csv with `--preprocess label=COLUMN`, or "
        "`module:function` that yields (inputs, label).",
    ),
)
