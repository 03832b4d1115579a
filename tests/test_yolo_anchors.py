"""Anchors: found again where they are known, seeded, and refused where there are not enough."""

import numpy as np
import pytest
import yaml

from backbones.core.errors import InputError
from detection.engines.yolo.anchors import (
    VOC_ANCHORS,
    check_anchors,
    estimate_anchors,
    pairwise_shape_iou,
    split_scales,
)


def clusters(spread, seed=0):
    centres = np.array([[w * 2.0**n, 10 * 2.0**n] for n in range(3) for w in (5, 12, 24)])
    random = np.random.default_rng(seed)
    shapes = np.repeat(centres, 40, axis=0) * np.exp(random.normal(0, spread, (360, 2)))
    return centres[np.argsort(centres.prod(axis=1))], random.permutation(shapes)


def test_iou_of_shapes():
    iou = pairwise_shape_iou(np.array([[2.0, 4.0]]), np.array([[2.0, 4.0], [4.0, 2.0], [1.0, 1.0]]))
    assert iou.tolist() == [pytest.approx([1, 4 / 12, 1 / 8])]


def test_known_clusters_are_found_in_order_of_area():
    centres, shapes = clusters(spread=0.02)
    anchors, quality = estimate_anchors(shapes, 9, seed=0)
    np.testing.assert_allclose(anchors, centres, rtol=0.02)
    assert quality == pytest.approx(pairwise_shape_iou(shapes, anchors).max(axis=1).mean())
    assert quality > 0.95
    exact, perfect = estimate_anchors(clusters(spread=0.0)[1], 9, seed=0)
    np.testing.assert_allclose(exact, centres)
    assert perfect == pytest.approx(1)


def test_more_anchors_fit_better_and_a_seed_repeats():
    shapes = np.random.default_rng(1).uniform(5, 200, (400, 2))
    qualities = [estimate_anchors(shapes, number, seed=0)[1] for number in (1, 3, 9)]
    assert qualities == sorted(qualities)
    for one, two in ((0, 0), (3, 3)):
        assert (estimate_anchors(shapes, 9, seed=one)[0] == estimate_anchors(shapes, 9, seed=two)[0]).all()


def test_units_are_those_of_the_strides():
    anchors = np.array([[8.0 * n, 16.0 * n] for n in range(1, 10)])
    scales = split_scales(anchors)
    assert scales[0][0] == [1, 2]
    assert scales[1][0] == [2, 4]
    assert scales[2][2] == [2.25, 4.5]
    check_anchors(scales)


def test_wrong_anchors_are_refused():
    check_anchors(VOC_ANCHORS)
    with pytest.raises(InputError, match=r"MODEL.ANCHORS: \[3, 3\] anchors: give 3 lists"):
        check_anchors(VOC_ANCHORS[:2])
    with pytest.raises(InputError, match=r"\[3, 3, 2\] anchors"):
        check_anchors([*VOC_ANCHORS[:2], VOC_ANCHORS[2][:2]])
    with pytest.raises(InputError, match=r"\[0, 0, 0\] anchors"):
        check_anchors([[], [], []])
    with pytest.raises(InputError, match=r"a width and a height above 0"):
        check_anchors([*VOC_ANCHORS[:2], [*VOC_ANCHORS[2][:2], [1.0, -2.0]]])
    with pytest.raises(InputError, match=r"a width and a height above 0"):
        check_anchors([[[1.0, 2.0, 3.0]]] * 3)
    with pytest.raises(InputError, match="2 different boxes cannot make 9 anchors"):
        estimate_anchors(np.array([[1.0, 2], [3, 4], [1, 2]]), 9, seed=0)


def test_the_tool_prints_a_block_for_a_config(load_tool, shared_data, capsys):
    arguments = ["--root", str(shared_data), "--data", "bccd_test", "--size", "256"]
    assert load_tool("estimate_anchors").main(arguments) == 0
    text = capsys.readouterr().out
    anchors = yaml.safe_load(text)["MODEL"]["ANCHORS"]
    check_anchors(anchors)
    assert float(text.split("mean best IoU ")[1].split(",")[0]) > 0.8
    areas = [w * h * stride**2 for stride, scale in zip((8, 16, 32), anchors, strict=True) for w, h in scale]
    assert areas == sorted(areas)
    with pytest.raises(InputError, match="--size is 0"):
        load_tool("estimate_anchors").main(["--data", "bccd_test", "--size", "0"])
    with pytest.raises(InputError, match="--seed is -1"):
        load_tool("estimate_anchors").main([*arguments, "--seed", "-1"])
