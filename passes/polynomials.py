"""A value as a polynomial of others, however an exporter spelled it.

    0.5 * x * (1 + t),  x * (t * 0.5 + 0.5),  (x + x * t) / 2   ->   {(1, 0): 0.5, (1, 1): 0.5}

A recogniser names the values that are the unknowns and compares coefficients. Only constants with
one element count: with more, two spellings need not broadcast alike.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence

import onnx_ir as ir

from infc.passes.rewriting import producer, rank, scalar_of, sole_consumer

Powers = tuple[int, ...]
Polynomial = dict[Powers, float]

MAX_TERMS = 16
MAX_DEPTH = 8


def expand(value: ir.Value | None, unknowns: Sequence[ir.Value]) -> Polynomial | None:
    """The coefficients by the powers of `unknowns`, or None where `value` is no such polynomial."""
    return _expand(value, tuple(unknowns), MAX_DEPTH)


def _expand(
    value: ir.Value | None, unknowns: tuple[ir.Value, ...], depth: int
) -> Polynomial | None:
    if value is None or depth == 0:
        return None
    leaf = _leaf(value, unknowns)
    if leaf is not None:
        return leaf
    node = producer(value, "Add", "Sub", "Mul", "Div", "Pow", "Neg")
    if node is None:
        return None
    operands = []
    for operand in node.inputs:
        expanded = _expand(operand, unknowns, depth - 1)
        if expanded is None:
            return None
        operands.append(expanded)
    return _combined(node.op_type, *operands)


def _leaf(value: ir.Value, unknowns: tuple[ir.Value, ...]) -> Polynomial | None:
    """An unknown or a constant; None for what a node makes of them."""
    for i, unknown in enumerate(unknowns):
        if value is unknown:
            return {tuple(int(i == j) for j in range(len(unknowns))): 1.0}
    constant = _number(value)
    return None if constant is None else {(0,) * len(unknowns): constant}


def _combined(op_type: str, a: Polynomial, b: Polynomial | None = None) -> Polynomial | None:
    """What an operator makes of its operands; None where that is no polynomial."""
    if b is None:
        return {powers: -c for powers, c in a.items()} if op_type == "Neg" else None
    if op_type in ("Add", "Sub"):
        return _sum(a, b, 1.0 if op_type == "Add" else -1.0)
    if op_type == "Mul":
        return _product(a, b)
    if len(b) > 1 or any(map(any, b)):
        return None
    number = next(iter(b.values()), 0.0)
    if op_type == "Div":
        return {powers: c / number for powers, c in a.items()} if number else None
    return _power(a, number)


def _power(a: Polynomial, number: float) -> Polynomial | None:
    """`a` to the power of 1, 2 or 3."""
    if number not in (1.0, 2.0, 3.0):
        return None
    result: Polynomial | None = a
    for _ in range(int(number) - 1):
        result = _product(result, a) if result is not None else None
    return result


def _number(value: ir.Value) -> float | None:
    """A constant of one element that does not add dimensions to what it meets."""
    number = scalar_of(value)
    if number is None or isinstance(number, bool) or (rank(value) or 0) > 1:
        return None
    return float(number)


def _sum(a: Polynomial, b: Polynomial, sign: float) -> Polynomial:
    total = dict(a)
    for powers, c in b.items():
        total[powers] = total.get(powers, 0.0) + sign * c
    return {powers: c for powers, c in total.items() if c != 0}


def _product(a: Polynomial, b: Polynomial) -> Polynomial | None:
    if len(a) * len(b) > MAX_TERMS:
        return None
    total: Polynomial = {}
    for left, c in a.items():
        for right, d in b.items():
            powers = tuple(m + n for m, n in zip(left, right, strict=True))
            total[powers] = total.get(powers, 0.0) + c * d
    return total


def equals(found: Polynomial | None, wanted: Mapping[Powers, float], rel: float) -> bool:
    """Whether two polynomials have the same coefficients, up to `rel`."""
    if found is None or set(found) != set(wanted):
        return False
    return all(math.isclose(found[powers], c, rel_tol=rel) for powers, c in wanted.items())


def upwards(value: ir.Value, limit: int = 5) -> Iterator[ir.Value]:
    """What follows `value`, as long as one arithmetic node alone reads it."""
    for _ in range(limit):
        reader = sole_consumer(value)
        if reader is None or reader.domain or reader.op_type not in ("Add", "Sub", "Mul", "Div"):
            return
        value = reader.outputs[0]
        yield value


def ingredients(value: ir.Value, limit: int = MAX_DEPTH) -> Iterator[ir.Value]:
    """The values that `value` is computed from by arithmetic, nearest first, itself included."""
    level = [value]
    seen: set[ir.Value] = set()
    for _ in range(limit):
        below: list[ir.Value] = []
        for item in level:
            if item in seen or scalar_of(item) is not None:
                continue
            seen.add(item)
            yield item
            node = producer(item, "Add", "Sub", "Mul", "Div", "Pow", "Neg")
            if node is not None:
                below.extend(v for v in node.inputs if v is not None)
        level = below
