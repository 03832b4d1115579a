"""Recognise by its first bytes a file that was given as a checkpoint but is not one, and advise what to do."""

import re
import zipfile
import zlib
from pathlib import Path

_READ = 1024  # bytes; the magic of a tar is at 257
_LEGACY_TORCH = b"\x80\x02\x8a\nl\xfc\x9cF\xf9 j\xa8P\x19."  # magic number of torch files before the zip format
_PROTOCOLS = (b"\x02", b"\x03", b"\x04", b"\x05")  # pickle protocols that are stated in the file
_PACKED = "; unpack it, and name the checkpoint in it"
_BEGINNINGS = (
    (b"version https://git-lfs", "a Git LFS pointer, not the file itself; run `git lfs pull`, or download the file"),
    (b"\x1f\x8b", f"a gzip file{_PACKED}"),
    (b"BZh", f"a bzip2 file{_PACKED}"),
    (b"\xfd7zXZ\x00", f"an xz file{_PACKED}"),
    (b"\x28\xb5\x2f\xfd", f"a zstandard file{_PACKED}"),
    (b"7z\xbc\xaf\x27\x1c", f"a 7z archive{_PACKED}"),
    (b"Rar!\x1a\x07", f"a RAR archive{_PACKED}"),
    (b"\x89HDF\r\n\x1a\n", "an HDF5 file (Keras, TensorFlow); only PyTorch's weights are read"),
    (b"\x93NUMPY", "a NumPy array; a checkpoint holds many, by name"),
)


def describe_kind(path: str | Path) -> str | None:
    """Return what the file is and what to do; None for a torch file and an unknown format."""
    path = Path(path)
    with path.open("rb") as file:
        start = file.read(_READ)
    if not start:
        return "empty; copy or download it again"
    for beginning, kind in _BEGINNINGS:
        if start.startswith(beginning):
            return kind
    if start[:2] == b"PK":
        return _zip_kind(path)
    if start[257:262] == b"ustar":
        return f"a tar archive{_PACKED}"
    if _is_html(start):
        return "an HTML page; download the file itself from the page"
    if _is_safetensors(start, path.stat().st_size):
        return (
            "a safetensors file; write its tensors as a torch file: "
            "torch.save(safetensors.torch.load_file(FILE), 'weights.pth')"
        )
    if start[0] == 0x80 and start[1:2] in _PROTOCOLS and not is_torch_file(path):
        return (
            "a pickle that torch did not write; if it is detectron2's, import it with "
            "tools/import_backbone.py --source detectron2"
        )
    return None


def is_torch_file(path: str | Path) -> bool:
    """Whether the file starts like a torch file: a zip archive, or, before 2020, a pickle with torch's magic number."""
    with Path(path).open("rb") as file:
        start = file.read(len(_LEGACY_TORCH))
    return start == _LEGACY_TORCH or start.startswith(b"PK")


def find_named_code(reason: str) -> str | None:
    """Return the function that loading a file would call, from torch's message; None for other messages."""
    found = re.search(r"GLOBAL ([\w.]+)", reason)
    return found and name_code(*found[1].rpartition(".")[::2])


def name_code(module: str, name: str) -> str:
    """Return the name in a pickle, with its common name if different: "posix.system (os.system)"."""
    return f"{module}.{name}" + (f" (os.{name})" if module in ("posix", "nt") else "")


def find_changed_record(path: str | Path) -> str | None:
    """Return the first record of a torch zip file that does not match its checksum, which torch does not verify.

    None for a sound file, and for a file from before 2020, which has no checksums.
    """
    if not zipfile.is_zipfile(path):
        return None
    try:
        with zipfile.ZipFile(path) as archive:
            return archive.testzip()
    except (zipfile.BadZipFile, OSError, EOFError, ValueError, NotImplementedError, zlib.error) as error:
        return f"its index ({error})"


def _zip_kind(path: Path) -> str | None:
    """Describe a zip file; None for a torch file, which is a zip with a data.pkl in its only folder."""
    try:
        with zipfile.ZipFile(path) as archive:
            names = archive.namelist()
    except (zipfile.BadZipFile, OSError, ValueError, NotImplementedError):
        return None  # truncated: its kind cannot be determined
    if any(name.endswith("/constants.pkl") for name in names):
        return (
            "a TorchScript archive; save its state dict: torch.save(torch.jit.load(FILE).state_dict(), 'weights.pth')"
        )
    if any(name.endswith("data.pkl") for name in names):
        return None
    if names and all(name.endswith(".npy") for name in names):
        return "a NumPy archive (.npz); write its arrays as tensors with torch.save"
    return f"a zip archive that torch did not write{_PACKED}"


def _is_html(start: bytes) -> bool:
    text = start.removeprefix(b"\xef\xbb\xbf").lstrip().lower()
    return text.startswith((b"<!doctype", b"<html", b"<head", b"<?xml", b"<!--"))


def _is_safetensors(start: bytes, size: int) -> bool:
    """Whether eight bytes hold the length of the JSON that follows (huggingface.co/docs/safetensors)."""
    return len(start) > 8 and start[8:9] == b"{" and int.from_bytes(start[:8], "little") + 8 <= size
