"""A pickle machine that follows a pickle and calls nothing.

Opcodes are read with `pickletools`; what a real unpickler would import becomes a `Global`, what it
would call a `Made`. All protocols, 0 to 5, are followed. Unlike `pickle.Unpickler` with a stub
`find_class`, it has no memo array that one opcode can blow up to gigabytes, and no extension
registry.
"""

from __future__ import annotations

import pickletools
from collections.abc import Callable, Iterator
from typing import Any

from infc.frontends.containers.pickle_values import (
    Followed,
    Global,
    Made,
    MalformedPickleError,
    Opaque,
    Persistent,
    Stream,
    Table,
)

__all__ = [
    "Followed",
    "Global",
    "Made",
    "MalformedPickleError",
    "Opaque",
    "Persistent",
    "Stream",
    "Table",
    "follow",
]

MAX_OPCODES = 5_000_000
"""About ten seconds and half a gigabyte. A checkpoint needs some thirty for each tensor."""


def follow(stream: Stream, seen: Followed | None = None) -> Followed:
    """Follow one pickle; `stream` stands behind its STOP afterwards.

    What was found before a failure is left in `seen`.

    Raises:
        MalformedPickleError: it is cut off, damaged or too long.
    """
    machine = _Machine(seen if seen is not None else Followed())
    try:
        for count, (opcode, argument, _) in enumerate(_opcodes(stream)):
            if count >= MAX_OPCODES:
                raise MalformedPickleError(f"it has more than {MAX_OPCODES:,} opcodes")
            machine.step(opcode.name, argument)
    except (ValueError, IndexError, KeyError, TypeError, OverflowError, ArithmeticError) as error:
        # `pickletools` raises ValueError for what it cannot read; the others are an empty stack,
        # a memo entry that is not there, an operand of the wrong kind.
        raise MalformedPickleError(f"{error or type(error).__name__}") from error
    return machine.seen


def _opcodes(stream: Stream) -> Iterator[tuple[pickletools.OpcodeInfo, Any, int | None]]:
    return pickletools.genops(stream)  # type: ignore[arg-type]  # needs no more than a `Stream`


class _Machine:
    def __init__(self, seen: Followed) -> None:
        self.seen = seen
        self.stack: list[Any] = []
        self.marks: list[list[Any]] = []
        self.memo: dict[int, Any] = {}

    def step(self, name: str, argument: Any) -> None:
        handler = _HANDLERS.get(name)
        if handler is not None:
            handler(self, argument)
        elif name in _LITERALS:
            self.stack.append(argument)
        else:
            raise MalformedPickleError(f"opcode {name} is unknown")

    def push(self, value: Any) -> None:
        self.stack.append(value)

    def odd(self, what: str) -> None:
        self.seen.oddities[what] = None

    def since_mark(self) -> list[Any]:
        items = self.stack
        self.stack = self.marks.pop()
        return items

    def load_global(self, module: Any, name: Any) -> None:
        if not isinstance(module, str) or not isinstance(name, str):
            self.odd("a global whose name is computed")
            self.stack.append(Opaque("global"))
            return
        found = Global(module, name)
        self.seen.globals[found] = None
        self.stack.append(found)

    def make(self, maker: Any, arguments: Any) -> None:
        if not isinstance(maker, Global):
            self.odd("a call of something computed")
        self.stack.append(Made(maker, arguments))

    def target(self, what: str) -> Any:
        """The object on top, about to be changed."""
        top = self.stack[-1]
        if not isinstance(top, (Made, Table, list, Persistent)):
            self.odd(what)
        return top

    def add_items(self, items: list[Any]) -> None:
        top = self.target("items given to something that is no list")
        if isinstance(top, list):
            top.extend(items)
        elif isinstance(top, Made):
            top.items.extend(items)

    def add_pairs(self, flat: list[Any]) -> None:
        top = self.target("entries given to something that is no dict")
        if len(flat) % 2:
            raise MalformedPickleError("a dict has a key without a value")
        if isinstance(top, (Table, Made)):
            top.pairs.extend(zip(flat[::2], flat[1::2], strict=True))

    def build(self) -> None:
        state = self.stack.pop()
        top = self.target("state given to something that is no object")
        if isinstance(top, Made):
            top.state = state


def _mark(m: _Machine, _: Any) -> None:
    m.marks.append(m.stack)
    m.stack = []


def _nothing(m: _Machine, _: Any) -> None:
    pass


def _stop(m: _Machine, _: Any) -> None:
    m.seen.value = m.stack.pop()


def _pop(m: _Machine, _: Any) -> None:
    if m.stack:
        m.stack.pop()
    else:
        m.since_mark()


def _pop_mark(m: _Machine, _: Any) -> None:
    m.since_mark()


def _dup(m: _Machine, _: Any) -> None:
    m.push(m.stack[-1])


def _memoize(m: _Machine, _: Any) -> None:
    m.memo[len(m.memo)] = m.stack[-1]


def _put(m: _Machine, index: Any) -> None:
    m.memo[index] = m.stack[-1]


def _get(m: _Machine, index: Any) -> None:
    m.push(m.memo[index])


def _global(m: _Machine, argument: Any) -> None:
    m.load_global(*_two_names(m, argument))


def _two_names(m: _Machine, argument: str) -> tuple[str, str]:
    """`pickletools` joins the two lines by a space, which either of them may hold itself."""
    module, _, name = argument.partition(" ")
    if not name or " " in name:
        m.odd("a global whose name has spaces")
    return module, name


def _stack_global(m: _Machine, _: Any) -> None:
    name = m.stack.pop()
    m.load_global(m.stack.pop(), name)


def _extension(m: _Machine, code: Any) -> None:
    m.odd(f"extension code {code}")
    m.push(Opaque("extension"))


def _reduce(m: _Machine, _: Any) -> None:
    arguments = m.stack.pop()
    m.make(m.stack.pop(), arguments)


def _newobj_ex(m: _Machine, _: Any) -> None:
    keywords, arguments = m.stack.pop(), m.stack.pop()
    m.make(m.stack.pop(), (arguments, keywords))


def _inst(m: _Machine, argument: Any) -> None:
    arguments = tuple(m.since_mark())
    m.load_global(*_two_names(m, argument))
    m.make(m.stack.pop(), arguments)


def _obj(m: _Machine, _: Any) -> None:
    maker, *arguments = m.since_mark()
    m.make(maker, tuple(arguments))


def _dict(m: _Machine, _: Any) -> None:
    flat = m.since_mark()
    m.push(Table())
    m.add_pairs(flat)


def _setitem(m: _Machine, _: Any) -> None:
    value = m.stack.pop()
    m.add_pairs([m.stack.pop(), value])


def _frozenset(m: _Machine, _: Any) -> None:
    m.push(m.since_mark())


def _tuple_of(count: int) -> Callable[[_Machine, Any], None]:
    def handler(m: _Machine, _: Any) -> None:
        if len(m.stack) < count:
            raise MalformedPickleError("the stack is empty")
        m.stack[-count:] = [tuple(m.stack[-count:])]

    return handler


_HANDLERS: dict[str, Callable[[_Machine, Any], None]] = {
    "PROTO": _nothing,
    "FRAME": _nothing,
    "READONLY_BUFFER": _nothing,
    "STOP": _stop,
    "MARK": _mark,
    "POP": _pop,
    "POP_MARK": _pop_mark,
    "DUP": _dup,
    "MEMOIZE": _memoize,
    "PUT": _put,
    "BINPUT": _put,
    "LONG_BINPUT": _put,
    "GET": _get,
    "BINGET": _get,
    "LONG_BINGET": _get,
    "GLOBAL": _global,
    "STACK_GLOBAL": _stack_global,
    "EXT1": _extension,
    "EXT2": _extension,
    "EXT4": _extension,
    "REDUCE": _reduce,
    "NEWOBJ": _reduce,
    "NEWOBJ_EX": _newobj_ex,
    "INST": _inst,
    "OBJ": _obj,
    "BUILD": lambda m, _: m.build(),
    "PERSID": lambda m, argument: m.push(Persistent(argument)),
    "BINPERSID": lambda m, _: m.push(Persistent(m.stack.pop())),
    "NEXT_BUFFER": lambda m, _: m.push(Opaque("buffer")),
    "NONE": lambda m, _: m.push(None),
    "NEWTRUE": lambda m, _: m.push(True),
    "NEWFALSE": lambda m, _: m.push(False),
    "EMPTY_TUPLE": lambda m, _: m.push(()),
    "EMPTY_LIST": lambda m, _: m.push([]),
    "EMPTY_SET": lambda m, _: m.push([]),
    "EMPTY_DICT": lambda m, _: m.push(Table()),
    "TUPLE": lambda m, _: m.push(tuple(m.since_mark())),
    "TUPLE1": _tuple_of(1),
    "TUPLE2": _tuple_of(2),
    "TUPLE3": _tuple_of(3),
    "LIST": lambda m, _: m.push(list(m.since_mark())),
    "DICT": _dict,
    "FROZENSET": _frozenset,
    "APPEND": lambda m, _: m.add_items([m.stack.pop()]),
    "APPENDS": lambda m, _: m.add_items(m.since_mark()),
    "ADDITEMS": lambda m, _: m.add_items(m.since_mark()),
    "SETITEM": _setitem,
    "SETITEMS": lambda m, _: m.add_pairs(m.since_mark()),
}
_LITERALS = {
    *("INT", "BININT", "BININT1", "BININT2", "LONG", "LONG1", "LONG4", "FLOAT", "BINFLOAT"),
    *("STRING", "BINSTRING", "SHORT_BINSTRING", "BINBYTES", "SHORT_BINBYTES", "BINBYTES8"),
    *("BYTEARRAY8", "UNICODE", "SHORT_BINUNICODE", "BINUNICODE", "BINUNICODE8"),
}
