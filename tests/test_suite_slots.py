"""The slots of a machine: how many, what each owns, and that a stage runs with the threads of its RESOURCES in one."""

import json
import os
import subprocess
import sys

import pytest
from helpers.suite_lab import ROOT

from backbones.core.errors import InputError
from suites.execution.local import LocalExecutor
from suites.execution.slots import Machine, Slot, check_system, make_slots, this_machine

pytest_plugins = ["helpers.suite_fixtures"]

DESKTOP = Machine(8, 64.0, (), tuple(range(8)))
NODE = Machine(64, 512.0, tuple("01234567"), tuple(range(64)))


def slots_of(lab, machine, jobs=0, **tree):
    lab.tree |= tree
    return make_slots(machine, lab.plan().stages, jobs)


@pytest.mark.parametrize(
    ("machine", "tree", "count"),
    [
        (DESKTOP, {}, 8),
        (Machine(8, 8.0), {}, 4),  # 2 GB each
        (Machine(8, 1.0), {}, 1),
        (DESKTOP, {"RESOURCES": {"PRETRAIN": {"THREADS": 3}}}, 2),
        (DESKTOP, {"RESOURCES": {"FINETUNE": {"MEMORY": 30}}}, 2),
        (DESKTOP, {"LAUNCH": {"NUM_GPUS": 2}}, 4),  # two processes on the CPU
        (DESKTOP, {"LAUNCH": {"NUM_GPUS": 16}}, 1),  # more than there is: one at a time, as before
        (NODE, {}, 8),
        (NODE, {"LAUNCH": {"NUM_GPUS": 4}}, 2),
        (NODE, {"LAUNCH": {"NUM_GPUS": 8}}, 1),
    ],
)
def test_default_is_what_cores_memory_and_gpus_allow(lab, machine, tree, count):
    assert len(slots_of(lab, machine, **tree)) == count


@pytest.mark.parametrize("machine", [DESKTOP, NODE])
@pytest.mark.parametrize("jobs", [1, 3, 8])
def test_slots_own_their_cores_and_gpus(lab, machine, jobs):
    slots = slots_of(lab, machine, jobs)
    assert [slot.number for slot in slots] == list(range(jobs))
    for owned in ([slot.cores for slot in slots], [slot.gpus for slot in slots]):
        everything = [item for one in owned for item in one]
        assert len(set(everything)) == len(everything)
        assert len({len(one) for one in owned}) == 1
    assert len(slots[0].cores) == machine.cores // jobs
    assert len(slots[0].gpus) == len(machine.gpus) // jobs


def test_more_jobs_than_cores_or_gpus_are_refused(lab):
    with pytest.raises(InputError, match=r"LAUNCH.JOBS 9: this machine \(8 cores, 64 GB of memory, no GPU\) has cores"):
        slots_of(lab, DESKTOP, 9)
    with pytest.raises(InputError, match=r"LAUNCH.JOBS 9: .* has GPUs for 8; use at most 8"):
        slots_of(lab, NODE, 9)
    assert len(slots_of(lab, Machine(8, 1.0), 8)) == 8  # what a stage needs of memory is a guess


def test_without_pinning_slots_own_no_cores(lab, monkeypatch):
    """As on macOS, whose os has no affinity, and in a container that may use a share of all cores."""
    monkeypatch.delattr(os, "sched_getaffinity")
    monkeypatch.delattr(os, "sched_setaffinity")
    machine = this_machine()
    assert machine.core_ids == ()
    slots = make_slots(machine, lab.plan().stages, 1)
    assert slots[0].cores == ()
    assert run_in(lab, slots[0])["OMP_NUM_THREADS"] == "1"


def run_in(lab, slot, threads=1):
    """Run the first stage of the lab in `slot` with a tool that tells its environment; return that."""
    tool = "import json, os, sys\nfrom pathlib import Path\n"
    tool += "cores = sorted(os.sched_getaffinity(0)) if hasattr(os, 'sched_getaffinity') else []\n"
    tool += f"Path({str(lab.folder / 'told')!r}).write_text(json.dumps({{**os.environ, 'cores': cores}}))\n"
    (lab.tools / "prepare_data.py").write_text(tool)
    lab.tree["RESOURCES"] = {"PREPARE": {"THREADS": threads}}
    stage = lab.plan().stages[0]
    with (lab.folder / "lock").open("w") as lock:
        executor = LocalExecutor([slot], lock.fileno())
        assert executor.free == executor.slots == 1
        executor.start([stage])
        assert executor.free == 0
        ended = executor.look(60.0)
        assert [(one.stage, one.code) for one in ended] == [(stage, 0)]
        assert executor.free == 1
        assert executor.look(0.0) == []
    return json.loads((lab.folder / "told").read_text())


@pytest.mark.skipif(not hasattr(os, "sched_setaffinity"), reason="this system cannot pin processes to cores")
def test_a_stage_runs_on_the_cores_and_gpus_of_its_slot(lab):
    core = max(os.sched_getaffinity(0))
    told = run_in(lab, Slot(1, (core,), ("3", "5")), threads=2)
    assert told["cores"] == [core]
    assert told["CUDA_VISIBLE_DEVICES"] == "3,5"
    assert told["OMP_NUM_THREADS"] == told["MKL_NUM_THREADS"] == "2"


@pytest.mark.skipif(not hasattr(os, "sched_setaffinity"), reason="this system cannot pin processes to cores")
@pytest.mark.parametrize("spreads", [True, False])
def test_only_a_stage_that_spreads_owns_all_free_slots(lab, monkeypatch, spreads):
    cores = sorted(os.sched_getaffinity(0))
    slots = [Slot(number, (core,)) for number, core in enumerate(cores)]
    (lab.tools / "prepare_data.py").write_text(
        f"import os\nopen({str(lab.folder / 'told')!r}, 'w').write(str(sorted(os.sched_getaffinity(0))))\n"
    )
    stage = lab.plan().stages[0]
    monkeypatch.setattr(type(stage), "spreads", spreads)
    with (lab.folder / "lock").open("w") as lock:
        executor = LocalExecutor(slots, lock.fileno())
        executor.start([stage])
        assert executor.free == (0 if spreads else len(slots) - 1)
        assert len(executor.look(60.0)) == 1
        assert executor.free == len(slots)
    assert (lab.folder / "told").read_text() == str(cores if spreads else cores[:1])


def test_threads_are_checked(lab):
    for key, value, message in (
        ("RESOURCES", {"PRETRAIN": {"THREADS": 0}}, "RESOURCES.PRETRAIN.THREADS is 0; it must be at least 1"),
        ("RESOURCES", {"PRETRAIN": {"MEMORY": 0.0}}, "RESOURCES.PRETRAIN.MEMORY is 0.0; it must be"),
        ("LAUNCH", {"JOBS": -1}, "LAUNCH.JOBS is -1; it must be at least 0"),
        ("LAUNCH", {"RETRIES": -1}, "LAUNCH.RETRIES is -1; it must be at least 0"),
    ):
        lab.tree[key] = value
        with pytest.raises(InputError, match=message):
            lab.plan()
        del lab.tree[key]


def test_windows_is_refused_in_one_line(monkeypatch):
    monkeypatch.setattr(sys, "platform", "win32")
    with pytest.raises(InputError, match=r"suites run on Linux and macOS, not on Windows"):
        check_system()
    monkeypatch.undo()
    # The tool comes as far as that without the modules that Windows lacks.
    code = (
        "import runpy, subprocess, sys, asyncio, multiprocessing.connection, fvcore.common.config, rich.live\n"
        "sys.modules |= {'fcntl': None, 'resource': None}\n"
        "sys.argv = ['benchmark.py', '--config-file', 'configs/suites/quick.yaml', '--output-dir', 'x']\n"
        "sys.path.insert(0, '.')\n"
        "import backbones.core.launch\n"
        "sys.platform = 'win32'\n"
        "runpy.run_path('tools/benchmark.py', run_name='__main__')\n"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 2, done.stderr
    assert done.stderr.count("\n") == 1
    assert done.stderr.startswith("error: suites run on Linux and macOS")
