"""Small result folders, as the tools write them, for the tests of the comparison."""

import importlib.util
import json
from pathlib import Path

import numpy as np
from PIL import Image

from backbones.core.results import BackboneIdentity, make_results, random_identity, save_results
from detection.evaluation.coco import evaluate_coco
from helpers.coco_scenes import scene

METRIC_NAMES = [
    *("top1", "top5", "top1_shifted", "nll", "ece15", "cwece15", "cwece15_trueclass", "nll_scaled", "ece15_scaled"),
    *("cwece15_scaled", "cwece15_trueclass_scaled", "ece15_pycalib", "ece100_pycalib", "mce100_pycalib"),
    *("overconfidence", "underconfidence", "average_confidence", "human_kl"),
    *("context_average_confidence", "context_average_confidence_scaled", "context_top1", "context_overconfidence"),
    *("context_underconfidence", "context_blur_average_confidence", "context_uniform_average_confidence"),
    *("objectness_deviation",),
    *("max_box_acc", "max_box_acc_split", "max_box_acc_v2", "max_box_acc_v2_split", "pointing", "energy_in_box"),
    *("fgsm_8_top1_error", "pgd_1_top1_error", "pgd_8_top1_error", "any_8_top1_error"),
    *("AP", "AP50", "AP75", "APs", "APm", "APl", "AR1", "AR10", "AR100", "ARs", "ARm", "ARl"),
    *("VOC_mAP50", "VOC_mAP50_11", "VOC_mAP75", "VOC_mAP75_11", "VOC_mAP", "VOC_mAP_11"),
]
TRUTH, DETECTIONS = scene(21, images=10)


def backbone(label, method=None, seed=0):
    return BackboneIdentity(label, method or label, seed, f"hash-{label}-{seed}")


# The account that a run writes of its backbone (detection/exchange/loading.py).
LOADING = {
    "loaded": ["body.conv1.weight", "body.bn1.weight"], "dropped": ["bn1.num_batches_tracked", "fc.bias", "fc.weight"],
    "new": ["head.weight"], "counts": {"loaded": 2, "dropped": 3, "new": 1},
    "proof": {"tolerance": 1e-4, "largest_difference": {"res2": 2e-7, "res3": 3e-7}, "largest_feature": {"res2": 9.0}},
}  # fmt: skip


def add(root, stage, who, metrics, *, protocol="p@1", folder=None, **blocks):
    """Add results; blocks: `data`, `details`, `files`, `warnings`; those of a detector have a proof of its loading."""
    name, digest = protocol.split("@")
    if stage == "detection" and who.method != "random":
        blocks["details"] = {"backbone_loading": LOADING, **blocks.get("details", {})}
    results = make_results(stage, who, {"name": name, "hash": digest}, metrics, **blocks)
    return save_results(root / (folder or f"{who.label}-{who.seed}-{stage}-{protocol}"), results).parent


def add_detection(root, who, keep, *, protocol="det@1", truth=TRUTH, **options):
    """Add results of a detector that finds a share `keep` of the objects that the best detector finds."""
    kept = [d for n, d in enumerate(DETECTIONS) if n % 10 < 10 * keep]
    folder = add(root, "detection", who, {}, protocol=protocol, **options)
    result = evaluate_coco(truth, kept, score_threshold=0.05, matches_path=folder / "matches.npz")
    return add(root, "detection", who, result["metrics"], protocol=protocol, **options)


def add_gallery(root, who, images):
    tiles = []
    folder = root / f"{who.label}-{who.seed}-localization"
    (folder / "gallery").mkdir(parents=True)
    for n, image in enumerate(images):
        Image.fromarray(np.full((224, 224, 3), 40 * n, dtype=np.uint8)).save(folder / "gallery" / f"{n:02d}.png")
        top3 = [["gear", 0.75], ["cog", 0.2], ["<star>", 0.05]]
        tiles.append({"image": image, "tile": f"gallery/{n:02d}.png", "label": "cog", "top3": top3})
    (folder / "gallery.json").write_text(json.dumps(tiles))
    metrics = {"max_box_acc_v2": 0.5, "pointing": 0.8}
    add(root, "localization", who, metrics, files={"gallery": "gallery.json"}, folder=folder.name)


def add_suite(root):
    """Add random, CE, LS and ALS; ALS has no localisation, LS lacks a gallery image and has the detections of CE."""
    add_detection(root, random_identity(0), 0.3)
    for label, top1, keep in (("CE", 0.9, 0.8), ("LS", 0.92, 0.8), ("ALS", 0.8, 1.0)):
        who = backbone(label)
        add(root, "pretraining", who, {"top1": 0.1, "nll": 0.5}, protocol=f"{label}@9")
        add(root, "backbone", who, {"top1": top1, "ece15": float("nan"), "average_confidence": 0.7})
        add_detection(root, who, keep)
    add_gallery(root, backbone("CE"), ["a.jpg", "b.jpg"])
    add_gallery(root, backbone("LS"), ["b.jpg"])
    return root


def load_tool():
    """Import tools/compare.py as a module; `tools` is not a package, and other projects use that name too."""
    path = Path(__file__).parents[2] / "tools" / "compare.py"
    spec = importlib.util.spec_from_file_location("compare_tool", path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def compare_runs(root, output_dir, *arguments):
    """Run the tool; return the content of comparison.json."""
    assert load_tool().main([str(root), "--output-dir", str(output_dir), "--resamples", "40", *arguments]) == 0
    return json.loads((output_dir / "comparison.json").read_text())
