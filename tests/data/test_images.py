"""Image operations: equal to the reference's pixels, and whatever comes in decodes."""

import io
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from big_mm.data import images

GOLDEN = np.load(Path(__file__).parents[1] / "golden/bv_pp_tiny.npz")
PICTURE = GOLDEN["in/image"]  # uint8 (37, 53, 3)


def encode(image, format, **settings):
    buffer = io.BytesIO()
    image.save(buffer, format, **settings)
    return buffer.getvalue()


def pipeline(*sections):
    return images.Pipeline([dict(name=f"data.images:{n}", **s) for n, s in sections])


@pytest.mark.parametrize(
    ("key", "sections"),
    [
        ("resize32", [("resize", dict(size_px=32))]),
        ("resize32_aa", [("resize", dict(size_px=32, antialias=True))]),
        ("resize32_vr", [("resize", dict(size_px=32)), ("value_range", {})]),
        (
            "small40_cc32",
            [
                ("resize_small", dict(size_px=40)),
                ("central_crop", dict(size_px=32)),
                ("value_range", {}),
            ],
        ),
        (
            "square875",
            [
                ("resize", dict(size_px=36)),
                ("central_crop", dict(size_px=32)),
                ("value_range", {}),
            ],
        ),
    ],
)
def test_pipelines_equal_the_reference_to_the_bit(key, sections):
    got = pipeline(*sections)(PICTURE)
    assert got.dtype == GOLDEN[f"pp/{key}"].dtype
    np.testing.assert_array_equal(got, GOLDEN[f"pp/{key}"])


def bilinear_by_definition(image, height, width):
    """One output pixel at a time, in float32 throughout."""
    f = np.float32
    out = np.zeros((height, width, 3), np.uint8)
    for row in range(height):
        y = (f(row) + f(0.5)) * (f(image.shape[0]) / f(height)) - f(0.5)
        y0 = max(int(np.floor(y)), 0)
        y1 = min(int(np.ceil(y)), image.shape[0] - 1)
        dy = y - np.floor(y)
        for column in range(width):
            x = (f(column) + f(0.5)) * (f(image.shape[1]) / f(width)) - f(0.5)
            x0 = max(int(np.floor(x)), 0)
            x1 = min(int(np.ceil(x)), image.shape[1] - 1)
            dx = x - np.floor(x)
            a, b = image[y0, x0].astype(f), image[y0, x1].astype(f)
            c, d = image[y1, x0].astype(f), image[y1, x1].astype(f)
            top, bottom = a + (b - a) * dx, c + (d - c) * dx
            out[row, column] = (top + (bottom - top) * dy).astype(np.uint8)
    return out


@pytest.mark.parametrize(
    ("source", "target"),
    [((51, 91), (64, 26)), ((20, 31), (33, 57)), ((7, 5), (1, 40))],
)
def test_the_fast_resize_equals_the_definition(source, target):
    image = np.random.default_rng(0).integers(0, 256, (*source, 3), dtype=np.uint8)
    got = images.resize(image, size_px=target)
    np.testing.assert_array_equal(got, bilinear_by_definition(image, *target))


@pytest.mark.parametrize("method", ["bilinear", "area"])
def test_a_flat_image_stays_flat(method):
    for value in (0, 1, 254, 255):
        flat = np.full((53, 37, 3), value, np.uint8)
        assert (images.resize(flat, size_px=24, method="bilinear") == value).all()
        got = images.resize(flat.astype(np.float32), size_px=24, method=method)
        np.testing.assert_allclose(got, value, rtol=1e-5)  # sums of float32 weights


def test_area_of_a_whole_reduction_is_the_mean_of_blocks():
    image = np.random.default_rng(1).integers(0, 256, (12, 8, 3)).astype(np.float32)
    mean = image.reshape(4, 3, 4, 2, 3).mean((1, 3))
    got = images.resize(image, size_px=4, method="area")
    np.testing.assert_allclose(got, mean, rtol=1e-6)


def test_naflex_sizes_equal_the_reference_table():
    for *arguments, height, width in GOLDEN["naflex/size_table_h_w_patch_seq_H_W"]:
        h, w, patch, tokens = map(int, arguments)
        got = images.naflex_size(h, w, patch_px=patch, max_tokens=tokens)
        assert got == (height, width)


@pytest.mark.parametrize(
    ("size", "patch_px", "max_tokens", "expected"),
    [  # worked out beside the formula, apart from the reference
        ((63, 241), 16, 16, (32, 128)),
        ((480, 640), 16, 64, (112, 144)),
        ((1080, 1920), 16, 576, (288, 512)),
        ((2200, 1700), 16, 1024, (576, 448)),
        ((333, 500), 16, 576, (304, 464)),
        ((512, 512), 16, 784, (448, 448)),
    ],
)
def test_naflex_sizes(size, patch_px, max_tokens, expected):
    settings = dict(patch_px=patch_px, max_tokens=max_tokens)
    assert images.naflex_size(*size, **settings) == expected
    assert images.naflex_size(*size[::-1], **settings) == expected[::-1]


@pytest.mark.parametrize("number", [0, 1, 2])
def test_naflex_pixels_equal_the_reference(number):
    patches = GOLDEN[f"naflex/{number}/patches"]
    present = GOLDEN[f"naflex/{number}/type"] == 1
    ops = pipeline(
        ("value_range", {}),
        ("naflex_resize", dict(patch_px=8, max_tokens=len(patches))),
    )
    got = ops(GOLDEN[f"naflex/{number}/image"])
    rows, columns = got.shape[0] // 8, got.shape[1] // 8
    got = got.reshape(rows, 8, columns, 8, 3).transpose(0, 2, 1, 3, 4).reshape(-1, 192)
    np.testing.assert_allclose(got, patches[present], atol=2e-7, rtol=0)


def test_value_range_by_hand():
    image = np.array([[[0, 51, 255]]], np.uint8)
    got = images.value_range(image)
    assert got.dtype == np.float32
    np.testing.assert_allclose(got, [[[-1, -0.6, 1]]], atol=1e-7)
    np.testing.assert_allclose(
        images.value_range(image, low=0, high=1), [[[0, 0.2, 1]]]
    )


def test_every_form_of_a_picture_decodes_to_the_same_pixels(tmp_path):
    picture = Image.fromarray(PICTURE)
    path = tmp_path / "picture.png"
    picture.save(path)
    forms = [
        PICTURE,
        picture,
        path,
        str(path),
        path.read_bytes(),
        encode(picture, "WEBP", lossless=True),
        encode(picture, "BMP"),
    ]
    for form in forms:
        got = images.decode(form)
        assert got.dtype == np.uint8
        np.testing.assert_array_equal(got, PICTURE)


@pytest.mark.parametrize("format", ["PNG", "WEBP"])
def test_transparency_lies_on_white(format):
    pixels = np.zeros((1, 3, 4), np.uint8)
    pixels[0, :, 0] = 100
    pixels[0, :, 3] = 0, 255, 51  # a fifth: 100/5 + 255*4/5 = 224 and 204
    data = encode(Image.fromarray(pixels), format, lossless=True, exact=True)
    expected = [[[255, 255, 255], [100, 0, 0], [224, 204, 204]]]
    np.testing.assert_array_equal(images.decode(data), expected)


def test_palettes_greys_and_sixteen_bits():
    palette = Image.fromarray(np.array([[0, 1]], np.uint8), "P")
    palette.putpalette([10, 20, 30, 40, 50, 60])
    got = images.decode(encode(palette, "PNG", transparency=1))
    np.testing.assert_array_equal(got, [[[10, 20, 30], [255, 255, 255]]])
    grey = Image.fromarray(np.array([[7, 200]], np.uint8))
    expected = [[[7] * 3, [200] * 3]]
    np.testing.assert_array_equal(images.decode(encode(grey, "PNG")), expected)
    deep = Image.fromarray(np.array([[7, 200]], np.uint16) * 256 + 99)
    np.testing.assert_array_equal(images.decode(encode(deep, "PNG")), expected)


def test_jpegs_of_all_kinds():
    rows = np.linspace(0, 255, 40).astype(np.uint8)
    smooth = np.stack(np.broadcast_arrays(rows[:, None], rows[None], 128), -1)
    picture = Image.fromarray(smooth.astype(np.uint8))
    reference = images.decode(encode(picture, "JPEG", quality=95))
    np.testing.assert_allclose(reference.astype(int), smooth, atol=8)
    inks = images.decode(encode(picture.convert("CMYK"), "JPEG", quality=95))
    np.testing.assert_allclose(inks.astype(int), smooth, atol=12)
    exif = Image.Exif()
    exif[0x0112] = 6  # turned by a quarter
    turned = images.decode(encode(picture, "JPEG", quality=95, exif=exif))
    np.testing.assert_array_equal(turned, np.rot90(reference, -1))
    exif_png = images.decode(encode(picture, "PNG", exif=exif))
    np.testing.assert_array_equal(exif_png, np.rot90(smooth, -1))


def test_what_cannot_be_decoded_is_refused(tmp_path):
    noise = np.random.default_rng(0).integers(0, 256, (99, 99, 3), dtype=np.uint8)
    jpeg = encode(Image.fromarray(noise), "JPEG")
    for bad in (b"", b"nonsense", jpeg[: len(jpeg) * 3 // 4], jpeg[:20]):
        with pytest.raises(ValueError, match="cannot be decoded"):
            images.decode(bad)
    with pytest.raises(ValueError, match=r"cannot be read.*nowhere\.png"):
        images.decode(tmp_path / "nowhere.png")
    with pytest.raises(ValueError, match=r"uint8.*float32"):
        images.decode(PICTURE.astype(np.float32))


def test_crops_and_padding():
    np.testing.assert_array_equal(
        images.central_crop(PICTURE, size_px=(3, 5)), PICTURE[17:20, 24:29]
    )
    with pytest.raises(ValueError, match="Resize first"):
        images.central_crop(PICTURE, size_px=38)
    square = images.pad_square(PICTURE)
    np.testing.assert_array_equal(square[8:45], PICTURE)
    assert (square[:8] == 255).all()
    assert (square[45:] == 255).all()


def test_a_wrong_section_is_refused_when_the_pipeline_is_built():
    with pytest.raises(ValueError, match="Did you mean 'resize'"):
        pipeline(("resise", {}))
    with pytest.raises(ValueError, match="Did you mean 'size_px'"):
        pipeline(("resize", dict(sizepx=3)))
    with pytest.raises(ValueError, match=r"needs \['size_px'\]"):
        pipeline(("resize", {}))
