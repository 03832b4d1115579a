"""Every option of pretraining and of measuring a classifier, with its meaning, unit and neutral value.

This file is the manual; `configs/pretrain/*.yaml` override a few keys.  The role of a key (backbones/core/roles.py),
stated with its default or with its block, determines what depends on it.
"""

from backbones.core.checks import ABOVE_0, NO_LIMIT, check_choice, check_ranges
from backbones.core.config import CfgNode, flatten
from backbones.core.errors import InputError
from backbones.core.roles import COMPARED, CONTENT, MACHINE, NAMING, NUMBER, SEED, TEST, Block, Roles
from backbones.data.defaults import HOLDOUT, check_data, data_defaults
from backbones.methods.base import METHODS
from backbones.methods.manual import method_defaults

_C = Block()

# Your own Python files with methods, networks or data sets, relative to the yaml file; a run keeps copies
# (backbones/core/imports.py).
_C.IMPORTS = CONTENT([])
# Seed of initialisation, sample order, augmentation and all random numbers inside a step.
_C.SEED = SEED(0)
# Name of the row in every table; empty: the method's name.
_C.LABEL = NAMING("")
# bfloat16 (autocast) | float32 | float64.
_C.PRECISION = NUMBER("float32")
# NHWC tensors: faster convolutions on most CPUs and on GPUs with tensor cores.
_C.CHANNELS_LAST = NUMBER(False)
# Iterations per line of metrics.jsonl.
_C.LOG_PERIOD = MACHINE(50)

# ---- Data: backbones/data/defaults.py ----
_C.DATA = data_defaults()

# ---- Network ----
_C.MODEL = Block(NUMBER)
# Network, by its name in backbones/models; `tools/pretrain.py --list-networks` prints all of them.
_C.MODEL.ARCH = "resnet50"
# BN | GN (group normalisation: no batch statistics).
_C.MODEL.NORM = "BN"
# Folder of a finished pretraining of the same network, or its backbone.pth: training starts from these weights, except
# for the last layer, which is random (fine-grained data, OLS Table IV).  Empty: all weights are random.
_C.MODEL.WEIGHTS = CONTENT("")

# ---- Method: the arguments of the classes of backbones/methods/; `tools/pretrain.py --list-methods` prints them ----
_C.METHOD = COMPARED(method_defaults())

# ---- Teacher, for the methods that need teacher_logits (--list-methods): set exactly one ----
_C.TEACHER = Block(CONTENT)
# Folder of a finished pretraining on the same data; the teacher gets the student's augmented images.
_C.TEACHER.RUN = ""
# Folder written by tools/cache_teacher.py: the teacher's logits of the images without augmentation.
_C.TEACHER.CACHE = ""

# ---- Optimisation ----
_C.SOLVER = Block(NUMBER)
_C.SOLVER.OPTIMIZER = "SGD"  # SGD | ADAM | ADAMW
# Learning rate for SOLVER.BATCH_SIZE.
_C.SOLVER.BASE_LR = 0.1
# Momentum of SGD, in [0, 1]; 0: none.
_C.SOLVER.MOMENTUM = 0.9
# Whether SGD uses Nesterov's form of the momentum.
_C.SOLVER.NESTEROV = True
# Weight decay of all parameters (ADAM: L2 penalty; ADAMW: decoupled); 0: none.
_C.SOLVER.WEIGHT_DECAY = 1e-4
# Images per step, over all processes.
_C.SOLVER.BATCH_SIZE = 256
# Length of the training in epochs.
_C.SOLVER.MAX_EPOCH = 300
# steps | cosine | constant
_C.SOLVER.LR_SCHEDULE = "steps"
# Epochs at which LR_SCHEDULE steps multiplies the learning rate by GAMMA.
_C.SOLVER.STEPS = [75, 150, 225]
# Factor of the learning rate at each of STEPS.
_C.SOLVER.GAMMA = 0.1
# Epochs of linear warm-up from WARMUP_FACTOR * BASE_LR; 0: none.
_C.SOLVER.WARMUP_EPOCHS = 0.0
# Share of BASE_LR at which the warm-up begins, in [0, 1].
_C.SOLVER.WARMUP_FACTOR = 0.001
# Largest gradient norm, to which gradients are clipped; 0: no clipping.
_C.SOLVER.CLIP_NORM = 0.0
# Epochs between two checkpoints (a fraction is rounded to iterations).
_C.SOLVER.CHECKPOINT_PERIOD = MACHINE(1.0)

# ---- Evaluation of the trained classifier (tools/evaluate_backbone.py) ----
_C.EVAL = Block(TEST)
# Images per batch; changes only the rounding.
_C.EVAL.BATCH_SIZE = 100
# Epochs between two validations on DATA.VAL_SPLIT during training; the last epoch is always validated.  0: none.
_C.EVAL.PERIOD = 0
# last | best: the epoch whose weights go to backbone.pth; best has the lowest validation cross-entropy (Maher & Kull
# 2021, Sec. IV).  If PERIOD is not 0, best.pth holds the weights of the best epoch in either case.
_C.EVAL.REPORT = NUMBER("last")
# Evaluate again with all objects covered, as set by CONTEXT_FILLS.
_C.EVAL.CONTEXT = True
# How objects are covered: mean (with the data set's mean colour) | blur | uniform (the whole image in the mean colour);
# see backbones/measuring/context.py.
_C.EVAL.CONTEXT_FILLS = ["mean"]
# The `*_pycalib` numbers are means over this many random subsets of this size (pycalib's ImageNet script); a split of
# at most this size is measured once, as a whole.
_C.EVAL.PYCALIB_SPLITS = 10
# Number of samples in a subset.
_C.EVAL.PYCALIB_SIZE = 10000
# Split to fit the temperature on; empty: each half of the measured split is scaled with the fit on the other half.
_C.EVAL.TEMPERATURE_SPLIT = ""
# Folder of CIFAR-10H (human labels of CIFAR-10's test images); empty: no divergence from human labels.
_C.EVAL.HUMAN_LABELS = ""

# ---- Attacks on the trained classifier (tools/attack_backbone.py) ----
_C.ATTACK = Block(TEST)
# Split whose images are attacked, as in DATA.VAL_SPLIT.
_C.ATTACK.SPLIT = "val"
# fgsm | pgd (starts at the image) | pgd_random (random starts) | margin (PGD on the margin of the logits, random
# starts): backbones/measuring/robustness.py.
_C.ATTACK.METHODS = ["fgsm", "pgd", "pgd_random", "margin"]
# Largest change per pixel and channel, in units of 1/255 (white is 255).
_C.ATTACK.BOUNDS = [1.0, 2.0, 4.0, 8.0]
# Iterations of PGD; each has a step of a quarter of the bound.
_C.ATTACK.STEPS = 20
# Random starts per image; the image counts as wrong if the attack succeeds from any of them.
_C.ATTACK.RESTARTS = 5
# Largest number of images, evenly spaced over the split; 0: all.
_C.ATTACK.MAX_IMAGES = 1000
# Images per batch; random starts are drawn batch by batch.
_C.ATTACK.BATCH_SIZE = 50

# ---- Localisation by class activation maps (tools/localize.py) ----
_C.LOCALIZE = Block(TEST)
_C.LOCALIZE.METHOD = "CAM"  # CAM | GradCAM | GradCAMPlusPlus
# Split whose boxes the maps are compared with, as in DATA.VAL_SPLIT.
_C.LOCALIZE.SPLIT = "val"
# Largest number of images, evenly spaced over the split; 0: all.
_C.LOCALIZE.MAX_IMAGES = 0
# Images per batch; changes only the rounding.
_C.LOCALIZE.BATCH_SIZE = 25
# Number of images in the gallery; the same images for every backbone.
_C.LOCALIZE.GALLERY = 8

ROLES = Roles(_C)
_IN_IMPORTS = "name its file in IMPORTS, so that it is registered before the config is read"


def get_defaults() -> CfgNode:
    """Return a fresh copy of the defaults, with a block for every method that is registered now."""
    cfg = _C.clone()
    cfg.METHOD = method_defaults()
    return cfg


def validate(cfg: CfgNode) -> None:
    """Raise `InputError` with key and value for invalid settings, before any work starts."""
    values = dict(flatten(cfg))
    check_ranges(values, _RANGES)
    check_data(cfg.DATA)
    if not cfg.DATA.HOLDOUT and (key := next((key for key in _SPLITS if values[key] == HOLDOUT), "")):
        raise InputError(f"{key} '{HOLDOUT}' needs DATA.HOLDOUT above 0, the number of images held out")
    if cfg.SOLVER.OPTIMIZER == "SGD" and cfg.SOLVER.NESTEROV and cfg.SOLVER.MOMENTUM <= 0:
        raise InputError("SOLVER.NESTEROV True needs SOLVER.MOMENTUM above 0; set it, or NESTEROV False")
    blocks = [name for name in cfg.METHOD if name != "NAME"]
    if (name := cfg.METHOD.NAME) in METHODS and name not in blocks:
        raise InputError(f"METHOD.NAME {name} is registered, but the config has no block METHOD.{name}; {_IN_IMPORTS}")
    check_choice("METHOD.NAME", name, blocks)
    _check_teacher(cfg)
    _check_context(cfg.METHOD.NAME, cfg.DATA.CONTEXT_SHARE)
    steps = list(cfg.SOLVER.STEPS)
    if cfg.SOLVER.LR_SCHEDULE == "steps" and steps and max(steps) >= cfg.SOLVER.MAX_EPOCH:
        raise InputError(
            f"SOLVER.STEPS {steps} has a step at or beyond SOLVER.MAX_EPOCH {cfg.SOLVER.MAX_EPOCH}; lower it"
        )
    if cfg.SOLVER.WARMUP_EPOCHS >= cfg.SOLVER.MAX_EPOCH:
        raise InputError(
            f"SOLVER.WARMUP_EPOCHS {cfg.SOLVER.WARMUP_EPOCHS:g} must be below SOLVER.MAX_EPOCH "
            f"{cfg.SOLVER.MAX_EPOCH}; lower it"
        )
    check_choice("EVAL.REPORT", cfg.EVAL.REPORT, ("last", "best"))
    if cfg.EVAL.REPORT == "best" and not cfg.EVAL.PERIOD:
        raise InputError("EVAL.REPORT best needs validations during the training; set EVAL.PERIOD, such as 1")


def _check_teacher(cfg: CfgNode) -> None:
    if not needs_teacher(cfg.METHOD.NAME):
        return
    if cfg.TEACHER.RUN and cfg.TEACHER.CACHE:
        raise InputError("TEACHER.RUN and TEACHER.CACHE are both set; leave one empty")
    if not (cfg.TEACHER.RUN or cfg.TEACHER.CACHE):
        raise InputError(
            f"METHOD.NAME {cfg.METHOD.NAME} needs a teacher: set TEACHER.RUN to a finished pretraining on the same "
            "data, or TEACHER.CACHE to a folder written by tools/cache_teacher.py"
        )


def _check_context(name: str, share: float) -> None:
    knows = "is_context" in METHODS.get(name).needs
    if knows and not share:
        raise InputError(
            f"METHOD.NAME {name} needs context images, but DATA.CONTEXT_SHARE is 0; set it (ALS+Context: 0.15)"
        )
    if share and not knows:
        raise InputError(
            f"DATA.CONTEXT_SHARE is {share}, but METHOD.NAME {name} does not use context images; set it to 0"
        )


def needs_teacher(method: str) -> bool:
    """Whether the method learns from a teacher."""
    return "teacher_logits" in METHODS.get(method).needs


def idle_settings(cfg: CfgNode) -> list[str]:
    """Return the changed keys that METHOD.NAME does not use: those of other methods and, without a teacher, TEACHER."""
    defaults = dict(flatten(method_defaults()))
    others = [pair for pair in flatten(cfg.METHOD) if pair[0].split(".")[0] not in ("NAME", cfg.METHOD.NAME)]
    idle = [f"METHOD.{key}" for key, value in others if value != defaults[key]]
    if not needs_teacher(cfg.METHOD.NAME):
        idle += [f"TEACHER.{key}" for key, value in cfg.TEACHER.items() if value]
    return idle


# The splits that are measured.
_SPLITS = ("DATA.VAL_SPLIT", "DATA.SHIFTED_SPLIT", "EVAL.TEMPERATURE_SPLIT", "ATTACK.SPLIT", "LOCALIZE.SPLIT")
_RANGES = {
    "SEED": (0, 2**31),
    "LOG_PERIOD": (1, NO_LIMIT),
    "SOLVER.BASE_LR": (ABOVE_0, NO_LIMIT),
    "SOLVER.MOMENTUM": (0, 1),
    "SOLVER.WEIGHT_DECAY": (0, NO_LIMIT),
    "SOLVER.BATCH_SIZE": (1, NO_LIMIT),
    "SOLVER.MAX_EPOCH": (1, NO_LIMIT),
    "SOLVER.GAMMA": (ABOVE_0, NO_LIMIT),
    "SOLVER.WARMUP_EPOCHS": (0, NO_LIMIT),
    "SOLVER.WARMUP_FACTOR": (0, 1),
    "SOLVER.CLIP_NORM": (0, NO_LIMIT),
    "SOLVER.CHECKPOINT_PERIOD": (ABOVE_0, NO_LIMIT),
    "EVAL.BATCH_SIZE": (1, NO_LIMIT),
    "EVAL.PERIOD": (0, NO_LIMIT),
    "EVAL.PYCALIB_SPLITS": (1, NO_LIMIT),
    "EVAL.PYCALIB_SIZE": (1, NO_LIMIT),
    "ATTACK.STEPS": (1, NO_LIMIT),
    "ATTACK.RESTARTS": (1, NO_LIMIT),
    "ATTACK.MAX_IMAGES": (0, NO_LIMIT),
    "ATTACK.BATCH_SIZE": (1, NO_LIMIT),
    "LOCALIZE.BATCH_SIZE": (1, NO_LIMIT),
    "LOCALIZE.MAX_IMAGES": (0, NO_LIMIT),
    "LOCALIZE.GALLERY": (0, NO_LIMIT),
}
