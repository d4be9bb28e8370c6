"""The rules of all operators that channels are followed through."""

from __future__ import annotations

from infc.passes.pruning import elementwise, layers, normalizing, reshaping, shaping, slicing
from infc.passes.pruning.tracking import Rule

RULES: dict[str, Rule] = {
    **layers.RULES,
    **elementwise.RULES,
    **normalizing.RULES,
    **reshaping.RULES,
    **shaping.RULES,
    **slicing.RULES,
}
