"""Pictures: what they show is checked pixel by pixel where it can be; that they are beautiful was checked by eye."""

from __future__ import annotations

import re
import subprocess
import sys
from itertools import combinations
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from minidcnn.data import Sample
from minidcnn.segmentation import figures
from minidcnn.segmentation.figures import WRONG
from minidcnn.segmentation.gallery import samples
from minidcnn.segmentation.metrics import ConfusionMatrix
from minidcnn.segmentation.paint import STRIPES, as_colours, as_rgb

PALETTE = np.array([[0, 0, 0], [250, 120, 10], [10, 200, 90]], np.uint8)


def pixels(path: Path) -> np.ndarray:
    with Image.open(path) as image:
        return np.asarray(image.convert("RGB"))


def count(picture: np.ndarray, colour: np.ndarray) -> int:
    return int((picture == colour).all(axis=-1).sum())


# -- images that can be shown ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("channels", [1, 2, 3, 4, 7])
def test_any_number_of_channels(channels: int, rng: np.random.Generator) -> None:
    image = rng.integers(0, 256, (channels, 5, 7), np.uint8)
    shown = as_rgb(image)
    assert shown.shape == (5, 7, 3)
    assert shown.dtype == np.uint8
    for c in range(3):
        np.testing.assert_array_equal(shown[..., c], image[c if channels >= 3 else 0])


def test_kinds_of_numbers() -> None:
    ramp = np.linspace(0, 1, 12).reshape(3, 4)
    expected = np.round(255 * ramp)
    for image in (ramp, ramp.astype(np.float32), np.round(65535 * ramp).astype(np.uint16), np.round(255 * ramp).astype(np.uint8)):
        np.testing.assert_allclose(as_rgb(image)[..., 1], expected, atol=1)
    assert as_rgb(np.array([[True, False]]))[0, :, 0].tolist() == [255, 0]
    assert as_rgb(np.array([[np.nan, np.inf, 1.0]]))[0, :, 0].tolist() == [0, 0, 255]


def test_a_normalised_image_is_stretched_and_keeps_its_order(rng: np.random.Generator) -> None:
    image = rng.random((3, 20, 30))
    shown = as_rgb((image - image.mean()) / image.std())
    np.testing.assert_allclose(shown, as_rgb(image), atol=6)
    assert as_rgb(np.full((1, 2, 3), -4.0)).max() == 0  # a constant image has nothing to stretch


@pytest.mark.parametrize("shape", [(7,), (1, 2, 3, 4), (0, 3, 4)])
def test_what_is_no_image(shape: tuple[int, ...]) -> None:
    with pytest.raises(ValueError, match=re.escape(f"got {shape}")):
        as_rgb(np.zeros(shape))


# -- classes as colours ------------------------------------------------------------------------------------------------------------------


def test_colours_and_stripes() -> None:
    mask = np.full((8, 12), 255)
    mask[0, :3] = [0, 1, 2]
    mask[1, :2] = [3, -1]  # no classes of this palette
    shown = as_colours(mask, PALETTE)
    np.testing.assert_array_equal(shown[0, :3], PALETTE)
    rest = shown.reshape(-1, 3)[mask.ravel() == 255]
    assert {tuple(c) for c in rest.tolist()} == {(int(s),) * 3 for s in STRIPES}
    assert all(tuple(shown[1, j].tolist()) in {(int(s),) * 3 for s in STRIPES} for j in range(2))


@given(st.integers(1, 9), st.integers(1, 11), st.floats(0, 1), st.integers(0, 2**32 - 1))
def test_overlay_blends(height: int, width: int, alpha: float, seed: int) -> None:
    rng = np.random.default_rng(seed)
    image, mask = rng.integers(0, 256, (3, height, width), np.uint8), rng.choice([0, 1, 2, 255], (height, width), p=[0.2, 0.5, 0.1, 0.2])
    shown = figures.overlay(image, mask, PALETTE, alpha)
    assert shown.shape == (height, width, 3)
    assert shown.dtype == np.uint8
    for i, j in np.ndindex(height, width):
        pixel, k = image[:, i, j].astype(float), mask[i, j]
        around = [(i - 1, j), (i + 1, j), (i, j - 1), (i, j + 1)]
        border = any(0 <= a < height and 0 <= b < width and mask[a, b] != k for a, b in around)
        weight = 0 if k in (0, 255) or alpha == 0 else max(alpha, 0.9) if border else alpha
        colour = PALETTE[k % 255].astype(float)
        np.testing.assert_allclose(shown[i, j], pixel + weight * (colour - pixel), atol=0.51)


def test_overlay_takes_gray_images_and_has_a_palette() -> None:
    shown = figures.overlay(np.full((4, 6), 0.5), np.full((4, 6), 3), alpha=1)
    assert (shown == figures.default_palette(4)[3]).all()


def test_overlay_errors() -> None:
    with pytest.raises(ValueError, match="the image is 4x6 pixels but the mask 6x4"):
        figures.overlay(np.zeros((3, 4, 6)), np.zeros((6, 4), int))
    with pytest.raises(ValueError, match="alpha must be between 0"):
        figures.overlay(np.zeros((4, 6)), np.zeros((4, 6), int), alpha=1.5)
    with pytest.raises(ValueError, match=re.escape("integer class indices (height, width), got float64 (4, 6)")):
        figures.overlay(np.zeros((4, 6)), np.zeros((4, 6)))
    with pytest.raises(TypeError, match="uint8 colours, 0 to 255, got float64"):
        figures.overlay(np.zeros((4, 6)), np.zeros((4, 6), int), PALETTE / 255)


# -- index PNGs --------------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", [np.uint8, np.int64])
def test_an_index_png_is_the_mask(tmp_path: Path, dtype: type) -> None:
    mask = np.array([[0, 1, 2, 255], [2, 2, 1, 17]], dtype)
    figures.index_png(mask, tmp_path / "m.png", PALETTE)
    with Image.open(tmp_path / "m.png") as image:
        assert image.mode == "P"
        assert image.size == (4, 2)
        np.testing.assert_array_equal(np.asarray(image), mask)
    np.testing.assert_array_equal(pixels(tmp_path / "m.png")[0, :3], PALETTE)
    assert pixels(tmp_path / "m.png")[1, 3].tolist() == [128, 128, 128]


def test_an_index_png_without_a_palette_and_with_all_classes(tmp_path: Path) -> None:
    figures.index_png(np.arange(256).reshape(8, 32), tmp_path / "m.png", figures.default_palette(256))
    np.testing.assert_array_equal(pixels(tmp_path / "m.png").reshape(-1, 3), figures.default_palette(256))
    figures.index_png(np.array([[0, 4, 255]]), tmp_path / "n.png")
    assert pixels(tmp_path / "n.png")[0, 1].tolist() == figures.default_palette(5)[4].tolist()


@pytest.mark.parametrize(
    ("mask", "palette", "message"),
    [
        (np.array([[0, 256]]), PALETTE, "class indices 0 to 255, the mask holds 0 to 256"),
        (np.array([[-1, 2]]), PALETTE, "class indices 0 to 255, the mask holds -1 to 2"),
        (np.array([[0, 1]]), np.zeros((257, 3), np.uint8), "holds 256 colours, the palette 257"),
        (np.array([[0, 1]]), np.zeros((3, 4), np.uint8), "palette must be"),
        (np.array([0, 1]), PALETTE, "got int64 (2,)"),
    ],
)
def test_what_no_index_png_can_hold(tmp_path: Path, mask: np.ndarray, palette: np.ndarray, message: str) -> None:
    with pytest.raises(ValueError, match=re.escape(message)):
        figures.index_png(mask, tmp_path / "m.png", palette)
    assert not list(tmp_path.iterdir())


def test_files_are_replaced_whole_or_not_at_all(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "m.png"
    figures.index_png(np.zeros((2, 3), int), path)
    before = path.read_bytes()

    def broken(self: Image.Image, target: Path, **options: object) -> None:
        target.write_bytes(b"half")
        raise OSError("disk full")

    monkeypatch.setattr(Image.Image, "save", broken)
    with pytest.raises(OSError, match="disk full"):
        figures.index_png(np.ones((2, 3), int), path)
    assert path.read_bytes() == before
    assert [p.name for p in tmp_path.iterdir()] == ["m.png"]


# -- the palette -------------------------------------------------------------------------------------------------------------------------


def test_the_palette_is_distinct_and_the_same_for_more_classes() -> None:
    palette = figures.default_palette(256)
    assert palette.shape == (256, 3)
    assert len(np.unique(palette, axis=0)) == 256
    for k in (1, 2, 12, 40):
        np.testing.assert_array_equal(figures.default_palette(k), palette[:k])


# Linear RGB as seen without one kind of cone (Machado, Oliveira & Fernandes, "A physiologically-based model for simulation of color vision
# deficiency", 2009, table of severity 1.0).
EYES = {
    "all cones": np.eye(3),
    "protanopia": np.array([[0.152286, 1.052583, -0.204868], [0.114503, 0.786281, 0.099216], [-0.003882, -0.048116, 1.051998]]),
    "deuteranopia": np.array([[0.367322, 0.860646, -0.227968], [0.280085, 0.672501, 0.047413], [-0.011820, 0.042940, 0.968881]]),
    "tritanopia": np.array([[1.255528, -0.076749, -0.178779], [-0.078411, 0.930809, 0.147602], [0.004733, 0.691367, 0.303900]]),
}


def lab(colours: np.ndarray, eye: np.ndarray) -> np.ndarray:
    """CIE L*a*b* (D65) of sRGB colours (K, 3) uint8 as an eye sees them; a distance of 2 is just visible side by side."""
    srgb = colours / 255
    linear = np.where(srgb <= 0.04045, srgb / 12.92, ((srgb + 0.055) / 1.055) ** 2.4)
    linear = (linear @ eye.T).clip(0, 1)
    xyz = linear @ np.array([[0.4124, 0.3576, 0.1805], [0.2126, 0.7152, 0.0722], [0.0193, 0.1192, 0.9505]]).T / [0.9505, 1, 1.089]
    f = np.where(xyz > 0.008856, np.cbrt(xyz), 7.787 * xyz + 16 / 116)
    return np.stack([116 * f[:, 1] - 16, 500 * (f[:, 0] - f[:, 1]), 200 * (f[:, 1] - f[:, 2])], axis=1)


@pytest.mark.parametrize("eye", EYES)
def test_colours_stay_apart_for_colour_blind_eyes(eye: str) -> None:
    seen = lab(figures.default_palette(12), EYES[eye])
    for classes, least in ((3, 60), (5, 30), (8, 24), (12, 20)):
        assert min(np.linalg.norm(a - b) for a, b in combinations(seen[:classes], 2)) > least


@pytest.mark.parametrize(("eye", "classes", "least"), [("all cones", 24, 30), *((eye, 12, 17) for eye in EYES)])
def test_wrong_is_the_colour_of_no_class(eye: str, classes: int, least: int) -> None:
    """Nor of the pale image below it."""
    others = np.concatenate([figures.default_palette(classes), np.arange(165, 256, 10, np.uint8)[:, None].repeat(3, 1)])
    (wrong,) = lab(WRONG[None], EYES[eye])
    assert np.linalg.norm(lab(others, EYES[eye]) - wrong, axis=1).min() > least


# -- predictions -------------------------------------------------------------------------------------------------------------------------

CLASSES = ("background", "cell", "wall")


def rows(rng: np.random.Generator, *sizes: tuple[int, int]) -> tuple[list[np.ndarray], list[np.ndarray]]:
    return [rng.random((1, *size)) for size in sizes], [rng.integers(0, 3, size) for size in sizes]


def test_predictions_shows_truth_prediction_and_errors(tmp_path: Path, rng: np.random.Generator) -> None:
    images, truths = rows(rng, (20, 30), (25, 30))
    images = [np.zeros_like(i) for i in images]
    truths = [np.ones_like(t) for t in truths]
    wrong = [t.copy() for t in truths]
    for w in wrong:
        w[:, 10:] = 2  # two thirds
    figures.predictions(images, truths, truths, CLASSES, PALETTE, tmp_path / "right.png")
    figures.predictions(images, truths, wrong, CLASSES, PALETTE, tmp_path / "wrong.png", names=["a", "b"])
    right, mixed = pixels(tmp_path / "right.png"), pixels(tmp_path / "wrong.png")
    assert right.shape == mixed.shape
    panel = count(right, PALETTE[1]) / 4  # truth and prediction of two rows; the legend is small
    assert count(right, WRONG) < 0.02 * panel  # only in the legend
    assert count(mixed, PALETTE[1]) == pytest.approx((2 + 2 / 3) * panel, rel=0.05)
    assert count(mixed, PALETTE[2]) == pytest.approx(2 * 2 / 3 * panel, rel=0.05)
    assert count(mixed, WRONG) == pytest.approx(2 * 2 / 3 * panel, rel=0.08)  # a small part is behind the note


def test_ignored_pixels_are_striped_and_neither_right_nor_wrong(tmp_path: Path) -> None:
    image, truth, guess = np.zeros((3, 20, 30)), np.full((20, 30), 11), np.ones((20, 30), int)
    figures.predictions([image], [truth], [guess], CLASSES, PALETTE, tmp_path / "p.png", ignore_index=11)
    picture = pixels(tmp_path / "p.png")
    panel = count(picture, PALETTE[1])
    striped = sum(count(picture, np.full(3, s)) for s in STRIPES)
    assert striped > 1.5 * panel  # in the truth and in the errors
    assert count(picture, WRONG) < 0.02 * panel


def test_an_ignore_index_among_the_classes(tmp_path: Path) -> None:
    truth = np.zeros((20, 30), int)
    figures.predictions([truth[None] / 1], [truth], [truth + 1], CLASSES, PALETTE, tmp_path / "p.png", ignore_index=0)
    picture = pixels(tmp_path / "p.png")
    assert count(picture, WRONG) < 0.02 * count(picture, PALETTE[1])


@pytest.mark.parametrize("channels", [1, 2, 3, 6])
@pytest.mark.parametrize("size", [(1, 1), (3, 200), (120, 7)])
def test_predictions_of_odd_images(tmp_path: Path, channels: int, size: tuple[int, int], rng: np.random.Generator) -> None:
    image, mask = rng.standard_normal((channels, *size)).astype(np.float32), np.zeros(size, np.int64)
    figures.predictions([image], [mask], [mask], CLASSES, None, tmp_path / "p.png")
    assert max(pixels(tmp_path / "p.png").shape) < 2000


def test_many_classes_and_awkward_names(tmp_path: Path, rng: np.random.Generator) -> None:
    names = [f"_a long $name_{k}" for k in range(199)] + ["日本"]
    mask = rng.integers(0, 200, (30, 40))
    figures.predictions([mask[None] / 200], [mask], [mask], names, None, tmp_path / "p.png", names=["$x_" * 30])
    figures.confusion(np.diag(np.arange(12)), names[-12:], tmp_path / "c.png")
    assert max(pixels(tmp_path / "p.png").shape) < 3000


def test_classes_in_a_script_that_the_font_lacks_warn_of_nothing(tmp_path: Path, rng: np.random.Generator) -> None:
    names = ["道路", "road"]
    images, masks = rows(rng, (40, 56))
    figures.predictions(images, [m % 2 for m in masks], [m % 2 for m in masks], names, None, tmp_path / "p.png")  # a warning is an error
    figures.confusion(ConfusionMatrix(2), names, tmp_path / "c.png")


def test_file_names_in_another_encoding_are_drawn(tmp_path: Path, rng: np.random.Generator) -> None:
    name = b"B\xe4r".decode("utf-8", "surrogateescape")  # as Python reads such names from a disk
    images, masks = rows(rng, (40, 56))
    figures.predictions(images, masks, masks, ["sky", "road", "ball"], None, tmp_path / "p.png", names=[name])
    sample = Sample(np.zeros((1, 24, 32), np.float32), np.zeros((24, 32), np.int64), name)
    samples([sample], ["sky", "road"], None, tmp_path / "s.png", title=f"{name}: 1 of 1 images")


def test_predictions_is_the_same_every_time(tmp_path: Path, rng: np.random.Generator) -> None:
    images, truths = rows(rng, (20, 30))
    for name in ("a", "b"):
        figures.predictions(images, truths, truths, CLASSES, PALETTE, tmp_path / name)
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()


def test_predictions_errors(tmp_path: Path) -> None:
    image, mask = np.zeros((3, 4, 6)), np.zeros((4, 6), int)
    path = tmp_path / "p.png"
    with pytest.raises(ValueError, match="at least one: got 2, 1, 1"):
        figures.predictions([image, image], [mask], [mask], CLASSES, PALETTE, path)
    with pytest.raises(ValueError, match="at least one: got 0, 0, 0"):
        figures.predictions([], [], [], CLASSES, PALETTE, path)
    with pytest.raises(ValueError, match=re.escape("must have one size, got (4, 6), (4, 6) and (6, 4)")):
        figures.predictions([image], [mask], [mask.T], CLASSES, PALETTE, path)
    with pytest.raises(ValueError, match=re.escape("palette must be (3, 3), a colour for each of 3 classes, got (2, 3)")):
        figures.predictions([image], [mask], [mask], CLASSES, PALETTE[:2], path)
    with pytest.raises(ValueError, match="one name for each of 1 images, got 2"):
        figures.predictions([image], [mask], [mask], CLASSES, PALETTE, path, names=["a", "b"])
    assert not list(tmp_path.iterdir())


# -- curves and confusion ----------------------------------------------------------------------------------------------------------------


def epoch(n: int, **values: object) -> dict[str, object]:
    return {"epoch": n, "train_loss": 1 / n, "val_loss": 1.2 / n, "val_pixel_accuracy": 1 - 0.2 / n, "val_miou": 1 - 0.5 / n, **values}


@pytest.mark.parametrize(
    "metrics",
    [
        [],
        [epoch(1)],
        [epoch(n) for n in range(1, 200)],  # the loss falls so far that its axis becomes logarithmic
        [epoch(1), epoch(2, val_loss=None, val_miou=None), epoch(3, train_loss=float("nan"), val_loss=float("inf"))],
        [epoch(1, val_miou=0.0, train_loss=0.0, val_loss=0.0, val_pixel_accuracy=0.0)],
        [epoch(1, train_loss=-2.0), epoch(2, train_loss=1e9)],
        [{"epoch": 5, "train_loss": 0.3}],
        [{"train_loss": 0.3}, {"train_loss": 0.2}],
        [epoch(1, val_miou=float("nan")), epoch(2, val_miou=float("nan"))],
    ],
)
def test_curves_of_anything_that_may_be_recorded(tmp_path: Path, metrics: list[dict[str, object]]) -> None:
    figures.curves(metrics, tmp_path / "curves.png")
    assert pixels(tmp_path / "curves.png").shape == (576, 1536, 3)


def test_curves_draw_what_is_there(tmp_path: Path) -> None:
    """The training loss is blue, the mean IoU marked orange; a series that is missing leaves nothing."""
    figures.curves([epoch(n) for n in range(1, 9)], tmp_path / "all.png")
    figures.curves([epoch(n, train_loss=None) for n in range(1, 9)], tmp_path / "some.png")
    blue = np.array([0x1F, 0x77, 0xB4])
    assert count(pixels(tmp_path / "all.png"), blue) > 500
    assert count(pixels(tmp_path / "some.png"), blue) == 0


@pytest.mark.parametrize("classes", [1, 2, 11, 21, 60])
def test_confusion(tmp_path: Path, classes: int, rng: np.random.Generator) -> None:
    matrix = ConfusionMatrix(classes)
    matrix.update(rng.integers(0, classes, 500), rng.integers(0, max(classes - 1, 1), 500))
    figures.confusion(matrix, [f"class {k}" for k in range(classes)], tmp_path / "c.png")
    assert min(pixels(tmp_path / "c.png").shape[:2]) > 200


def test_a_confusion_matrix_must_have_a_row_for_each_class(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=re.escape("must be (3, 3) for 3 classes, got (2, 2)")):
        figures.confusion(np.zeros((2, 2), int), CLASSES, tmp_path / "no.png")


def test_nothing_of_matplotlib_is_global(tmp_path: Path) -> None:
    """No pyplot, no backend chosen, no setting changed; and nothing of matplotlib before the first figure."""
    code = """
import sys
from pathlib import Path
from minidcnn.segmentation import figures
assert "matplotlib" not in sys.modules
import matplotlib
before = dict(matplotlib.rcParams)
figures.curves([{"epoch": 1, "train_loss": 1.0}], Path(sys.argv[1]) / "c.png")
assert "matplotlib.pyplot" not in sys.modules
assert dict(matplotlib.rcParams) == before
"""
    subprocess.run([sys.executable, "-c", code, str(tmp_path)], check=True, timeout=120)


def test_overlays_of_large_images_are_painted_in_blocks(rng: np.random.Generator, monkeypatch: pytest.MonkeyPatch) -> None:
    """The same to the bit, lines between classes included, wherever a block ends."""
    image, mask = rng.integers(0, 256, (3, 900, 830), dtype=np.uint8), rng.integers(0, 3, (90, 83)).repeat(10, 0).repeat(10, 1)
    whole = figures.overlay(image, mask)
    for pixels in (1, 830 * 9, 830 * 10, 830 * 451):
        monkeypatch.setattr("minidcnn.segmentation.paint._BLOCK", pixels)
        np.testing.assert_array_equal(figures.overlay(image, mask), whole)
