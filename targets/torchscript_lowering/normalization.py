"""Normalisations.

Source: ONNX operators BatchNormalization-15, InstanceNormalization-22, LayerNormalization-17,
GroupNormalization-21, RMSNormalization-23, LpNormalization-22, LRN-13.
"""

from __future__ import annotations

from infc.targets.torchscript_lowering import Op, int_list, lowers, number


@lowers("BatchNormalization")
def batch_normalization(op: Op) -> str:
    """At inference: (x - mean) / sqrt(var + epsilon) * scale + b."""
    if op.flag("training_mode"):
        op.refuse("training_mode")
    if not op.flag("spatial", True):
        op.refuse("spatial=0")
    if len({op.dtype(i) for i in range(5)}) > 1:
        op.refuse("statistics of another type than the input")
    scale, bias, mean, variance = (op.x(i) for i in range(1, 5))
    epsilon = number(op.attribute("epsilon", 1e-5))
    arguments = f"{op.x(0)}, {scale}, {bias}, {mean}, {variance}"
    return f"torch.batch_norm({arguments}, False, 0.0, {epsilon}, False)"


@lowers("InstanceNormalization")
def instance_normalization(op: Op) -> str:
    """Over the spatial axes of each sample and channel."""
    epsilon = number(op.attribute("epsilon", 1e-5))
    arguments = f"{op.x(0)}, {op.x(1)}, {op.x(2)}"
    return f"torch.instance_norm({arguments}, None, None, True, 0.0, {epsilon}, False)"


@lowers("LayerNormalization")
def layer_normalization(op: Op) -> str | list[str]:
    """Over the axes from `axis` on; the statistics in float32 (stash_type 1)."""
    epsilon, axis = number(op.attribute("epsilon", 1e-5)), op.attribute("axis", -1)
    if op.attribute("stash_type", 1) != 1:
        op.refuse("a stash_type other than float32")
    shape, scale = op.shape(), op.shape(1)
    at = axis % len(shape) if shape is not None else axis
    tail = None if shape is None else shape[at:]
    known = tail is not None and None not in tail and tail == scale
    known = known and (not op.has(2) or op.shape(2) == scale)
    if known and tail is not None and not op.wants(1) and not op.wants(2):
        sizes = int_list(d for d in tail if d is not None)
        bias = op.or_none(2)
        return f"torch.layer_norm({op.x(0)}, {sizes}, {op.x(1)}, {bias}, {epsilon}, False)"
    out = op.unpack(op.call("layer_normal", op.x(0), op.x(1), axis, epsilon), 3)
    if op.has(2):
        out[0] = op.let(f"torch.add({out[0]}, {op.x(2)})")
    return out


@lowers("RMSNormalization")
def rms_normalization(op: Op) -> str:
    """X / sqrt(mean(x^2) + epsilon) * scale over the axes from `axis` on, in float32."""
    if op.attribute("stash_type", 1) != 1:
        op.refuse("a stash_type other than float32")
    epsilon, axis = number(op.attribute("epsilon", 1e-5)), op.attribute("axis", -1)
    return op.call("rms_normal", op.x(0), op.x(1), axis, epsilon)


@lowers("GroupNormalization")
def group_normalization(op: Op) -> str:
    """Scale and bias: one for each group before opset 21, for each channel since."""
    groups, epsilon = op.attribute("num_groups"), number(op.attribute("epsilon", 1e-5))
    if op.attribute("stash_type", 1) != 1:
        op.refuse("a stash_type other than float32")
    if op.version >= 21:
        arguments = f"{op.x(0)}, {groups}, {op.x(1)}, {op.x(2)}"
        return f"torch.group_norm({arguments}, {epsilon}, False)"
    return op.call("group_normal", op.x(0), groups, op.x(1), op.x(2), epsilon)


@lowers("LpNormalization")
def lp_normalization(op: Op) -> str:
    """X / ||x||_p along one axis; 0 where the norm is 0."""
    p, axis = op.attribute("p", 2), op.attribute("axis", -1)
    if p not in (1, 2):
        op.refuse(f"p={p}")
    return op.call("lp_normal", op.x(0), axis, number(p))


@lowers("LRN")
def lrn(op: Op) -> str:
    """X / (bias + alpha / size * sum of squares over `size` channels)^beta."""
    alpha, beta = number(op.attribute("alpha", 1e-4)), number(op.attribute("beta", 0.75))
    return op.call(
        "local_response",
        op.x(0),
        op.attribute("size"),
        alpha,
        beta,
        number(op.attribute("bias", 1.0)),
    )
