"""The whole pipeline over random graphs: valid after every pass, no larger, the same answers.

`INFC_RANDOM_GRAPHS=20000` runs that many; the seed of a finding is in the
message, and `random_graph(seed)` makes the graph again.
"""

from __future__ import annotations

import os
from typing import Any

import numpy as np
import onnx
import onnx_ir as ir
import pytest
from random_graphs import random_graph
from test_node_models import run

from infc import pipeline
from infc.request import PassOptions

PARTS = 4
COUNT = int(os.environ.get("INFC_RANDOM_GRAPHS", "1600")) // PARTS
TOLERANCE = 2e-4
"""Of an output's peak, at least 1: some hundred float32 roundings, amplified by what follows."""
LARGEST = 1e6
"""Graphs that grow beyond this amplify a rounding as much."""


def optimized(model: onnx.ModelProto) -> tuple[onnx.ModelProto, set[str]]:
    """The model after the pipeline, and the passes that changed it."""
    loaded = ir.from_proto(model)
    before = sum(1 for n in loaded.graph.all_nodes() if n.op_type != "Constant")
    records = pipeline.run(loaded, PassOptions(check_between=True))
    after = pipeline.node_count(loaded)
    assert after <= before, f"{before} nodes became {after}"
    return ir.to_proto(loaded), {r.name for r in records if r.changes}


def difference(expected: Any, found: Any) -> float:
    """How far `found` is off, in parts of the peak of `expected`."""
    if expected.shape != found.shape or expected.dtype != found.dtype:
        return float("inf")
    peak = max(1.0, float(np.abs(expected).max(initial=0)))
    return float(np.abs(expected - found).max(initial=0)) / peak


@pytest.mark.timeout(max(120, COUNT))
@pytest.mark.parametrize("part", range(PARTS))
def test_random_graphs_keep_their_outputs(part: int) -> None:
    wrong, compared, fired = [], 0, set[str]()
    for seed in range(part * COUNT, (part + 1) * COUNT):
        model, feeds = random_graph(seed)
        onnx.checker.check_model(model)
        before = run(model, feeds)
        if not all(np.isfinite(a).all() and np.abs(a).max(initial=0) < LARGEST for a in before):
            continue
        try:
            after_model, changed = optimized(model)
            after = run(after_model, feeds)
            worst = max(difference(a, b) for a, b in zip(before, after, strict=True))
            if not worst < TOLERANCE:
                wrong.append(f"seed {seed}: off by {worst:.2g}")
        except Exception as error:
            wrong.append(f"seed {seed}: {type(error).__name__}: {error}"[:300])
            continue
        compared += 1
        fired |= changed
    assert not wrong
    assert compared > COUNT * 0.8
    assert len(fired) > 15, sorted(fired)
