"""Image files as people have them: more than 8 bits, transparency, frames, EXIF, damage; checker and readers agree."""

import io
import random
import struct
import zlib

import cv2
import numpy as np
import pytest
from PIL import Image, PngImagePlugin

from backbones.core import images as images
from backbones.core.errors import InputError
from backbones.core.findings import ERROR, Findings
from backbones.core.image_checks import StatedImage, check_images
from backbones.core.image_header import jpeg_header
from backbones.core.images import (
    ORIENTATION,
    ImageError,
    RangeError,
    decode_image,
    is_turned,
    read_header,
    read_header_and_frames,
)

# 256 levels of 8 bits, and the same of 16.
LEVELS = np.random.default_rng(0).permutation(256).astype(np.uint8).reshape(16, 16)
DEEP = LEVELS.astype(np.uint16) * 257


def check(path, decode=True):
    """Kinds of errors and all examples of one file's check."""
    findings = Findings()
    check_images([StatedImage(str(path), 0, 0, "")], findings, decode=decode, workers=1)
    return [kind.what for kind in findings.of(ERROR)], findings.as_list()


def save_tiff(path, values, bits, order="<", white_is_zero=False):
    """A grey TIFF of one strip, written by hand: PIL writes no 12 bits and no inverted 16."""
    height, width = values.shape
    if bits == 12:
        pairs = values.reshape(-1, 2).astype(int)
        packed = np.stack([pairs[:, 0] >> 4, (pairs[:, 0] & 15) << 4 | pairs[:, 1] >> 8, pairs[:, 1] & 255], 1)
        data = packed.astype(np.uint8).tobytes()
    else:
        data = values.astype(f"{order}u{bits // 8}").tobytes()
    tags = [(256, width), (257, height), (258, bits), (259, 1), (262, 0 if white_is_zero else 1), (277, 1)]
    entries = [(tag, 3, value) for tag, value in tags] + [(273, 4, 8), (278, 4, height), (279, 4, len(data))]
    directory = struct.pack(order + "H", len(entries))
    for tag, kind, value in sorted(entries):
        short = struct.pack(order + "HH", value, 0) if kind == 3 else struct.pack(order + "I", value)
        directory += struct.pack(order + "HHI", tag, kind, 1) + short
    start = {"<": b"II*\0", ">": b"MM\0*"}[order] + struct.pack(order + "I", 8 + len(data))
    path.write_bytes(start + data + directory + bytes(4))


# --------------------------------------------------------------------------------- more than 8 bits

SCALED = {
    "png": lambda path: Image.fromarray(DEEP).save(path, "PNG"),
    "ppm": lambda path: Image.fromarray(DEEP).save(path, "PPM"),
    "tiff little endian": lambda path: save_tiff(path, DEEP, 16),
    "tiff big endian": lambda path: save_tiff(path, DEEP, 16, ">"),
    "tiff lzw": lambda path: Image.fromarray(DEEP).save(path, "TIFF", compression="tiff_lzw"),
    "tiff white is zero": lambda path: save_tiff(path, 65535 - DEEP, 16, white_is_zero=True),
    "tiff 12 bits": lambda path: save_tiff(path, np.round(LEVELS / 255 * 4095), 12),
    "jpeg 2000": lambda path: Image.fromarray(DEEP).save(path, "JPEG2000", irreversible=False),
    "rgb png": lambda path: path.write_bytes(cv2.imencode(".png", np.stack([DEEP] * 3, -1))[1].tobytes()),
    "rgb tiff": lambda path: path.write_bytes(cv2.imencode(".tiff", np.stack([DEEP] * 3, -1))[1].tobytes()),
}


@pytest.mark.parametrize("case", SCALED)
def test_white_stays_white_and_black_black_whatever_the_depth(tmp_path, case):
    path = tmp_path / "deep.png"
    SCALED[case](path)
    expected = np.stack([LEVELS] * 3, -1)
    np.testing.assert_array_equal(decode_image(path), expected)
    for reduction in (2, 4, 8):
        reduced = np.asarray(Image.fromarray(expected).reduce(reduction))
        np.testing.assert_array_equal(decode_image(path, reduction), reduced)
    assert read_header(path)[:2] == (16, 16)
    errors, findings = check(path)
    assert not errors
    grey = "grey images of more than 8 bits"
    assert [entry["what"] for entry in findings] == ([] if case.startswith("rgb") else [grey])


def test_values_between_the_levels_are_rounded(tmp_path):
    values = np.random.default_rng(1).integers(0, 65536, (50, 40)).astype(np.uint16)
    Image.fromarray(values).save(tmp_path / "x.png")
    decoded = decode_image(tmp_path / "x.png")[..., 0]
    np.testing.assert_array_equal(decoded, np.round(values.astype(float) * 255 / 65535))


REFUSED = {
    "tiff I": lambda path: Image.fromarray(DEEP.astype(np.int32)).save(path, "TIFF"),
    "tiff F": lambda path: Image.fromarray(DEEP.astype(np.float32)).save(path, "TIFF"),
    "pfm F": lambda path: Image.fromarray(LEVELS / np.float32(255)).save(path, "PPM"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_values_without_a_range_are_refused_by_name(tmp_path, case):
    path = tmp_path / "deep.tif"
    REFUSED[case](path)
    messages = []
    for read in (decode_image, read_header):
        with pytest.raises(RangeError, match=rf"deep\.tif .*mode {case[-1]} does not state which value is white"):
            read(path)
        with pytest.raises(RangeError) as caught:
            read(path)
        messages.append(str(caught.value))
    assert len(set(messages)) == 1
    for decode in (True, False):
        errors, findings = check(path, decode)
        assert errors == ["images whose values have no stated range"]
        assert "does not state which value is white" in findings[0]["examples"][0]


def test_the_16_bit_case_is_its_8_bit_twin(shared_cases):
    paths = sorted((shared_cases / "01-png16/images").glob("*.png"))
    assert paths
    for path in paths:
        twin = decode_image(shared_cases / "01z-png8/images" / path.name)
        np.testing.assert_array_equal(decode_image(path), twin)
        assert twin.max() < 255


# --------------------------------------------------------------------------------- modes of 8 bits, frames


@pytest.mark.parametrize("mode", ["1", "L", "LA", "P", "RGBA", "CMYK", "YCbCr", "LAB"])
def test_other_modes_are_converted_as_pil_does(tmp_path, mode):
    path = tmp_path / "x.tif"
    noise = np.random.default_rng(0).integers(0, 256, (16, 16, 3), np.uint8)
    image = Image.fromarray(noise) if mode != "LAB" else Image.frombytes("LAB", (16, 16), noise.tobytes())
    (image if mode == "LAB" else image.convert(mode)).save(path)
    with Image.open(path) as again:
        np.testing.assert_array_equal(decode_image(path), np.asarray(again.convert("RGB")))
    assert check(path)[0] == []


def test_the_transparency_of_a_palette_is_dropped_without_pils_warning(tmp_path, recwarn):
    noise = np.random.default_rng(0).integers(0, 256, (16, 16, 3), np.uint8)
    plain = Image.fromarray(noise).convert("P")
    expected = np.asarray(plain.convert("RGB"))
    for name, transparency in (("a.png", bytes(range(256))), ("b.png", 3), ("c.gif", 3)):
        plain.save(tmp_path / name, transparency=transparency)
        np.testing.assert_array_equal(decode_image(tmp_path / name), expected)
    assert not recwarn.list


@pytest.mark.parametrize("suffix", ["gif", "png", "webp", "tif"])
def test_of_an_animation_the_first_frame_is_read_and_the_checker_says_so(tmp_path, suffix):
    frames = [Image.new("RGB", (20, 10), color) for color in ("red", "lime", "blue")]
    path = tmp_path / f"x.{suffix}"
    options = {"lossless": True} if suffix == "webp" else {}
    frames[0].save(path, save_all=True, append_images=frames[1:], **options)
    assert read_header_and_frames(path)[1] is True
    assert (decode_image(path) == [255, 0, 0]).all()
    errors, findings = check(path)
    assert not errors
    assert "images of several frames" in [entry["what"] for entry in findings]
    frames[0].save(path)
    assert read_header_and_frames(path)[1] is False


def test_a_photograph_with_its_preview_is_one_image(tmp_path):
    image = Image.new("RGB", (20, 10), "red")
    image.save(tmp_path / "x.jpg", "MPO", save_all=True, append_images=[Image.new("RGB", (10, 5))])
    with Image.open(tmp_path / "x.jpg") as opened:
        assert opened.format == "MPO"
    assert read_header_and_frames(tmp_path / "x.jpg")[1] is False
    assert decode_image(tmp_path / "x.jpg").shape == (10, 20, 3)


# --------------------------------------------------------------------------------- EXIF


def exif_of(orientation, order="<", before=b""):
    entries = [(0x010F, 2, 4, b"abc\0")] + ([(ORIENTATION, 3, 1, None)] if orientation is not None else [])
    data = {"<": b"II*\0", ">": b"MM\0*"}[order] + struct.pack(order + "I", 8 + len(before)) + before
    data += struct.pack(order + "H", len(entries))
    for tag, kind, count, value in entries:
        value = struct.pack(order + "HH", orientation, 0) if value is None else value
        data += struct.pack(order + "HHI", tag, kind, count) + value
    return b"Exif\0\0" + data + bytes(4)


@pytest.mark.parametrize("order", "<>")
@pytest.mark.parametrize("orientation", [None, 0, 1, 2, 3, 6, 8])
def test_the_fast_header_sees_what_exif_asks_for(tmp_path, orientation, order):
    path = tmp_path / "x.jpg"
    Image.new("RGB", (20, 10)).save(path, exif=exif_of(orientation, order, before=bytes(6)))
    expected = (20, 10, "RGB", orientation not in (None, 0, 1))
    assert read_header(path) == expected
    with Image.open(path) as image:
        assert is_turned(image) == expected[3]
    fast = jpeg_header(path.read_bytes())
    assert fast is None if orientation is None else fast == expected


@pytest.mark.filterwarnings("ignore::UserWarning:PIL")
@pytest.mark.parametrize("cut", [6, 9, 12, 15, 30])
def test_damaged_exif_asks_for_nothing(tmp_path, cut):
    path = tmp_path / "x.jpg"
    Image.new("RGB", (20, 10)).save(path, exif=exif_of(6)[:cut])
    assert read_header(path) == (20, 10, "RGB", False)
    assert decode_image(path).shape == (10, 20, 3)


@pytest.mark.parametrize("suffix", ["jpg", "png", "webp", "tif"])
def test_every_format_says_that_it_is_turned(tmp_path, suffix):
    exif = Image.Exif()
    exif[ORIENTATION] = 3
    Image.new("RGB", (20, 10)).save(tmp_path / f"x.{suffix}", exif=exif)
    assert read_header(tmp_path / f"x.{suffix}") == (20, 10, "RGB", True)
    _, findings = check(tmp_path / f"x.{suffix}")
    assert "images that EXIF turns" in [entry["what"] for entry in findings]


def test_the_turned_case_is_seen_with_and_without_pil(shared_cases):
    for path in (shared_cases / "14c-exif3-turned/images").glob("*.jpg"):
        with Image.open(path) as image:
            assert read_header(path) == (*image.size, image.mode, is_turned(image))
        assert read_header(path).turned


# --------------------------------------------------------------------------------- what PIL refuses


def chunk(name, data):
    return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))


def png_with_text(size, after_pixels):
    stream = io.BytesIO()
    Image.fromarray(LEVELS).save(stream, "PNG")
    data, text = stream.getvalue(), chunk(b"zTXt", b"note\0\0" + zlib.compress(bytes(size)))
    at = data.index(b"IEND" if after_pixels else b"IDAT") - 4
    return data[:at] + text + data[at:]


@pytest.mark.parametrize("after_pixels", [False, True])
def test_a_png_with_a_large_text_is_read(tmp_path, after_pixels):
    path = tmp_path / "x.png"
    path.write_bytes(png_with_text(3 << 20, after_pixels))  # PIL's own limit is 1 MiB
    np.testing.assert_array_equal(decode_image(path)[..., 0], LEVELS)
    assert read_header(path)[:3] == (16, 16, "L")
    assert check(path)[0] == []


@pytest.mark.parametrize("after_pixels", [False, True])
def test_a_text_beyond_every_limit_is_one_line(tmp_path, monkeypatch, after_pixels):
    monkeypatch.setattr(PngImagePlugin, "MAX_TEXT_CHUNK", 1 << 20)
    path = tmp_path / "x.png"
    path.write_bytes(png_with_text(3 << 20, after_pixels))
    with pytest.raises(ImageError, match=r"x\.png .*Decompressed data too large") as caught:
        decode_image(path)
    errors, findings = check(path)
    assert errors == ["unreadable or truncated images"]
    assert findings[0]["examples"] == [f"{path}: {caught.value.reason}"]


def test_the_case_with_large_texts_is_read(shared_cases):
    for path in (shared_cases / "04-pngtext/images").glob("*.png"):
        assert decode_image(path).shape[1::-1] == read_header(path)[:2]
        assert check(path)[0] == []


def test_a_good_image_of_180_megapixels_is_read(tmp_path, recwarn):
    side = 13_500  # PIL warns from 89 million pixels on, and refuses from 179 million on
    Image.new("1", (side, side), 1).save(tmp_path / "x.png", compress_level=1)
    assert read_header(tmp_path / "x.png") == (side, side, "1", False)
    assert check(tmp_path / "x.png", decode=False)[0] == []
    assert not recwarn.list


@pytest.mark.parametrize("suffix", ["png", "jpg", "tif", "bmp"])
def test_an_image_beyond_the_limit_is_one_line_from_both(tmp_path, monkeypatch, suffix):
    path = tmp_path / f"x.{suffix}"
    Image.new("RGB", (30, 20)).save(path)
    monkeypatch.setattr(images, "MAX_PIXELS", 599)
    monkeypatch.setattr(images.cv2, "imdecode", raise_cv2_error)
    for read in (read_header, decode_image):
        with pytest.raises(ImageError, match=rf"x\.{suffix} .*30x20 exceeds the 599 pixels"):
            read(path)
    assert check(path)[0] == ["unreadable or truncated images"]
    monkeypatch.setattr(images, "MAX_PIXELS", 600)
    assert decode_image(path).shape == (20, 30, 3)
    assert check(path)[0] == []


def raise_cv2_error(*_):
    raise cv2.error("CV_IO_MAX_IMAGE_PIXELS")


RAISED = [ValueError("v"), SyntaxError("s"), struct.error("t"), EOFError(), IndexError("i"), KeyError("k"),
          OverflowError("o"), TypeError("y"), ZeroDivisionError("z"), MemoryError(), zlib.error("l"), OSError("f"),
          Image.DecompressionBombError("b"), RecursionError("r"), AttributeError("a")]  # fmt: skip


@pytest.mark.parametrize("error", RAISED, ids=lambda error: type(error).__name__)
@pytest.mark.parametrize("where", ["open", "load"])
def test_whatever_pil_raises_names_the_file_in_both(tmp_path, monkeypatch, error, where):
    path = tmp_path / "x.png"
    Image.new("RGB", (3, 2)).save(path)

    def fail(*_, **__):
        raise error

    monkeypatch.setattr(*{"open": (Image, "open", fail), "load": (PngImagePlugin.PngImageFile, "load", fail)}[where])
    with pytest.raises(ImageError, match=r"x\.png .*\(.+\)") as caught:
        decode_image(path)
    errors, findings = check(path)
    assert errors == ["unreadable or truncated images"]
    assert findings[0]["examples"] == [f"{path}: {caught.value.reason}"]


@pytest.mark.parametrize("name", ["gone.jpg", "folder.jpg", "zero\0byte.jpg", "a" * 300 + ".jpg", "file/below.jpg"])
def test_paths_that_name_no_file(tmp_path, name):
    (tmp_path / "folder.jpg").mkdir()
    (tmp_path / "file").touch()
    for read in (read_header, decode_image):
        with pytest.raises(InputError, match=r"cannot read the image .*\.jpg"):
            read(f"{tmp_path}/{name}")
    assert check(f"{tmp_path}/{name}")[0] == ["missing images"]


def test_an_empty_file_is_not_a_image(tmp_path):
    (tmp_path / "x.jpg").touch()
    for read in (read_header, decode_image):
        with pytest.raises(InputError, match=r"x\.jpg .*not an image"):
            read(tmp_path / "x.jpg")
    assert check(tmp_path / "x.jpg")[0] == ["unreadable or truncated images"]


FORMATS = [("JPEG", "RGB"), ("JPEG", "CMYK"), ("PNG", "P"), ("PNG", "RGBA"), ("TIFF", "RGB"), ("TIFF", "1"),
           ("GIF", "P"), ("BMP", "RGB"), ("WEBP", "RGB"), ("PPM", "L"), ("ICO", "RGBA"), ("TGA", "RGB")]  # fmt: skip


@pytest.mark.filterwarnings("ignore::UserWarning:PIL")
@pytest.mark.parametrize(("name", "mode"), FORMATS)
def test_a_damaged_file_is_an_image_or_one_line_and_the_checker_says_the_same(tmp_path, monkeypatch, name, mode):
    monkeypatch.setattr(images, "MAX_PIXELS", 100_000)  # a damaged size may be large, and slow
    rng = random.Random(f"{name} {mode}")
    noise = np.random.default_rng(0).integers(0, 256, (16, 16, 3), np.uint8)
    stream = io.BytesIO()
    Image.fromarray(noise).convert(mode).save(stream, name)
    whole, path, refused = stream.getvalue(), tmp_path / "x.img", 0
    for _ in range(60):
        data = bytearray(whole)
        for _ in range(rng.randrange(4)):
            data[min(int(rng.expovariate(1 / 60)), len(data) - 1)] = rng.randrange(256)
        if rng.random() < 0.4:
            del data[rng.randrange(len(data)) :]
        path.write_bytes(data)
        size, reason = None, ""
        try:
            size = decode_image(path).shape[1::-1]
        except ImageError as error:
            reason, refused = str(error), refused + 1
        assert size == read_header(path)[:2] if size else "x.img" in reason, bytes(data)
        assert (check(path)[0] == []) == bool(size), bytes(data)
    assert 0 < refused < 60
