"""The graph of a suite: what needs what, the longest chain, and the time in a number of slots, against brute force."""

import itertools
import random
from dataclasses import dataclass
from pathlib import Path

import pytest

from suites.execution.graph import Graph

pytest_plugins = ["helpers.suite_fixtures"]


@dataclass(frozen=True)
class Node:
    """What the graph reads of a stage."""

    title: str
    cost: float
    inputs: tuple = ()
    choices: tuple = ()
    waits: str = ""
    decides: bool = False

    @property
    def key(self):
        return Path(self.title), self.waits


def seconds(stage):
    return stage.cost


def random_nodes(seed, count=7):
    draw, nodes = random.Random(seed), []
    for number in range(count):
        inputs = tuple(node for node in nodes if draw.random() < 0.3)
        nodes.append(Node(str(number), draw.randint(1, 9), inputs))
    return nodes


def chains(nodes):
    """Every chain of nodes that need each other."""
    for size in range(1, len(nodes) + 1):
        for chain in itertools.combinations(nodes, size):
            if all(before in after.inputs for before, after in itertools.pairwise(chain)):
                yield chain


@pytest.mark.parametrize("seed", range(20))
def test_critical_path_is_the_longest_chain(seed):
    nodes = random_nodes(seed)
    path = Graph(nodes).critical_path(seconds)
    assert tuple(path) in list(chains(nodes))
    assert sum(node.cost for node in path) == max(sum(node.cost for node in chain) for chain in chains(nodes))


@pytest.mark.parametrize("seed", range(20))
def test_makespan_lies_between_its_bounds_and_reaches_them(seed):
    nodes = random_nodes(seed)
    graph, total = Graph(nodes), sum(node.cost for node in nodes)
    longest = sum(node.cost for node in graph.critical_path(seconds))
    assert graph.makespan(seconds, 1) == total
    assert graph.makespan(seconds, len(nodes)) == longest
    for slots in (2, 3):
        # Graham: list scheduling is at most this far from the best.
        assert max(longest, total / slots) <= graph.makespan(seconds, slots) <= total / slots + longest


def test_longest_chain_goes_first():
    """Two short stages and a chain of two long ones in two slots: 8, not 9 or more."""
    short = [Node("a", 1), Node("b", 1)]
    first = Node("c", 4)
    assert Graph([*short, first, Node("d", 4, (first,))]).makespan(seconds, 2) == 8


def test_what_runs_and_what_is_complete_count():
    first, second = Node("a", 5), Node("b", 3)
    third = Node("c", 2, (first, second))
    graph = Graph([first, second, third])
    assert graph.makespan(seconds, 2, running={first.key: 1.0}) == 5  # b ends after 3
    assert graph.makespan(seconds, 1, running={first.key: 1.0}) == 6
    assert graph.makespan(seconds, 1, {first.key, second.key}) == 2
    assert graph.makespan(seconds, 1, {first.key, second.key, third.key}) == 0
    assert graph.critical_path(seconds) == [first, third]


def test_selections_come_before_what_they_decide(lab):
    """Also when they have chosen already: they may choose otherwise after a training was made again."""
    grid = {"KEYS": {"METHOD.LS.amount": [0.1, 0.2]}, "OVERRIDES": ["EPOCHS", 1]}
    lab.tree["ROWS"] = [
        {"LABEL": "LS", "OVERRIDES": ["METHOD.NAME", "LS"], "GRID": grid},
        {"LABEL": "ILS", "OVERRIDES": ["METHOD.NAME", "ILS", "AMOUNT", "{chosen:LS:METHOD.LS.amount}"]},
    ]
    for _ in range(2):  # undecided, then decided
        stages = {stage.title: stage for stage in lab.plan().stages}
        graph, select = Graph(stages.values()), stages["LS: select"]
        for title in ("LS: pretrain", "ILS: pretrain"):
            assert select.key in graph.needs[stages[title].key]
        assert lab.run()[0] == 0
    assert not any(stage.waits for stage in stages.values())
