"""Pruned networks answer as the same networks do with the removed channels at zero."""

from __future__ import annotations

from pathlib import Path

import channel_networks
import numpy as np
import onnx
import onnx.checker
import onnx_ir as ir
import pytest
from channel_networks import Net, random_network, run

from infc import frontends, pipeline
from infc.passes.pruning import Amount, PruningRecord, prune, silenced
from infc.request import PassOptions

Array = np.ndarray
Feeds = dict[str, Array]
TOLERANCE = 2e-5
"""Of an output's peak: sums without the zeros run in another order."""
SEEDS = 60


def feeds_of(model: ir.Model, seed: int = 0) -> Feeds:
    rng = np.random.default_rng(seed)
    return {
        v.name: rng.standard_normal([d if isinstance(d, int) else 2 for d in v.shape]).astype(
            np.float32
        )
        for v in model.graph.inputs
    }


def pruned(model: ir.Model, amount: Amount, sizes: dict[str, int] | None = None) -> PruningRecord:
    """Prune `model` in place and hold it to what setting the channels to zero gives."""
    expected = silenced(model, amount)
    record = prune(model, amount, sizes or {})
    onnx.checker.check_model(ir.to_proto(model), full_check=True)
    feeds = feeds_of(model)
    for a, b in zip(run(expected, feeds), run(model, feeds), strict=True):
        assert a.shape == b.shape
        assert float(np.abs(a - b).max()) <= TOLERANCE * max(1.0, float(np.abs(a).max()))
    return record


@pytest.mark.parametrize("seed", range(SEEDS))
def test_random_networks(seed: int) -> None:
    amount = Amount(
        (0.3, 0.5, 0.8)[seed % 3],
        scope=("layer", "model")[seed % 2],
        norm=("l1", "l2")[seed // 2 % 2],
        multiple=(1, 4)[seed // 3 % 2],
    )
    model = random_network(seed)
    if seed % 2:
        pipeline.run(model, PassOptions())
    record = pruned(model, amount)
    assert record.exact
    assert record.parameters[1] <= record.parameters[0]
    assert record.macs is not None
    assert all(0 < row.after < row.before for row in record.pruned)


def test_random_networks_are_pruned_at_all() -> None:
    parts = []
    for seed in range(SEEDS):
        record = prune(random_network(seed), Amount(0.5, multiple=1), {})
        parts.append(len(record.pruned) / record.layers)
    assert np.mean(parts) > 0.4
    assert np.mean([part > 0 for part in parts]) > 0.9


def test_the_same_twice() -> None:
    first, second = random_network(3), random_network(3)
    records = [prune(m, Amount(0.4), {}) for m in (first, second)]
    assert records[0] == records[1]
    assert ir.to_proto(first) == ir.to_proto(second)


def resnet(widths: tuple[int, ...] = (16, 32)) -> ir.Model:
    """Two stages of two blocks, the second with a strided shortcut."""
    n = Net(0)
    x, c = n.op("Relu", n.conv("x", 3, widths[0])), widths[0]
    for width in widths:
        for _ in range(2):
            h = n.conv(n.op("Relu", n.conv(x, c, width)), width, width)
            short = x if c == width else n.conv(x, c, width, 1)
            x, c = n.op("Relu", n.op("Add", h, short)), width
    flat = n.op("Flatten", n.op("GlobalAveragePool", x))
    out = n.op("Gemm", flat, n.normal(c, 10), n.normal(10))
    return n.model([out], {"x": ("batch", 3, 16, 16)})


def test_a_residual_network_loses_a_quarter_of_every_layer() -> None:
    model = resnet()
    record = pruned(model, Amount(0.25, multiple=1), {"batch": 1})
    assert len(record.pruned) == record.layers - 1  # all but the classifier
    assert {row.after / row.before for row in record.pruned} == {0.75}
    before, after = record.parameters
    # Weights between layers shrink by 9/16, the first by 3/4, the classifier by 3/4.
    assert 0.55 < after / before < 0.6
    assert record.macs is not None
    assert 0.5 < record.macs[1] / record.macs[0] < 0.65
    assert list(model.graph.inputs[0].shape)[1:] == [3, 16, 16]


def test_macs_of_a_batch() -> None:
    one, four = (prune(resnet(), Amount(0.25), {"batch": batch}).macs for batch in (1, 4))
    assert one is not None
    assert four is not None
    assert four[0] == 4 * one[0]


def test_ranked_over_the_model_a_weak_layer_loses_more() -> None:
    def made() -> ir.Model:
        n = Net(1)
        rows = np.full((16, 3, 1, 1), 0.01, np.float32)
        rows[:2] = 1
        weak = n.const(rows)
        even = n.normal(16, 16, 1, 1)
        x = n.op("Relu", n.op("Conv", "x", weak))
        x = n.op("Relu", n.op("Conv", x, even))
        return n.model([n.conv(x, 16, 4, 1)], {"x": (1, 3, 4, 4)})

    by_layer = pruned(made(), Amount(0.25, multiple=1))
    by_model = pruned(made(), Amount(0.25, multiple=1, scope="model"))
    assert [row.after for row in by_layer.pruned] == [12, 12]
    first, *rest = by_model.pruned
    assert first.after < 12
    assert all(row.after > 12 for row in rest)


def test_one_channel_always_stays() -> None:
    record = pruned(resnet((8, 8)), Amount(0.99, multiple=1))
    assert {row.after for row in record.pruned} == {1}


def test_a_multiple_stays_where_that_removes_any() -> None:
    rows = pruned(resnet((16, 32)), Amount(0.3)).pruned
    assert {(row.before, row.after) for row in rows} == {(16, 12), (32, 24)}


def test_inverted_residuals() -> None:
    n = Net(2)
    x = n.op("HardSwish", n.conv("x", 3, 16))
    for _ in range(2):
        h = n.op("HardSwish", n.conv(x, 16, 64, 1))
        h = n.op("HardSwish", n.conv(h, 64, 64, 3, group=64))
        gate = n.op("HardSigmoid", n.conv(n.op("GlobalAveragePool", h), 64, 64, 1))
        x = n.op("Add", n.conv(n.op("Mul", h, gate), 64, 16, 1), x)
    out = n.op("Gemm", n.op("Flatten", n.op("GlobalAveragePool", x)), n.normal(16, 5))
    model = n.model([out], {"x": (1, 3, 16, 16)})
    record = pruned(model, Amount(0.25, multiple=1))
    assert len(record.pruned) == record.layers - 1
    groups = [node.attributes["group"].value for node in model.graph if node.op_type == "Conv"]
    assert groups.count(48) == 2


def test_the_mlp_of_a_transformer_is_pruned_its_stream_only_when_asked() -> None:
    record = pruned(channel_networks.transformer(), Amount(0.5, multiple=1))
    assert [(row.before, row.after) for row in record.pruned] == [(48, 24), (48, 24)]
    model = channel_networks.transformer()
    all_of_it = prune(model, Amount(0.5, multiple=1, averaged=True), {})
    assert not all_of_it.exact
    assert len(all_of_it.pruned) == 4
    onnx.checker.check_model(ir.to_proto(model), full_check=True)
    (answer,) = run(model, feeds_of(model))
    assert answer.shape == (2, 6, 4)


def test_weights_that_two_layers_share_stay_one() -> None:
    n = Net(4)
    w, v = n.normal(8, 3, 1, 1), n.normal(4, 8, 1, 1)
    a, b = (n.op("Conv", n.op("Relu", n.op("Conv", x, w)), v) for x in ("x", "y"))
    model = n.model([a, b], {"x": (1, 3, 4, 4), "y": (1, 3, 4, 4)})
    pruned(model, Amount(0.5, multiple=1))
    assert len(model.graph.initializers) == 2


def test_equal_biases_do_not_tie_layers() -> None:
    n = Net(5)
    zeros = n.const(np.zeros(8, np.float32))
    x = n.op("Conv", "x", n.normal(8, 3, 1, 1), zeros)
    x = n.op("Relu", n.op("Conv", n.op("Relu", x), n.normal(8, 8, 1, 1), zeros))
    model = n.model([n.conv(x, 8, 2, 1)], {"x": (1, 3, 4, 4)})
    record = pruned(model, Amount(0.5, multiple=1))
    assert [row.after for row in record.pruned] == [4, 4]


def test_not_a_number_among_the_weights_is_kept() -> None:
    n = Net(6)
    w = np.ones((4, 3, 1, 1), np.float32)
    w[0] = np.nan
    w[3] = 0
    model = n.model([n.conv(n.op("Conv", "x", n.const(w)), 4, 2, 1)], {"x": (1, 3, 4, 4)})
    prune(model, Amount(0.5, multiple=1), {})
    left = next(v for v in model.graph.initializers.values() if v.shape.numpy()[1] == 3)
    assert np.isnan(left.const_value.numpy()[0]).all()


@pytest.mark.models
@pytest.mark.parametrize("name", ["version-RFB-320", "version-slim-320"])
def test_ultraface(name: str, models: Path) -> None:
    source = frontends.load(models / "ultraface" / f"{name}.onnx")
    pipeline.run(source.model, PassOptions())
    record = pruned(source.model, Amount(0.3))
    # The eight heads give the outputs; what comes before them is a backbone of layers in a row.
    assert len(record.pruned) == record.layers - 8
    assert record.parameters[1] < 0.65 * record.parameters[0]


@pytest.mark.models
def test_a_shuffle_network(models: Path) -> None:
    source = frontends.load(models / "fastestdet" / "FastestDet.onnx")
    pipeline.run(source.model, PassOptions())
    record = pruned(source.model, Amount(0.3))
    assert record.parameters[1] < 0.7 * record.parameters[0]


@pytest.mark.models
def test_a_recurrent_network_has_nothing_to_prune(models: Path) -> None:
    source = frontends.load(models / "dtln" / "model_1.onnx")
    pipeline.run(source.model, PassOptions())
    assert prune(source.model, Amount(0.3), {}).pruned == ()
