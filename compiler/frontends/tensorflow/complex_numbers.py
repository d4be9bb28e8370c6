"""Complex numbers made pairs of real ones: ONNX has none that back ends compute in.

    z                    (re, im)
    RFFT(x), n points    (x C, -x S),  C[k, j] = cos(2 pi k j / n), S the same of sin
    IRFFT(z)             re A - im B,  A and B as C and S transposed, each bin but the first and the
                         middle one twice, over n
    Exp(z)               exp(re) (cos im, sin im)
    Abs, Angle           sqrt(re^2 + im^2), atan2(im, re)

tf2onnx itself knows a transform only where nothing but its magnitude is read; such graphs are left
to it. The matrices are as large as n: short frames, as of speech, cost little.

Source: Oppenheim and Schafer, Discrete-Time Signal Processing, section 8 (the DFT and its inverse).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from infc.frontends.tensorflow import replaying

KNOWN = frozenset(("RFFT", "FFT", "RFFT2D", "FFT2D", "ComplexAbs"))
"""What tf2onnx exports by itself."""
MAX_POINTS = 4096
"""Of a transform: its matrices are then 64 MiB of float32 together."""


@dataclass(frozen=True, slots=True)
class Pair:
    """A complex tensor, as two real ones of one shape."""

    re: Any
    im: Any

    def each(self, function: Callable[[Any], Any]) -> Pair:
        """`function` of both parts."""
        return Pair(function(self.re), function(self.im))


def split(
    definition: Any, inputs: Sequence[str], outputs: Sequence[str]
) -> tuple[Any, list[str], list[str]]:
    """The graph without complex numbers, and what its inputs and outputs are called there.

    A graph that has an operator on complex numbers that is not known here stays as it was, and so
    does one that tf2onnx can do.
    """
    import tensorflow as tf

    with tf.Graph().as_default() as graph:
        tf.import_graph_def(definition, name="")
    touched = {op.type for op in graph.get_operations() if _is_complex(op)}
    if touched <= KNOWN or _any_complex(graph, outputs):
        return graph, list(inputs), list(outputs)
    try:
        made, values = replaying.replay(definition, _rule)
    except _UnknownError:
        return graph, list(inputs), list(outputs)
    return made, [values[n].name for n in inputs], [values[n].name for n in outputs]


class _UnknownError(Exception):
    """An operator on complex numbers that has no rule."""


def _any_complex(graph: Any, names: Sequence[str]) -> bool:
    return any(graph.get_tensor_by_name(name).dtype.is_complex for name in names)


def _is_complex(op: Any) -> bool:
    return any(t.dtype.is_complex for t in (*op.inputs, *op.outputs))


def _rule(node: Any, inputs: Sequence[Any]) -> list[Any] | None:
    import tensorflow as tf

    makes = any(tf.as_dtype(node.attr[a].type).is_complex for a in _MADE.get(node.op, ()))
    if not makes and not any(isinstance(value, Pair) for value in inputs):
        return None
    if node.op not in _RULES:
        raise _UnknownError(node.op)
    return [_RULES[node.op](node, *inputs)]


_MADE = {
    "Const": ("dtype",),
    "Cast": ("DstT",),
    "RFFT": ("Tcomplex",),
    "Complex": ("Tout",),
}
"""The attributes that say that an operator makes complex numbers of what is none."""


def _const(node: Any) -> Pair:
    import tensorflow as tf

    value = tf.make_ndarray(node.attr["value"].tensor)
    return Pair(tf.constant(value.real), tf.constant(value.imag))


def _cast(node: Any, x: Any) -> Any:
    import tensorflow as tf

    target = tf.as_dtype(node.attr["DstT"].type)
    if not isinstance(x, Pair):
        real = tf.cast(x, target.real_dtype)
        return Pair(real, tf.zeros_like(real))
    if target.is_complex:
        return x.each(lambda part: tf.cast(part, target.real_dtype))
    return tf.cast(x.re, target)


def _multiply(_: Any, a: Pair, b: Pair) -> Pair:
    return Pair(a.re * b.re - a.im * b.im, a.re * b.im + a.im * b.re)


def _exp(_: Any, z: Pair) -> Pair:
    import tensorflow as tf

    size = tf.exp(z.re)
    return Pair(size * tf.cos(z.im), size * tf.sin(z.im))


def _angle(_: Any, z: Pair) -> Any:
    """atan2(im, re), of 0 as well: tf2onnx's own divides 0 by 0 there, and silence has no phase."""
    import tensorflow as tf

    re, im = tf.abs(z.re), tf.abs(z.im)
    large = tf.maximum(re, im)
    ratio = tf.minimum(re, im) / tf.where(large > 0, large, tf.ones_like(large))
    angle = tf.atan(ratio)
    angle = tf.where(im > re, np.pi / 2 - angle, angle)
    angle = tf.where(z.re < 0, np.pi - angle, angle)
    return tf.where(z.im < 0, -angle, angle)


def _points(length: Any) -> int:
    import tensorflow as tf

    known = tf.get_static_value(length)
    if known is None or known.size != 1 or not 0 < int(known.reshape(-1)[0]) <= MAX_POINTS:
        raise _UnknownError("transform")
    return int(known.reshape(-1)[0])


def _angles(points: int) -> Any:
    """2 pi k j / n of (points, bins), float64; reduced first, so that large k j stay exact."""
    rows = np.outer(np.arange(points), np.arange(points // 2 + 1)) % points
    return rows * (2 * np.pi / points)


def _rfft(_: Any, x: Any, length: Any) -> Pair:
    import tensorflow as tf

    points = _points(length)
    kind = x.dtype.as_numpy_dtype
    x = _fitted(x, points)
    angles = _angles(points)
    return Pair(
        tf.matmul(x, tf.constant(np.cos(angles).astype(kind))),
        tf.matmul(x, tf.constant(-np.sin(angles).astype(kind))),
    )


def _irfft(_: Any, z: Pair, length: Any) -> Any:
    import tensorflow as tf

    points = _points(length)
    kind = z.re.dtype.as_numpy_dtype
    z = z.each(lambda part: _fitted(part, points // 2 + 1))
    angles = _angles(points).T
    weight = np.full((points // 2 + 1, 1), 2.0 / points)
    weight[0] = 1.0 / points
    if points % 2 == 0:
        weight[-1] = 1.0 / points
    even = tf.matmul(z.re, tf.constant((np.cos(angles) * weight).astype(kind)))
    return even - tf.matmul(z.im, tf.constant((np.sin(angles) * weight).astype(kind)))


def _fitted(x: Any, size: int) -> Any:
    """The last axis cut, or zeros behind it, as the transforms do it; two axes at least."""
    import tensorflow as tf

    found = x.shape[-1] if x.shape.rank else None
    if found is None or x.shape.rank < 2:
        raise _UnknownError("transform")
    if found > size:
        return x[..., :size]
    if found < size:
        return tf.pad(x, [[0, 0]] * (x.shape.rank - 1) + [[0, size - found]])
    return x


def _again(op: str) -> Callable[..., Pair]:
    """An operator that only moves numbers, on both parts."""

    def rule(node: Any, z: Any, *others: Any) -> Pair:
        import tensorflow as tf

        if not isinstance(z, Pair) or any(isinstance(other, Pair) for other in others):
            raise _UnknownError(op)
        if op == "ExpandDims":
            return z.each(lambda part: tf.expand_dims(part, *others))
        if op == "Squeeze":
            axes = list(node.attr["squeeze_dims"].list.i)
            return z.each(lambda part: tf.squeeze(part, axes or None))
        if op == "Reshape":
            return z.each(lambda part: tf.reshape(part, *others))
        return z.each(lambda part: tf.transpose(part, *others))

    return rule


def _real(function: Callable[[Any, Pair], Any]) -> Callable[..., Any]:
    def rule(_: Any, z: Pair) -> Any:
        import tensorflow as tf

        return function(tf, z)

    return rule


_RULES: dict[str, Callable[..., Any]] = {
    "Const": _const,
    "Cast": _cast,
    "Complex": lambda _, re, im: Pair(re, im),
    "RFFT": _rfft,
    "IRFFT": _irfft,
    "Exp": _exp,
    "Mul": _multiply,
    "Add": lambda _, a, b: Pair(a.re + b.re, a.im + b.im),
    "AddV2": lambda _, a, b: Pair(a.re + b.re, a.im + b.im),
    "Sub": lambda _, a, b: Pair(a.re - b.re, a.im - b.im),
    "Neg": lambda _, z: Pair(-z.re, -z.im),
    "Conj": lambda _, z: Pair(z.re, -z.im),
    "Identity": lambda _, z: z,
    "Real": lambda _, z: z.re,
    "Imag": lambda _, z: z.im,
    "ComplexAbs": _real(lambda tf, z: tf.sqrt(z.re * z.re + z.im * z.im)),
    "Angle": _angle,
    **{op: _again(op) for op in ("ExpandDims", "Squeeze", "Reshape", "Transpose")},
}
