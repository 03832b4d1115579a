"""Kinds of stages of a suite, each a class that defines its tool, its files and when it is complete."""

from collections.abc import Mapping

from suites.stages.adoption import Import
from suites.stages.base import Stage
from suites.stages.comparison import Compare
from suites.stages.measures import Attack, Evaluate, Finetune, Localize
from suites.stages.preparation import Prepare
from suites.stages.trainings import GridPoint, Pretrain, Select

# All kinds of stages, in the order in which a row goes through them.
KINDS: Mapping[str, type[Stage]] = {
    cls.kind: cls
    for cls in (Prepare, GridPoint, Select, Pretrain, Import, Evaluate, Localize, Attack, Finetune, Compare)
}
