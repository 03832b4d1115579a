"""Damaged files of every format: read as an independent slow reading reads them, or refused in one line.

`make test` takes some hundred damaged files a format, `make test-all` 5,000; the same ones every time.
"""

import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml
from helpers.mutations import damaged_bytes, damaged_tree, damaged_xml
from helpers.result_folders import add, add_detection, backbone
from helpers.slow_readers import coco_objects, ilsvrc_boxes, voc_objects, voc_size
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st
from PIL import Image

from backbones.config import get_defaults as pretrain_defaults
from backbones.core.checkpoint import load_checkpoint
from backbones.core.config import flatten, load_config
from backbones.core.errors import InputError
from backbones.core.findings import ERROR
from backbones.core.warning_counter import WarningCounter
from backbones.data.ilsvrc_xml import read_ilsvrc_xml
from backbones.models.weights import PROVENANCE_KEYS, load_backbone, save_backbone_state, state_hash
from comparison.rows import collect_rows
from comparison.summary import build_comparison
from detection.config import get_defaults as detection_defaults
from detection.data.catalog import load_data
from detection.data.checks import Options, check_detection
from detection.data.records import DetectionData
from detection.data.scan import FIXED, NO_OBJECTS
from detection.engines.yolo.config import get_defaults as yolo_defaults
from detection.evaluation.reading import GroundTruth, read_detections
from detection.exchange.reading import read_checkpoint
from suites.loading import load_suite

SIZE = (40, 30)
XML = """<?xml version="1.0" encoding="utf-8"?>
<annotation>
  <filename>one.png</filename>
  <size><width>40</width><height>30</height><depth>3</depth></size>
  <object><name>cat</name><difficult>0</difficult>
    <bndbox><xmin>1</xmin><ymin>2</ymin><xmax>20</xmax><ymax>15</ymax></bndbox></object>
  <object><name>dog</name><difficult>1</difficult>
    <bndbox><xmin>5.5</xmin><ymin>6</ymin><xmax>40</xmax><ymax>30</ymax></bndbox></object>
</annotation>
"""
XML_TOKENS = [
    *(
        b"<name>cat</name>",
        b"<bndbox>",
        b"</object>",
        b"<object>",
        b"<difficult>True</difficult>",
        b"\xff",
        b"\xc3\xa9",
    ),
    *(b"<bndbox><xmin>3</xmin><ymin>3</ymin><xmax>9</xmax><ymax>9</ymax></bndbox>", b"GB2312", b"utf-16", b"<!-- -->"),
    *(b"<size><width>30</width><height>40</height></size>", b"nan", b"-1", b"1e9", b"99999999999999999999", b"&amp;"),
    *(b"<![CDATA[cat]]>", b"&lt;", b"<xmin>7</xmin>", b"\x00", b"\xef\xbb\xbf", b" ", b"\n"),
]
JSON_TOKENS = [b"null", b'"', b"{", b"[]", b"NaN", b"-", b"e999", b"9" * 30, b"\xff", b"\xef\xbb\xbf", b",", b"0.5"]
COCO = {
    "images": [
        {"id": 1, "file_name": "one.png", "width": 40, "height": 30},
        {"id": 2, "file_name": "two.png", "width": 40, "height": 30},
    ],
    "annotations": [
        {"id": 1, "image_id": 1, "category_id": 3, "bbox": [1, 2, 20, 10], "area": 200, "iscrowd": 0},
        {"id": 2, "image_id": 1, "category_id": 5, "bbox": [5.5, 6, 30, 20], "area": 600, "iscrowd": 1},
        {"id": 3, "image_id": 2, "category_id": 3, "bbox": [0, 0, 40, 30], "area": 1200, "iscrowd": 0},
    ],
    "categories": [{"id": 3, "name": "cat", "supercategory": "animal"}, {"id": 5, "name": "dog"}],
}
DETECTIONS = [
    {"image_id": 1, "category_id": 3, "bbox": [1, 2, 20, 10], "score": 0.9},
    {"image_id": 2, "category_id": 5, "bbox": [5.5, 6, 30, 20], "score": 0.25},
]

SPEC = {
    **{"arch": "resnet18", "depth": 18, "num_classes": 2, "norm": "BN", "stem": "imagenet", "stride_in_1x1": False},
    **{"channel_order": "RGB", "pixel_range": 1.0, "mean": [0.5] * 3, "std": [0.2] * 3, "image_size": 32},
    "classes": ["a", "b"],
}


@dataclass(frozen=True)
class Format:
    """How to damage a sound file, and what must hold for the damaged bytes.

    damaged: draws bytes.  check: raises AssertionError, or InputError where the file is refused.
    """

    damaged: st.SearchStrategy[bytes]
    check: Callable[[bytes], None]
    examples: int


def as_json(tree: Any) -> bytes:
    return json.dumps(tree).encode()


def mostly_elements() -> st.SearchStrategy[bytes]:
    return st.one_of(damaged_xml(XML), damaged_xml(XML), damaged_bytes(XML.encode(), XML_TOKENS))


def mostly_trees(tree: Any, dump: Callable[[Any], bytes], tokens: list[bytes]) -> st.SearchStrategy[bytes]:
    trees = damaged_tree(tree).map(dump)
    return st.one_of(trees, trees, damaged_bytes(dump(tree), tokens))


def boxes_of(data: DetectionData, index: int) -> Iterator[tuple]:
    record = data.records[index]
    for (x, y, w, h), label, crowd in zip(record.bbox.tolist(), record.labels, record.iscrowd, strict=True):
        box = (round(value, 3) for value in (x, y, x + w, y + h))
        yield record.image_id, data.categories[label]["name"], bool(crowd), *box


def close(one: list[tuple], other: list[tuple]) -> bool:
    """Equal but for the last digit that rounding may give or take."""
    return len(one) == len(other) and all(
        a[:-4] == b[:-4] and np.allclose(a[-4:], b[-4:], atol=2e-3) for a, b in zip(one, other, strict=True)
    )


def read_and_check(name: str) -> DetectionData:
    """What the training reads, of which the checker finds no more than boxes that it drops or cuts, or no box at all.

    The checker ends with a report, or refuses in one line what the training refuses, too.
    """
    try:
        report, _ = check_detection(name, "", Options(workers=1))
    except InputError:
        with pytest.raises(InputError):
            load_data([name], "", WarningCounter())
        raise
    read = load_data([name], "", WarningCounter())
    assert {kind.what for kind in report.findings.of(ERROR)} <= {kind.what for kind in (*FIXED, NO_OBJECTS)}
    return read


def coco_format(folder: Path) -> Format:
    for name in ("one", "two"):
        Image.new("RGB", SIZE).save(folder / f"{name}.png")
    path = folder / "ann.json"

    def check(data: bytes) -> None:
        path.write_bytes(data)
        read = read_and_check(f"coco:{path}:{folder}")
        found = sorted(row for n in range(len(read.records)) for row in boxes_of(read, n))
        assert close(found, coco_objects(data)), (found, coco_objects(data))

    return Format(mostly_trees(COCO, as_json, JSON_TOKENS), check, 250)


def results_format(folder: Path) -> Format:
    path, truth = folder / "detections.json", GroundTruth(COCO)

    def check(data: bytes) -> None:
        path.write_bytes(data)
        read = read_detections(path, truth)
        tree = json.loads(data)
        items = tree["annotations"] if isinstance(tree, dict) else tree
        assert read.score.tolist() == [float(item["score"]) for item in items]
        assert read.xywh.tolist() == [[float(v) for v in item["bbox"]] for item in items]
        assert truth.image_ids[read.image].tolist() == [item["image_id"] for item in items]

    return Format(mostly_trees(DETECTIONS, as_json, JSON_TOKENS), check, 250)


def voc_folder(folder: Path) -> None:
    for part in ("JPEGImages", "Annotations", "ImageSets/Main"):
        (folder / part).mkdir(parents=True)
    for name in ("one", "two"):
        Image.new("RGB", SIZE).save(folder / "JPEGImages" / f"{name}.jpg")
        (folder / "Annotations" / f"{name}.xml").write_text(XML)
    (folder / "ImageSets/Main/train.txt").write_text("one\ntwo\n")


def voc_format(folder: Path) -> Format:
    voc_folder(folder)

    def check(data: bytes) -> None:
        (folder / "Annotations/one.xml").write_bytes(data)
        read = read_and_check(f"voc:{folder}:train")
        stated = voc_size(data)
        size = stated if min(stated) > 0 else SIZE
        assert (read.records[0].width, read.records[0].height) == size
        found = sorted(row[1:] for row in boxes_of(read, 0))
        assert close(found, voc_objects(data, size)), (found, voc_objects(data, size))

    return Format(mostly_elements(), check, 250)


def split_format(folder: Path) -> Format:
    voc_folder(folder)
    tokens = [b"one", b"two", b" 1", b" -1", b"\n", b"\r\n", b"\xef\xbb\xbf", b".jpg", b"\t", b"\x00", b"\xff", b"."]

    def check(data: bytes) -> None:
        (folder / "ImageSets/Main/train.txt").write_bytes(data)
        read = read_and_check(f"voc:{folder}:train")
        lines = [line for line in data.decode("utf-8-sig").split("\n") if line.strip()]
        assert len(read.records) == len(lines)
        assert all(Path(r.path).stem in line.lower() for r, line in zip(read.records, lines, strict=True))

    return Format(damaged_bytes(b"one\ntwo\n", tokens), check, 250)


def ilsvrc_format(folder: Path) -> Format:
    path = folder / "one.xml"

    def check(data: bytes) -> None:
        path.write_bytes(data)
        boxes, _ = read_ilsvrc_xml(path, "cat")
        found = sorted(tuple(float(v) for v in box) for box in boxes)
        assert close(found, ilsvrc_boxes(data, "cat")), (found, ilsvrc_boxes(data, "cat"))

    return Format(mostly_elements(), check, 400)


def config_format(folder: Path) -> Format:
    """The config files of a classifier, a detector, a YOLO; the numbers of the file are those of the config."""
    path, tree = folder / "config.yaml", {"SEED": 3, "SOLVER": {"BASE_LR": 0.1, "WEIGHT_DECAY": 1e-4, "GAMMA": 0.5}}

    def check(data: bytes) -> None:
        path.write_bytes(data)
        accepted = 0
        for defaults in (pretrain_defaults(), detection_defaults(), yolo_defaults()):
            try:
                cfg = dict(flatten(load_config(defaults, path)))
            except InputError:
                continue
            accepted += 1
            for key, value in flatten(yaml.safe_load(data) or {}):
                assert same(cfg[key], value), (key, cfg[key], value)
        if not accepted:
            raise InputError("refused by all three")

    def same(read: Any, written: Any) -> bool:
        if isinstance(read, (list, tuple)):
            return len(read) == len(written) and all(map(same, read, written))
        if read == written or not isinstance(read, (int, float)):
            return read == written
        return float(read) == float(written)  # text such as 1e-3, which yaml reads as no number

    def dump(value: Any) -> bytes:
        return yaml.safe_dump(value, allow_unicode=True).encode("utf-8", "surrogatepass")

    tokens = [b"\n", b"SEED: 1\n", b"  ", b": ", b"[", b"!!python/object:os.system", b"&a", b"*a", b"\t", b"\xff", b"{"]
    return Format(mostly_trees(tree, dump, tokens), check, 250)


def suite_format(folder: Path) -> Format:
    path = folder / "suite.yaml"
    tree = {
        "SEEDS": [0, 1],
        "DATA": [{"NAME": "x", "PREPARE": ["scenes", "--seed", 1]}],
        "PRETRAIN": {"CONFIG": "configs/pretrain/quick_scenes.yaml", "OVERRIDES": ["DATA.ROOT", "{data:x}"]},
        "FINETUNE": [{"NAME": "quick", "CONFIG": "configs/detection/quick.yaml", "OVERRIDES": ["SOLVER.MAX_ITER", 1]}],
        "ROWS": [{"LABEL": "CE", "OVERRIDES": ["METHOD.NAME", "CE"]}, {"LABEL": "r", "BACKBONE": "random"}],
    }

    def check(data: bytes) -> None:
        path.write_bytes(data)
        suite = load_suite(path)
        written = yaml.safe_load(data)
        assert [row.label for row in suite.rows] == [row["LABEL"] for row in written["ROWS"]]
        assert [entry.name for entry in suite.finetune] == [entry["NAME"] for entry in written.get("FINETUNE", [])]
        assert list(suite.seeds) == [int(float(seed)) for seed in written.get("SEEDS", [0])]  # '1e3' is a number

    def dump(value: Any) -> bytes:
        return yaml.safe_dump(value, allow_unicode=True).encode("utf-8", "surrogatepass")

    return Format(mostly_trees(tree, dump, [b"- ", b"\n", b"{data:y}", b"null", b"[", b"\xff"]), check, 200)


def run_format(folder: Path) -> Format:
    """results.json of a run among sound ones: the table shows its numbers, or says what is wrong with the file."""
    add_detection(folder, backbone("CE"), 0.8)
    broken = add(folder, "backbone", backbone("LS"), {"top1": 0.5, "ece15": 0.25}, data={"val": {"name": "x"}})
    path = broken / "results.json"
    tree = json.loads(path.read_text())

    def check(data: bytes) -> None:
        path.write_bytes(data)
        rows = collect_rows([folder])
        written = json.loads(data)
        mine = [row for row in rows if row.hash == written["backbone"]["hash"] and "backbone" in row.results]
        if written["stage"] == "backbone":
            assert len(mine) == 1
            for name in ("top1", "ece15"):
                assert mine[0].metrics[name] == written["metrics"].get(name)
        entries = build_comparison(rows, resamples=2)["rows"]
        assert len(entries) == len(rows)

    return Format(mostly_trees(tree, as_json, JSON_TOKENS), check, 120)


def backbone_format(folder: Path) -> Format:
    """A backbone file is known by the hash of its weights: what is read are the weights that were written."""
    path = folder / "backbone.pth"
    state = {"conv1.weight": torch.arange(24.0).reshape(2, 3, 2, 2), "fc.weight": torch.ones(2, 2)}
    digest = save_backbone_state(path, state, SPEC, {**dict.fromkeys(PROVENANCE_KEYS, "x"), "seed": 0})
    torch.save(torch.load(path), path)  # the same bytes in every run: torch puts the file's temporary name into it
    data = path.read_bytes()

    def check(damaged: bytes) -> None:
        path.write_bytes(damaged)
        file = load_backbone(path)
        assert file.hash == digest == state_hash(file.state)

    return Format(damaged_bytes(data, [b"PK\x03\x04", b"\x80\x02", b"cposix\nsystem\n"]), check, 250)


def checkpoint_format(folder: Path) -> Format:
    """A checkpoint, ours or somebody else's: every number that is read is a number that was written."""
    path, values = folder / "checkpoint.pth", torch.arange(64.0)
    torch.save({"values": values, "epoch": 3}, path)
    data = path.read_bytes()

    def check(damaged: bytes) -> None:
        path.write_bytes(damaged)
        refused = 0
        for read in (load_checkpoint, read_checkpoint):
            try:
                content = read(path)
            except InputError:
                refused += 1
                continue
            assert torch.equal(content["values"], values)
            assert content["epoch"] == 3
        if refused == 2:
            raise InputError("refused by both")

    return Format(damaged_bytes(data, [b"PK\x03\x04", b"\x80\x02", b"cposix\nsystem\n", b"\x00"]), check, 250)


FORMATS = {
    "coco": coco_format,
    "coco_results": results_format,
    "voc_xml": voc_format,
    "voc_split": split_format,
    "ilsvrc_xml": ilsvrc_format,
    "config_yaml": config_format,
    "suite_yaml": suite_format,
    "results_json": run_format,
    "backbone": backbone_format,
    "checkpoint": checkpoint_format,
}


def fuzz(form: Format, examples: int) -> None:
    """Check `examples` damaged files; some are read and some are refused, or the damage tests nothing."""
    outcomes = {"read": 0, "refused": 0}

    @settings(
        max_examples=examples,
        derandomize=True,
        deadline=None,
        database=None,
        phases=[Phase.generate, Phase.shrink],
        suppress_health_check=list(HealthCheck),
    )
    @given(form.damaged)
    def check_one(data: bytes) -> None:
        try:
            form.check(data)
            outcomes["read"] += 1
        except InputError:
            outcomes["refused"] += 1

    check_one()
    assert min(outcomes.values()) > 0.01 * examples, outcomes


@pytest.mark.parametrize("name", FORMATS)
def test_damaged_files_are_read_as_written_or_refused(name, tmp_path):
    form = FORMATS[name](tmp_path)
    fuzz(form, form.examples)


@pytest.mark.exhaustive
@pytest.mark.parametrize("name", FORMATS)
def test_five_thousand_damaged_files(name, tmp_path):
    fuzz(FORMATS[name](tmp_path), 5000)


def test_the_slow_reading_sees_what_the_readers_must():
    """The oracle itself: a flag as text, several boxes in an object, a box cut by the border."""
    tree = {**COCO, "annotations": [{**COCO["annotations"][1], "iscrowd": "0"}]}
    assert coco_objects(as_json(tree)) == [(1, "dog", False, 5.5, 6.0, 35.5, 26.0)]
    twice = XML.replace("</bndbox></object>\n</annotation>", "</bndbox><bndbox><xmin>1</xmin><ymin>1</ymin><xmax>50"
                        "</xmax><ymax>3</ymax></bndbox></object>\n</annotation>")  # fmt: skip
    assert voc_objects(twice.encode(), SIZE)[-2:] == [("dog", True, 0, 0, 40, 3), ("dog", True, 4.5, 5, 40, 30)]
