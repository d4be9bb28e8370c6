"""Recurrent layers, step by step. TorchScript: read as source, never imported.

x: (T, N, I); w: (gates H, I); r: (gates H, H); b: (2 gates H); h, c: (N, H). `clip` < 0: none.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import torch
    from torch import Tensor


def activate(x: Tensor, kind: str, alpha: float, beta: float, clip: float) -> Tensor:
    """Return an activation of RNN-22 after clipping its input."""
    if clip >= 0.0:
        x = torch.clamp(x, -clip, clip)
    if kind == "sigmoid":
        return torch.sigmoid(x)
    if kind == "tanh":
        return torch.tanh(x)
    if kind == "relu":
        return torch.relu(x)
    if kind == "affine":
        return torch.add(torch.mul(x, alpha), beta)
    if kind == "elu":
        return torch.ops.aten.elu(x, alpha)
    if kind == "leakyrelu":
        return torch.ops.aten.leaky_relu(x, alpha)
    if kind == "thresholdedrelu":
        return torch.ops.aten.threshold(x, alpha, 0.0)
    if kind == "scaledtanh":
        return torch.mul(torch.tanh(torch.mul(x, beta)), alpha)
    if kind == "hardsigmoid":
        return torch.clamp(torch.add(torch.mul(x, alpha), beta), 0.0, 1.0)
    if kind == "softsign":
        return torch.div(x, torch.add(torch.abs(x), 1.0))
    return torch.ops.aten.softplus(x, 1.0, 40.0)


def live(lengths: Tensor | None, step: int, x: Tensor) -> Tensor:
    """Return (N, 1): whether the sequence still lasts at `step`."""
    if lengths is None:
        return torch.ones([x.shape[1], 1], dtype=torch.bool)
    return torch.gt(lengths, step).reshape([-1, 1])


def step_at(i: int, count: int, backward: bool) -> int:
    """Return the time of iteration i."""
    return count - 1 - i if backward else i


def in_time(steps: list[Tensor], backward: bool, x: Tensor, h: Tensor) -> Tensor:
    """Return the outputs in the order of time."""
    if len(steps) == 0:
        return torch.zeros([0, x.shape[1], h.shape[1]], dtype=x.dtype)
    y = torch.stack(steps)
    return torch.flip(y, [0]) if backward else y


def lstm_steps(
    x: Tensor,
    w: Tensor,
    r: Tensor,
    b: Tensor | None,
    lengths: Tensor | None,
    h: Tensor,
    c: Tensor,
    backward: bool,
    kinds: list[str],
    alphas: list[float],
    betas: list[float],
    clip: float,
    peephole: Tensor | None,
    coupled: bool,
) -> tuple[Tensor, Tensor, Tensor]:
    """LSTM-22, gates i, o, f, c; `coupled`: the forget gate is 1 - i. Returns Y, Y_h, Y_c."""
    size = h.shape[1]
    steps = torch.jit.annotate(list[Tensor], [])
    pre = torch.matmul(x, torch.t(w))
    if b is not None:
        pre = torch.add(pre, torch.add(b[: 4 * size], b[4 * size :]))
    for k in range(x.shape[0]):
        time = step_at(k, x.shape[0], backward)
        gates = torch.add(pre[time], torch.matmul(h, torch.t(r)))
        i, o, f, g = torch.chunk(gates, 4, 1)
        if peephole is not None:
            i = torch.add(i, torch.mul(peephole[:size], c))
            f = torch.add(f, torch.mul(peephole[2 * size :], c))
        i = activate(i, kinds[0], alphas[0], betas[0], clip)
        if coupled:
            f = torch.sub(torch.ones_like(i), i)
        else:
            f = activate(f, kinds[0], alphas[0], betas[0], clip)
        g = activate(g, kinds[1], alphas[1], betas[1], clip)
        cell = torch.add(torch.mul(f, c), torch.mul(i, g))
        if peephole is not None:
            o = torch.add(o, torch.mul(peephole[size : 2 * size], cell))
        o = activate(o, kinds[0], alphas[0], betas[0], clip)
        out = torch.mul(o, activate(cell, kinds[2], alphas[2], betas[2], -1.0))
        on = live(lengths, time, x)
        h = torch.where(on, out, h)
        c = torch.where(on, cell, c)
        steps.append(torch.where(on, out, torch.zeros_like(out)))
    return in_time(steps, backward, x, h), h, c


def gru_steps(
    x: Tensor,
    w: Tensor,
    r: Tensor,
    b: Tensor | None,
    lengths: Tensor | None,
    h: Tensor,
    c: Tensor,
    backward: bool,
    kinds: list[str],
    alphas: list[float],
    betas: list[float],
    clip: float,
    linear_first: bool,
) -> tuple[Tensor, Tensor, Tensor]:
    """GRU-22, gates z, r, h; `linear_first`: linear_before_reset. Returns Y, Y_h, c unused."""
    size = h.shape[1]
    steps = torch.jit.annotate(list[Tensor], [])
    pre = torch.matmul(x, torch.t(w))
    recur = torch.zeros([3 * size], dtype=x.dtype)
    if b is not None:
        pre = torch.add(pre, b[: 3 * size])
        recur = b[3 * size :]
    for k in range(x.shape[0]):
        time = step_at(k, x.shape[0], backward)
        both = torch.add(torch.matmul(h, torch.t(r[: 2 * size])), recur[: 2 * size])
        gates = torch.add(pre[time, :, : 2 * size], both)
        gates = activate(gates, kinds[0], alphas[0], betas[0], clip)
        z, reset = torch.chunk(gates, 2, 1)
        if linear_first:
            inner = torch.add(torch.matmul(h, torch.t(r[2 * size :])), recur[2 * size :])
            inner = torch.mul(reset, inner)
        else:
            inner = torch.matmul(torch.mul(reset, h), torch.t(r[2 * size :]))
            inner = torch.add(inner, recur[2 * size :])
        new = torch.add(pre[time, :, 2 * size :], inner)
        new = activate(new, kinds[1], alphas[1], betas[1], clip)
        out = torch.add(torch.mul(torch.sub(torch.ones_like(z), z), new), torch.mul(z, h))
        on = live(lengths, time, x)
        h = torch.where(on, out, h)
        steps.append(torch.where(on, out, torch.zeros_like(out)))
    return in_time(steps, backward, x, h), h, c


def rnn_steps(
    x: Tensor,
    w: Tensor,
    r: Tensor,
    b: Tensor | None,
    lengths: Tensor | None,
    h: Tensor,
    c: Tensor,
    backward: bool,
    kinds: list[str],
    alphas: list[float],
    betas: list[float],
    clip: float,
) -> tuple[Tensor, Tensor, Tensor]:
    """RNN-22. Returns Y, Y_h, c as it was."""
    size = h.shape[1]
    steps = torch.jit.annotate(list[Tensor], [])
    pre = torch.matmul(x, torch.t(w))
    if b is not None:
        pre = torch.add(pre, torch.add(b[:size], b[size:]))
    for k in range(x.shape[0]):
        time = step_at(k, x.shape[0], backward)
        out = torch.add(pre[time], torch.matmul(h, torch.t(r)))
        out = activate(out, kinds[0], alphas[0], betas[0], clip)
        on = live(lengths, time, x)
        h = torch.where(on, out, h)
        steps.append(torch.where(on, out, torch.zeros_like(out)))
    return in_time(steps, backward, x, h), h, c
