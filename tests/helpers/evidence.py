"""Changed copies of a bundle of evidence."""

import json
import zipfile

from backbones.core.files import load_json
from comparison.evidence.bundle import MANIFEST, digest


def changed(bundle, tmp_path, change, name, *, consistent=True):
    """Return a copy of the bundle in which `change(path)` was applied to a file; consistent: the manifest, too."""
    folder, path = tmp_path / "unpacked", tmp_path / "changed.zip"
    with zipfile.ZipFile(bundle) as file:
        file.extractall(folder)
    target = sorted(folder.glob(name))[0]
    change(target)
    if consistent:
        manifest = load_json(folder / MANIFEST)
        manifest["files"][target.relative_to(folder).as_posix()] = digest(target)
        (folder / MANIFEST).write_text(json.dumps(manifest))
    with zipfile.ZipFile(path, "w") as file:
        for item in sorted(path for path in folder.rglob("*") if path.is_file()):
            file.write(item, item.relative_to(folder).as_posix())
    return path
