"""Image and mask files as other programs write them: turned, of one bit or sixteen, with transparency, with colours of their own."""

from __future__ import annotations

import struct
import zlib
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from minidcnn.data import DataError, Folder, Source, check, read_image
from minidcnn.data.masks import read_raw
from minidcnn.data.options import proposed

rng = np.random.default_rng(0)


def write_png(path: Path, samples: np.ndarray, bits: int, colour_type: int, clear: int | None = None) -> None:
    """A PNG of (H, W) or (H, W, C) samples of so many bits, which Pillow cannot write; `clear` is the gray value that is transparent."""

    def chunk(name: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))

    flat = samples.reshape(len(samples), -1)
    if bits == 16:
        rows = [row.astype(">u2").tobytes() for row in flat]
    else:  # the bits of all samples of a row, one after the other
        rows = [np.packbits(row.astype(np.uint8)[:, None] >> np.arange(bits)[::-1] & 1).tobytes() for row in flat]
    parts = [chunk(b"IHDR", struct.pack(">IIBBBBB", samples.shape[1], samples.shape[0], bits, colour_type, 0, 0, 0))]
    parts += [] if clear is None else [chunk(b"tRNS", struct.pack(">H", clear))]
    parts += [chunk(b"IDAT", zlib.compress(b"".join(b"\0" + row for row in rows))), chunk(b"IEND", b"")]
    path.write_bytes(b"\x89PNG\r\n\x1a\n" + b"".join(parts))


# -- turned ------------------------------------------------------------------------------------------------------------------------

SHOWN = {  # how a picture is shown by its EXIF orientation
    1: lambda a: a, 2: np.fliplr, 3: lambda a: np.rot90(a, 2), 4: np.flipud,
    5: np.transpose, 6: lambda a: np.rot90(a, -1), 7: lambda a: np.rot90(a, 2).T, 8: np.rot90,
}  # fmt: skip


@pytest.mark.parametrize("orientation", SHOWN)
@pytest.mark.parametrize(
    ("name", "dtype"),
    [*(("x.tif", d) for d in (np.uint8, np.uint16, np.int32, bool)), *(("x.png", d) for d in (np.uint8, np.uint16, bool))],
)
def test_turned_files_of_every_depth_are_turned_upright(name: str, dtype: type, orientation: int, tmp_path: Path) -> None:
    stored = rng.integers(0, 2, (5, 8)).astype(dtype)
    exif = Image.Exif()
    exif[0x0112] = orientation
    Image.fromarray(stored).save(tmp_path / name, exif=exif)
    shown = SHOWN[orientation](stored)
    np.testing.assert_array_equal(read_raw(Source(tmp_path / name)).values, shown)
    white = {np.uint8: 255, np.uint16: 65535}.get(dtype, 1)
    np.testing.assert_array_equal(read_image(tmp_path / name)[0], shown.astype(np.float32) * np.float32(1 / white))


# -- transparency ------------------------------------------------------------------------------------------------------------------

RED = (255, 0, 0)


def layer(colour: tuple[int, int, int], alpha: np.ndarray, below: tuple[int, int, int] | None = None) -> np.ndarray:
    """(H, W, 4): a layer of one colour that shows where alpha is not 0; elsewhere `below`, and opaque, or transparent if there is none."""
    pixels = np.dstack([np.full((*alpha.shape, 3), colour, np.uint8), alpha])
    if below:
        pixels[alpha == 0] = (*below, 255)
    return pixels


def put_masks(root: Path, *masks: np.ndarray | Image.Image, name: str = "{}.png") -> Path:
    """A folder of random gray images and these masks."""
    for part in ("images", "masks"):
        (root / part).mkdir(parents=True)
    for i, mask in enumerate(masks):
        image = mask if isinstance(mask, Image.Image) else Image.fromarray(mask)
        image.save(root / "masks" / name.format(i))
        Image.fromarray(rng.integers(0, 256, image.size[::-1], np.uint8)).save(root / "images" / f"{i}.png")
    return root


def test_what_was_rubbed_out_is_no_object(tmp_path: Path) -> None:
    alpha = np.zeros((6, 9), np.uint8)
    alpha[1:3, 2:7] = 255
    alpha[1, 2] = 90  # a soft edge belongs to it
    drawn = layer(RED, alpha, below=(0, 0, 0))
    drawn[4:, 3:8] = (*RED, 0)  # painted by mistake, and rubbed out: the colour stays in the file
    root = put_masks(tmp_path, drawn, drawn[:, ::-1].copy())
    data = Folder(root, "all")
    assert data.mask_values == ((0, 0, 0), RED)
    np.testing.assert_array_equal(data[0].mask, alpha > 0)
    assert proposed(data, check(data))[-1].startswith(f"transparent pixels of masks, as in {root / 'masks' / '0.png'}, count as black")


@pytest.mark.parametrize(("colour", "values"), [(RED, ((0, 0, 0), RED)), ((255, 255, 255), (0, 255))])
def test_masks_drawn_on_a_transparent_layer(colour: tuple[int, int, int], values: object, tmp_path: Path) -> None:
    alpha = np.zeros((6, 9), np.uint8)
    alpha[1:3, 2:7] = 255
    data = Folder(put_masks(tmp_path, layer(colour, alpha), layer(colour, alpha[::-1])), "all")
    assert data.mask_values == values
    np.testing.assert_array_equal(data[0].mask, alpha > 0)


def test_black_on_transparent_is_told(tmp_path: Path) -> None:
    alpha = np.zeros((6, 9), np.uint8)
    alpha[1:3, 2:7] = 255
    root = put_masks(tmp_path, layer((0, 0, 0), alpha))
    with pytest.raises(DataError, match=r"all masks hold the one value 0: .*\(transparent pixels, as in .*0\.png, count as black\)"):
        Folder(root, "all")


def test_transparent_gray(tmp_path: Path) -> None:
    values = np.array([[7, 7, 9], [7, 9, 3]], np.uint8)
    alpha = np.array([[255, 0, 255], [1, 0, 255]], np.uint8)
    Image.fromarray(np.dstack([values, alpha])).save(tmp_path / "la.png")
    raw = read_raw(Source(tmp_path / "la.png"))
    assert raw.transparent and not raw.colour
    np.testing.assert_array_equal(raw.values, np.where(alpha, values, 0))
    Image.fromarray(np.dstack([values, np.full_like(alpha, 255)])).save(tmp_path / "opaque.png")
    raw = read_raw(Source(tmp_path / "opaque.png"))
    assert not raw.transparent and np.array_equal(raw.values, values)


@pytest.mark.parametrize(("bits", "step"), [(1, 1), (2, 85), (4, 17), (8, 1), (16, 1)])
def test_the_gray_value_that_a_png_names_as_transparent(bits: int, step: int, tmp_path: Path) -> None:
    stored = np.array([[0, 1, 0, 1, 1, 0, 0, 0]]) if bits == 1 else np.array([[0, 1, 2, 3, 1, 0, 2, 2]])
    write_png(tmp_path / "x.png", stored, bits, 0, clear=1)
    raw = read_raw(Source(tmp_path / "x.png"))
    np.testing.assert_array_equal(raw.values, np.where(stored == 1, 0, stored * step))
    assert raw.transparent


def test_the_colour_that_a_png_names_as_transparent(tmp_path: Path) -> None:
    Image.fromarray(np.array([[RED, (0, 255, 0), (1, 2, 3)]], np.uint8)).save(tmp_path / "x.png", transparency=(1, 2, 3))
    raw = read_raw(Source(tmp_path / "x.png"))
    assert raw.colour and raw.transparent and raw.values.tolist() == [[0xFF0000, 0x00FF00, 0]]


def test_indices_stay_what_they_are_where_one_is_transparent(tmp_path: Path) -> None:
    indices = np.array([[0, 1, 2], [2, 1, 0]], np.uint8)
    image = Image.fromarray(indices)
    image.putpalette([0, 0, 0, *RED, 0, 255, 0])
    for name, clear in (("one.png", 1), ("some.png", b"\xff\x00\x07"), ("x.gif", 1)):
        image.save(tmp_path / name, transparency=clear)
        np.testing.assert_array_equal(read_raw(Source(tmp_path / name)).values, indices)
        seen = read_raw(Source(tmp_path / name), colour=True)
        assert seen.transparent and seen.values.tolist() == [[0, 0, 0x00FF00], [0x00FF00, 0, 0]]


def test_gray_among_colours_is_a_colour_or_refused(tmp_path: Path) -> None:
    np.save(tmp_path / "m.npy", np.array([[0, 7, 255]]))
    Image.fromarray(np.array([[0, 7, 255]], np.uint8)).save(tmp_path / "m.png")
    Image.fromarray(np.array([[False, True]])).save(tmp_path / "bits.png")
    for name in ("m.npy", "m.png"):
        assert read_raw(Source(tmp_path / name), colour=True).values.tolist() == [[0, 0x070707, 0xFFFFFF]]
    assert read_raw(Source(tmp_path / "bits.png"), colour=True).values.tolist() == [[0, 0xFFFFFF]]
    Image.fromarray(np.array([[0, 300]], np.uint16)).save(tmp_path / "deep.png")
    with pytest.raises(
        DataError, match=r"deep\.png holds 300, which is no gray of 8 bits, but other masks hold colours; save all masks alike"
    ):
        read_raw(Source(tmp_path / "deep.png"), colour=True)
