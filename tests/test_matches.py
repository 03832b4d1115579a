"""matches.npz: its layout on disk, files of earlier versions, and files that contradict themselves."""

import numpy as np
import pytest
from helpers.coco_scenes import scene

from backbones.core.errors import InputError
from backbones.core.matches import ADDED, DETAILS, FORMAT_VERSION, LAYOUT, READ, load_matches, save_matches
from comparison.bootstrap import summary
from detection.evaluation.coco import evaluate_coco


@pytest.fixture
def written(tmp_path):
    """The path of a file, and its arrays."""
    path = tmp_path / "matches.npz"
    evaluate_coco(*scene(3, crowd=0.3), score_threshold=0.05, matches_path=path)
    with np.load(path) as file:
        return path, dict(file)


def test_the_file_has_the_stated_layout(written):
    _, arrays = written
    assert list(arrays) == list(LAYOUT)
    sizes = {}
    for name, (dtype, axes) in LAYOUT.items():
        assert arrays[name].dtype.kind == "U" if dtype == "str" else arrays[name].dtype == dtype, name
        assert arrays[name].ndim == len(axes), name
        for axis, size in zip(axes, arrays[name].shape, strict=True):
            assert sizes.setdefault(axis, size) == size, name


def test_what_is_written_is_read_as_the_same_bytes(written, tmp_path):
    path, arrays = written
    del arrays["format_version"]
    save_matches(tmp_path / "again.npz", arrays)
    assert (tmp_path / "again.npz").read_bytes() == path.read_bytes()


def test_a_file_of_the_first_release_gives_the_same_numbers(written, tmp_path):
    """It says nothing of what a detection is near."""
    path, arrays = written
    first = {name: arrays[name] for name in ("format_version", *READ)}
    np.savez(tmp_path / "first.npz", **first)
    numbers = summary(load_matches(tmp_path / "first.npz"))
    for name, value in summary(load_matches(path)).items():
        np.testing.assert_array_equal(numbers[name], value)


def test_optional_arrays_can_be_left_out_and_others_not(written, tmp_path):
    _, arrays = written
    del arrays["format_version"]
    save_matches(tmp_path / "fewer.npz", {name: array for name, array in arrays.items() if name not in ADDED})
    fewer = load_matches(tmp_path / "fewer.npz")
    assert fewer.details.keys() == set(DETAILS) - ADDED
    for other in ({"more": np.zeros(1)}, dict.fromkeys(("score",))):
        kept = {name: array for name, array in arrays.items() if name not in other}
        with pytest.raises(AssertionError):
            save_matches(
                tmp_path / "fewer.npz", kept | {name: array for name, array in other.items() if array is not None}
            )


def test_another_version_is_named_whatever_it_holds(written, tmp_path):
    np.savez(tmp_path / "next.npz", format_version=np.array(FORMAT_VERSION + 1))
    with pytest.raises(InputError, match=rf"next\.npz: format {FORMAT_VERSION + 1}, this version reads"):
        load_matches(tmp_path / "next.npz")
    np.savez(tmp_path / "none.npz", image=np.zeros(1))
    with pytest.raises(InputError, match=r"cannot read .*none\.npz as matches"):
        load_matches(tmp_path / "none.npz")


@pytest.mark.parametrize(
    ("name", "change", "says"),
    [
        ("image", lambda a: a + 1000, "image has values outside 0 to 11"),
        ("image", lambda a: a - 1, "image has values outside 0"),
        ("object_image", lambda a: a + 1000, "object_image has values"),
        ("category", lambda a: a + 1000, "category has values"),
        ("object_category", lambda a: a - 1, "object_category has values"),
        ("image", lambda a: a.astype(float), r"image is float64 of shape .* not int32 \(N\)"),
        ("outcome", lambda a: a * 2, "outcome has values outside -1 to 1"),
        ("outcome", lambda a: a[:, :1], "object_counts has 4 entries along A, not 1"),
        ("outcome", lambda a: a[:, :, 0], r"outcome is .* not int8 \(N, A, T\)"),
        ("rank", lambda a: a - 1, "rank has values"),
        ("score", lambda a: a[:-1], "score has .* entries along N"),
        ("score", lambda a: np.where(a == a.max(), np.nan, a), "score has values that are not finite"),
        ("object_counts", lambda a: a.astype(np.int8), "object_counts is int8"),
        ("score_threshold", lambda a: a * np.inf, "score_threshold has values that are not finite"),
        ("partner", lambda a: a + 1000, "partner has values outside -1 to"),
        ("own_object", lambda a: a - 1, "own_object has values outside -1 to"),
        ("other_object", lambda a: a[:-1], "other_object has .* entries along N"),
        ("image_area", lambda a: a * 0, "image_area has values outside 2"),
        ("object_area", lambda a: -1 - a, "object_area has values outside 0 to inf"),
        ("own_iou", lambda a: np.where(a == a.max(), np.nan, a), "own_iou has values that are not finite"),
        ("iou_thresholds", lambda a: a[1:], "iou_thresholds has 9 entries along T, not 10"),
    ],
)
def test_a_file_that_contradicts_itself_is_refused(written, tmp_path, name, change, says):
    _, arrays = written
    np.savez(tmp_path / "wrong.npz", **{**arrays, name: change(arrays[name])})
    with pytest.raises(InputError, match=rf"wrong\.npz: {says}.*; evaluate again"):
        load_matches(tmp_path / "wrong.npz")


def test_what_detections_are_near_follows_the_order_of_images_and_objects(written, tmp_path):
    """Reversing images and objects in the file changes no detection's objects."""
    path, arrays = written
    before, count = load_matches(path), len(arrays["object_image"])
    images = len(arrays["image_ids"])
    reverse = {name: images - 1 - arrays[name] for name in ("image", "object_image")}
    arrays |= reverse | {"image_ids": arrays["image_ids"][::-1]}
    arrays["image_area"] = np.arange(images) + 1.0
    for name in ("object_image", "object_category", "object_counts"):
        arrays[name] = arrays[name][::-1]
    arrays["object_area"] = arrays["object_area"][::-1]
    for name in ("partner", "own_object", "other_object", "any_partner"):
        arrays[name] = np.where(arrays[name] < 0, -1, count - 1 - arrays[name])
    np.savez(tmp_path / "reversed.npz", **arrays)
    after = load_matches(tmp_path / "reversed.npz")
    assert before.details.keys() == after.details.keys() == set(DETAILS)
    kept = {name: before.detail(name) >= 0 for name in ("partner", "own_object", "other_object")}
    assert all(mask.any() and not mask.all() for mask in kept.values())
    for matches in (before, after):
        near = {name: matches.detail(name)[mask] for name, mask in kept.items()}
        for name, mask in kept.items():
            np.testing.assert_array_equal(matches.object_image[near[name]], matches.image[mask])
            same = matches.object_category[near[name]] == matches.category[mask]
            assert same.all() if name != "other_object" else not same.any()
    for name in ("own_iou", "other_iou", "partner_iou"):
        np.testing.assert_array_equal(before.detail(name), after.detail(name))
    for name in ("own_object", "any_partner"):  # the areas of objects move with them
        near = before.detail(name) >= 0
        areas = [matches.detail("object_area")[matches.detail(name)[near]] for matches in (before, after)]
        np.testing.assert_array_equal(*areas)
    np.testing.assert_array_equal(after.detail("image_area"), np.arange(images)[::-1] + 1.0)
    first = {name: array for name, array in arrays.items() if name not in DETAILS}
    np.savez(tmp_path / "first.npz", **first)
    with pytest.raises(InputError, match=r"first\.npz: no other_iou, .*evaluate again"):
        load_matches(tmp_path / "first.npz").detail("other_iou")
