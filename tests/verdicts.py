"""What a bundle's verdict has to be on this machine: `passed`, unless its artifact cannot run."""

from __future__ import annotations

from infc.targets import back_end, look_up
from infc.targets.abilities import absence_of, deferral_of


def expected(target: str) -> str:
    """`deferred` where it is built elsewhere, `graph` where it cannot run, else `passed`."""
    aim = look_up(target)
    end = back_end(aim.back_end)
    deferring = deferral_of(end)
    if deferring is not None and deferring.reason(aim) is not None:
        return "deferred"
    return "graph" if absence_of(end, aim) else "passed"
