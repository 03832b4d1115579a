"""tools/doctor.py: what it says of this machine, and of machines on which something is broken or absent."""

import collections
import json
import platform
import re
import subprocess
import sys
import types
from pathlib import Path

import pytest
import torch

from backbones.core import doctor, doctor_torch, machine
from backbones.core.doctor import ABILITIES, OK, PROBLEM, Check, Package, verdicts
from detection import doctor as detection_doctor
from detection.data.catalog import locate_below
from detection.engines.detectron2 import engine

ROOT = Path(__file__).resolve().parent.parent
VARIABLES = ("SMOOTH2DET_DATA", "DETECTRON2_DATASETS", "IMAGENET", "IMAGENET_V2", "OPEN_IMAGES")


@pytest.fixture(autouse=True)
def _no_variables(monkeypatch):
    for name in VARIABLES:
        monkeypatch.delenv(name, raising=False)


@pytest.fixture
def ask(load_tool, capsys):
    """Run the tool with --json; (exit code, checks by name, verdicts)."""

    def run(*arguments):
        code = load_tool("doctor").main(["--json", *map(str, arguments)])
        page = json.loads(capsys.readouterr().out)
        assert list(page["verdicts"]) == list(ABILITIES)
        for check in page["checks"]:
            assert check["state"] == OK or check["fix"], check  # each problem with the line that fixes it
        return code, {check["name"]: check for check in page["checks"]}, page["verdicts"]

    return run


def absent(monkeypatch, package):
    """Let `package` be as one that is not installed, whatever was imported before."""
    for name in [n for n in sys.modules if n == package or n.startswith(f"{package}.")]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, package, None)


def test_this_machine_runs_the_torchvision_engine(ask, tmp_path):
    code, checks, verdict = ask("--output-dir", tmp_path / "runs" / "deep")
    assert code == 0
    assert verdict["pretraining"] == verdict["ENGINE torchvision"] == "yes"
    assert checks["torchvision operators (cpu)"]["found"] == "nms and roi_align run"
    assert checks["disk"]["found"].endswith(str(tmp_path))  # the nearest folder that exists
    assert checks["detection data"]["fix"].startswith("export SMOOTH2DET_DATA=FOLDER (or DETECTRON2_DATASETS)")
    assert ("no GPU" in verdict["COCO at scale"]) == (not torch.cuda.is_available())


def test_the_page_ends_with_the_verdicts(load_tool, capsys):
    assert load_tool("doctor").main([]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert [line.partition(": ")[0] for line in lines[-5:]] == list(ABILITIES)
    for n, line in enumerate(lines):
        if line.startswith(PROBLEM):
            assert lines[n + 1].strip().startswith("-> ")


def test_detectron2_is_described_where_it_is(ask):
    pytest.importorskip("detectron2", reason="detectron2, the optional engine, is not installed")
    _, checks, verdict = ask()
    assert verdict["ENGINE detectron2"] == "yes"
    assert re.match(r"0\.\d+, .*detectron2", checks["detectron2"]["found"])
    assert {"detectron2._C", "detectron2.model_zoo"} <= checks.keys()


def test_without_detectron2_all_else_works_and_the_verdict_says_how_to_get_it(ask, monkeypatch):
    absent(monkeypatch, "detectron2")
    code, _, verdict = ask()
    assert code == 0
    assert verdict["ENGINE detectron2"] == f"no - detectron2 is not installed; {engine._INSTALL}"
    assert verdict["ENGINE torchvision"] == "yes"


def test_a_detectron2_that_does_not_import_says_why(monkeypatch):
    def broken():
        raise AttributeError("module 'torch' has no attribute 'x'")

    monkeypatch.setattr(engine, "import_detectron2", broken)
    (check,) = detection_doctor.check_detectron2()
    assert check.found == "cannot be imported (module 'torch' has no attribute 'x')"
    assert (check.fix, check.blocks) == (engine._INSTALL, ("ENGINE detectron2",))


def test_parts_of_detectron2_that_are_absent_block_nothing(ask, monkeypatch):
    pytest.importorskip("detectron2", reason="detectron2, the optional engine, is not installed")
    absent(monkeypatch, "detectron2._C")
    absent(monkeypatch, "detectron2.model_zoo")
    _, checks, verdict = ask()
    assert verdict["ENGINE detectron2"] == "yes"
    assert "does not need it" in checks["detectron2._C"]["found"]
    assert checks["detectron2.model_zoo"]["fix"] == "pip install 'setuptools<81'"


def test_operators_of_another_build_block_everything(ask, monkeypatch):
    def nms(*_):
        raise RuntimeError("operator torchvision::nms does not exist")

    monkeypatch.setitem(sys.modules, "torchvision.ops", types.SimpleNamespace(nms=nms))
    code, checks, verdict = ask()
    assert code == 1
    assert "nms does not exist" in verdict["ENGINE torchvision"]
    assert "torch torchvision" in checks["torchvision operators (cpu)"]["fix"]


@pytest.mark.parametrize("wrong", ["nms", "roi_align"])
def test_operators_that_calculate_wrongly_are_found(monkeypatch, wrong):
    import torchvision

    broken = {"nms": lambda boxes, *_: torch.arange(len(boxes)), "roi_align": lambda *_, **__: torch.zeros(1, 1, 2, 2)}
    ops = {"nms": torchvision.ops.nms, "roi_align": torchvision.ops.roi_align, wrong: broken[wrong]}
    monkeypatch.setitem(sys.modules, "torchvision.ops", types.SimpleNamespace(**ops))
    assert doctor_torch.wrong_operators(torch, "cpu") == [wrong]


def test_a_broken_torchvision_leaves_a_page_instead_of_a_traceback():
    """In a process of its own, as most modules of the project import torchvision."""
    tool = str(ROOT / "tools" / "doctor.py")
    script = f"""
import runpy, sys
sys.modules["torchvision"] = None
sys.path.insert(0, {str(ROOT)!r})
sys.argv = [{tool!r}]
runpy.run_path({tool!r}, run_name="__main__")
"""
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, cwd=ROOT)
    assert done.returncode == 1
    assert "Traceback" not in done.stderr
    assert re.search(r"problem +torchvision .*\n +-> reinstall both", done.stdout)
    assert re.search(r"\npretraining: no - .*torchvision", done.stdout)


Usage = collections.namedtuple("Usage", "total used free")


def test_a_full_disk_is_found(ask, monkeypatch):
    monkeypatch.setattr("shutil.disk_usage", lambda _: Usage(100 * 10**9, 100 * 10**9, 10**8))
    code, checks, verdict = ask()
    assert code == 1
    assert verdict["quick suite"].startswith("no - disk: 0.1 GB free in ")
    assert checks["disk"]["fix"] == "free 1 GB or choose another --output-dir"
    monkeypatch.setattr("shutil.disk_usage", lambda _: Usage(100 * 10**9, 95 * 10**9, 5 * 10**9))
    code, checks, verdict = ask()
    assert code == 0
    assert verdict["quick suite"] == "yes"
    assert "disk: 5.0 GB free" in verdict["COCO at scale"]


def test_little_shared_memory_is_found(monkeypatch):
    monkeypatch.setattr("shutil.disk_usage", lambda _: Usage(64 * 2**20, 0, 64 * 2**20))  # docker's default
    found = doctor.check_shared_memory()
    if found.found == "none on this system":
        pytest.skip("this system has no /dev/shm")
    assert found.state == PROBLEM
    assert "--shm-size" in found.fix


@pytest.mark.parametrize(
    ("package", "found", "fix"),
    [
        (Package("no_such_module", "nothing>=1", ()), "not installed", "pip install 'nothing>=1'"),
        (Package("numpy", "numpy>=999.1", ()), "is too old", "pip install 'numpy>=999.1'"),
    ],
)
def test_packages_that_are_absent_or_old_are_found(package, found, fix):
    check = doctor.check_package(package)
    assert check.state == PROBLEM
    assert found in check.found
    assert check.fix == fix
    assert doctor.numbers("2.15.0+cu132") == (2, 15, 0) > doctor.numbers("2.6")


def test_what_a_package_lacks_is_not_taken_for_the_package(tmp_path, monkeypatch):
    (tmp_path / "lacking_module.py").write_text("import no_such_module")
    (tmp_path / "broken_module.py").write_text("raise OSError('libGL.so.1: cannot open shared object file')")
    monkeypatch.syspath_prepend(str(tmp_path))
    lacking = doctor.check_package(Package("lacking_module", "x", ()))
    assert lacking.found == "needs no_such_module, which is not installed"
    broken = doctor.check_package(Package("broken_module", "opencv-python-headless", ()))
    assert broken.found.startswith("libGL.so.1")
    assert broken.fix.startswith("pip uninstall -y opencv-python; ")


def test_packages_are_those_of_the_installation():
    """One list in setup.py, one here: what is installed is looked at, in the same versions."""
    text = (ROOT / "setup.py").read_text()
    required = set(re.findall(r'"([^"]+)"', re.search(r"install_requires=\[(.*?)\]", text, re.DOTALL)[1]))
    assert {p.requirement for p in doctor.PACKAGES} | set(doctor.OLDEST_TORCH.values()) == required


def test_a_verdict_names_what_is_missing():
    alone = Check("disk", PROBLEM, "full", "empty it", ("pretraining", "quick suite"))
    other = Check("GPU", PROBLEM, "no GPU", "buy one", ("COCO at scale", "quick suite"))
    said = verdicts([alone, other, Check("cores", OK, "2", blocks=ABILITIES)])
    assert said == {
        "pretraining": "no - disk: full; empty it", "ENGINE torchvision": "yes", "ENGINE detectron2": "yes",
        "quick suite": "no - disk: full, no GPU", "COCO at scale": "no - no GPU; buy one",
    }  # fmt: skip


def make_coco(base, name, images):
    place = locate_below(name, base)
    place.images.mkdir(parents=True)
    place.listing.parent.mkdir(parents=True, exist_ok=True)
    place.listing.write_text("{}")
    for n in range(images):
        (place.images / f"{n}.jpg").touch()


def test_data_sets_are_found_complete_or_not(tmp_path, monkeypatch):
    monkeypatch.setenv("DETECTRON2_DATASETS", str(tmp_path))
    monkeypatch.setitem(detection_doctor.IMAGES, "coco_2017_val", 3)
    make_coco(tmp_path, "coco_2017_val", 3)
    make_coco(tmp_path, "coco_2017_train", 4)
    (tmp_path / "VOC2007" / "JPEGImages").mkdir(parents=True)
    checks = {check.name: check for check in detection_doctor.check_data()}
    assert checks["detection data"].found.startswith(f"{tmp_path}, from DETECTRON2_DATASETS")
    assert (checks["coco_2017_val"].state, checks["coco_2017_val"].fix) == (OK, "")
    assert checks["coco_2017_train"].found.startswith("4 of 118287 images")
    assert checks["coco_2017_train"].blocks == ("COCO at scale",)
    assert checks["voc_2007_trainval"].found.startswith("no split file")
    assert "coco_2014_train" in checks["not found"].found
    (locate_below("coco_2017_val", tmp_path).listing).unlink()
    checks = {check.name: check for check in detection_doctor.check_data()}
    assert checks["coco_2017_val"].found.startswith("no such file: ")


def test_a_root_that_does_not_exist_is_named_with_its_variable(ask, monkeypatch, tmp_path):
    monkeypatch.setenv("SMOOTH2DET_DATA", str(tmp_path / "gone"))
    code, checks, _ = ask()
    assert code == 0
    assert checks["SMOOTH2DET_DATA"]["state"] == PROBLEM
    assert checks["detection data"]["fix"] == "correct SMOOTH2DET_DATA"


def test_the_real_sets_are_found(shared_data, monkeypatch):
    monkeypatch.setenv("SMOOTH2DET_DATA", str(shared_data))
    checks = {check.name: check for check in detection_doctor.check_data()}
    assert all(checks[name].state == OK for name in ("coco128", "voc2012_100", "bccd_trainval", "bccd_test"))


@pytest.mark.parametrize(("limit", "cores"), [("max 100000", 8), ("250000 100000", 2), ("50000 100000", 1), ("", 8)])
def test_the_share_of_a_container_limits_the_cores(monkeypatch, tmp_path, limit, cores):
    monkeypatch.setattr(machine, "CGROUP", tmp_path)
    monkeypatch.setattr(machine.os, "sched_getaffinity", lambda _: set(range(8)), raising=False)
    if limit:
        (tmp_path / "cpu.max").write_text(f"{limit}\n")
    assert machine.count_cores() == cores


def test_the_limit_of_a_container_is_its_memory(monkeypatch, tmp_path):
    monkeypatch.setattr(machine, "CGROUP", tmp_path)
    whole = machine.total_memory()
    (tmp_path / "memory.max").write_text("max\n")
    assert machine.total_memory() == whole
    (tmp_path / "memory.max").write_text(f"{3 * 10**8}\n")
    assert machine.total_memory() == pytest.approx(3 * 10**8 / machine.GB)


def test_the_processor_is_named_as_the_system_names_it(tmp_path, monkeypatch):
    listed = tmp_path / "cpuinfo"
    listed.write_text(
        "processor\t: 0\nmodel name\t: Fast CPU @ 3 GHz\n\nprocessor\t: 1\nmodel name\t: Fast CPU @ 3 GHz\n"
    )
    monkeypatch.setattr(machine, "CPUS", listed)
    assert machine.cpu_name() == "Fast CPU @ 3 GHz"
    listed.write_text("processor\t: 0\nBogoMIPS\t: 50\n")  # as on ARM
    assert machine.cpu_name() == (platform.processor() or platform.machine())
