"""Check detection data before a long run: all problems of a data set, or of a config's data sets, in one pass."""

from dataclasses import dataclass

from backbones.core.config import CfgNode, flatten
from backbones.core.findings import ERROR, WARNING, Findings, Kind, Report
from detection.choice import validation_name
from detection.data.catalog import CocoFiles, locate, require_files
from detection.data.coco.scan import scan_coco
from detection.data.reading import examine
from detection.data.records import shared_images
from detection.data.scan import Scan, check_use
from detection.data.summary import describe, summarize
from detection.data.voc.scan import scan_voc

NOT_LOOKED_AT = Kind(WARNING, "images not checked", "run again without --no-images")
OTHER_CATEGORIES = Kind(ERROR, "category list that differs within the config", "use data sets with the same list")
SHARED = Kind(WARNING, "test images that are also training images", "do not report such numbers as test results")
SHARED_VALIDATION = Kind(
    WARNING, "validation images that are also training images", "name other images in DATASETS.VAL"
)


@dataclass(frozen=True)
class Options:
    """Settings of a check.

    Attributes:
        images: check the image files.
        decode: decode each image fully; False reads only the headers and misses truncated files.
        workers: number of threads; 0: chosen for the machine.
    """

    images: bool = True
    decode: bool = True
    workers: int = 0


def check_detection(
    name: str, root: str, options: Options, num_classes: int | None = None
) -> tuple[Report, Scan | None]:
    """Check one data set.

    Args:
        name: name in the catalog, or an explicit one (detection/data/catalog.py).
        root: DATASETS.ROOT.
        num_classes: NUM_CLASSES of the config; None: not checked.

    Returns:
        the report, and the scan (None: the annotation file is unreadable).

    Raises:
        InputError: unknown name, or missing folder or annotation file.
    """
    found = locate(name, root)
    require_files(found, options.images)
    report = Report(found.name, Findings())
    if isinstance(found, CocoFiles):
        scan = scan_coco(found.annotations, found.images, report.findings, look_for_images=options.images)
    else:
        scan = scan_voc(found.folder, found.listing, found.classes, report.findings, look_for_images=options.images)
    if scan is None:
        return report, None
    if not options.images:
        report.findings.add(NOT_LOOKED_AT, found.name, len(scan.images))
    sizes = examine(scan, report.findings, **vars(options))
    check_use(scan, num_classes, report.findings)
    report.summary = summarize(scan, sizes)
    report.lines = describe(report.summary)
    return report, scan


def check_config_data(
    cfg: CfgNode, root: str | None, options: Options, key: str = "MODEL.ROI_HEADS.NUM_CLASSES"
) -> list[Report]:
    """Check every data set of a config, against NUM_CLASSES and each other.

    Args:
        root: replaces DATASETS.ROOT; None: the config's value.
        key: the engine's key of NUM_CLASSES; its value 0 stands for the number of categories of the data.
    """
    val = [name for name in (validation_name(cfg),) if name]
    names = list(dict.fromkeys([*cfg.DATASETS.TRAIN, *cfg.DATASETS.TEST, *val]))
    base = cfg.DATASETS.ROOT if root is None else root
    stated = dict(flatten(cfg))[key] or None
    checked = {name: check_detection(name, base, options, stated) for name in names}
    first = next((scan for _, scan in checked.values() if scan), None)
    for report, scan in checked.values():
        if first and scan and (scan.categories, scan.category_ids) != (first.categories, first.category_ids):
            report.findings.add(
                OTHER_CATEGORIES, f"{len(scan.categories)}, the first data set has {len(first.categories)}"
            )
    trained = [path for name in cfg.DATASETS.TRAIN for path in _paths(checked[name][1])]
    for name in cfg.DATASETS.TEST:
        checked[name][0].findings.add(SHARED, shared_images(trained, _paths(checked[name][1])))
    for name in val:
        checked[name][0].findings.add(SHARED_VALIDATION, shared_images(trained, _paths(checked[name][1])))
    return [report for report, _ in checked.values()]


def _paths(scan: Scan | None) -> list[str]:
    return [image.path for image in scan.images] if scan else []
