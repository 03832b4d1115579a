"""VOC split files (ImageSets/Main): one name per line, optionally with a flag.

VOC's own per-class files (cat_train.txt) list every image of the split with 1 (contains the class), -1 (does not) or 0
(only difficult objects); all images are read.
"""

import re
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

from backbones.core.errors import InputError
from backbones.core.files import load_lines
from backbones.core.findings import ERROR, WARNING, Findings, Kind
from detection.data.image_files import is_hidden, split_suffix

BROKEN_SPLIT = Kind(ERROR, "broken split file", "it must list one image per line")
REPEATED_LINE = Kind(ERROR, "names listed twice in the split", "remove one of the lines")
FLAGGED = Kind(WARNING, "lines of the split with flag -1 or 0", "their images are read like all others")
WORDS = Kind(WARNING, "lines of the split with words after the name", "the first word is used as the name")
_FLAG = re.compile(r"^(.*\S)\s+(-1|0|\+?1)$")


def read_split(path: Path) -> list[str]:
    """Return the non-blank lines of a split file, stripped.

    Raises:
        InputError: the file cannot be read as text.
    """
    try:
        return load_lines(path)
    except InputError as error:
        raise InputError(f"cannot read the split file {path} as text: {error}") from None


def read_stems(lines: Sequence[str], listing: Path, rank: Callable[[str], int], findings: Findings) -> list[str]:
    """Return the image name of each line, without duplicates.

    The name is the first of these with files: the whole line (names can contain spaces), the line without its flag, its
    first word; each also without an image suffix and without folders, of which the one of the highest rank is taken.
    If none has files, it is the line without its flag.

    Args:
        rank: of a name by its files: 3 annotation and image, 2 annotation, 1 image, 0 none.
    """
    stems = []
    for line in lines:
        if is_hidden(line.replace("\\", "/").rpartition("/")[2]):
            continue
        flag, word = _FLAG.match(line), line.split()[0]
        readings: list[tuple[Kind | None, str]] = [(None, line)]
        if flag:
            readings.append((FLAGGED if flag[2] in ("-1", "0") else None, flag[1]))
        if word != line:
            readings.append((WORDS, word))
        best = ((kind, max(_stems(text), key=rank)) for kind, text in readings)
        known = ((kind, stem) for kind, stem in best if rank(stem))
        kind, stem = next(known, (None, _bare(flag[1] if flag else line)))
        stems.append(stem)
        if kind:
            findings.add(kind, line)
    findings.add(REPEATED_LINE, [f"{listing}: '{stem}'" for stem, n in Counter(stems).items() if n > 1])
    return list(dict.fromkeys(stems))


def _stems(text: str) -> Iterator[str]:
    slashed = text.replace("\\", "/")
    last = slashed.rpartition("/")[2]
    yield from dict.fromkeys((text, _bare(slashed), last, _bare(last)))


def _bare(text: str) -> str:
    """Return the text without the suffix of an image or annotation."""
    return text[:-4] if text.lower().endswith(".xml") else split_suffix(text)[0]
