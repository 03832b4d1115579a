"""Trainings on two nodes of a real SLURM cluster: by srun, and as stages of a suite."""

import json
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from helpers.killing import ROOT, assert_equal_trees, reported
from helpers.suite_lab import wait_for
from helpers.two_nodes import finetune, pretrain

from backbones.core.checkpoint import load_checkpoint
from backbones.core.run_log import read_metrics

pytest_plugins = ["helpers.slurm_fixtures"]
pytestmark = pytest.mark.exhaustive

SRUN = ["srun", "--nodes=2", "--ntasks-per-node=1", "--kill-on-bad-exit=1"]
LONG = ("SOLVER.MAX_EPOCH", 400, "LOG_PERIOD", 1, "SOLVER.CHECKPOINT_PERIOD", 400)


def start(command, srun=SRUN):
    return subprocess.Popen(
        [*srun, sys.executable, *map(str, command)], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        cwd=ROOT, env={**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)},
    )  # fmt: skip


def outcome(process):
    out, error = process.communicate(timeout=300)
    return process.returncode, out, error


def squeue():
    """Lines of id and name of the jobs that wait or run."""
    return subprocess.run(
        ["squeue", "--noheader", "--format=%i %j"], capture_output=True, text=True
    ).stdout.splitlines()


def only_job():
    (line,) = squeue()
    return line.split()[0]


def lines_of(run):
    path = run / "metrics.jsonl"
    return len(read_metrics(path)) if path.exists() else 0


def processes_of(run):
    """Process ids of a training's processes, by rank."""
    found = {}
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            arguments = (folder / "cmdline").read_bytes().split(b"\0")
            variables = dict(text.partition(b"=")[::2] for text in (folder / "environ").read_bytes().split(b"\0"))
        except OSError:
            continue
        if str(run).encode() in arguments and b"RANK" in variables:
            found.setdefault(int(variables[b"RANK"]), []).append(int(folder.name))
    return {rank: min(pids) for rank, pids in found.items()}


@pytest.mark.parametrize("command", [pretrain, finetune])
def test_two_nodes_train_what_one_does_bit_for_bit(slurm_cluster, small_scenes, tmp_path, command):
    one, two, tasks = tmp_path / "one", tmp_path / "two", tmp_path / "tasks"
    srun = start(command(small_scenes, two))
    alone = start(command(small_scenes, one, "--num-gpus", 2), srun=[])
    for process in (srun, alone):
        assert (found := outcome(process))[0] == 0, found
    assert_equal_trees(load_checkpoint(one / "checkpoint.pth"), load_checkpoint(two / "checkpoint.pth"))
    assert reported(one) == reported(two)
    on_one_node = ["srun", "--nodes=1", "--ntasks=2", "--kill-on-bad-exit=1"]
    assert (found := outcome(start(command(small_scenes, tasks), on_one_node)))[0] == 0, found
    assert_equal_trees(load_checkpoint(one / "checkpoint.pth"), load_checkpoint(tasks / "checkpoint.pth"))


def test_sigterm_of_the_job_saves_on_both_nodes_and_resumes(slurm_cluster, small_scenes, tmp_path):
    run = tmp_path / "run"
    training = start(pretrain(small_scenes, run, options=LONG))
    assert wait_for(lambda: lines_of(run) >= 3, 120)
    subprocess.run(["scancel", "--signal=TERM", only_job()], check=True)
    code, _, error = outcome(training)
    saved = load_checkpoint(run / "checkpoint.pth")["iteration"]
    assert saved >= 3
    line = f"stopped by SIGTERM: iteration {saved} of 2000 is saved; run the same command with --resume to resume"
    assert error.splitlines().count(line) == 1, error
    assert code == 143
    again = start(pretrain(small_scenes, run, "--resume", options=LONG))
    assert wait_for(lambda: lines_of(run) > saved + 1, 120)
    subprocess.run(["scancel", "--signal=TERM", only_job()], check=True)
    outcome(again)
    assert load_checkpoint(run / "checkpoint.pth")["iteration"] > saved


def test_the_end_of_a_process_ends_both_nodes(slurm_cluster, small_scenes, tmp_path):
    run = tmp_path / "run"
    training = start(pretrain(small_scenes, run, options=LONG))
    assert wait_for(lambda: lines_of(run) >= 3, 120)
    processes = processes_of(run)
    assert processes.keys() == {0, 1}
    begun = time.monotonic()
    os.kill(processes[1], signal.SIGKILL)
    code, _, error = outcome(training)
    assert code != 0
    assert "error: a process was ended by signal 9 (Killed)" in error.splitlines()
    assert "Traceback" not in error
    assert time.monotonic() - begun < 60
    assert wait_for(lambda: not processes_of(run), 10)


def test_a_wrong_key_is_one_line(slurm_cluster, small_scenes, tmp_path):
    training = start(pretrain(small_scenes, tmp_path / "run", options=("SOLVER.BASE_LRR", 1)))
    code, _, error = outcome(training)
    said = [line for line in error.splitlines() if not line.startswith("srun: ")]
    assert said[0].startswith("error: command line: unknown key 'SOLVER.BASE_LRR'; did you mean"), error
    assert set(said) == {said[0]}  # the second node is often ended before it says so, too
    assert code in (2, 143)


# ---- suites --------------------------------------------------------------------------------------------------------

SUITE = """
_BASE_: {quick}
DATA:
  - NAME: scenes
    PREPARE: [scenes, --train, 40, --val, 24, --detection-train, 12, --detection-val, 6]
PRETRAIN: {{OVERRIDES: [DATA.ROOT, "{{data:scenes}}", SOLVER.MAX_EPOCH, 2, SOLVER.BATCH_SIZE, 8, EVAL.PERIOD, 1]}}
FINETUNE:
  - NAME: quick
    CONFIG: configs/detection/quick.yaml
    OVERRIDES: [DATASETS.ROOT, "{{data:scenes}}", SOLVER.MAX_ITER, 6, SOLVER.WARMUP_ITERS, 2, SOLVER.IMS_PER_BATCH, 2]
COMPARE: {{ARGUMENTS: [--resamples, 50]}}
RESOURCES: {{PRETRAIN: {{NODES: 2}}}}
ROWS:
  - {{LABEL: random, BACKBONE: random}}
  - {{LABEL: CE, OVERRIDES: [METHOD.NAME, CE]}}
  - {{LABEL: ALS (all), OVERRIDES: [METHOD.NAME, ALS, METHOD.ALS.convention, all]}}
"""
# Durations, and the state of the code, which may be edited meanwhile.
CLOCK = re.compile(r"seconds|_time$|^time|created|host|duration|commit")


def numbers(tree, folder):
    """A comparison without durations and paths."""
    if isinstance(tree, dict):
        return {key: numbers(value, folder) for key, value in tree.items() if not CLOCK.search(key)}
    if isinstance(tree, list):
        return [numbers(value, folder) for value in tree if "different commits" not in str(value)]
    return tree.replace(str(folder), "OUTPUT") if isinstance(tree, str) else tree


def test_a_suite_on_two_nodes_gives_the_comparison_of_this_machine(slurm_cluster, tmp_path):
    """Pretrainings take both nodes, everything else one."""
    suite = tmp_path / "suite.yaml"
    suite.write_text(SUITE.format(quick=ROOT / "configs" / "suites" / "quick.yaml"))
    found = {}
    for executor, options in (("local", []), ("slurm", ["--wait"])):
        command = ["tools/benchmark.py", "--config-file", suite, "--output-dir", tmp_path / executor, *options]
        done = subprocess.run(
            [sys.executable, *map(str, command), "LAUNCH.EXECUTOR", executor], capture_output=True, text=True, cwd=ROOT
        )
        assert done.returncode == 0, done.stdout + done.stderr
        comparison = json.loads((tmp_path / executor / "report" / "comparison.json").read_text())
        found[executor] = numbers(comparison, tmp_path / executor)
    assert found["local"] == found["slurm"]
    log = next((tmp_path / "slurm").glob("runs/CE-*pretrain*/pretrain.log")).read_text()
    assert "suites.cluster.spread" in log


def test_the_time_limit_of_a_stage_on_two_nodes_is_a_pause(slurm_cluster, tmp_path):
    """Announced by SIGUSR2 to all processes of the job; the training resumes in the next one."""
    tree = SUITE.replace(
        "MAX_EPOCH, 2", "MAX_EPOCH, 8, LOG_PERIOD, 1, DATA.IMAGE_SIZE, 32, DATA.EVAL_CROP, 32, DATA.EVAL_RESIZE, 32"
    ).replace("EVAL.PERIOD, 1", "EVAL.PERIOD, 0")
    rows = "EVALUATE: {ENABLED: false}\nLOCALIZE: {ENABLED: false}\nROWS: [{LABEL: CE}]\n"
    tree = re.sub(r"FINETUNE:(.|\n)*?COMPARE", "FINETUNE: []\nCOMPARE", tree).partition("ROWS:")[0]
    suite, output = tmp_path / "suite.yaml", tmp_path / "out"
    suite.write_text(tree.format(quick=ROOT / "configs" / "suites" / "quick.yaml") + rows)
    options = ["--config-file", suite, "--output-dir", output, "LAUNCH.EXECUTOR", "slurm"]
    command = [sys.executable, "tools/benchmark.py", *map(str, options)]
    assert subprocess.run(command, cwd=ROOT, capture_output=True).returncode == 0
    runs = output / "runs"
    assert wait_for(lambda: any(lines_of(run) >= 3 for run in runs.glob("CE-*pretrain*")), 300)
    (run,) = runs.glob("CE-*pretrain*")
    training = [line.split()[0] for line in squeue() if "CE-s0" in line]
    subprocess.run(["scancel", "--signal=USR2", *training], check=True)
    assert wait_for((run / "suite.json").exists, 300)
    said = (run / "pretrain.log").read_text()
    assert len(stops := re.findall(r"stopped by SIGTERM: iteration (\d+) of 40 is saved", said)) == 1
    assert said.count("suites.cluster.spread") == 2
    assert 3 <= int(stops[0]) < 40
    assert [line["iteration"] for line in read_metrics(run / "metrics.jsonl") if "loss" in line] == list(range(40))
