"""The user's own code as samples: run late, blamed by its own line."""

from __future__ import annotations

import itertools
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from infc.calibration.data import Samples, open_samples
from infc.diagnostics import InfcError
from infc.preprocessing import Preprocess
from infc.request import CalibrationOptions
from infc.signature import TensorSpec

X = TensorSpec("x", "float32", ("batch", 2))
Y = TensorSpec("y", "float32", ("batch", "n"))


@pytest.fixture(autouse=True)
def a_clean_path(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[None]:
    """Forgets the modules of this test: the next one has others of the same names."""
    monkeypatch.setattr(sys, "path", list(sys.path))
    yield
    for name, module in list(sys.modules.items()):
        if str(getattr(module, "__file__", None)).startswith(str(tmp_path)):
            del sys.modules[name]


def samples(text: str, folder: Path, *inputs: TensorSpec, name: str = "f", **more: Any) -> Samples:
    (folder / "mine.py").write_text("import numpy as np\n" + text)
    options = CalibrationOptions(f"mine.py:{name}", **more)
    return open_samples(options, inputs or (X,), folder)


def blamed(text: str, folder: Path, *inputs: TensorSpec, **more: Any) -> tuple[str, str]:
    with pytest.raises(InfcError) as caught:
        list(samples(text, folder, *inputs, **more))
    (diagnostic,) = caught.value.diagnostics
    return diagnostic.code, diagnostic.render()


@pytest.mark.parametrize(
    "text",
    [
        "def f():\n    for i in range(3): yield {'x': np.float32([i, 1]), 'label': 'cat'}\n",
        "def f():\n    for i in range(3): yield np.float64([[i, 1]])\n",
        "def f():\n    return [(np.float32([i, 1]),) for i in range(3)]\n",
        "f = [[i, 1] for i in range(3)]\n",
        "class Data:\n    def __iter__(self): return iter(np.float32([[i, 1] for i in range(3)]))\n"
        "f = Data()\n",
    ],
    ids=["dicts", "arrays", "tuples", "list", "iterable"],
)
def test_forms(text: str, tmp_path: Path) -> None:
    read = samples(text, tmp_path)
    assert (read.kind, read.count, read.batch, read.fingerprint) == ("function", None, None, None)
    assert [f["x"].tolist() for f in read] == [[[0, 1]], [[1, 1]], [[2, 1]]]


def test_several_inputs(tmp_path: Path) -> None:
    text = "def f():\n    for i in (2, 5): yield np.ones(2), np.ones((1, i))\n"
    assert [f["y"].shape for f in samples(text, tmp_path, X, Y)] == [(1, 2), (1, 5)]
    code, rendered = blamed("def f():\n    yield np.ones(2)\n", tmp_path, X, Y)
    assert code == "E405"
    assert "it has 1 values, and the model has 2 inputs: `x`, `y`" in rendered
    code, rendered = blamed("def f():\n    yield {'x': [1, 2], 'yy': [1]}\n", tmp_path, X, Y)
    assert code == "E405"
    assert "did you mean `y`?" in rendered or "nothing there is called `y`" in rendered


def test_torch_tensors_with_gradients(need_module: Callable[[str], None], tmp_path: Path) -> None:
    need_module("torch")
    text = "import torch\ndef f():\n    yield torch.ones(1, 2, requires_grad=True)\n"
    assert next(iter(samples(text, tmp_path)))["x"].tolist() == [[1, 1]]


def test_a_module_beside_the_user_by_its_dotted_name(tmp_path: Path) -> None:
    (tmp_path / "package_of_mine").mkdir()
    (tmp_path / "package_of_mine/data.py").write_text("from .more import f\n")
    (tmp_path / "package_of_mine/more.py").write_text("def f():\n    yield [1, 2]\n")
    options = CalibrationOptions("package_of_mine.data:f")
    assert len(list(open_samples(options, (X,), tmp_path))) == 1


def test_nothing_runs_before_the_first_sample(tmp_path: Path) -> None:
    text = "from pathlib import Path\nPath(__file__).with_name('ran').touch()\nf = [[1, 2]]\n"
    read = samples(text, tmp_path)
    assert read.warnings == ()
    assert read.fingerprint is None
    assert read.to_json()["data"] == "mine.py:f"
    assert not (tmp_path / "ran").exists()
    list(read)
    assert (tmp_path / "ran").exists()


def test_an_endless_generator_is_left_after_the_samples_asked_for(tmp_path: Path) -> None:
    text = "def f():\n    i = 0\n    while True:\n        i += 1\n        yield [i, i]\n"
    assert len(list(samples(text, tmp_path, samples=7))) == 7
    assert len(list(samples(text, tmp_path))) == 512


def test_resuming_runs_it_again(tmp_path: Path) -> None:
    text = "def f():\n    for i in range(10): yield [i, i]\n"
    for batch in (1, 2):
        read = samples(text, tmp_path, batch=batch)
        every = [f["x"].tolist() for f in read]
        assert len(every) == 10 // batch
        assert [f["x"].tolist() for f in read.start(3)] == every[3:]


def test_a_buffer_that_is_filled_again_and_again(tmp_path: Path) -> None:
    text = (
        "def f():\n    buffer = np.zeros((1, 2), np.float32)\n"
        "    for i in range(3):\n        buffer[:] = i\n        yield buffer\n"
    )
    kept = [f["x"] for f in samples(text, tmp_path)]
    assert [k[0, 0] for k in kept] == [0, 1, 2]


def test_few_and_constant_are_known_once_it_has_run(tmp_path: Path) -> None:
    read = samples("def f():\n    for i in range(4): yield [3, 3]\n", tmp_path)
    assert read.warnings == ()
    list(read)
    assert [w.code for w in read.warnings] == ["E409", "E408"]
    batched = samples("def f():\n    for i in range(4): yield np.full((8, 2), i)\n", tmp_path)
    list(batched)
    assert [w.code for w in batched.warnings] == []


@pytest.mark.parametrize(
    ("text", "line", "says"),
    [
        ("def f():\n    yield [1, 2]\n    1 / 0\n", "mine.py:4 in f", "ZeroDivisionError"),
        ("def f():\n    return np.load('nowhere.npy')\n", "mine.py:3 in f", "FileNotFoundError"),
        ("raise SystemExit(3)\n", "mine.py:2 in <module>", "SystemExit: 3"),
        ("import a_module_nobody_has\n", "mine.py:2 in <module>", "a_module_nobody_has"),
        ("def f(:\n", "mine.py:2", "SyntaxError"),
        ("def f(loader):\n    yield 1\n", "", "missing 1 required positional argument"),
        ("def f():\n    yield from []\n", "", "it yields no sample"),
        ("def f():\n    return {'x': [1, 2]}\n", "", "it gives one `dict`"),
        ("def f():\n    return 3\n", "", "it gives one `int`"),
        ("def ff(): pass\n", "", "did you mean `ff`?"),
    ],
)
def test_failures_name_the_users_line(text: str, line: str, says: str, tmp_path: Path) -> None:
    code, rendered = blamed(text, tmp_path)
    assert code == "E407"
    assert says in rendered
    assert line in rendered
    assert "mine.py:f" in rendered


def test_a_module_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(InfcError) as caught:
        list(open_samples(CalibrationOptions("a_module_nobody_has:f"), (X,), tmp_path))
    (diagnostic,) = caught.value.diagnostics
    assert diagnostic.code == "E407"
    assert diagnostic.where == "a_module_nobody_has:f", "no line of the import system's"
    assert str(tmp_path) in diagnostic.help


@pytest.mark.parametrize(
    ("value", "code"),
    [
        ("{'x': object()}", "E404"),
        ("{'x': [[1], [2, 3]]}", "E404"),
        ("{'x': 'text'}", "E404"),
        ("np.ones(3)", "E403"),
        ("[float('nan'), 1]", "E406"),
        ("(1, 2)", "E405"),
    ],
)
def test_samples_are_checked(value: str, code: str, tmp_path: Path) -> None:
    got, rendered = blamed(f"def f():\n    yield [1, 2]\n    yield {value}\n", tmp_path)
    assert got == code
    assert "sample 1 of mine.py:f" in rendered


def test_scaling_is_done_but_no_resizing(tmp_path: Path) -> None:
    text = "def f():\n    for i in itertools.count(): yield [i, i]\nimport itertools\n"
    read = samples(text, tmp_path, preprocess=Preprocess.parse("mean=1,scale=2"))
    assert [f["x"][0, 0] for f in itertools.islice(read, 3)] == [-2, 0, 2]
    with pytest.raises(InfcError, match="E110"):
        samples(text, tmp_path, preprocess=Preprocess.parse("resize=3x3"))
