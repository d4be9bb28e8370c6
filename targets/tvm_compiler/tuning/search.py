"""The search for better schedules: kernels measured in rounds, the dearest first.

A round times some new choices of one kernel in turns with the rule's and the best so far. What is
found is kept at once, so that a tuning that is killed goes on where it was.

    priority of a kernel = its part of the model's time / 2 ** rounds without a better choice
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from infc.targets.tvm_compiler.forms.plan import with_workspace
from infc.targets.tvm_compiler.scheduling.choices import Choice, Extents
from infc.targets.tvm_compiler.scheduling.kernels import UNFIT, Fused, Kernel
from infc.targets.tvm_compiler.symbolic import number
from infc.targets.tvm_compiler.tuning.measuring import Argument, Candidate, Measurer, Timing
from infc.targets.tvm_compiler.tuning.records import Record
from infc.targets.tvm_compiler.tuning.space import proposals

if TYPE_CHECKING:
    from infc.targets.tvm_compiler.cpus import Cpu

FRESH = 5
"""New choices in a round."""
ENOUGH = 64
"""Choices of one kernel."""
NOTICEABLE = 0.98
"""Times the best so far: more is noise."""


@dataclass(frozen=True, slots=True)
class Budget:
    """When a tuning ends: after so many new choices, or so many seconds; 0 for no such limit."""

    trials: int = 0
    seconds: float = 0.0


@dataclass(frozen=True, slots=True)
class Estimate:
    """How far a tuning is.

    `rule_s` and `best_s` are of the kernels that were measured so far, as often as the model calls
    them; `left_s` is None where that is not known.
    """

    trials: int
    kernels: int
    measured: int
    rule_s: float
    best_s: float
    left_s: float | None


@dataclass(slots=True)
class _Subject:
    """A kernel under search, which the model calls so often."""

    kernel: Kernel
    calls: int
    extents: Extents
    rule: Choice
    record: Record | None
    idle: int = 0
    """Rounds since something better was found."""
    busy: bool = False

    @property
    def best(self) -> Choice:
        return self.record.choice if self.record else self.rule

    @property
    def tried(self) -> frozenset[str]:
        return frozenset(self.record.tried if self.record else ())

    def fresh(self, cpu: Cpu) -> list[Choice]:
        """What to try next; nothing once all is tried, or enough."""
        found: dict[str, Choice] = {}
        if len(self.tried) >= ENOUGH:
            return []
        known = {str(self.rule), str(self.best), *self.tried}
        for choice in proposals(self.extents, cpu, self.best):
            if str(choice) not in known:
                found.setdefault(str(choice), choice)
            if len(found) == FRESH:
                break
        return list(found.values())

    def priority(self) -> float:
        """What is not measured at all comes first, by its size."""
        if self.record is None:
            return 1e9 + self.calls * self.extents.rounds
        return self.calls * self.record.seconds * 0.5**self.idle


class Tuner:
    """A search over the kernels of one model.

    `known` are the records that there are; `keep` is called with each that is new or better, by
    kernel, and `tell` with how far it is.
    """

    def __init__(
        self,
        fused: Fused,
        cpu: Cpu,
        measurer: Measurer,
        known: Mapping[str, Record],
        keep: Callable[[Mapping[str, Record]], None],
        tell: Callable[[Estimate], None],
    ) -> None:
        self._cpu, self._measurer, self._keep, self._tell = cpu, measurer, keep, tell
        self._subjects: dict[str, _Subject] = {}
        calls = fused.calls()
        for kernel in fused.kernels():
            if kernel.key in self._subjects:
                self._subjects[kernel.key].calls += calls.get(kernel.name, 0)
                continue
            extents = kernel.extents()
            self._subjects[kernel.key] = _Subject(
                kernel,
                calls.get(kernel.name, 0),
                extents,
                kernel.rule(cpu),
                known.get(kernel.key),
            )
        self._trials = 0
        self._began = time.monotonic()

    def run(self, budget: Budget) -> Estimate:
        """Search until the budget is used up, or there is nothing more to try.

        Raises:
            MeasuringError: the device is gone.
        """
        self._began = time.monotonic()
        running: dict[Future[list[Timing]], tuple[_Subject, list[Choice]]] = {}
        with ThreadPoolExecutor(self._measurer.places) as pool:
            while True:
                while len(running) < self._measurer.places and not self._over(budget):
                    begun = self._next(budget)
                    if begun is None:
                        break
                    subject, choices, candidates = begun
                    running[pool.submit(self._measurer.measure, candidates)] = subject, choices
                if not running:
                    return self._estimate(budget)
                done, _ = wait(running, return_when=FIRST_COMPLETED)
                for future in done:
                    subject, choices = running.pop(future)
                    self._learn(subject, choices, future.result())
                self._tell(self._estimate(budget))

    def _over(self, budget: Budget) -> bool:
        spent = time.monotonic() - self._began
        return bool(
            (budget.trials and self._trials >= budget.trials)
            or (budget.seconds and spent >= budget.seconds)
        )

    def _next(self, budget: Budget) -> tuple[_Subject, list[Choice], list[Candidate]] | None:
        """The most promising kernel, and what to measure of it: the rule's, the best, new ones."""
        waiting = [s for s in self._subjects.values() if s.calls and not s.busy]
        for subject in sorted(waiting, key=_Subject.priority, reverse=True):
            fresh = subject.fresh(self._cpu)
            if budget.trials:
                fresh = fresh[: budget.trials - self._trials]
            if not fresh and subject.record is not None:
                continue
            choices, candidates = [], list[Candidate]()
            for choice in dict.fromkeys([subject.rule, subject.best, *fresh]):
                candidate = self._candidate(subject.kernel, choice)
                if candidate is not None:
                    choices.append(choice)
                    candidates.append(candidate)
            refused = [c for c in fresh if c not in choices]
            if not choices or choices[0] != subject.rule:
                subject.calls = 0  # not even the rule fits it: it is left as it is
                continue
            self._trials += len(fresh)
            subject.busy = True
            return subject, [*choices, *refused], candidates
        return None

    def _candidate(self, kernel: Kernel, choice: Choice) -> Candidate | None:
        """None where the choice does not fit the kernel."""
        try:
            return candidate_of(kernel.scheduled(self._cpu, choice))
        except UNFIT:
            return None

    def _learn(
        self, subject: _Subject, choices: Sequence[Choice], timings: Sequence[Timing]
    ) -> None:
        """Take in a round; `choices` beyond the timings are those that did not fit."""
        subject.busy = False
        times = {
            c: t.seconds for c, t in zip(choices, timings, strict=False) if t.seconds is not None
        }
        if subject.rule not in times:
            subject.calls = 0  # it cannot be run here
            return
        best, before = subject.best, times.get(subject.best, times[subject.rule])
        leader = min(times, key=lambda c: times[c])
        if times[leader] < NOTICEABLE * before:
            best, subject.idle = leader, 0
        else:
            subject.idle += 1
        if best not in times:  # what was the best fails here
            best = subject.rule
        tried = sorted({*subject.tried, *map(str, choices)})
        record = Record(
            described(subject.kernel), best, times[best], times[subject.rule], tuple(tried)
        )
        subject.record = record
        self._keep({subject.kernel.key: record})

    def _estimate(self, budget: Budget) -> Estimate:
        known = [(s.calls, s.record) for s in self._subjects.values() if s.record and s.calls]
        counted = [s for s in self._subjects.values() if s.calls]
        spent = time.monotonic() - self._began
        left = [budget.seconds - spent] if budget.seconds else []
        if budget.trials and self._trials:
            left.append(spent / self._trials * (budget.trials - self._trials))
        return Estimate(
            self._trials,
            len(counted),
            len(known),
            sum(calls * record.rule_seconds for calls, record in known),
            sum(calls * record.seconds for calls, record in known),
            max(0.0, min(left)) if left else None,
        )


def candidate_of(func: Any) -> Candidate:
    """What a measurer takes, of a scheduled TIR function with fixed shapes."""
    bare, _ = with_workspace(func)
    arguments = tuple(
        Argument(tuple(int(n) for n in buffer.shape), str(buffer.dtype)) for buffer in bare.params
    )
    return Candidate(bare.with_attr("global_symbol", "main"), arguments)


def described(kernel: Kernel) -> str:
    """A kernel for people: its operators, and the shapes it reads and writes."""
    shapes = ", ".join("x".join(str(number(n)) for n in b.shape) or "1" for b in kernel.func.params)
    text = f"{kernel.name} ({shapes})"
    return text if len(text) <= MOST_DESCRIBED else f"{text[: MOST_DESCRIBED - 3]}..."


MOST_DESCRIBED = 160
