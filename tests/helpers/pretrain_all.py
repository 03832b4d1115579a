"""Run by `torchrun` from test_pretraining.py: several pretrainings in one process group."""

import importlib.util
import json
import sys
from pathlib import Path

import torch

TOOL = Path(__file__).resolve().parents[2] / "tools" / "pretrain.py"

if __name__ == "__main__":
    torch.set_num_threads(1)
    spec = importlib.util.spec_from_file_location("pretrain", TOOL)
    pretrain = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(pretrain)
    for argv in json.loads(sys.argv[1]):
        pretrain.main(argv)
