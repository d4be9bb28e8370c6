"""Recurrent layers. Source: ONNX operators LSTM-22, GRU-22, RNN-22.

With the default activations torch's own kernels run, their gates put in torch's order (LSTM iofc
-> ifco, GRU zrh -> rzh); the reordering is of constants and is folded when the module is frozen.
Everything else - clip, peepholes, sequence lengths, other activations, GRU without
linear_before_reset - is a loop over the steps.
"""

from __future__ import annotations

from dataclasses import dataclass

from infc.targets.torchscript_lowering import Op, boolean, lowers, number

GATES = {"LSTM": 4, "GRU": 3, "RNN": 1}
TORCH_ORDER = {"LSTM": (0, 2, 3, 1), "GRU": (1, 0, 2), "RNN": (0,)}
DEFAULTS = {"LSTM": ["sigmoid", "tanh", "tanh"], "GRU": ["sigmoid", "tanh"], "RNN": ["tanh"]}
PARAMETERS = {
    "affine": (1.0, 0.0),
    "elu": (1.0, None),
    "hardsigmoid": (0.2, 0.5),
    "leakyrelu": (0.01, None),
    "relu": (None, None),
    "scaledtanh": (1.0, 1.0),
    "sigmoid": (None, None),
    "softplus": (None, None),
    "softsign": (None, None),
    "tanh": (None, None),
    "thresholdedrelu": (1.0, None),
}
"""Activations with the defaults of alpha and beta; None: takes none."""


@dataclass(frozen=True, slots=True)
class Layer:
    """A recurrent node, its time axis first; `x`, `h` and `c` are bound names."""

    op: Op
    kind: str
    hidden: int
    directions: int
    reverse: bool
    x: str
    h: str
    c: str
    activations: list[str]

    def part(self, index: int, direction: int) -> str:
        """The weights of one direction."""
        return f"torch.select({self.op.x(index)}, 0, {direction})"


@lowers("LSTM", "GRU", "RNN")
def recurrent(op: Op) -> list[str]:
    """Y: (T, directions, N, H); Y_h, Y_c: (directions, N, H); layout 1 puts N first."""
    layer = _layer(op)
    y, h, c = _native(layer) if _is_native(layer) else _steps(layer)
    if op.flag("layout"):
        y, h = f"{y}.permute([2, 0, 1, 3])", f"{h}.permute([1, 0, 2])"
        c = f"{c}.permute([1, 0, 2])"
    return [y, h, c][: 3 if layer.kind == "LSTM" else 2]


def _layer(op: Op) -> Layer:
    kind = op.node.op_type
    direction = op.text("direction", "forward")
    if direction not in ("forward", "reverse", "bidirectional"):
        op.refuse(f"direction `{direction}`")
    directions = 2 if direction == "bidirectional" else 1
    hidden = op.attribute("hidden_size") or (op.shape(2) or [None])[-1]
    if hidden is None:
        op.refuse("the hidden size is not known")
    first = op.flag("layout")
    x = op.let(f"torch.transpose({op.x(0)}, 0, 1)") if first else op.x(0)
    states = []
    for index in (5, 6):
        zeros = f"torch.zeros([{directions}, {x}.shape[1], {hidden}], dtype={x}.dtype)"
        given = op.has(index) and (index == 5 or kind == "LSTM")
        state = op.x(index) if given else zeros
        states.append(op.let(f"torch.transpose({state}, 0, 1)" if given and first else state))
    names = [n.lower() for n in op.attribute("activations", DEFAULTS[kind] * directions)]
    for name in names:
        if name not in PARAMETERS:
            op.refuse(f"activation `{name}`")
    return Layer(
        op, kind, hidden, directions, direction == "reverse", x, states[0], states[1], names
    )


def _is_native(layer: Layer) -> bool:
    op = layer.op
    usual = layer.activations == DEFAULTS[layer.kind] * layer.directions
    if layer.kind == "RNN":
        usual = len(set(layer.activations)) == 1 and layer.activations[0] in ("tanh", "relu")
    if layer.kind == "GRU" and not op.flag("linear_before_reset"):
        return False
    odd = op.has(4) or op.attribute("clip") is not None or op.flag("input_forget") or op.has(7)
    return usual and not odd and op.dtype(0) in ("FLOAT", "DOUBLE")


def _native(layer: Layer) -> tuple[str, str, str]:
    """torch.lstm, gru, rnn_tanh or rnn_relu, with one layer."""
    op, kind = layer.op, layer.kind
    weights = []
    for d in range(layer.directions):
        weights += [_reordered(layer, layer.part(1, d), 0), _reordered(layer, layer.part(2, d), 0)]
        if op.has(3):
            bias = op.let(layer.part(3, d))
            weights += [_reordered(layer, bias, 0), _reordered(layer, bias, GATES[kind])]
    x = op.let(f"torch.flip({layer.x}, [0])") if layer.reverse else layer.x
    function = f"rnn_{layer.activations[0]}" if kind == "RNN" else kind.lower()
    state = f"[{layer.h}, {layer.c}]" if kind == "LSTM" else layer.h
    flags = f"{boolean(op.has(3))}, 1, 0.0, False, {boolean(layer.directions == 2)}, False"
    call = f"torch.{function}({x}, {state}, [{', '.join(weights)}], {flags})"
    out, h, *rest = op.unpack(call, 3 if kind == "LSTM" else 2)
    out = f"torch.flip({out}, [0])" if layer.reverse else out
    shape = f"[{x}.shape[0], {x}.shape[1], {layer.directions}, {layer.hidden}]"
    y = op.let(f"{out}.reshape({shape}).permute([0, 2, 1, 3])")
    return y, h, rest[0] if rest else layer.c


def _reordered(layer: Layer, rows: str, first: int) -> str:
    """The gates of `rows`, from gate `first` on, in torch's order."""
    size = layer.hidden
    source = layer.op.let(rows)
    parts = [f"{source}.narrow(0, {(first + g) * size}, {size})" for g in TORCH_ORDER[layer.kind]]
    return layer.op.let(f"torch.cat([{', '.join(parts)}], 0)")


def _steps(layer: Layer) -> tuple[str, str, str]:
    """The loop, direction by direction."""
    op, kind = layer.op, layer.kind
    kinds, alphas, betas = _activation_parameters(layer)
    clip = op.attribute("clip")
    per = len(DEFAULTS[kind])
    results = []
    for d in range(layer.directions):
        span = slice(d * per, (d + 1) * per)
        activations = f"[{', '.join(kinds[span])}], [{', '.join(alphas[span])}], "
        activations += f"[{', '.join(betas[span])}], {number(clip) if clip else '-1.0'}"
        bias = layer.part(3, d) if op.has(3) else "None"
        backward = boolean(layer.reverse or d == 1)
        weights = f"{layer.part(1, d)}, {layer.part(2, d)}, {bias}"
        states = f"torch.select({layer.h}, 0, {d}), torch.select({layer.c}, 0, {d})"
        extra = "None"
        if kind == "LSTM":
            extra = layer.part(7, d) if op.has(7) else "None"
        flag = boolean(op.flag("linear_before_reset" if kind == "GRU" else "input_forget"))
        arguments = f"{layer.x}, {weights}, {op.or_none(4)}, {states}, {backward}, {activations}"
        tail = {"LSTM": f", {extra}, {flag}", "GRU": f", {flag}", "RNN": ""}[kind]
        results.append(op.unpack(op.call(f"{kind.lower()}_steps", arguments + tail), 3))
    y, h, c = (
        op.let(f"torch.stack([{', '.join(r[i] for r in results)}], {1 if i == 0 else 0})")
        for i in range(3)
    )
    return y, h, c


def _activation_parameters(layer: Layer) -> tuple[list[str], list[str], list[str]]:
    """Names, alphas and betas: the lists of the node serve those activations that take one."""
    given = [list(layer.op.attribute(f"activation_{n}", [])) for n in ("alpha", "beta")]
    columns: tuple[list[str], list[str]] = ([], [])
    for name in layer.activations:
        for i, default in enumerate(PARAMETERS[name]):
            value = 0.0 if default is None else (given[i].pop(0) if given[i] else default)
            columns[i].append(number(value))
    return [f'"{name}"' for name in layer.activations], *columns
