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

# Label smoothing towards the classes whose mean images are near ("cLS", Liu & JaJa 2021).
_C.ClassSimilarityLS = CN()
# Smoothed mass in [0, 1]; 0 is CE.
_C.ClassSimilarityLS.amount = 0.1
# In mean distances between classes, above 0; high: as LS k-1.
_C.ClassSimilarityLS.temperature = 1.0

# ---- Adaptive label smoothing: confidence of the label = share of the crop that the object covers ----
_C.ALS = CN()
# Weight of the adaptive target against the one-hot one, in [0, 1]; 0 is CE.
_C.ALS.beta = 1.0
# k-1: the paper's formula; all: uniform where the object is outside the crop (small K).
_C.ALS.convention = "k-1"

# ALS, and the uniform label for images whose objects are painted over; their share is DATA.CONTEXT_SHARE.
_C.ALSContext = CN()
_C.ALSContext.beta = 1.0
_C.ALSContext.convention = "k-1"

# ALS with CutMix, which the paper reports without a description.
_C.ALSCutMix = CN()
_C.ALSCutMix.alpha = 1.0
_C.ALSCutMix.probability = 1.0
# visible: a class weighs the share of pixels in which its object is seen; targets: the two adaptive labels by area;
# both: adaptive labels of what is seen, by area.
_C.ALSCutMix.reading = "visible"
_C.ALSCutMix.convention = "k-1"

# ---- Images of several samples, or with a part hidden ----
# CutMix (Yun et al. 2019).
_C.CutMix = CN()
# The kept share of the image is Beta(alpha, alpha).
_C.CutMix.alpha = 1.0
# Share of the batches that are mixed; 0 is CE. ImageNet 1, CIFAR 0.5.
_C.CutMix.probability = 1.0

# Crops of four images around a point that is Beta(alpha, alpha) of each side (Takahashi et al. 2018).
_C.RICAP = CN()
_C.RICAP.alpha = 0.3

# Weighted means of two samples, the weight Beta(alpha, alpha) (Zhang et al. 2018); CIFAR 1, ImageNet 0.2.
_C.Mixup = CN()
_C.Mixup.alpha = 1.0

# A hidden square (DeVries & Taylor 2017), with hard, smoothed and online labels.
_C.CutOut = CN()
# Side in pixels; 0 hides nothing. CIFAR-10 16, CIFAR-100 8, ImageNet 112 (not confirmed).
_C.CutOut.size = 16

_C.CutOutLS = CN()
_C.CutOutLS.size = 16
_C.CutOutLS.amount = 0.1
_C.CutOutLS.convention = "all"

_C.CutOutOLS = CN()
_C.CutOutOLS.size = 16
_C.CutOutOLS.hard_weight = 0.5

# ---- Online label smoothing: a class's soft label is the mean of the last period's right predictions ----
_C.OLS = CN()
# Weight of the one-hot label in [0, 1]; 1 is CE.
_C.OLS.hard_weight = 0.5
# Iterations between two updates of the soft labels; 0: one epoch, as in the paper.
_C.OLS.period = 0
# Soft label of a class that had no right prediction: uniform | keep (the last one).
_C.OLS.empty = "uniform"
# Soft labels of the first period: uniform (paper) | zeros (the authors' logs).
_C.OLS.init = "uniform"
# Both losses with weight 1, as in the code of the fine-grained experiments.
_C.OLS.sum_weights = False
# A row whose largest entry has reached this stays (0.88 in that code); 0: none does.
_C.OLS.freeze_at = 0.0

# The ablation: the last epoch's prediction for one other sample of the class. Keeps 2 N K numbers on the device.
_C.OLSSingle = CN()
_C.OLSSingle.hard_weight = 0.5

# ---- Instance-based label smoothing: needs TEACHER.RUN or TEACHER.CACHE ----
# Amount min(0.2, coefficient (p_t - shift)^2), p_t the calibrated teacher's probability of the label.
_C.ILS1 = CN()
_C.ILS1.shift = 0.9
_C.ILS1.coefficient = 1.5

# Amount 0.1 (sin(coefficient (p_t - shift)) + 1).
_C.ILS1Sine = CN()
_C.ILS1Sine.shift = 0.9
_C.ILS1Sine.coefficient = 1.5

# One amount, shared among the wrong classes as the teacher does at this temperature.
_C.ILS2 = CN()
_C.ILS2.amount = 0.1
_C.ILS2.temperature = 1.0

# The amount of ILS1, shared as in ILS2.
_C.ILS = CN()
_C.ILS.shift = 0.9
_C.ILS.coefficient = 1.5
_C.ILS.temperature = 1.0
# `temperature` decides the amount too, in place of the one fitted on the validation split.
_C.ILS.shared_temperature = False

# ---- Made for noisy labels ----
_C.Bootsoft = CN()
# Share of the label, the rest is the network's own prediction; 1 is CE.
_C.Bootsoft.hard_weight = 0.95
# The prediction in the target is a constant; False in the authors' code.
_C.Bootsoft.detach = False

_C.Boothard = CN()
# Share of the label, the rest is the predicted class; 1 is CE.
_C.Boothard.hard_weight = 0.8

# Share of labels drawn from all classes at every iteration; 0 is CE.
_C.DisturbLabel = CN()
_C.DisturbLabel.rate = 0.1

# alpha cross-entropy + beta reverse cross-entropy: CIFAR-100 6.0 and 0.1, CIFAR-10 0.1 and 1.0.
_C.SCE = CN()
_C.SCE.alpha = 6.0
_C.SCE.beta = 0.1
# paper | reference (code of OLS: the label is clipped in both terms).
_C.SCE.form = "paper"

# (1 - p_t^q) / q, q in (0, 1]; towards 0 CE.
_C.GCE = CN()
_C.GCE.exponent = 0.7

# Cross-entropy + weight * distance between the predictions for the halves of a batch; 0 is CE.
_C.PairwiseConfusion = CN()
_C.PairwiseConfusion.weight = 10.0
# pairs: of probabilities, pair by pair (paper) | reference: of logits, over the batch axis (code of OLS).
_C.PairwiseConfusion.form = "pairs"

# ---- Distillation: the first two need TEACHER.RUN or TEACHER.CACHE ----
# One generation of self-distillation ("Dis"): the label is the teacher's prediction.
_C.SelfDistillation = CN()
_C.SelfDistillation.hard_weight = 0.0
_C.SelfDistillation.temperature = 1.0

# Into another network: (1 - weight) CE + weight T^2 KL, T the student's temperature.
_C.KD = CN()
_C.KD.weight = 0.9
_C.KD.teacher_temperature = 20.0
_C.KD.student_temperature = 20.0

# Last epoch's own prediction, with a weight that grows to this. Keeps 2 N K numbers on the device.
_C.PSKD = CN()
_C.PSKD.final_weight = 0.8

# A hand-made teacher: `confidence` on the label, softened (40 for MobileNetV2, 6 for ResNet-50).
_C.TFKD = CN()
_C.TFKD.weight = 0.95
_C.TFKD.confidence = 0.99
_C.TFKD.temperature = 6.0

# Random amounts of this mean, ordered by an average of the weights (Zhang & Sabuncu 2020).
_C.BetaSmoothing = CN()
_C.BetaSmoothing.amount = 0.1
_C.BetaSmoothing.hard_weight = 0.4
_C.BetaSmoothing.decay = 0.999

# Two augmentations of each image that must agree (Xu & Liu 2019).
_C.TwoView = CN()
_C.TwoView.weight = 1.0
_C.TwoView.temperature = 1.0

# Classifiers on every stage ("be your own teacher"), as in the code of OLS; BYOT's own is 1, 1, 0.3.
_C.BYOT = CN()
_C.BYOT.final_weight = 1.5
_C.BYOT.shallow_weight = 0.5
# Share of the deepest classifier's prediction in the label of the shallow ones.
_C.BYOT.distillation = 0.0
_C.BYOT.temperature = 3.0

_C.BYOTOLS = CN()
_C.BYOTOLS.final_weight = 1.5
_C.BYOTOLS.shallow_weight = 0.5
_C.BYOTOLS.shallow_soft_weight = 0.25


def method_defaults() -> CN:
    """A fresh copy of the block."""
    return _C.clone()
