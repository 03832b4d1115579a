"""Names of stages and folders: row and seed, tool, and a hash over everything that the stage's numbers depend on."""

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

import backbones.core
from backbones.core.config import IMPORTS, config_hash
from backbones.core.errors import InputError

# A constant in every hash: the version of results.json at the time.  Files of all versions are read, so a new one must
# not rerun any stage; without the entry, every hash would change once.
_SCHEMA = 1


@dataclass(frozen=True)
class Run:
    """One row of the suite with one seed.

    offset: added to the seed of its pretraining; the data stay those of `seed` (`suites.config.Row.seed_offset`).
    """

    label: str
    seed: int
    several_seeds: bool
    offset: int = 0

    @property
    def title(self) -> str:
        """LABEL, with the seed if there are several."""
        return f"{self.label} seed {self.seed}" if self.several_seeds else self.label

    @property
    def name(self) -> list[str]:
        """Parts of the names of its folders."""
        # Always with the seed: adding a seed later must not rename existing folders.
        return [slug(self.label), f"s{self.seed + self.offset}"]

    @property
    def seeds(self) -> list[str]:
        """KEY VALUE of the seeds of its pretraining."""
        drawn = ["DATA.HOLDOUT_SEED", str(self.seed), "DATA.NOISE_SEED", str(self.seed)] if self.offset else []
        return ["SEED", str(self.seed + self.offset), *drawn]

    @property
    def overrides(self) -> list[str]:
        """Its label and seed, for the config of a stage."""
        return self.overrides_with(None)

    def overrides_with(self, detector_seed: int | None) -> list[str]:
        """Return the same with the seed of a fine-tuning, if that has one of its own."""
        seeds = self.seeds if detector_seed is None else ["SEED", str(detector_seed)]
        return ["LABEL", yaml_text(self.label), *seeds]


def yaml_text(text: str) -> str:
    """Return `text`, quoted if yaml would otherwise read it as something else (`1e3`, `a: b`, `x #2`)."""
    try:
        plain = yaml.safe_load(text) == text != "None"  # a text key refuses None unless it is quoted
    except yaml.YAMLError:
        plain = False
    return text if plain else json.dumps(text, ensure_ascii=False)


def find_tool(folder: Path, name: str) -> Path:
    """Return the file of a tool in `folder`; raise `InputError` if it does not exist."""
    path = folder / f"{name}.py"
    if not path.is_file():
        raise InputError(f"no tool {path}; run from a clone of the repository, installed by: pip install -e .")
    return path


def stage_hash(
    tool: Path,
    arguments: Sequence[str],
    config: Mapping[str, Any] | None,
    upstream: Sequence[str],
    source: str = "",
    imported: str = "",
) -> str:
    """Hash everything that a stage's numbers depend on, except paths of this machine, to 12 hex digits.

    Args:
        config: content of the config file; the paths in its IMPORTS do not count.
        source: fingerprint of the label class.
        imported: digest of the files that IMPORTS names; "" for none.
    """
    return config_hash(
        ({IMPORTS: imported} if imported else {})
        | {
            "tool": tool.name,
            "arguments": list(arguments),
            "config": config and {key: value for key, value in config.items() if key != IMPORTS},
            "source": source,
            "upstream": list(upstream),
            "version": backbones.__version__,
            "schema": _SCHEMA,
        }
    )


def slug(text: str) -> str:
    """Convert `text` to a part of a folder name."""
    return re.sub(r"[^A-Za-z0-9._+-]+", "_", text)
