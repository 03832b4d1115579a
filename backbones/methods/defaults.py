"""The METHOD block of the config: METHOD.<NAME> holds exactly the arguments of the class registered as <NAME>.

Part of the manual that backbones/config.py is: meaning, range, neutral value and source of every argument.
"""

from backbones.core.config import CfgNode as CN

_C = CN()
_C.NAME = "CE"

# Hard labels.
_C.CE = CN()

# Uniform label smoothing.
_C.LS = CN()
# Smoothed mass in [0, 1]; 0 is CE.
_C.LS.amount = 0.1
# all: mass over all K classes (ILS, OLS, torch); k-1: over the wrong classes (ALS paper).
_C.LS.convention = "all"

# Adaptive label smoothing: confidence of the label = share of the crop that the object covers.
_C.ALS = CN()
# Weight of the adaptive target against the one-hot one, in [0, 1]; 0 is CE.
_C.ALS.beta = 1.0
# k-1: the paper's formula; all: uniform where the object is outside the crop (small K).
_C.ALS.convention = "k-1"

# CutMix (Yun et al. 2019).
_C.CutMix = CN()
# The kept share of the picture is Beta(alpha, alpha).
_C.CutMix.alpha = 1.0
# Share of the batches that are mixed; 0 is CE.
_C.CutMix.probability = 1.0

# Online label smoothing: a class's soft label is the mean of the last period's right predictions.
_C.OLS = CN()
# Weight of the one-hot label in [0, 1]; 1 is CE.
_C.OLS.hard_weight = 0.5
# Iterations between two updates of the soft labels; 0: one epoch, as in the paper.
_C.OLS.period = 0
# Soft label of a class that had no right prediction: uniform | keep (the last one).
_C.OLS.empty = "uniform"


def method_defaults() -> CN:
    """A fresh copy of the block."""
    return _C.clone()
