"""Packaging of smooth2det.  The supported installation is an editable one: `pip install -e .`."""

import re
from pathlib import Path

from setuptools import find_packages, setup

HERE = Path(__file__).parent
VERSION = re.search(r'__version__ = "(.+?)"', (HERE / "backbones/__init__.py").read_text())[1]
DETECTRON2 = "git+https://github.com/facebookresearch/detectron2@02b5c4e295e990042a714712c21dc79b731e8833"

setup(
    name="smooth2det",
    version=VERSION,
    description="Which label-smoothing pretraining gives the better detection backbone, and is the difference real?",
    long_description=(HERE / "README.md").read_text(encoding="utf-8"),
    long_description_content_type="text/markdown",
    license="Apache-2.0",
    python_requires=">=3.10",
    packages=find_packages(include=["backbones*", "detection*", "comparison*", "suites*"]),
    package_data={
        "backbones.core": ["schemas/*.json"],
        "backbones.data": ["*.yaml"],
        "backbones.gaussian": ["templates/*"],
        "comparison": ["schemas/*.json"],
        "comparison.page": ["templates/*"],
    },
    install_requires=[
        "torch>=2.6",
        "torchvision>=0.21",
        "numpy>=1.26",
        "scipy",
        "numba>=0.60",  # evaluation and bootstrap; BSD licence
        "pillow",
        "opencv-python-headless>=4.11",  # never opencv-python, which wants libGL
        "timm>=1.0",  # Inception-v4
        "fvcore",
        "yacs",
        "pycocotools>=2.0.8",
        "grad-cam>=1.5.4",
        "scikit-learn",  # t-SNE
        "matplotlib",
        "jinja2",
        "fastjsonschema>=2.19",
        "tqdm",
        "rich",
        "msgspec>=0.18",
        "vl-convert-python>=1.6",  # figures as PDF; BSD licence
        "tensorboard",
    ],
    extras_require={
        "test": [
            "pytest>=8",
            "pytest-xdist>=3.6",
            "hypothesis>=6.100",
            "statsmodels>=0.14",
            "jsonschema>=4.18",
            "playwright>=1.45",
            "axe-playwright-python>=0.1.4",
            "submitit>=1.5.4",
            "ruff>=0.8",
            "basedpyright>=1.20",
        ],
        # After torch and without build isolation; the recipe is in docs/engines.md.
        "detectron2": [f"detectron2 @ {DETECTRON2}", "setuptools<81"],
        "slurm": ["submitit>=1.5.4"],  # LAUNCH.EXECUTOR slurm; MIT licence
    },
)
