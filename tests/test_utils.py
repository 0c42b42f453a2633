"""utils.py on small pictures in the formats that people have, whole and broken."""

import os
import shutil
import struct
import subprocess
import sys
import threading
import time
import zlib
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageDraw

import utils
from anogan import opening
from anogan.data.listing import list_images
from anogan.data.probing import find_range, probe
from anogan.errors import UserError
from anogan.runs import files
from utils import (
    ImageError,
    image_size,
    load_image,
    save_image,
    tile,
)

pytestmark = pytest.mark.unit


def read_image(path, channels, value_range=None):
    """A whole file, in its own size."""
    with utils.opened(path) as image:
        width, height = utils.flat(image, channels).size
    return load_image(path, height, width, channels, value_range=value_range)


def scene(height=60, width=80):
    """Colour uint8 (h, w, 3), different in each corner: a gradient, a red disc, a white bar."""
    y, x = np.mgrid[0:height, 0:width]
    image = np.stack([y * 200 // height, x * 200 // width, (x + y) * 200 // (height + width)], -1)
    picture = Image.fromarray(image.astype(np.uint8))
    draw = ImageDraw.Draw(picture)
    draw.ellipse([5, 5, 25, 25], fill=(250, 30, 30))
    draw.rectangle([width - 20, height - 12, width - 5, height - 5], fill="white")
    return np.asarray(picture)


def grey_scene(height=60, width=80):
    return np.asarray(Image.fromarray(scene(height, width)).convert("L"))


def save(path, image, **options):
    picture = image if isinstance(image, Image.Image) else Image.fromarray(image)
    path.parent.mkdir(parents=True, exist_ok=True)
    picture.save(path, **options)
    return path


def close(a, b, most):
    return a.shape == b.shape and np.abs(a.astype(int) - b).max() <= most


# finding


def names(folder, **options):
    return list_images(folder, **options).names


def touch(folder, *paths):
    for path in paths:
        (folder / path).parent.mkdir(parents=True, exist_ok=True)
        (folder / path).write_bytes(b"x")


def test_images_are_found_in_sub_folders_in_the_order_of_their_paths(tmp_path):
    touch(tmp_path, "b.png", "a/z.JPG", "a.tiff", "a/b/c.webp", "notes.txt", "c.pgm")
    assert names(tmp_path) == ["a.tiff", "a/b/c.webp", "a/z.JPG", "b.png", "c.pgm"]


def test_pattern_decides_by_file_name_alone(tmp_path):
    touch(tmp_path, "1_cropped.png", "1.png", "deep/2_cropped.png", "scan")
    assert names(tmp_path, pattern="*_cropped.png") == ["1_cropped.png", "deep/2_cropped.png"]
    assert names(tmp_path, pattern="scan") == ["scan"]


def test_hidden_and_excluded_folders_are_left_out(tmp_path, monkeypatch):
    touch(
        tmp_path, "in/a.png", "in/result/b.png", "in/.cache/c.png", "in/.d.png", "in/results/e.png"
    )
    assert names(tmp_path / "in", exclude=[tmp_path / "in" / "result"]) == [
        "a.png",
        "results/e.png",
    ]
    monkeypatch.chdir(tmp_path)  # the same folder, named otherwise
    assert names(tmp_path / "in", exclude=["in/../in/result/"]) == ["a.png", "results/e.png"]


def test_link_loops_end_and_linked_folders_count_once(tmp_path):
    touch(tmp_path, "set/normal/a.png", "elsewhere/b.png", "other.png")
    (tmp_path / "set/again").symlink_to("normal")
    (tmp_path / "set/self").symlink_to("self")
    (tmp_path / "set/up").symlink_to("..")
    (tmp_path / "set/normal/loop").symlink_to("../../set")
    (tmp_path / "set/linked").symlink_to("../elsewhere")
    assert names(tmp_path / "set") == ["linked/b.png", "normal/a.png"]


def test_pipe_is_no_image_but_dangling_link_is_one_that_cannot_be_read(tmp_path):
    os.mkfifo(tmp_path / "pipe.png")
    (tmp_path / "gone.png").symlink_to("nowhere")
    assert names(tmp_path) == ["gone.png"]
    with pytest.raises(ImageError, match="gone.png.*No such file"):
        read_image(tmp_path / "gone.png", 3)


def test_folder_without_images_is_an_error_that_names_it(tmp_path):
    touch(tmp_path, "empty/readme.txt")
    for folder, pattern, said in (
        ("missing", None, "missing does not exist"),
        ("empty", None, "empty holds no image"),
        ("empty", "*.png", r"empty holds no file that matches '\*.png'"),
        ("empty/readme.txt", None, "readme.txt cannot be read as a folder"),
    ):
        with pytest.raises(UserError, match=said):
            list_images(tmp_path / folder, pattern)


# reading


def chunk(kind, data):
    body = kind + data
    return struct.pack(">I", len(data)) + body + struct.pack(">I", zlib.crc32(body))


def png16(pixels):
    """A colour PNG of 16 bits a channel, which Pillow cannot write. pixels: uint16 (h, w, 3)."""
    h, w, _ = pixels.shape
    rows = b"".join(b"\0" + row.astype(">u2").tobytes() for row in pixels)
    header = struct.pack(">IIBBBBB", w, h, 16, 2, 0, 0, 0)
    parts = chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b"")
    return b"\x89PNG\r\n\x1a\n" + parts


@pytest.mark.parametrize(
    "name, options, most",
    [
        ("a.png", {}, 0),
        ("a.bmp", {}, 0),
        ("a.tif", {"compression": "tiff_lzw"}, 0),
        ("a.ppm", {}, 0),
        ("a.webp", {"lossless": True}, 0),
        ("a.jpg", {"quality": 98, "subsampling": 0}, 20),
        ("a.tga", {}, 0),  # found only by Pillow's whole list
    ],
)
def test_colour_comes_out_of_every_format_as_it_went_in(tmp_path, name, options, most):
    path = save(tmp_path / name, scene(), **options)
    assert close(read_image(path, 3), scene(), most)
    assert close(read_image(path, 1), grey_scene()[..., None], most)


@pytest.mark.parametrize("name", ["a.png", "a.pgm", "a.tiff", "a.gif"])
def test_grey_file_gives_three_equal_channels_where_colour_is_wanted(tmp_path, name):
    path = save(tmp_path / name, grey_scene())
    assert close(read_image(path, 1), grey_scene()[..., None], 0)
    assert close(read_image(path, 3), np.stack([grey_scene()] * 3, -1), 0)


def test_black_and_white_file_is_0_and_255(tmp_path):
    bits = grey_scene() > 90
    path = save(tmp_path / "a.png", Image.fromarray(bits))
    assert Image.open(path).mode == "1"
    assert close(read_image(path, 1)[..., 0], bits * 255, 0)


def test_cmyk_jpeg_has_the_colours_of_the_picture(tmp_path):
    picture = Image.fromarray(scene()).convert("CMYK")
    path = save(tmp_path / "a.jpg", picture, quality=98, subsampling=0)
    assert Image.open(path).mode == "CMYK"
    assert close(read_image(path, 3), np.asarray(picture.convert("RGB")), 20)


@pytest.mark.parametrize("mode", ["RGBA", "LA", "P"])
def test_transparent_parts_are_white_and_half_transparent_ones_mixed(tmp_path, mode):
    if mode == "P":
        picture = Image.fromarray(scene()).quantize(16)
        picture.info["transparency"] = bytes([0] * 16)
        expected = np.full((60, 80, 3), 255)
    else:
        picture = Image.fromarray(scene()).convert(mode)
        alpha = Image.new("L", picture.size, 128)
        alpha.paste(0, (0, 0, 40, 60))
        picture.putalpha(alpha)
        colour = np.asarray(picture.convert("RGB")).astype(float)
        expected = (colour * 128 + 255 * 127) / 255
        expected[:, :40] = 255
    path = save(tmp_path / "a.png", picture)
    assert Image.open(path).mode == mode
    assert close(read_image(path, 3), expected.round().astype(int), 2)


@pytest.mark.parametrize("orientation", range(1, 9))
def test_exif_rotation_is_applied(tmp_path, orientation):
    exif = Image.Exif()
    exif[0x0112] = orientation
    path = save(tmp_path / "a.jpg", scene(), quality=98, subsampling=0, exif=exif)
    turned = np.rot90(scene(), {1: 0, 2: 0, 3: 2, 4: 2, 5: 3, 6: 3, 7: 1, 8: 1}[orientation])
    mirrored = turned[:, ::-1] if orientation in (2, 4, 5, 7) else turned
    assert close(read_image(path, 3), mirrored, 20)


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("name", ["a.tif", "packed.tif", "a.png", "a.jpg"])
def test_sizes_of_files_are_those_of_their_upright_images(tmp_path, name, orientation):
    exif = Image.Exif()
    exif[0x0112] = orientation
    options = {"compression": "tiff_lzw"} if name == "packed.tif" else {}
    path = save(tmp_path / name, scene(), exif=exif, **options)
    assert image_size(path) == read_image(path, 3).shape[:2]


def test_plain_tiff_on_its_side_is_turned_and_not_garbled(tmp_path):
    exif = Image.Exif()
    exif[0x0112] = 6
    grey = scene()[..., 0]
    path = save(tmp_path / "a.tif", grey, exif=exif)
    np.testing.assert_array_equal(read_image(path, 1)[..., 0], np.rot90(grey, 3))


def test_exif_that_is_damaged_does_not_lose_the_picture(tmp_path):
    entries = struct.pack(">HHIHH", 0x0112, 3, 1, 6, 0) + struct.pack(">HHI4s", 0x0100, 2, 4, b"x")
    exif = b"Exif\0\0MM\0\x2a\0\0\0\x08" + struct.pack(">H", 2) + entries
    path = save(tmp_path / "a.jpg", scene(), quality=98, subsampling=0, exif=exif)
    assert close(read_image(path, 3), np.rot90(scene(), 3), 20)


def test_first_of_several_frames_is_read(tmp_path):
    other = Image.new("RGB", (80, 60), "blue")
    for name in ("a.tiff", "a.gif"):
        path = save(tmp_path / name, scene(), save_all=True, append_images=[other])
        assert close(read_image(path, 3), scene(), 60)  # a GIF has 256 colours


@pytest.mark.parametrize("name", ["a.tiff", "a.gif", "a.png", "a.webp"])
def test_further_pages_and_frames_are_remarked_on(tmp_path, name):
    other = Image.new("RGB", (80, 60), "blue")
    path = save(tmp_path / name, scene(), save_all=True, append_images=[other])
    told = ["several pages or frames, of which only the first is read"]
    assert warnings_on(path, 60, 80, 3) == told
    assert warnings_on(save(tmp_path / name, scene()), 60, 80, 3) == []


def test_preview_of_a_phone_is_no_page(tmp_path):
    path = tmp_path / "a.jpg"
    small = [Image.fromarray(scene(30, 40))]
    save(path, scene(), format="MPO", save_all=True, append_images=small)
    assert Image.open(path).n_frames == 2
    assert warnings_on(path, 60, 80, 3) == []


@pytest.mark.parametrize("name", ["a.png", "a.tiff", "a.pgm"])
def test_16_bits_keep_their_shades(tmp_path, name):
    deep = grey_scene().astype(np.uint16) * 257
    path = save(tmp_path / name, deep)
    assert close(read_image(path, 1)[..., 0], grey_scene(), 0)
    assert close(read_image(path, 3)[..., 2], grey_scene(), 0)


def test_12_bits_in_a_16_bit_file_reach_white(tmp_path):
    path = save(tmp_path / "a.png", grey_scene().astype(np.uint16) * 16)
    assert close(read_image(path, 1, (0, 4095))[..., 0], grey_scene(), 1)
    assert load_image(path, 60, 80, 1, value_range=(0, 4095)).max() > 250
    assert load_image(path, 60, 80, 1, value_range=(0, 1000)).max() == 255  # not wrapped round


def test_16_bits_are_resized_before_they_are_rounded_to_8(tmp_path):
    stripes = np.full((40, 40), 101.6 * 257, np.uint16)
    stripes[:, ::2] = 100.6 * 257  # rounded first, these would average to 101.5
    path = save(tmp_path / "a.png", stripes)
    assert np.unique(load_image(path, 10, 10, 1)).tolist() == [101]


def test_floats_are_scaled_from_0_to_1(tmp_path):
    values = grey_scene() / np.float32(255)
    values[0, :2] = -5, 5
    path = save(tmp_path / "a.tiff", values)
    expected = grey_scene().copy()
    expected[0, :2] = 0, 255
    assert close(read_image(path, 1)[..., 0], expected, 0)


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_file_with_what_is_no_number_is_an_error(tmp_path, value):
    values = grey_scene() / np.float32(255)
    values[30, 40] = value
    path = save(tmp_path / "a.tiff", values)
    with pytest.raises(ImageError, match="a.tiff: .*NaN or infinite"):
        read_image(path, 1)


@pytest.mark.parametrize("dtype", [np.int8, np.int16, np.int32, np.float32])
def test_values_below_0_keep_their_shades(tmp_path, dtype):
    signed = grey_scene().astype(float) - 100
    signed = np.clip(signed, *((-128, 127) if dtype == np.int8 else (-100, 155))).astype(dtype)
    path = tmp_path / "a.tiff"
    if dtype == np.int8:
        path.write_bytes(tiff(signed, sample_format=2))
    else:
        save(path, signed)
    low, high = find_range([path])
    assert (low, high) == (signed.min(), signed.max()) and low < 0
    expected = np.rint((signed.astype(float) - low) * 255 / (high - low))
    assert close(read_image(path, 1, (low, high))[..., 0], expected, 0)
    assert close(load_image(path, 60, 80, 1, value_range=(low, high))[..., 0], expected, 0)


def test_values_of_32_bits_unsigned_do_not_become_negative(tmp_path):
    path = tmp_path / "a.tiff"
    values = grey_scene().astype(np.uint32) * 2**24
    path.write_bytes(tiff(values, sample_format=1))
    assert find_range([path]) == (0, 2**32 - 1)
    assert close(read_image(path, 1, (0, 2**32 - 1))[..., 0], grey_scene(), 1)


def warnings_on(path, *size, **options):
    said = []
    load_image(path, *(size or (60, 80, 1)), warn=said.append, **options)
    return said


def test_colours_that_a_fourth_channel_hides_are_remarked_on(tmp_path):
    depth = np.linspace(0, 255, 60 * 80).reshape(60, 80).astype(np.uint8)
    edge = np.full((60, 80), 255, np.uint8)
    edge[:, :30], edge[:, 30:33] = 0, 100
    for alpha, told in (
        (np.zeros_like(depth), "transparent throughout: white is read"),
        (depth, "more than a tenth is half transparent and mixed with white"),
        (edge, None),
        (np.full_like(depth, 128), None),  # a watermark, or the like: one level
    ):
        path = save(tmp_path / "a.png", np.dstack([scene(), alpha]))
        found = warnings_on(path, 60, 80, 3)
        assert len(found) == bool(told) and all(text.startswith(told) for text in found)
    assert warnings_on(save(tmp_path / "b.png", np.zeros((60, 80, 4), np.uint8)), 60, 80, 3) == []


@pytest.mark.parametrize("name", ["a.png", "a.jpg", "a.tif", "a.gif"])
def test_hue_that_a_grey_model_does_not_see_is_remarked_on(tmp_path, name):
    [said] = warnings_on(save(tmp_path / name, scene(480, 640)))
    assert said == "in colour, of which a grey model sees the brightness alone"
    noisy = np.random.default_rng(0).integers(0, 255, (480, 640, 1), np.uint8).repeat(3, 2)
    for image in (grey_scene(480, 640), noisy):
        assert warnings_on(save(tmp_path / name, image)) == []
    before = load_image(tmp_path / name, 60, 80, 1)
    assert (load_image(tmp_path / name, 60, 80, 1, warn=lambda _: None) == before).all()


def test_shapes_far_from_the_models_are_remarked_on(tmp_path):
    for size, told in (
        ((48, 480), "squashed 3 times"),
        ((480, 48), "squashed 3 times"),
        ((12, 12), "enlarged 4 times"),
        ((48, 96), None),
        ((20, 20), None),
    ):
        found = warnings_on(save(tmp_path / "a.png", grey_scene(*size)), 64, 64, 1)
        assert len(found) == bool(told) and all(told in text for text in found)
    path = save(tmp_path / "a.png", grey_scene(48, 480))
    assert warnings_on(path, 64, 64, 1, crop=(48, 48)) == warnings_on(path, 16, 160, 1) == []


def test_values_outside_the_range_are_remarked_on_where_they_are_many(tmp_path):
    values = grey_scene().astype(np.float32) - 100
    inside = {"value_range": (float(values.min()), float(values.max()))}
    path = save(tmp_path / "a.tiff", values)
    assert warnings_on(path, **inside) == warnings_on(path, 16, 16, 1, **inside) == []
    values[0, :40] = -2000  # less than 1 % of the pixels
    assert warnings_on(save(tmp_path / "a.tiff", values), **inside) == []
    values[1] = 2000
    [said] = warnings_on(save(tmp_path / "a.tiff", values), **inside)
    assert "more than 1 % of the pixels outside the run's range, -100 to 155" in said


def test_few_grey_levels_are_remarked_on_where_the_file_has_more(tmp_path):
    path = save(tmp_path / "a.png", grey_scene().astype(np.uint16))
    assert warnings_on(path, value_range=(0, 1023)) == []
    [said] = warnings_on(path, value_range=(0, 16383))
    assert said == "fewer than 16 grey levels are left in the run's range, 0 to 16383"
    path = save(tmp_path / "b.png", np.full((60, 80), 30000, np.uint16))
    assert warnings_on(path, value_range=(0, 65535)) == []
    (tmp_path / "c.png").write_bytes(png16(scene().astype(np.uint16) * 8))
    assert "the upper 8" in warnings_on(tmp_path / "c.png", 60, 80, 3)[0]
    (tmp_path / "c.png").write_bytes(png16(scene().astype(np.uint16) * 257))
    assert warnings_on(tmp_path / "c.png", 60, 80, 3) == []


def test_file_of_another_depth_than_the_training_images_is_remarked_on(tmp_path):
    shallow = save(tmp_path / "a.png", grey_scene())
    deep = save(tmp_path / "b.png", grey_scene().astype(np.uint16) * 257)
    assert warnings_on(shallow) == warnings_on(deep, value_range=(0, 65535)) == []
    [said] = warnings_on(shallow, value_range=(0, 4095))
    assert "8 bits a channel" in said and "0 to 4095" in said
    [said] = warnings_on(deep)
    assert "training images have 8: 0 to 65535" in said


def test_16_bit_colour_is_read(tmp_path):
    (tmp_path / "a.png").write_bytes(png16(scene().astype(np.uint16) * 257))
    assert close(read_image(tmp_path / "a.png", 3), scene(), 0)


def tiff(pixels, sample_format):
    """A little-endian grey TIFF of a sort that Pillow cannot write. pixels: (h, w)."""
    (h, w), start = pixels.shape, 8 + 2 + 9 * 12 + 4
    fields = {256: w, 257: h, 258: 8 * pixels.itemsize, 259: 1, 262: 1, 273: start, 277: 1}
    fields |= {279: pixels.nbytes, 339: sample_format}
    entries = b"".join(struct.pack("<HHII", tag, 4, 1, value) for tag, value in fields.items())
    return b"II\x2a\0\x08\0\0\0" + struct.pack("<H", 9) + entries + bytes(4) + pixels.tobytes()


def broken_files(folder):
    whole = save(folder / "whole.jpg", scene()).read_bytes()
    png = save(folder / "whole.png", scene()).read_bytes()
    small = png.index(b"IHDR") + 4
    header = b"IHDR" + struct.pack(">II", 60_000, 60_000) + png[small + 8 : small + 13]
    huge = png[: small - 4] + header + struct.pack(">I", zlib.crc32(header)) + png[small + 17 :]
    return {
        "cut.jpg": (whole[: len(whole) // 2], "truncated"),
        "cut.png": (png[: len(png) // 2], "cannot be read"),
        "empty.png": (b"", "empty file"),
        "text.png": (b"<html>quota exceeded</html>", "not an image"),
        "header.png": (huge, "its header says 60000 x 60000 pixels, in"),
        "huge.png": (
            huge + bytes(12_000_000),
            r"60000 x 60000 pixels take up to .* GB .*: cut it into tiles",
        ),
        "garbled.png": (png[:50] + bytes(40) + png[90:], "cannot be read"),
    }


def test_broken_files_are_errors_with_name_and_reason(tmp_path):
    for name, (content, reason) in broken_files(tmp_path).items():
        (tmp_path / name).write_bytes(content)
        for read in (lambda p: read_image(p, 3), lambda p: load_image(p, 16, 16, 1)):
            with pytest.raises(ImageError, match=f"(?i){name}: .*{reason}") as error:
                read(tmp_path / name)
            assert "\n" not in str(error.value)
            assert error.value.reason in str(error.value) and name not in error.value.reason


def test_memory_that_is_not_there_costs_the_one_file(tmp_path, monkeypatch):
    path = save(tmp_path / "a.png", scene())
    monkeypatch.setattr(utils, "flat", lambda *_: (_ for _ in ()).throw(MemoryError))
    with pytest.raises(ImageError, match="a.png: takes more memory than there is"):
        load_image(path, 16, 16, 1)


def test_what_pillow_and_libtiff_say_of_damaged_files_reaches_no_console(tmp_path):
    path = tmp_path / "a.tif"
    Image.fromarray(np.arange(6000, dtype=np.uint8).reshape(60, 100)).save(
        path, compression="tiff_deflate"
    )
    content = bytearray(path.read_bytes())
    content[content.index(b"\x78") + 20] ^= 0xFF
    path.write_bytes(content)
    code = """if True:
        import sys, utils
        from PIL import TiffImagePlugin
        TiffImagePlugin.logger.warning("said of a file")
        source = compile("import warnings; warnings.warn('said of a file')", "x", "exec")
        exec(source, {"__name__": "PIL.TiffImagePlugin"})
        try:
            utils.load_image(sys.argv[1], 16, 16, 1)
        except utils.ImageError:
            print("damaged")
    """
    command, root = [sys.executable, "-c", code, str(path)], Path(utils.__file__).parent
    done = subprocess.run(command, capture_output=True, cwd=root)
    assert (done.stdout, done.stderr) == (b"damaged\n", b"")


def test_image_that_pillow_takes_for_an_attack_is_read(tmp_path):
    path = save(tmp_path / "scan.jpg", Image.new("L", (14_000, 13_000), 90))  # above both limits
    assert np.unique(load_image(path, 16, 16, 1)).tolist() == [90]


def test_large_images_are_decoded_one_at_a_time(tmp_path, monkeypatch):
    path = save(tmp_path / "a.png", scene())
    at_work, most = [], []
    real = utils.flat

    def flat(*arguments):
        at_work.append(1)
        time.sleep(0.02)
        most.append(len(at_work))
        at_work.pop()
        return real(*arguments)

    monkeypatch.setattr(utils, "flat", flat)
    monkeypatch.setattr(opening, "LARGE", 60 * 80 - 1)
    with ThreadPoolExecutor(4) as threads:
        list(threads.map(lambda _: load_image(path, 16, 16, 3), range(4)))
    assert most == [1, 1, 1, 1]


def test_a_large_colour_jpeg_is_read_by_a_grey_model(tmp_path, monkeypatch):
    """It is opened anew for its colours, while it is at work itself."""
    path = save(tmp_path / "a.jpg", Image.fromarray(scene()))
    monkeypatch.setattr(opening, "LARGE", 60 * 80 - 1)
    told, found = [], []
    reading = threading.Thread(
        target=lambda: found.append(load_image(path, 16, 16, 1, warn=told.append)), daemon=True
    )
    reading.start()
    reading.join(20)
    assert found and any("in colour" in line for line in told)


# cropping and resizing


def test_crop_takes_the_centre(tmp_path):
    path = save(tmp_path / "a.png", scene(61, 80))
    assert close(load_image(path, 40, 30, 3, crop=(40, 30)), scene(61, 80)[10:50, 25:55], 0)


def test_nothing_outside_the_crop_bleeds_in(tmp_path):
    image = np.full((100, 100), 255, np.uint8)
    image[20:80, 20:80] = 60
    path = save(tmp_path / "a.png", image)
    assert np.unique(load_image(path, 25, 20, 1, crop=(60, 60))).tolist() == [60]


def test_image_smaller_than_the_crop_is_an_error_with_both_sizes(tmp_path):
    path = save(tmp_path / "small.png", scene(60, 200))
    with pytest.raises(ImageError, match="small.png: 60 x 200 pixels, .* 108 x 108: lower"):
        load_image(path, 64, 64, 3, crop=(108, 108))
    with pytest.raises(ImageError, match="small.png"):
        load_image(path, 64, 64, 3, crop=(60, 201))


def test_resize_averages_over_the_pixels_it_merges(tmp_path):
    checks = (np.indices((128, 128)).sum(0) % 2 * 255).astype(np.uint8)
    path = save(tmp_path / "a.png", checks)
    assert close(load_image(path, 16, 16, 1), np.full((16, 16, 1), 128), 3)


def test_whole_image_is_resized_without_crop_to_any_shape(tmp_path):
    path = save(tmp_path / "a.png", scene())
    out = load_image(path, 30, 20, 3)
    expected = scene().reshape(30, 2, 20, 4, 3).mean((1, 3))
    assert out.shape == (30, 20, 3) and np.abs(out - expected).mean() < 3


@pytest.mark.parametrize("orientation", [1, 6])
@pytest.mark.parametrize("crop", [None, (801, 907)])
def test_large_jpeg_is_decoded_small_with_the_same_result(tmp_path, monkeypatch, crop, orientation):
    exif = Image.Exif()
    exif[0x0112] = orientation
    picture = Image.fromarray(scene(251, 253)).resize((1011, 1003))
    path = save(tmp_path / "a.jpg", picture, exif=exif)
    sizes = []
    real = Image.Image.crop
    monkeypatch.setattr(Image.Image, "crop", lambda i, box: sizes.append(i.width) or real(i, box))
    quick = load_image(path, 48, 64, 3, crop)
    monkeypatch.setattr(utils, "SPARE", 10**6)
    whole = load_image(path, 48, 64, 3, crop)
    assert sizes[0] < 300 and sizes[1] > 1000
    assert np.abs(quick.astype(int) - whole).mean() < 0.3


# looking at samples


def test_probe_tells_grey_from_colour(tmp_path):
    grey = save(tmp_path / "a.png", np.stack([grey_scene()] * 3, -1))  # grey, stored as colour
    grey_jpeg = save(tmp_path / "a.jpg", np.stack([grey_scene()] * 3, -1))
    colour = save(tmp_path / "b.png", scene())
    assert probe([grey, grey_jpeg])[0] == 1
    assert probe([grey, colour, grey])[0] == 3


@pytest.mark.parametrize(
    "low, high, expected",
    [
        (100, 200, (0, 255)),
        (128, 256, (0, 1023)),
        (500, 1023, (0, 1023)),
        (2000, 4000, (0, 4095)),
        (0, 65535, (0, 65535)),
        (29000, 31000, (29000, 31000)),  # of 0 to 65535, 8 of 256 grey levels would be left
        (7, 7, (7, 8)),
    ],
)
def test_range_of_whole_numbers_leaves_room_above_unless_it_is_narrow(
    tmp_path, low, high, expected
):
    dark = save(tmp_path / "a.png", np.full((9, 9), low, np.uint16))
    bright = save(tmp_path / "b.tiff", np.full((9, 9), high, np.uint16))
    shallow = save(tmp_path / "c.png", grey_scene())
    (tmp_path / "d.tiff").write_bytes(b"broken")
    paths = [shallow, dark, bright, tmp_path / "d.tiff", dark]
    assert probe(paths) == (1, True) and find_range(paths) == expected


@pytest.mark.parametrize(
    "low, high, expected",
    [
        (0, 1, (0, 1)),
        (0.2, 0.9, (0, 1)),
        (0, 1.2, (0, 1.2)),
        (-0.1, 1, (-0.1, 1)),
        (0, 254.6, (0, 255)),
        (280, 310.5, (280, 310.5)),
        (-1024, 3071, (-1024, 3071)),
    ],
)
def test_range_of_floats_is_their_own_unless_it_is_a_usual_one(tmp_path, low, high, expected):
    path = save(tmp_path / "a.tiff", np.linspace(low, high, 81, dtype=np.float32).reshape(9, 9))
    assert probe([path]) == (1, True)
    assert find_range([path]) == pytest.approx(expected)


def test_probe_says_of_8_bits_that_they_need_no_range(tmp_path):
    assert probe([save(tmp_path / "b.png", grey_scene())]) == (1, False)


def test_probe_ignores_broken_files_unless_all_are(tmp_path):
    colour = save(tmp_path / "b.png", scene())
    (tmp_path / "a.png").write_bytes(b"")
    assert probe([tmp_path / "a.png", colour])[0] == 3
    with pytest.raises(UserError, match="none of 1 .*a.png: an empty file"):
        probe([tmp_path / "a.png"])


# arrays and writing


def test_bytes_survive_the_way_to_floats_and_back():
    values = np.arange(256, dtype=np.uint8)
    floats = utils.to_float(values)
    assert floats.dtype == np.float32 and floats[0] == -1 and floats[-1] == 1
    assert (utils.to_uint8(floats) == values).all()
    assert utils.to_uint8(np.array([-3.0, 0.003, 1.001])).tolist() == [0, 128, 255]


def test_tile_lays_images_out_row_by_row():
    images = np.stack([np.full((4, 6, 3), 10 * i, np.uint8) for i in range(1, 6)])
    grid = tile(images, columns=3, pad=1, background=7)
    assert grid.shape == (2 * 5 + 1, 3 * 7 + 1, 3)
    assert (grid[1:5, 15:21] == 30).all() and (grid[6:10, 1:7] == 40).all()
    assert (grid[6:10, 15:21] == 7).all() and (grid[0] == 7).all() and (grid[:, -1] == 7).all()
    assert tile(images).shape == tile(images, columns=3).shape
    assert (tile(utils.to_float(images), columns=3, pad=1, background=7) == grid).all()


@pytest.mark.parametrize("shape", [(5, 7), (5, 7, 1), (5, 7, 3)])
def test_saved_image_reads_back(tmp_path, shape):
    image = np.random.default_rng(0).integers(0, 256, shape, np.uint8)
    save_image(tmp_path / "new/deep/a.png", image)
    channels = shape[2] if len(shape) == 3 else 1
    assert (read_image(tmp_path / "new/deep/a.png", channels) == image.reshape(5, 7, -1)).all()


def test_saving_to_an_unknown_type_or_an_impossible_place_is_one_line(tmp_path):
    image = np.zeros((4, 4, 1), np.uint8)
    with pytest.raises(UserError, match="a.xyz: .xyz is no image type; use .png"):
        save_image(tmp_path / "a.xyz", image)
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match="a.png cannot be written"):
        save_image(tmp_path / "file" / "a.png", image)


def test_file_is_replaced_whole_or_not_at_all(tmp_path, monkeypatch):
    path = tmp_path / "a.txt"
    files.write_atomic(path, "old")
    seen = []
    real = os.replace

    def replace(source, target):
        seen.append((Path(source).read_bytes(), Path(source).parent, path.read_text()))
        real(source, target)

    monkeypatch.setattr(os, "replace", replace)
    files.write_atomic(path, "néw")
    assert seen == [("néw".encode(), tmp_path, "old")] and path.read_bytes() == "néw".encode()

    def interrupted(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr(os, "replace", interrupted)
    with pytest.raises(KeyboardInterrupt):
        files.write_atomic(path, b"newer")
    assert path.read_bytes() == "néw".encode() and os.listdir(tmp_path) == ["a.txt"]


def test_written_file_has_the_usual_permissions(tmp_path):
    files.write_atomic(tmp_path / "a", "x")
    (tmp_path / "b").write_text("x")
    assert (tmp_path / "a").stat().st_mode == (tmp_path / "b").stat().st_mode


# files that are small and take long


def many_scans(folder, name="a.jpg", extra=200):
    """A JPEG whose last scan is there again and again."""
    path = save(folder / name, scene(), format="JPEG", progressive=True)
    content = path.read_bytes()
    start = content.rindex(b"\xff\xda")
    path.write_bytes(content[:-2] + content[start:-2] * extra + content[-2:])
    return path


@pytest.mark.parametrize(
    "read",
    [
        *(lambda p: load_image(p, 16, 16, 3), lambda p: load_image(p.open("rb"), 16, 16, 3)),
        lambda p: load_image(Image.open(p), 16, 16, 3),
        *(lambda p: read_image(p, 3), utils.read_mask, lambda p: probe([p])),
    ],
)
def test_a_jpeg_of_many_scans_is_an_error_of_one_line(tmp_path, read):
    path = many_scans(tmp_path)
    told = "has 210 scans, and more than 100 take long: save it anew"
    with pytest.raises(UserError, match=told):
        read(path)
    assert image_size(path) == (60, 80)


def test_what_only_looks_like_scans_does_not_count(tmp_path):
    """In a preview, or behind the end, where phones put a film."""
    image = scene()
    usual = save(tmp_path / "a.jpg", image, progressive=True)
    content = usual.read_bytes()
    scans = b"\xff\xda" * 500
    note = b"\xff\xe5" + struct.pack(">H", len(scans) + 2) + scans
    other = tmp_path / "b.jpg"
    other.write_bytes(content[:2] + note + content[2:] + scans)
    assert (read_image(other, 3) == read_image(usual, 3)).all()
    assert opening.scans(many_scans(tmp_path, extra=0).read_bytes()) == 10


def test_a_plain_pbm_of_many_comments_is_an_error(tmp_path):
    path = tmp_path / "a.pbm"
    path.write_bytes(b"P1 8 8\n" + b"#\n" * 2000 + b"1 " * 64)
    with pytest.raises(ImageError, match="has 2000 comments among its pixels: save it anew"):
        read_image(path, 1)
    path.write_bytes(b"P1 8 8\n" + b"#\n" * 20 + b"1 " * 64)
    assert not read_image(path, 1).any()


def test_a_program_is_no_image(tmp_path, monkeypatch):
    from PIL import EpsImagePlugin

    path = save(tmp_path / "a.eps", grey_scene())
    shutil.copy(path, tmp_path / "b.png")
    monkeypatch.setattr(EpsImagePlugin, "Ghostscript", lambda *_: pytest.fail("it is run"))
    for name in ("a.eps", "b.png"):
        with pytest.raises(ImageError, match="not an image that Pillow reads"):
            read_image(tmp_path / name, 1)
