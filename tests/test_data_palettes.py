"""Masks with palettes: indices where all palettes agree, colours where each file has its own order, and a question where both may be meant."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from minidcnn.data import DataError, Folder, Value, check
from minidcnn.data.options import proposed

rng = np.random.default_rng(0)
BLACK, WHITE, RED, GREEN, BLUE = (0, 0, 0), (255, 255, 255), (255, 0, 0), (0, 255, 0), (0, 0, 255)
TRUTH = np.array([[0, 0, 1, 2], [1, 2, 2, 0], [0, 1, 1, 2]])  # as classes


def indexed(indices: np.ndarray, *colours: tuple[int, int, int]) -> Image.Image:
    image = Image.fromarray(indices.astype(np.uint8))
    image.putpalette([v for colour in colours for v in colour])
    return image


def put(root: Path, *masks: Image.Image, name: str = "{}.png", **options: object) -> Path:
    for part in ("images", "masks"):
        (root / part).mkdir(parents=True)
    for i, mask in enumerate(masks):
        mask.save(root / "masks" / name.format(i), **options)
        Image.fromarray(rng.integers(0, 256, mask.size[::-1], np.uint8)).save(root / "images" / f"{i}.png")
    return root


def shuffled(labels: np.ndarray, order: list[int], *colours: tuple[int, int, int]) -> Image.Image:
    """The same picture with the palette in another order."""
    return indexed(np.argsort(order)[labels], *(colours[i] for i in order))


@pytest.mark.parametrize("name", ["{}.png", "{}.tif", "{}.bmp", "{}.gif"])
def test_palettes_of_another_order_do_not_permute_labels(name: str, tmp_path: Path) -> None:
    orders = [[0, 1, 2], [1, 0, 2], [2, 1, 0], [1, 2, 0]]
    truths = [np.roll(TRUTH, i) for i in range(4)]
    data = Folder(put(tmp_path, *(shuffled(t, o, BLACK, GREEN, RED) for t, o in zip(truths, orders, strict=True)), name=name), "all")
    assert data.mask_values == (BLACK, GREEN, RED)
    for sample, truth in zip(data, truths, strict=True):
        np.testing.assert_array_equal(sample.mask, truth)


def test_palettes_made_for_each_picture(tmp_path: Path) -> None:
    truths = [np.sort(rng.choice(3, (6, 9), p=p)) for p in ([0.2, 0.7, 0.1], [0.7, 0.1, 0.2], [0.1, 0.2, 0.7])]
    pictures = [Image.fromarray(np.array([BLACK, GREEN, RED], np.uint8)[t]).convert("RGBA").quantize(3) for t in truths]
    data = Folder(put(tmp_path, *pictures), "all")
    for sample, truth in zip(data, truths, strict=True):
        np.testing.assert_array_equal(sample.mask, truth)
    assert check(data).ok


def test_indices_are_indices_where_palettes_agree_on_all_that_occur(tmp_path: Path) -> None:
    gray = Folder(put(tmp_path / "gray", indexed(TRUTH, BLACK, (1, 1, 1), (2, 2, 2))), "all")
    masks = [indexed(TRUTH, BLACK, RED, GREEN, BLUE), indexed(TRUTH % 2, BLACK, RED, WHITE), indexed(TRUTH, BLACK, RED, GREEN)]
    data = Folder(
        put(tmp_path, *masks, Image.fromarray(TRUTH.astype(np.uint8))), "all"
    )  # the last one has no palette, which is no contradiction
    assert data.mask_values == (0, 1, 2)
    np.testing.assert_array_equal(data[0].mask, data[3].mask)
    assert proposed(data, check(data))[-1] == "in the palettes of the masks 0 is 0/0/0, 1 is 255/0/0, 2 is 0/255/0 (red/green/blue)"
    named = Folder(tmp_path, "all", classes=("ground", "cat", "dog"))
    assert not any("palettes" in note for data in (named, gray) for note in proposed(data, check(data)))


def test_one_bit_among_palettes(tmp_path: Path) -> None:
    bits = Image.fromarray(TRUTH > 0)
    data = Folder(put(tmp_path / "a", bits, indexed(TRUTH > 0, BLACK, WHITE)), "all")
    assert data.mask_values == (0, 1) and np.array_equal(data[0].mask, data[1].mask)
    data = Folder(put(tmp_path / "b", bits, indexed(TRUTH == 0, WHITE, BLACK)), "all")
    assert data.mask_values == (BLACK, WHITE) and np.array_equal(data[0].mask, data[1].mask)


def test_transparent_and_black_are_one_colour_in_palettes_of_another_order(tmp_path: Path) -> None:
    root = put(tmp_path, indexed(TRUTH, GREEN, BLACK, RED), transparency=0)
    shuffled(TRUTH, [1, 0, 2], BLACK, GREEN, RED).save(root / "masks" / "1.png")
    (root / "images" / "1.png").write_bytes((root / "images" / "0.png").read_bytes())
    data = Folder(root, "all")
    assert data.mask_values == (BLACK, GREEN, RED) and data.transparent is not None
    np.testing.assert_array_equal(data[0].mask, np.array([0, 0, 2])[TRUTH])
    np.testing.assert_array_equal(data[1].mask, TRUTH)


@pytest.mark.parametrize(
    ("second", "said"),
    [
        (
            (BLACK, BLUE, WHITE),
            r"0\.png index 1 is 255/0/0, in .*1\.png 0/0/255; .*\(--values 0/0/0,0/0/255,0/255/0,255/0/0,255/255/255\), or",
        ),
        ((BLACK, (1, 1, 1), (2, 2, 2)), r"0\.png index 1 is 255/0/0, in .*1\.png 1/1/1; "),
        ((RED, GREEN, GREEN), r"0\.png index 0 is 0/0/0, in .*1\.png 255/0/0; "),  # as colours, two indices would be one
    ],
)
def test_where_both_may_be_meant_it_is_asked(second: tuple[tuple[int, int, int], ...], said: str, tmp_path: Path) -> None:
    root = put(tmp_path, indexed(TRUTH, BLACK, RED, GREEN), indexed(TRUTH, *second))
    with pytest.raises(DataError, match=f"the palettes of the masks disagree: in .*{said}.*the indices.*--values 0,1,2"):
        Folder(root, "all")
    assert np.array_equal(Folder(root, "all", values=(0, 1, 2))[1].mask, TRUTH)
    colours: list[Value] = sorted({BLACK, RED, GREEN, *second})
    expected = np.array([colours.index(colour) for colour in second])[TRUTH]
    assert np.array_equal(Folder(root, "all", values=colours)[1].mask, expected)
