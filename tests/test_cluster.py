"""A suite on a cluster: which jobs are submitted when, what is known of them, and what is asked of the scheduler."""

import io
import os
import shutil
import subprocess
import sys
from dataclasses import replace

import pytest
from helpers.cluster_sim import Faults, Sim
from helpers.suite_lab import PER_STAGE, is_gone, set_row, wait_for

from backbones.core.errors import InputError
from suites.cleaning import find_leftovers
from suites.cluster import claims, ledger, slurm
from suites.cluster.claims import Claim, Claimant, ClaimLost
from suites.cluster.doctor import check_slurm
from suites.cluster.driver import Driver, prepare_folder
from suites.cluster.executor import ClusterExecutor
from suites.cluster.front import cancel_jobs, describe_jobs, run_on_cluster
from suites.cluster.jobs import ClusterError, Request
from suites.cluster.ledger import Attempt
from suites.cluster.slurm import Slurm, outside_jobs, parameters
from suites.cluster.spread import spread
from suites.config import Cluster
from suites.stages.resources import Resources

pytest_plugins = ["helpers.suite_fixtures"]


@pytest.fixture
def sim(lab):
    """A simulated cluster without faults, for the suite of the lab."""
    lab.tree["LAUNCH"] = {"EXECUTOR": "slurm", "RETRIES": 1}
    return Sim(0, lab.call_here)


def advance(lab, sim, anew=True):
    plan = prepare_folder(lab.plan())
    return Driver(plan, ClusterExecutor(plan, sim, clock=lambda: sim.now), ["again"]).advance(anew=anew)


def finish(lab, sim, calls=40):
    """The state after a call of a user, and later ones by jobs."""
    for number in range(calls):
        found = advance(lab, sim, anew=not number)
        if found.ended:
            return found
        sim.run(120)
    raise AssertionError(found)


def submitted(sim):
    """Names of the jobs of stages, without those that call the suite again."""
    return [job.request.name.split("-", 2)[2] for job in sim.table if "next@" not in job.request.name]


def job_of(sim, start):
    return next(job for job in sim.table if job.request.name.split("-", 2)[2].startswith(start))


def test_one_call_submits_every_stage_with_its_dependencies_and_a_second_one_nothing(lab, sim):
    found = advance(lab, sim)
    assert found.submitted == len(submitted(sim)) == 10
    ids = {name.rsplit("-", 1)[0]: job.id for name, job in zip(submitted(sim), sim.table, strict=False)}
    assert job_of(sim, "CE-s0-evaluate").request.dependency == f"singleton,afterok:{ids['CE-s0-pretrain']}"
    assert job_of(sim, "scenes").request.dependency == "singleton"
    assert len(sim.table) == 11  # with the one that calls again, and later the comparison
    last = ("evaluate", "localize", "finetune")
    ends = [job.id for job in sim.table[:-1] if any(kind in job.request.name for kind in last)]
    assert sorted(sim.table[-1].request.after_any) == sorted(ends)
    advance(lab, sim)
    assert len(sim.table) == 11


def test_the_job_that_follows_submits_the_choice_and_the_comparison(lab, sim):
    grid = {"KEYS": {"METHOD.LS.amount": [0.1, 0.2]}, "OVERRIDES": ["EPOCHS", 1]}
    lab.tree["ROWS"] = [{"LABEL": "LS", "OVERRIDES": ["METHOD.NAME", "LS"], "GRID": grid}]
    sim.another = lambda: advance(lab, sim, anew=False)
    advance(lab, sim)
    assert not any("LS-s0-pretrain" in name for name in submitted(sim))
    sim.run(3000)
    assert {job.state for job in sim.table} == {"COMPLETED"}
    assert len([name for name in submitted(sim) if name.startswith("LS-s0-pretrain")]) == 1
    assert submitted(sim)[-1].startswith("report@")
    assert lab.to_run() == []
    assert len(sim.starts) == len({key for key, _, _ in sim.starts})


def test_a_failed_stage_stops_only_what_needs_it_and_the_page_shows_it(lab, sim):
    lab.tree["LAUNCH"]["RETRIES"] = 0
    sim.work = lambda stage: 2 if stage.title == "CE: pretrain" else lab.call_here(stage)
    found = finish(lab, sim)
    titles = {failed.stage.title for failed in found.failures.values()}
    assert titles == {f"CE: {kind}" for kind in ("pretrain", "evaluate", "localize", "finetune (quick)")}
    assert (lab.output / "failures.json").exists()
    assert (lab.output / "report" / "index.html").exists()
    sim.work = lab.call_here
    assert finish(lab, sim).failures == {}  # a call of the user tries again
    assert not (lab.output / "failures.json").exists()


def test_a_refused_stage_is_not_tried_again_by_a_job(lab, sim):
    sim.work = lambda stage: 2 if stage.title == "CE: pretrain" else lab.call_here(stage)
    advance(lab, sim)
    for _ in range(20):
        sim.run(120)
        advance(lab, sim, anew=False)
    assert len([name for name in submitted(sim) if name.startswith("CE-s0-pretrain")]) == 1


def test_at_most_so_many_jobs_of_a_kind_run_at_once(lab, sim):
    lab.tree["RESOURCES"] = {"PRETRAIN": {"PARALLEL": 2}}
    lab.tree["ROWS"] = [{"LABEL": f"R{n}", "OVERRIDES": ["METHOD.NAME", "CE", "ROW", n]} for n in range(5)]
    lab.tree |= {"FINETUNE": [], "EVALUATE": {"ENABLED": False}, "LOCALIZE": {"ENABLED": False}}
    sim.nodes = 10
    advance(lab, sim)
    most = 0
    for _ in range(400):
        sim.run(5)
        most = max(most, sum(job.state == "RUNNING" and "pretrain" in job.request.name for job in sim.table))
    assert most == 2
    assert finish(lab, sim).failures == {}


def many(lab, count):
    """A suite of `count` stages: one data set, and a row with four stages each."""
    rows = (count - 1) // 4
    lab.tree["ROWS"] = [{"LABEL": f"R{n}", "OVERRIDES": ["METHOD.NAME", "CE", "ROW", n]} for n in range(rows)]
    return lab.plan()


def test_a_look_at_1200_stages_asks_the_scheduler_twice(lab, sim):
    plan = prepare_folder(many(lab, 1201))
    assert len(plan.stages) == 1201
    executor = ClusterExecutor(plan, sim, clock=lambda: sim.now)
    assert Driver(plan, executor, []).advance(anew=True).submitted == 1201
    sim.table[5].state, sim.table[5].ended = "FAILED", sim.now  # one job is missed, so that the accounting is asked
    sim.now += 100
    sim.calls.clear()
    assert len(executor.look(plan.stages, executor.ask())) == 1201
    assert sim.calls == ["squeue", "sacct"]


def test_nothing_is_submitted_while_the_scheduler_does_not_answer(lab, sim):
    sim.faults = Faults(no_answer=1.0)
    with pytest.raises(ClusterError, match="squeue"):
        advance(lab, sim)
    assert sim.table == []


def test_a_full_queue_keeps_what_was_submitted(lab, sim):
    sim.faults = Faults(refuse=1.0)
    found = advance(lab, sim)
    assert found.submitted == 0
    assert "the cluster accepts no more jobs now" in found.notes[0]
    sim.faults = Faults()
    assert finish(lab, sim).failures == {}


def test_status_says_what_runs_and_cancel_ends_it_until_the_next_call(lab, sim):
    advance(lab, sim)
    sim.run(10)
    plan = lab.plan()
    before = sorted(lab.output.rglob("*"))
    said = describe_jobs(plan, sim)
    assert said.splitlines()[0] == "10 stages: 1 running, 9 queued"
    assert "running: data scenes: prepare, job 1 on n1" in said
    assert sorted(lab.output.rglob("*")) == before  # except the clock of the file system
    assert cancel_jobs(plan, sim).startswith("cancelled 11 jobs of ")
    sim.run(3000)
    assert {job.state for job in sim.table} == {"CANCELLED"}
    advance(lab, sim, anew=False)
    assert len(sim.table) == 11
    assert finish(lab, sim).failures == {}


def test_wait_stays_until_the_page_is_written(lab, sim):
    out = io.StringIO()
    assert run_on_cluster(lab.plan(), [], out, wait=True, cluster=sim, sleep=sim.run) == 0
    said = out.getvalue().splitlines()
    assert said[0] == "10 stages: 10 queued"
    assert said[-1] == f"report: {lab.output / 'report' / 'index.html'}"
    assert "11 stages: 11 complete" in said


# ---- the files ------------------------------------------------------------------------------------------------------


def test_only_one_process_creates_an_attempt(tmp_path):
    first = ledger.create(tmp_path, Attempt(1, 0.0))
    assert first is not None
    assert ledger.create(tmp_path, Attempt(1, 1.0)) is None
    assert ledger.load_last(tmp_path) == first
    ledger.save(tmp_path, replace(first, job="17"))
    assert ledger.load_last(tmp_path).job == "17"
    assert [path.name for path in tmp_path.iterdir()] == ["attempt-1.json"]


def claimant(folder, clock, **fields):
    return Claimant(folder, Claim(0, 1, "1", **fields), clock, stale=10.0)


def test_a_claim_is_taken_over_only_when_it_has_not_changed_for_long_enough(tmp_path):
    time = [0.0]
    first, second = (claimant(tmp_path, lambda: time[0]) for _ in range(2))
    assert first.take()
    assert not second.take()
    for time[0] in (6.0, 12.0, 18.0):
        first.beat()
        assert not second.take()
    time[0] = 27.0
    assert not second.take()
    time[0] = 28.0
    assert second.take()
    with pytest.raises(ClaimLost):
        first.beat()
    first.end(claims.DONE)  # too late
    assert claims.load_last(tmp_path).state == claims.HELD
    second.end(claims.FREED)
    assert first.take()
    assert first.claim.number == 3


def test_the_claim_of_a_process_that_has_ended_is_free_on_its_machine(tmp_path):
    child = subprocess.Popen([sys.executable, "-S", "-c", ""])
    gone = child.pid
    assert wait_for(lambda: is_gone(gone))  # a zombie until its parent waits for it
    here = claims.this_machine()
    assert claimant(tmp_path, lambda: 0.0, pid=gone, machine=here, several=True).take()
    assert not claimant(tmp_path, lambda: 0.0).take()  # its children may have outlived it
    shutil.rmtree(tmp_path)
    assert claimant(tmp_path, lambda: 0.0, pid=gone, machine="another").take()
    assert not claimant(tmp_path, lambda: 0.0).take()
    shutil.rmtree(tmp_path)
    for _ in range(2):
        assert claimant(tmp_path, lambda: 0.0, pid=gone, machine=here).take()
        assert claimant(tmp_path, lambda: 0.0, pid=gone, machine=here).take()
        child.wait()


# ---- SLURM ----------------------------------------------------------------------------------------------------------


def test_a_job_asks_for_the_resources_of_its_processes():
    resources = Resources(threads=2, memory=4.5, gpus=1, partition="gpu", extra=("--exclusive", "--nice=10"))
    settings = Cluster(time=100, partition="main", account="lab", extra=("--mail-type=FAIL",), setup=("module load x",))
    told = parameters(Request("name", None, resources, 8, 30, ["1", "2"], ["3"]), settings)
    assert told["cpus_per_task"] == 16
    assert told["gpus_per_node"] == 8
    assert told["mem"] == f"{36 * 1024}M"
    assert (told["partition"], told["account"], told["time"]) == ("gpu", "lab", 100)
    assert "qos" not in told
    assert told["dependency"] == "singleton,afterok:1:2,afterany:3"
    extra = told["additional_parameters"]
    assert (extra["exclusive"], extra["nice"], extra["mail-type"]) == (True, "10", "FAIL")
    assert told["setup"][-1] == "module load x"


def test_a_job_on_several_nodes_is_one_task_that_starts_one_on_each(lab):
    lab.tree["LAUNCH"] |= {"NUM_GPUS": 4}
    lab.tree["RESOURCES"] = {"PRETRAIN": {"NODES": 2, "GPUS": 1, "THREADS": 3, "MEMORY": 2}}
    stage = next(one for one in lab.plan().stages if one.kind == "pretrain")
    assert (stage.processes, stage.processes_per_node) == (8, 4)
    assert stage.command[3:5] == ("--standalone", "--nproc_per_node=8")  # of all nodes, on this machine
    told = parameters(Request("name", None, stage.resources, stage.processes_per_node), Cluster())
    assert (told["nodes"], told["ntasks_per_node"], told["srun_args"]) == (2, 1, ["--nodes=1", "--ntasks=1"])
    assert (told["cpus_per_task"], told["gpus_per_node"], told["mem"]) == (12, 4, f"{8 * 1024}M")
    command = spread(stage, lab.folder).command
    assert command[3:7] == ("--nodes=2", "--cores=12", "--gpus=4", f"--folder={lab.folder}")
    assert command[7:10] == (sys.executable, str(lab.tools / "pretrain.py"), "--num-gpus=4")
    assert command[10:] == stage.command[6:]
    others = [one for one in lab.plan().stages if one.kind != "pretrain"]
    assert all(spread(one, lab.folder) is one for one in others)
    assert {one.processes for one in others if one.kind == "finetune"} == {4}


def test_variables_of_a_job_are_hidden_from_the_next_one(monkeypatch):
    monkeypatch.setenv("SLURM_CPU_BIND", "quiet")
    monkeypatch.setenv("SBATCH_TIMELIMIT", "1")
    monkeypatch.setenv("SLURM_CONF", "/etc/slurm.conf")
    with outside_jobs():
        assert "SLURM_CPU_BIND" not in os.environ
        assert "SBATCH_TIMELIMIT" not in os.environ
        assert os.environ["SLURM_CONF"] == "/etc/slurm.conf"
    assert os.environ["SLURM_CPU_BIND"] == "quiet"


def test_a_missing_cluster_and_a_missing_package_are_one_line(monkeypatch):
    monkeypatch.setattr(shutil, "which", lambda name: None)
    with pytest.raises(InputError, match=r"LAUNCH.EXECUTOR slurm: no program sbatch here; call from a login node"):
        Slurm(Cluster())
    monkeypatch.setattr(shutil, "which", lambda name: f"/bin/{name}")
    monkeypatch.setattr(slurm, "find_spec", lambda name: None)
    with pytest.raises(InputError, match=r'needs submitit; run: pip install -e "\.\[slurm\]"'):
        Slurm(Cluster())


@pytest.mark.parametrize(
    ("tree", "message"),
    [
        ({"LAUNCH": {"EXECUTOR": "slrum"}}, "unknown LAUNCH.EXECUTOR 'slrum'; did you mean 'slurm'?"),
        ({"CLUSTER": {"TIME": 10}}, "CLUSTER.TIME is 10; it must be at least 30"),
        ({"RESOURCES": {"PRETRAIN": {"TIME": 5}}}, "RESOURCES.PRETRAIN.TIME is 5; it must be at least 30"),
        ({"RESOURCES": {"PRETRAIN": {"GPUS": -1}}}, "RESOURCES.PRETRAIN.GPUS is -1; it must be at least 0"),
        ({"RESOURCES": {"PRETRAIN": {"NODES": 0}}}, "RESOURCES.PRETRAIN.NODES is 0; it must be at least 1"),
        ({"RESOURCES": {"EVALUATE": {"NODES": 2}}}, "RESOURCES.EVALUATE.NODES is 2; only trainings run on several"),
        ({"CLUSTER": {"EXTRA": ["nice=1"]}}, "CLUSTER.EXTRA: 'nice=1' must be an option of sbatch"),
        ({"CLUSTER": {"EXTRA": ["--array=1"]}}, "CLUSTER.EXTRA: --array is set by the suite; leave it out"),
    ],
)
def test_keys_of_a_cluster_are_checked(lab, tree, message):
    lab.tree |= tree
    with pytest.raises(InputError) as raised:
        lab.plan()
    assert message in str(raised.value)


# ---- beside a suite on this machine ---------------------------------------------------------------------------------


def test_a_suite_on_this_machine_does_not_start_what_a_job_works_on(lab, sim):
    plan = lab.plan()
    [stage] = [one for one in plan.stages if one.title == "CE: pretrain"]
    folder = ledger.folder_of(plan.output, ledger.key_of(stage))
    held = claimant(folder, lambda: 0.0, host="n7")
    assert held.take()
    lab.tree["LAUNCH"] = {"RETRIES": 0}
    code, said = lab.run()
    assert code == 1
    assert "CE: pretrain: not run: job 1 of a cluster works on it on n7; if that is gone, delete " in said
    assert "CE pretrain" not in lab.called()
    held.end(claims.FREED)
    assert lab.run()[0] == 0


def test_weights_that_keep_has_deleted_are_trained_again_for_a_stage_that_is_added(lab, sim):
    lab.tell("heavy", "")
    lab.tell("weights", "{}")
    lab.tree["KEEP"] = "results"
    for attack in (False, True):
        lab.tree["ATTACK"] = {"ENABLED": attack}
        assert finish(lab, sim).failures == {}
        assert not list(lab.output.glob("runs/*/*.pth"))
    assert lab.to_run() == []


def test_a_training_that_a_new_choice_makes_definite_is_not_taken_without_its_weights(lab, sim):
    """In one edit, a point more, which is not chosen, and a new stage of the training that was chosen before."""
    lab.tell("heavy", "")
    lab.tell("weights", "{}")
    lab.tell("losses", '{"METHOD.LS.amount 0.1": 1, "METHOD.LS.amount 0.3": 9}')
    grid = {"KEYS": {"METHOD.LS.amount": [0.1, 0.2]}, "OVERRIDES": ["EPOCHS", 1]}
    lab.tree |= {"KEEP": "results", "ROWS": [{"LABEL": "LS", "OVERRIDES": ["METHOD.NAME", "LS"], "GRID": grid}]}
    assert finish(lab, sim).failures == {}
    grid["KEYS"]["METHOD.LS.amount"].append(0.3)
    lab.tree["ATTACK"] = {"ENABLED": True}
    out = io.StringIO()
    assert run_on_cluster(lab.plan(), [], out, wait=True, cluster=sim, sleep=sim.run) == 0, out.getvalue()
    assert lab.to_run() == []


def test_clean_keeps_what_jobs_work_on_and_deletes_the_jobs_of_what_is_not_needed(lab, sim):
    assert finish(lab, sim).failures == {}
    assert find_leftovers(lab.plan()) == []
    set_row(lab)
    plan = lab.plan()
    names = {path.relative_to(lab.output).as_posix() for path in find_leftovers(plan)}
    gone = {name.split("-")[0] + "-" + name.split("-")[2] for name in names}
    assert gone == {f"{place}/ALS-{kind}" for place in ("runs", "jobs") for kind in PER_STAGE}
    working = next(path for path in (lab.output / "jobs").glob("ALS-s0-pretrain-*"))
    assert claimant(working, lambda: 0.0).take()
    left = {path.relative_to(lab.output).as_posix() for path in find_leftovers(plan)}
    assert names - left == {f"{place}/{working.name}" for place in ("runs", "jobs")}


@pytest.mark.parametrize("option", ["--wait", "--cancel"])
def test_options_of_a_cluster_are_refused_on_this_machine(load_tool, tmp_path, option):
    arguments = ["--config-file", "configs/suites/quick.yaml", "--output-dir", str(tmp_path / "out"), option]
    with pytest.raises(InputError, match=f"{option} is for LAUNCH.EXECUTOR slurm; "):
        load_tool("benchmark").main(arguments)


def test_doctor_reads_what_a_cluster_says_of_itself(monkeypatch, tmp_path):
    said = {
        "sinfo": "gpu*|1-00:00:00|4|64|gpu:8\ncpu|infinite|2|32|(null)\n", "sacct": "", "sacctmgr": "500\n\n",
        "srun": "n3\nseen",
    }  # fmt: skip
    monkeypatch.setattr(shutil, "which", lambda name: f"/bin/{name}")

    def run(command, **options):
        return subprocess.CompletedProcess(command, 0, said[command[0]], "")

    monkeypatch.setattr(subprocess, "run", run)
    found = {check.name: check.found for check in check_slurm(tmp_path, test_job=True)}
    assert found == {
        "SLURM partitions": "gpu*: 4 nodes of 64 cores, gpu:8, limit 1-00:00:00; "
        "cpu: 2 nodes of 32 cores, no GPU, limit infinite",
        "SLURM accounting": "answers",
        "SLURM limits": "500 jobs may be submitted at once; larger suites need several calls",
        "SLURM job": f"ran on n3, which shares {tmp_path}",
    }
    said["srun"] = "n3\n"
    assert check_slurm(tmp_path, test_job=True)[-1].state == "problem"
    monkeypatch.setattr(shutil, "which", lambda name: None)
    [alone] = check_slurm(tmp_path)
    assert (alone.state, alone.found.split(";")[0]) == ("ok", "not on this machine")
