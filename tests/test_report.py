"""`report.html` and the manifest that it is made of."""

from __future__ import annotations

import copy
import json
import re
from collections.abc import Callable
from html.parser import HTMLParser
from importlib.resources import files
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from command import infc, write_model
from jsonschema import Draft202012Validator

from infc import report
from infc.calibration.observers import observe
from infc.calibration.pictures import pictures
from infc.calibration.ranges import Ranges
from infc.formatting import (
    columns,
    count,
    format_bytes,
    format_error,
    format_seconds,
    format_shape,
    format_sqnr,
)
from infc.quantization import Range
from infc.targets import BACK_ENDS

SCHEMA = json.loads((files("infc") / "manifest.schema.json").read_text())
VOID = {"meta", "br", "link", "img", "input", "hr"}


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("report")
    done = infc("compile", write_model(folder / "net.onnx"), "-o", folder, "-q")
    assert done.status == 0, done.err
    return Path(done.out.strip())


@pytest.fixture(scope="module")
def manifest(built: Path) -> dict[str, Any]:
    document: dict[str, Any] = json.loads((built / "manifest.json").read_text())
    return document


class Page(HTMLParser):
    """Tags that are balanced, attributes, and the text that a reader sees."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.text = ""
        self.feed(text)
        assert self.open == []

    def handle_starttag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attributes)))
        if tag not in VOID and not self.rawdata[: self.offset].endswith("/>"):
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attributes)))

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        if "style" not in self.open:
            self.text += f"{data} "


def test_it_is_one_file_that_loads_nothing(manifest: dict[str, Any]) -> None:
    text = report.render(manifest)
    page = Page(text)
    assert {tag for tag, _ in page.tags} & {"script", "link", "img", "iframe", "object"} == set()
    for tag, attributes in page.tags:
        assert not {"src", "href", "xlink:href", "onload", "style"} & set(attributes), tag
    assert "url(" not in text
    assert "@import" not in text
    assert "://" not in text


def test_it_says_what_was_built(manifest: dict[str, Any]) -> None:
    page = Page(report.render(manifest))
    text = page.text
    assert "net for cpu" in " ".join(text.split())
    for row in manifest["passes"]:
        assert row["name"] in text
    for name in (*manifest["files"], *manifest["toolchain"], *manifest["operators"]["source"]):
        assert name in text
    assert "scores" in text
    assert "passed" in text
    assert sum(tag == "rect" for tag, _ in page.tags) == 2 * len(report.histogram(
        manifest["operators"]
    ))  # fmt: skip


def test_the_one_in_the_bundle_has_no_times_and_the_one_in_the_log_has(built: Path) -> None:
    bare = Page((built / "report.html").read_text()).text
    timed = Page((built.with_name("net-cpu.log") / "report.html").read_text()).text
    time = re.compile(r"\b\d[\d.]* (us|ms|s)\b")
    assert not time.search(bare)
    assert len(time.findall(timed)) > 5
    assert "building" in timed


def test_the_same_manifest_gives_the_same_page(built: Path, manifest: dict[str, Any]) -> None:
    assert report.render(manifest) == report.render(copy.deepcopy(manifest))


def test_names_from_a_model_are_escaped(manifest: dict[str, Any]) -> None:
    evil = "<script>alert(1)</script>\"'&"
    changed = copy.deepcopy(manifest)
    changed["outputs"][0]["name"] = evil
    changed["verification"]["artifact"]["outputs"][0]["name"] = evil
    changed["operators"]["source"][evil] = 3
    changed["source"]["file"] = evil
    changed["artifact"]["notes"] = {evil: [evil]}
    text = report.render(changed)
    assert "<script" not in text
    assert evil in Page(text).text


def test_a_quantised_bundle_has_pictures_of_its_tensors(manifest: dict[str, Any]) -> None:
    evil = '<script>"&'
    relu = np.maximum(np.random.default_rng(0).standard_normal((1, 4, 30, 30)), 0)
    ranges = Ranges("m", "d", 1, {"relu": observe(relu, 1, 0), evil: observe(-relu, 1, 0)})
    shown = pictures(ranges, {"relu": Range(0, 1.5), evil: Range(ranges.tensors[evil].low, 0)})
    text = report.render(manifest, None, shown)
    page = Page(text)
    assert "<script" not in text
    assert evil in page.text
    assert sum(tag == "figure" for tag, _ in page.tags) == 2
    assert page.text.count("clipped to 0 to 1.5") == page.text.count("clipped to") == 1
    assert "Calibration" not in Page(report.render(manifest)).text


def test_without_verification_it_says_so(manifest: dict[str, Any]) -> None:
    text = Page(report.render({**manifest, "verification": {"verdict": "skipped"}})).text
    assert "nothing proves" in text
    assert "worst error" not in text


def test_an_ill_conditioned_output_is_named(built: Path, tmp_path: Path) -> None:
    changed = json.loads((built / "manifest.json").read_text())
    changed["verification"]["noise"] = {"scores": 0.0123}
    assert "held to a relative error of 0.012" in Page(report.render(changed)).text
    changed["files"] = {f: changed["files"][f] for f in changed["artifact"]["files"]}
    (tmp_path / "model").symlink_to(built / "model")
    (tmp_path / "manifest.json").write_text(json.dumps(changed))
    text = infc("inspect", tmp_path).out
    assert "scores is ill-conditioned: held to a relative error of 0.012" in text


def test_histogram() -> None:
    source = {"Conv": 4, "Relu": 2, "com.example.AVeryLongNameIndeedForAnOperator": 1}
    rows = report.histogram({"source": source, "optimized": {"Conv": 4, "Add": 1}})
    assert [row.name for row in rows[:2]] == ["Conv", "Relu"]
    conv, relu = rows[:2]
    assert (conv.before_width, conv.after_width) == (report.BAR_WIDTH, report.BAR_WIDTH)
    assert (relu.before_width, relu.after_width) == (report.BAR_WIDTH / 2, 0)
    assert all(len(row.label) <= report.MAX_LABEL for row in rows)
    many = {f"Op{i:02}": 1 for i in range(60)}
    rows = report.histogram({"source": many, "optimized": many})
    assert len(rows) == report.MAX_OPERATORS + 1
    assert (rows[-1].name, rows[-1].before) == ("36 more", 36)
    assert report.histogram({"source": {}, "optimized": {}}) == []


def test_schema_is_a_schema_and_strict() -> None:
    Draft202012Validator.check_schema(SCHEMA)

    def walk(node: Any, path: str) -> None:
        if isinstance(node, dict):
            if "properties" in node:
                assert node.get("additionalProperties") is False, path
                assert set(node["required"]) <= set(node["properties"]), path
            for key, value in node.items():
                walk(value, f"{path}/{key}")
        elif isinstance(node, list):
            for value in node:
                walk(value, path)

    walk(SCHEMA, "#")


@pytest.mark.parametrize("back_end", BACK_ENDS)
def test_real_manifests_fit_the_schema(
    back_end: str, tmp_path: Path, need_back_end: Callable[[str], None]
) -> None:
    need_back_end(back_end)
    model = write_model(tmp_path / "net.onnx")
    bounds = ("--input", "image=1..4@2x3x8x8", "--samples", "1")
    words = bounds if back_end == "onnxruntime" else ("--no-verify", "--loader", "none")
    done = infc("compile", model, "-o", tmp_path, "-t", back_end, "-q", *words)
    assert done.status == 0, done.err
    document = json.loads((Path(done.out.strip()) / "manifest.json").read_text())
    assert list(Draft202012Validator(SCHEMA).iter_errors(document)) == []


@pytest.mark.parametrize(
    ("change", "place"),
    [
        (lambda m: m.pop("target"), "$"),
        (lambda m: m.update(built_at="yesterday"), "$"),
        (lambda m: m.update(name="No Identifier"), "$.name"),
        (lambda m: m["target"].update(precision="fp8"), "$.target.precision"),
        (lambda m: m["artifact"].update(entry="../../etc/passwd"), "$.artifact.entry"),
        (lambda m: m["artifact"].update(entry="/etc/passwd"), "$.artifact.entry"),
        (lambda m: m["outputs"].clear(), "$.outputs"),
        (lambda m: m["inputs"][0].update(dtype="string"), "$.inputs[0].dtype"),
        (lambda m: m["files"].update({"a/../b": {"sha256": "0" * 64, "bytes": 1}}), "$.files"),
        (lambda m: m["passes"][0].update(seconds=0.1), "$.passes[0]"),
        (lambda m: m["verification"].update(verdict="maybe"), "$.verification"),
    ],
)
def test_a_manifest_that_does_not_fit_is_a_damaged_bundle(
    manifest: dict[str, Any], tmp_path: Path, change: Callable[[Any], object], place: str
) -> None:
    changed = copy.deepcopy(manifest)
    change(changed)
    (tmp_path / "manifest.json").write_text(json.dumps(changed))
    for verb in ("inspect", "verify", "bench"):
        done = infc(verb, tmp_path)
        assert done.status == 1
        assert done.err.startswith("error[E702]: "), done.err
        assert f"is damaged at {place}" in done.err


@pytest.mark.parametrize(
    "text", ["", "[]", "{}", '"x"', "nul", "[" * 100_000, "{" + '"a":{' * 9000]
)
def test_a_manifest_that_is_none_is_a_damaged_bundle(text: str, tmp_path: Path) -> None:
    (tmp_path / "manifest.json").write_text(text)
    done = infc("inspect", tmp_path)
    assert (done.status, done.err[:11]) == (1, "error[E702]")


def test_quantities() -> None:
    sizes = [0, 999, 1000, 9_999, 123_456, 999_499, 999_500, 1_270_000, 2 * 10**9]
    expected = "0 B,999 B,1.00 kB,10.0 kB,123 kB,999 kB,1.00 MB,1.27 MB,2.00 GB"
    assert [format_bytes(n) for n in sizes] == expected.split(",")
    times = [0.0, 1e-6, 0.0123, 0.9994, 1.5, 99.0, 200.0]
    expected = "0 us,1 us,12.3 ms,999 ms,1.5 s,99 s,3 min 20 s"
    assert [format_seconds(s) for s in times] == expected.split(",")
    assert [format_error(e) for e in (None, 0.0, 1.234e-7)] == ["not finite", "0", "1.2e-07"]
    assert [format_sqnr(e) for e in (None, 80.04)] == ["exact", "80.0 dB"]
    shapes = [None, [], [1, "n", None]]
    assert [format_shape(s) for s in shapes] == ["?", "scalar", "1xnx?"]
    assert [count(1, "node"), count(1234, "node")] == ["1 node", "1,234 nodes"]


def test_columns() -> None:
    assert columns([]) == ""
    assert columns([("a", "1", ""), ("long", "22", "")], right=(1,)) == "a      1\nlong  22"
