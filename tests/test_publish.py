"""Staging and publishing: what a killed, failing or crowded build leaves behind."""

from __future__ import annotations

import errno
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from conftest import ROOT, missing

from infc import bundle, driver
from infc.diagnostics import InfcError
from infc.request import Request

DIGITS = ROOT / "examples" / "digits" / "digits.onnx"


def compile_command(output: Path) -> list[str]:
    program = "from infc.cli import main; main()"
    return [sys.executable, "-c", program, "compile", str(DIGITS), "-t", "cpu", "-o", str(output)]


def finished(folder: Path) -> Path:
    folder.mkdir(parents=True)
    (folder / "file").write_text(folder.name)
    bundle.write_manifest(folder, {"name": "m"})
    return folder


def test_a_stage_is_gone_afterwards(tmp_path: Path) -> None:
    with bundle.staging(tmp_path / "deep" / "out") as stage:
        (stage / "file").write_text("x")
    assert list(tmp_path.iterdir()) == []


def test_a_folder_that_was_there_before_stays(tmp_path: Path) -> None:
    (tmp_path / "out").mkdir()
    with bundle.staging(tmp_path / "out"):
        pass
    assert [p.name for p in tmp_path.iterdir()] == ["out"]


def test_a_stage_is_gone_after_an_error(tmp_path: Path) -> None:
    with pytest.raises(ZeroDivisionError), bundle.staging(tmp_path):
        raise ZeroDivisionError
    assert list(tmp_path.iterdir()) == []


def test_publish_replaces_an_older_bundle_whole(tmp_path: Path) -> None:
    old = finished(tmp_path / "b")
    (old / "only-in-the-old-one").write_text("x")
    with bundle.staging(tmp_path) as stage:
        bundle.publish(finished(stage / "new"), tmp_path / "b")
    assert (tmp_path / "b" / "file").read_text() == "new"
    assert [p.name for p in tmp_path.iterdir()] == ["b"]
    assert not (tmp_path / "b" / "only-in-the-old-one").exists()


def test_publish_without_an_atomic_exchange(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(bundle, "_exchange", lambda a, b: False)
    test_publish_replaces_an_older_bundle_whole(tmp_path)


def test_the_stage_of_a_dead_process_is_removed_and_that_of_a_living_one_kept(
    tmp_path: Path,
) -> None:
    abandoned = tmp_path / f"{bundle.STAGE_PREFIX}dead"
    abandoned.mkdir()
    (abandoned / "lock").touch()
    with bundle.staging(tmp_path) as living:
        with bundle.staging(tmp_path):
            assert living.exists()
        assert not abandoned.exists()


def test_an_output_below_a_file_is_e701(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(InfcError) as error, bundle.staging(tmp_path / "file" / "out"):
        pass
    assert [d.code for d in error.value.diagnostics] == ["E701"]


def test_a_full_disk_is_e701(tmp_path: Path) -> None:
    with pytest.raises(InfcError) as error, bundle.staging(tmp_path):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
    assert [d.code for d in error.value.diagnostics] == ["E701"]
    assert list(tmp_path.iterdir()) == []


@pytest.fixture(scope="module")
def digits(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A real bundle."""
    output = tmp_path_factory.mktemp("digits")
    result = driver.compile(Request(DIGITS, ("cpu",), output))
    assert result.results[0].bundle is not None
    return result.results[0].bundle


@pytest.mark.parametrize("file", ["model/model.onnx", "loader/cpp/digits.h", "report.html"])
def test_a_bundle_with_a_changed_file_is_e702(digits: Path, tmp_path: Path, file: str) -> None:
    folder = Path(shutil.copytree(digits, tmp_path / "b"))
    bundle.open_bundle(folder)
    with (folder / file).open("ab") as stream:
        stream.write(b" ")
    with pytest.raises(InfcError, match="missing or damaged"):
        bundle.open_bundle(folder)
    (folder / file).unlink()
    with pytest.raises(InfcError, match="missing or damaged"):
        bundle.open_bundle(folder)


@pytest.mark.parametrize(
    "text", ["", "[]", "{}", '{"schema_version": 99, "files": {}}', '{"schema_version": 1}']
)
def test_a_manifest_that_is_none_is_e702(tmp_path: Path, text: str) -> None:
    (tmp_path / "manifest.json").write_text(text)
    with pytest.raises(InfcError) as error:
        bundle.open_bundle(tmp_path)
    assert [d.code for d in error.value.diagnostics] == ["E702"]


@pytest.mark.parametrize("path", ["../b/report.html", "/etc/passwd"])
def test_a_manifest_may_not_lead_out_of_the_bundle(digits: Path, tmp_path: Path, path: str) -> None:
    folder = Path(shutil.copytree(digits, tmp_path / "b"))
    text = (folder / "manifest.json").read_text().replace('"report.html"', f'"{path}"')
    (folder / "manifest.json").write_text(text)
    with pytest.raises(InfcError) as error:
        bundle.open_bundle(folder)
    assert [d.code for d in error.value.diagnostics] == ["E702"]


@pytest.mark.slow
def test_a_killed_compile_leaves_a_whole_bundle_or_none(tmp_path: Path) -> None:
    output = tmp_path / "out"
    command = compile_command(output)
    start = time.monotonic()
    subprocess.run(command, check=True, capture_output=True)
    whole_s = time.monotonic() - start
    seed = random.SystemRandom().randrange(2**32)
    rng = random.Random(seed)
    bundle.open_bundle(output / "digits-cpu")
    fresh = tmp_path / "fresh"
    killed = 0
    temporary = tmp_path / "temporary"  # what is killed leaves files there
    temporary.mkdir()
    for i in range(20):
        # Every other one over an existing bundle, which must stay whole; the rest over nothing.
        folder = output if i % 2 else fresh / str(i)
        process = subprocess.Popen(
            compile_command(folder),
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            env={**os.environ, "TMPDIR": str(temporary)},
        )
        try:
            process.wait(rng.uniform(0.0, 1.1 * whole_s))
        except subprocess.TimeoutExpired:
            process.send_signal(signal.SIGKILL)
            process.wait()
            killed += 1
        path = folder / "digits-cpu"
        if i % 2 or path.exists():
            bundle.open_bundle(path)  # checks the hash of every file
    assert killed > 0, f"seed {seed}"
    subprocess.run(command, check=True, capture_output=True)
    assert sorted(p.name for p in output.iterdir()) == ["digits-cpu", "digits-cpu.log"], seed


@pytest.mark.slow
def test_a_full_disk_leaves_nothing_behind(tmp_path: Path) -> None:
    mount = tmp_path / "small"
    mount.mkdir()
    options = ["-t", "tmpfs", "-o", "size=192k", "tmpfs", str(mount)]
    if subprocess.run(["mount", *options], check=False, capture_output=True).returncode:
        missing("the permission to mount a tmpfs")
    try:
        done = subprocess.run(
            compile_command(mount / "out"), check=False, capture_output=True, text=True
        )
        left = [str(p) for p in mount.rglob("*")]
    finally:
        subprocess.run(["umount", str(mount)], check=True)
    assert done.returncode == 1, done.stderr
    assert done.stderr.count("error[") == 1, done.stderr
    assert "error[E701]" in done.stderr
    assert "Traceback" not in done.stderr
    assert left == []


@pytest.mark.parametrize("name", ["digits-cpu", "digits-cpu.log"])
@pytest.mark.parametrize("kind", ["folder", "file", "dangling link"])
def test_what_infc_did_not_make_is_not_replaced(tmp_path: Path, name: str, kind: str) -> None:
    mine = tmp_path / name
    if kind == "folder":
        mine.mkdir()
        (mine / "thesis.txt").write_text("years of work")
    elif kind == "file":
        mine.write_text("years of work")
    else:
        mine.symlink_to("nowhere")
    with pytest.raises(InfcError) as error:
        driver.compile(Request(DIGITS, ("cpu",), tmp_path))
    assert [d.code for d in error.value.diagnostics] == ["E701"]
    assert str(mine) in error.value.diagnostics[0].message
    assert [p.name for p in tmp_path.iterdir()] == [name]
    if kind == "folder":
        assert (mine / "thesis.txt").read_text() == "years of work"


def test_a_name_that_is_too_long_is_e701_before_anything_is_built(tmp_path: Path) -> None:
    with pytest.raises(InfcError) as error:
        driver.compile(Request(DIGITS, ("cpu",), tmp_path / "out", name="a" * 260))
    (diagnostic,) = error.value.diagnostics
    assert diagnostic.code == "E701"
    assert "too long" in diagnostic.message
    assert not (tmp_path / "out").exists()


def test_a_bundle_that_somebody_else_publishes_meanwhile_is_replaced(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Between the look whether one is there and the rename, there is time for another process."""
    finished(tmp_path / "b")
    monkeypatch.setattr(Path, "exists", lambda path: False)
    with bundle.staging(tmp_path / "out") as stage:
        bundle.publish(finished(stage / "new"), tmp_path / "b")
    assert (tmp_path / "b" / "file").read_text() == "new"


def test_a_stage_is_never_seen_with_a_lock_that_nobody_holds(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    lock = bundle.fcntl.flock
    seen = []

    def flock(file: object, how: int) -> None:
        seen.append([p.name for p in tmp_path.glob(f"{bundle.STAGE_PREFIX}*/lock")])
        lock(file, how)  # type: ignore[arg-type]

    monkeypatch.setattr(bundle.fcntl, "flock", flock)
    with bundle.staging(tmp_path) as stage:
        assert (stage / "lock").exists()
    assert seen == [[]]
