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
    assert read_raw(Source(tmp_path / "la.png"), colour=True).transparent
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


def test_a_palette_beside_an_alpha_channel_stands_for_its_colours(tmp_path: Path) -> None:
    image = Image.fromarray(np.array([[0, 1, 2], [2, 1, 0]], np.uint8))
    image.putpalette([0, 0, 255, *RED, 0, 255, 0])
    image = image.convert("PA")
    for alpha, colours in (
        ([[255, 255, 255], [255, 255, 255]], [[0x0000FF, 0xFF0000, 0x00FF00], [0x00FF00, 0xFF0000, 0x0000FF]]),
        ([[0, 0, 0], [0, 255, 255]], [[0, 0, 0], [0, 0xFF0000, 0x0000FF]]),
    ):
        image.putalpha(Image.fromarray(np.array(alpha, np.uint8)))
        image.save(tmp_path / "x.tif")
        raw = read_raw(Source(tmp_path / "x.tif"))
        assert raw.colour and raw.values.tolist() == colours and raw.transparent == (0 in alpha[0])


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


# -- what Pillow does not hand out ----------------------------------------------------------------------------------------------------

DEEP = rng.integers(0, 65536, (4, 6, 4)).astype(np.uint16)


def write_tiff(
    path: Path,
    samples: np.ndarray,
    photometric: int = 1,
    extra: int | None = None,
    order: str = "<",
    planar: bool = False,
    deflate: bool = False,
) -> None:
    """A TIFF of (H, W) or (H, W, C) samples of any kind, which Pillow cannot write. order: "<" or ">", of its bytes."""
    height, width, channels = (*samples.shape, 1)[:3]
    planes = samples.transpose(2, 0, 1) if planar else samples[None]
    strips = [plane.astype(samples.dtype.newbyteorder(order)).tobytes() for plane in planes]
    strips = [zlib.compress(strip) for strip in strips] if deflate else strips
    file = bytearray(b"II*\0" if order == "<" else b"MM\0*") + bytes(4)

    def put(data: bytes) -> int:
        at = len(file)
        file.extend(data + bytes(len(data) % 2))
        return at

    short, long = 3, 4
    tags = {
        256: (long, [width]), 257: (long, [height]), 258: (short, [8 * samples.itemsize] * channels), 259: (short, [8 if deflate else 1]),
        262: (short, [photometric]), 273: (long, [put(strip) for strip in strips]), 277: (short, [channels]), 278: (long, [height]),
        279: (long, [len(strip) for strip in strips]), 284: (short, [2 if planar else 1]), 338: (short, [] if extra is None else [extra]),
        339: (short, [{"u": 1, "i": 2, "f": 3}[samples.dtype.kind]] * channels),
    }  # fmt: skip
    entries = b""
    for number, (kind, values) in tags.items():
        packed = struct.pack(f"{order}{len(values)}{'H' if kind == short else 'I'}", *values)
        if len(packed) > 4:
            packed = struct.pack(f"{order}I", put(packed))
        entries += struct.pack(f"{order}HHI", number, kind, len(values)) + packed.ljust(4, b"\0") if values else b""
    count = len(entries) // 12
    file[4:8] = struct.pack(f"{order}I", put(struct.pack(f"{order}H", count) + entries + bytes(4)))
    path.write_bytes(bytes(file))


@pytest.mark.parametrize("name", ["rgb.png", "rgba.png", "la.png", "rgb.tif", "rgb_big.tif", "planes.tif", "rgb.ppm"])
def test_colours_of_sixteen_bits_are_refused_not_cut(name: str, tmp_path: Path) -> None:
    path = tmp_path / name
    match name:
        case "rgb.png" | "rgba.png" | "la.png":
            channels, colour_type = {"rgb.png": (3, 2), "rgba.png": (4, 6), "la.png": (2, 4)}[name]
            write_png(path, DEEP[:, :, :channels], 16, colour_type)
        case "rgb.ppm":
            path.write_bytes(b"P6\n6 4\n65535\n" + DEEP[:, :, :3].astype(">u2").tobytes())
        case _:
            write_tiff(path, DEEP[:, :, :3], 2, order=">" if "big" in name else "<", planar="planes" in name)
    said = (
        r" holds 16 bits per channel, of which only 8 can be read: save it with 8, or its channels as pages of one gray TIFF, or as \.npy$"
    )
    for read in (read_image, lambda p: read_raw(Source(p))):
        with pytest.raises(DataError, match=name.replace(".", r"\.") + said):
            read(path)


def test_the_way_out_of_sixteen_bits_is_one(tmp_path: Path) -> None:
    np.save(tmp_path / "x.npy", DEEP[:, :, :3])
    pages = [Image.fromarray(DEEP[:, :, i].copy()) for i in range(3)]
    pages[0].save(tmp_path / "x.tif", save_all=True, append_images=pages[1:])
    expected = DEEP[:, :, :3].transpose(2, 0, 1) * np.float32(1 / 65535)
    np.testing.assert_array_equal(read_image(tmp_path / "x.npy"), expected)
    np.testing.assert_array_equal(read_image(Source(tmp_path / "x.tif", None)), expected)


def test_channels_beside_gray_are_refused_not_left_out(tmp_path: Path) -> None:
    write_tiff(tmp_path / "two.tif", DEEP[:, :, :2].astype(np.uint8), 1, extra=0)
    for read in (read_image, lambda p: read_raw(Source(p))):
        with pytest.raises(
            DataError, match=r"two\.tif (has 2 channels, of which only the first can be read: save them|cannot be read as an)"
        ):
            read(tmp_path / "two.tif")  # the second is what older versions of Pillow lead to


@pytest.mark.parametrize("name", ["x.gif", "x.png", "x.webp"])
def test_animations_are_refused_not_cut(name: str, tmp_path: Path) -> None:
    first, second = (Image.fromarray(DEEP[:, :, i].astype(np.uint8)) for i in (0, 1))
    first.save(tmp_path / name, save_all=True, append_images=[second], **({"lossless": True} if "webp" in name else {}))
    for read in (read_image, lambda p: read_raw(Source(p))):
        with pytest.raises(
            DataError, match="is an animation, of which only the first picture can be read: save its pictures as pages of one TIFF"
        ):
            read(tmp_path / name)
    first.save(tmp_path / name, **({"lossless": True} if "webp" in name else {}))
    np.testing.assert_array_equal(read_raw(Source(tmp_path / name), colour=True).values, np.asarray(first).astype(int) * 0x010101)


@pytest.mark.parametrize("deflate", [False, True])
@pytest.mark.parametrize("dtype", [np.uint8, np.int8, np.int16, np.int32, np.float32, np.uint16])
@pytest.mark.parametrize("order", ["<", ">"])
def test_tiffs_of_both_byte_orders(order: str, dtype: type, deflate: bool, tmp_path: Path) -> None:
    stored = np.array([[0, 1, 2, 100], [7, 7, 1 if dtype in (np.uint8, np.uint16) else -3, 0]], dtype)
    write_tiff(tmp_path / "x.tif", stored, order=order, deflate=deflate)
    np.testing.assert_array_equal(read_raw(Source(tmp_path / "x.tif")).values, stored)
    np.testing.assert_allclose(read_image(tmp_path / "x.tif", white=100)[0], stored / 100, rtol=1e-6)


# -- masks that lose their labels ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "options", "kind"),
    [
        ("x.tif", {"compression": "jpeg"}, "a TIFF compressed as JPEG"),
        ("x.webp", {"quality": 80}, "a lossy WebP"),
        ("alpha.webp", {"quality": 80}, "a lossy WebP"),
    ],
)
def test_masks_of_lossy_files_are_refused(name: str, options: dict[str, object], kind: str, tmp_path: Path) -> None:
    pixels = np.dstack([DEEP.astype(np.uint8)[:, :, :3]] + ([DEEP.astype(np.uint8)[:, :, 3]] if "alpha" in name else []))
    Image.fromarray(pixels).save(tmp_path / name, **options)
    with pytest.raises(DataError, match=f"is {kind}, whose compression changes label values; export the masks as PNG"):
        read_raw(Source(tmp_path / name))
    assert read_image(tmp_path / name).shape == (3, 4, 6)  # as an image, it is one
    if "webp" in name:
        Image.fromarray(pixels).save(tmp_path / name, lossless=True, exact=True)
        hidden = pixels[:, :, 3] == 0 if "alpha" in name else np.zeros(pixels.shape[:2], bool)
        expected = np.where(hidden, 0, pixels[:, :, :3].astype(np.int32) @ [0x10000, 0x100, 1])
        np.testing.assert_array_equal(read_raw(Source(tmp_path / name)).values, expected)


@pytest.mark.parametrize("mode", ["CMYK", "LAB"])
def test_masks_of_other_colours_are_refused(mode: str, tmp_path: Path) -> None:
    Image.fromarray(DEEP[:, :, :3].astype(np.uint8)).convert("RGB").convert(mode).save(tmp_path / "x.tif")
    with pytest.raises(DataError, match=rf"x\.tif stores colours as {mode}, not as red, green and blue; export the masks as PNG"):
        read_raw(Source(tmp_path / "x.tif"))


@pytest.mark.parametrize("plain", [False, True])
@pytest.mark.parametrize("most", [2, 3, 15, 255, 256, 4095, 65535])
def test_the_numbers_of_a_pgm_are_not_stretched(most: int, plain: bool, tmp_path: Path) -> None:
    values = np.array([[0, 1, 2], [2, most, 1]])
    head = f"{'P2' if plain else 'P5'}\n3 2\n{most}\n".encode()
    body = " ".join(map(str, values.ravel())).encode() if plain else values.astype(">u2" if most > 255 else "u1").tobytes()
    (tmp_path / "x.pgm").write_bytes(head + body)
    np.testing.assert_array_equal(read_raw(Source(tmp_path / "x.pgm")).values, values)
    np.testing.assert_allclose(read_image(tmp_path / "x.pgm")[0], values / most, atol=1 / 255 if most < 256 else 1 / 65535)


def test_inverted_lookup_tables_are_told_and_never_mixed_with_others(tmp_path: Path) -> None:
    objects = np.zeros((6, 9), np.uint8)
    objects[1:3, 2:7] = 255
    root = put_masks(tmp_path, objects, objects, name="{}.tif")
    for i in range(2):
        write_tiff(root / "masks" / f"{i}.tif", objects, photometric=0)
    data = Folder(root, "all")
    assert np.array_equal(data[0].mask, objects == 0)  # as they look
    assert "store white as 0 (an inverted lookup table) and are taken as they look" in proposed(data, check(data))[-1]
    write_tiff(root / "masks" / "1.tif", objects, photometric=1)
    with pytest.raises(DataError, match=r"0\.tif stores white as 0 .*1\.tif as its highest value, .*Invert LUT\), or .*\(--values 0,255\)"):
        Folder(root, "all")
    data = Folder(root, "all", values=(0, 255))
    assert np.array_equal(data[0].mask, 1 - data[1].mask)
    write_tiff(root / "masks" / "1.tif", 0 * objects, photometric=1)  # without objects, which is no contradiction
    assert np.array_equal(Folder(root, "all")[1].mask, 0 * objects)
