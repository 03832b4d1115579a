"""Trainings that run on one machine or on several, as commands without the interpreter."""

from helpers import finetuning, pretraining


def pretrain(scenes, out, *flags, options=("SOLVER.MAX_EPOCH", 1, "METHOD.NAME", "OLS")):
    return [*pretraining.TOOL[1:], *flags, *pretraining.arguments(scenes, out, *options)]


def finetune(scenes, out, *flags, options=("SOLVER.MAX_ITER", 4)):
    return [*finetuning.TOOL[1:], *finetuning.arguments(scenes, out, *options, flags=flags)]
