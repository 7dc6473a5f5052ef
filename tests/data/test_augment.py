"""Random image operations: nothing at zero strength, the rest by hand."""

import colorsys

import numpy as np
import pytest

from big_mm.data import augment

IMAGE = np.random.default_rng(0).integers(0, 256, (20, 30, 3), dtype=np.uint8)
SMOOTH = np.stack(
    [np.linspace(60, 190, 32)[:, None] + 0 * np.arange(32)] * 3, -1
).astype(np.uint8)


class Fixed(np.random.Generator):
    """Its uniform numbers are all at one place of their range."""

    def __init__(self, place):
        super().__init__(np.random.PCG64(0))
        self.place = place

    def uniform(self, low=0.0, high=1.0, size=None):
        value = low + (high - low) * self.place
        return value if size is None else np.full(size, value)

    def random(self, size=None):
        return min(self.place, 0.999) if size is None else np.full(size, self.place)


def rng(seed=0):
    return np.random.default_rng(seed)


IDLE = [
    (augment.flip, dict(probability=0.0)),
    (augment.affine, {}),
    (augment.colour_jitter, {}),
    (augment.colour_jitter, dict(brightness=0.9, probability=0.0)),
    (augment.grayscale, dict(probability=0.0)),
    (augment.blur, dict(sigma_px=(0.0, 0.0), probability=1.0)),
    (augment.solarize, dict(probability=0.0)),
    (augment.cutout, dict(fraction=0.0, probability=1.0)),
    (augment.random_crop, dict(size_px=(20, 30))),
    (
        augment.random_resized_crop,
        dict(size_px=(20, 30), area=(1, 1), ratio=(1.5, 1.5)),
    ),
]
BUSY = [
    (augment.flip, dict(probability=1.0)),
    (augment.affine, dict(degrees=30.0)),
    (augment.affine, dict(scale=0.5)),
    (augment.affine, dict(shift_fraction=0.3)),
    (augment.affine, dict(shear_degrees=20.0)),
    (augment.colour_jitter, dict(brightness=0.4)),
    (augment.colour_jitter, dict(contrast=0.4)),
    (augment.colour_jitter, dict(saturation=0.4)),
    (augment.colour_jitter, dict(hue_degrees=40.0)),
    (augment.grayscale, dict(probability=1.0)),
    (augment.blur, dict(probability=1.0, sigma_px=(1.0, 2.0))),
    (augment.solarize, dict(probability=1.0)),
    (augment.cutout, dict(probability=1.0, fraction=0.9)),
    (augment.random_crop, dict(size_px=(20, 20))),
    (augment.random_resized_crop, dict(size_px=20)),
]


@pytest.mark.parametrize(("operation", "settings"), IDLE)
def test_zero_strength_changes_nothing(operation, settings):
    for seed in range(5):
        got = operation(IMAGE, rng=rng(seed), **settings)
        np.testing.assert_array_equal(got, IMAGE)


@pytest.mark.parametrize(("operation", "settings"), BUSY)
def test_the_random_numbers_decide(operation, settings):
    before = IMAGE.copy()
    a = operation(IMAGE, rng=rng(0), **settings)
    b = operation(IMAGE, rng=rng(0), **settings)
    np.testing.assert_array_equal(a, b)
    assert a.dtype == np.uint8
    assert a.ndim == 3
    if "size_px" not in settings:
        assert a.shape == IMAGE.shape
    assert a.shape != IMAGE.shape or (a != IMAGE).any()
    np.testing.assert_array_equal(IMAGE, before)  # cached images stay as they are


def test_a_flip_is_the_mirror_and_comes_as_often_as_asked():
    np.testing.assert_array_equal(
        augment.flip(IMAGE, rng=rng(), probability=1.0), IMAGE[:, ::-1]
    )
    stream = rng()
    flips = [augment.flip(IMAGE, rng=stream, probability=0.3) for _ in range(2000)]
    share = np.mean([flipped is not IMAGE for flipped in flips])
    assert share == pytest.approx(0.3, abs=0.031)  # three standard deviations


def test_a_quarter_turn_and_a_whole_shift_move_pixels_exactly():
    square = IMAGE[:, :20]
    turned = augment.affine(square, rng=Fixed(1.0), degrees=90.0)
    back = augment.affine(turned, rng=Fixed(0.0), degrees=90.0)
    np.testing.assert_array_equal(turned, np.rot90(square, -1))
    np.testing.assert_array_equal(back, square)
    shifted = augment.affine(IMAGE, rng=Fixed(1.0), shift_fraction=0.1, fill=(1, 2, 3))
    np.testing.assert_array_equal(shifted[2:, 3:], IMAGE[:-2, :-3])
    assert (shifted[:2] == (1, 2, 3)).all()
    assert (shifted[:, :3] == (1, 2, 3)).all()


def test_shifts_down_and_to_the_right_are_independent_and_in_range():
    dot = np.zeros((41, 41, 3), np.uint8)
    dot[20, 20] = 255
    stream, places = rng(), []
    for _ in range(200):
        moved = augment.affine(dot, rng=stream, shift_fraction=0.2, fill=0)[..., 0]
        places.append(np.argwhere(moved == moved.max())[0] - 20)
    places = np.array(places)
    assert np.abs(places).max() == 8  # 0.2 * 41 = 8.2
    assert abs(np.corrcoef(places.T)[0, 1]) < 0.25


def test_scale_is_about_the_centre_and_even_on_both_sides():
    dot = np.zeros((33, 33, 3), np.uint8)
    dot[8:25, 8:25] = 200  # 17 px wide
    large = augment.affine(dot, rng=Fixed(1.0), scale=0.5, fill=0)
    small = augment.affine(dot, rng=Fixed(0.0), scale=0.5, fill=0)
    for scaled, factor in ((large, 1.5), (small, 1 / 1.5)):
        mass = scaled[..., 0].astype(float).sum() / 200
        assert np.sqrt(mass) == pytest.approx(17 * factor, abs=0.5)
        np.testing.assert_array_equal(scaled, scaled[::-1, ::-1])


def test_colours_by_hand():
    colour = np.full((4, 4, 3), (100, 50, 20), np.uint8)
    brighter = augment.colour_jitter(colour, rng=Fixed(0.9), brightness=0.5)
    np.testing.assert_array_equal(brighter[0, 0], [140, 70, 28])  # times 1.4
    duller = augment.colour_jitter(colour, rng=Fixed(0.0), saturation=1.0)
    grey = round(0.299 * 100 + 0.587 * 50 + 0.114 * 20)  # 62
    np.testing.assert_array_equal(duller[0, 0], [grey] * 3)
    flat = augment.colour_jitter(SMOOTH, rng=Fixed(0.0), contrast=1.0)
    assert np.ptp(flat) == 0
    assert flat[0, 0, 0] == pytest.approx(SMOOTH.mean(), abs=1)
    with np.errstate(all="raise"):  # cut off, not wrapped round
        white = augment.colour_jitter(colour * 2, rng=Fixed(0.99), brightness=1.0)
    assert white[0, 0, 0] == 255


def test_greys_have_no_hue_and_a_turn_keeps_the_luma():
    turned = augment.colour_jitter(SMOOTH, rng=Fixed(1.0), hue_degrees=120.0)
    np.testing.assert_allclose(turned.astype(int), SMOOTH, atol=1)
    colour = np.full((2, 2, 3), (150, 100, 90), np.uint8)
    hues = []
    for degrees in (90.0, 180.0):
        turned = augment.colour_jitter(
            colour, rng=Fixed(0.99), hue_degrees=degrees / 0.98
        )
        luma = turned[0, 0] @ np.array([0.299, 0.587, 0.114])
        assert luma == pytest.approx(113.81, abs=1)
        hues.append(colorsys.rgb_to_hsv(*turned[0, 0] / 255.0)[0])
    start = colorsys.rgb_to_hsv(150 / 255, 100 / 255, 90 / 255)[0]
    assert abs(hues[1] - start) == pytest.approx(0.5, abs=0.06)  # half the circle
    assert abs(hues[0] - start) > 0.15


def test_grayscale_solarize_blur_and_cutout():
    grey = augment.grayscale(IMAGE, rng=rng(), probability=1.0)
    luma = np.rint(IMAGE @ np.array([0.299, 0.587, 0.114]))
    np.testing.assert_allclose(grey, luma[..., None].repeat(3, 2), atol=1)
    solar = augment.solarize(IMAGE, rng=rng(), probability=1.0)
    np.testing.assert_array_equal(solar, np.minimum(IMAGE, 255 - IMAGE))
    soft = augment.blur(IMAGE, rng=rng(), probability=1.0, sigma_px=(2, 2))
    assert soft.std() < IMAGE.std() / 2
    assert soft.mean() == pytest.approx(IMAGE.mean(), abs=4)
    hole = augment.cutout(
        np.zeros((20, 20, 3), np.uint8), rng=Fixed(0.5), fraction=0.8, probability=1.0
    )
    expected = np.zeros((20, 20, 3), np.uint8)
    expected[6:14, 6:14] = 255  # a side of 0.8 * 0.5 * 20 = 8 px in the middle
    np.testing.assert_array_equal(hole, expected)


def test_cutouts_and_crops_reach_every_pixel():
    stream = rng()
    blank = np.zeros((8, 8, 3), np.uint8)
    hit = sum(
        augment.cutout(blank, rng=stream, fraction=0.5).astype(int) for _ in range(999)
    )
    assert (hit > 0).all()
    ramp = np.arange(64, dtype=np.uint8).reshape(8, 8, 1).repeat(3, 2)
    corners = {
        int(augment.random_crop(ramp, rng=stream, size_px=(7, 5))[0, 0, 0])
        for _ in range(200)
    }
    assert corners == {0, 1, 2, 3, 8, 9, 10, 11}
    with pytest.raises(ValueError, match="Resize first"):
        augment.random_crop(ramp, rng=stream, size_px=9)


def test_resized_crops_have_the_area_asked_for():
    rows, columns = np.mgrid[:60, :90]
    place = np.stack([rows, columns, 0 * rows], -1).astype(np.uint8)
    stream = rng()
    for _ in range(50):
        crop = augment.random_resized_crop(
            place, rng=stream, size_px=64, area=(0.25, 0.5)
        ).astype(int)
        height, width = (np.ptp(crop[..., k]) + 1 for k in (0, 1))
        assert 0.25 - 0.03 <= height * width / 5400 <= 0.5 + 0.03
        assert 3 / 4 - 0.05 <= width / height <= 4 / 3 + 0.05
