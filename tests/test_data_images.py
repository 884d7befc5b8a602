"""Image and mask files of every kind, and the meaning of mask values."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageOps

from minidcnn.data import DataError, LabelTable, Source, read_image
from minidcnn.data.images import list_images, natural_channels, natural_key, opened, pages
from minidcnn.data.labels import infer_table, scan
from minidcnn.data.masks import read_raw

rng = np.random.default_rng(0)
GRAY = rng.integers(0, 256, (5, 7), np.uint8)
RGB = rng.integers(0, 256, (5, 7, 3), np.uint8)


def save(path: Path, array: np.ndarray, mode: str | None = None, **options: object) -> Path:
    image = Image.fromarray(array)
    (image.convert(mode) if mode else image).save(path, **options)  # type: ignore[arg-type]
    return path


def palette_png(path: Path, indices: np.ndarray, colours: list[tuple[int, int, int]]) -> Path:
    image = Image.fromarray(indices.astype(np.uint8))
    image.putpalette([v for c in colours for v in c])
    image.save(path)
    with Image.open(path) as again:
        assert again.mode == "P"
    return path


# -- names and folders ---------------------------------------------------------------------------------------------


def test_natural_order() -> None:
    names = ["cell10.png", "cell2.png", "Cell1.png", "cell2a.png", "a.10.2", "a.9.3"]
    assert sorted(names, key=natural_key) == ["a.9.3", "a.10.2", "Cell1.png", "cell2.png", "cell2a.png", "cell10.png"]


def test_hidden_files_other_kinds_and_folders_are_no_images(tmp_path: Path) -> None:
    for name in ("10.png", "2.PNG", ".hidden.png", "._2.png", "Thumbs.db", "notes.txt"):
        (tmp_path / name).touch()
    (tmp_path / "folder.png").mkdir()
    assert [p.name for p in list_images(tmp_path)] == ["2.PNG", "10.png"]


# -- images --------------------------------------------------------------------------------------------------------


def test_gray_and_rgb(tmp_path: Path) -> None:
    gray, rgb = read_image(save(tmp_path / "g.png", GRAY)), read_image(str(save(tmp_path / "c.png", RGB)))
    assert gray.dtype == rgb.dtype == np.float32
    np.testing.assert_array_equal(gray, GRAY[None] * np.float32(1 / 255))
    np.testing.assert_array_equal(rgb, RGB.transpose(2, 0, 1) * np.float32(1 / 255))
    assert read_image(tmp_path / "g.png").max() <= 1


def test_white_is_exactly_one(tmp_path: Path) -> None:
    for dtype in (np.uint8, np.uint16):
        full = np.full((2, 3), np.iinfo(dtype).max, dtype)
        assert (read_image(save(tmp_path / "w.png", full)) == 1).all()


def test_channels_are_converted_when_asked(tmp_path: Path) -> None:
    gray, rgb = save(tmp_path / "g.png", GRAY), save(tmp_path / "c.png", RGB)
    np.testing.assert_array_equal(read_image(gray, channels=3), np.repeat(read_image(gray), 3, 0))
    expected = (RGB @ np.array([0.299, 0.587, 0.114])) / 255
    np.testing.assert_allclose(read_image(rgb, channels=1)[0], expected, atol=1e-6)
    assert read_image(gray, channels=4).shape == (4, 5, 7) and (read_image(gray, channels=4)[3] == 1).all()
    with pytest.raises(DataError, match=r"c\.png has 3 channels, 5 were asked for"):
        read_image(rgb, channels=5)


def test_alpha_is_dropped_unless_four_channels_are_asked_for(tmp_path: Path) -> None:
    rgba = np.dstack([RGB, GRAY])
    path = save(tmp_path / "a.png", rgba)
    np.testing.assert_array_equal(read_image(path), read_image(save(tmp_path / "c.png", RGB)))
    np.testing.assert_array_equal(read_image(path, channels=4), rgba.transpose(2, 0, 1) * np.float32(1 / 255))
    la = save(tmp_path / "la.png", np.dstack([GRAY, GRAY[::-1]]))
    np.testing.assert_array_equal(read_image(la)[0], GRAY * np.float32(1 / 255))


def test_palette_images_have_their_colours(tmp_path: Path) -> None:
    indices = np.array([[0, 1, 2], [2, 1, 0]])
    path = palette_png(tmp_path / "p.png", indices, [(10, 20, 30), (255, 0, 0), (0, 200, 0)])
    np.testing.assert_allclose(read_image(path)[:, 0, 0] * 255, [10, 20, 30], atol=1e-4)
    assert natural_channels(Source(path)) == 3
    gray = palette_png(tmp_path / "q.png", indices, [(0, 0, 0), (90, 90, 90), (255, 255, 255)])
    assert natural_channels(Source(gray)) == 1
    np.testing.assert_allclose(read_image(gray)[0, 0] * 255, [0, 90, 255], atol=1e-4)


def test_black_and_white(tmp_path: Path) -> None:
    path = save(tmp_path / "b.png", GRAY > 100)
    np.testing.assert_array_equal(read_image(path)[0], GRAY > 100)


@pytest.mark.parametrize("suffix", ["png", "tif"])
def test_sixteen_bits(tmp_path: Path, suffix: str) -> None:
    deep = rng.integers(0, 65536, (5, 7), np.uint16)
    path = save(tmp_path / f"d.{suffix}", deep)
    np.testing.assert_allclose(read_image(path)[0], deep / 65535, atol=1e-7)
    np.testing.assert_allclose(read_image(path, white=4095)[0], deep / 4095, rtol=1e-6)


def test_numpy_files_have_any_number_of_channels(tmp_path: Path) -> None:
    five = rng.integers(0, 256, (5, 7, 5), np.uint8)
    np.save(tmp_path / "five.npy", five)
    np.testing.assert_allclose(read_image(tmp_path / "five.npy"), five.transpose(2, 0, 1) / 255, atol=1e-7)
    assert natural_channels(Source(tmp_path / "five.npy")) == 5
    np.save(tmp_path / "bad.npy", np.zeros((1, 2, 3, 4)))
    with pytest.raises(DataError, match=r"bad\.npy must hold numbers of shape .* got float64 \(1, 2, 3, 4\)"):
        read_image(tmp_path / "bad.npy")
    np.save(tmp_path / "objects.npy", np.array([[{}]]), allow_pickle=True)
    with pytest.raises(DataError, match=r"objects\.npy cannot be read"):
        read_image(tmp_path / "objects.npy")


def test_pages_of_a_tiff(tmp_path: Path) -> None:
    stack = [Image.fromarray(GRAY), Image.fromarray(GRAY[::-1].copy())]
    stack[0].save(tmp_path / "s.tif", save_all=True, append_images=stack[1:])
    np.testing.assert_array_equal(read_image(Source(tmp_path / "s.tif", 1))[0] * 255, (GRAY[::-1] * np.float32(1 / 255)) * 255)
    both = read_image(Source(tmp_path / "s.tif", None))
    assert both.shape == (2, 5, 7) and natural_channels(Source(tmp_path / "s.tif", None)) == 2
    with pytest.raises(DataError, match=r"s\.tif \(page 4\) cannot be read"):
        read_image(Source(tmp_path / "s.tif", 3))
    uneven = [Image.fromarray(GRAY), Image.fromarray(GRAY[:3])]
    uneven[0].save(tmp_path / "u.tif", save_all=True, append_images=uneven[1:])
    with pytest.raises(DataError, match=r"u\.tif has pages of different sizes"):
        read_image(Source(tmp_path / "u.tif", None))


def test_cmyk_becomes_rgb(tmp_path: Path) -> None:
    path = save(tmp_path / "k.tif", RGB, "CMYK")
    assert read_image(path).shape == (3, 5, 7)


def test_photographs_stand_upright(tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6  # to be shown turned by 90 degrees clockwise
    save(tmp_path / "e.png", RGB, exif=exif)
    np.testing.assert_array_equal(read_image(tmp_path / "e.png"), np.rot90(RGB, -1).transpose(2, 0, 1) * np.float32(1 / 255))


def test_unreadable_files_are_named(tmp_path: Path) -> None:
    (tmp_path / "text.png").write_text("not an image")
    with pytest.raises(DataError, match=r"text\.png cannot be read as an image .*take it out of the folder"):
        read_image(tmp_path / "text.png")
    whole = save(tmp_path / "whole.png", rng.integers(0, 256, (64, 65, 3), np.uint8)).read_bytes()
    (tmp_path / "cut.png").write_bytes(whole[: len(whole) // 2])
    with pytest.raises(DataError, match=r"cut\.png cannot be read"):
        read_image(tmp_path / "cut.png")
    with pytest.raises(DataError, match=r"gone\.png does not exist"):
        read_image(tmp_path / "gone.png")


# -- masks ---------------------------------------------------------------------------------------------------------


def test_raw_masks_of_every_kind(tmp_path: Path) -> None:
    indices = np.array([[0, 1, 2], [2, 1, 0]], np.uint8)
    colours = [(0, 0, 0), (255, 0, 0), (0, 255, 0)]
    np.testing.assert_array_equal(read_raw(Source(palette_png(tmp_path / "p.png", indices, colours))).values, indices)
    np.testing.assert_array_equal(read_raw(Source(save(tmp_path / "l.png", indices))).values, indices)
    np.testing.assert_array_equal(read_raw(Source(save(tmp_path / "b.png", indices > 0))).values, indices > 0)
    deep = indices.astype(np.uint16) * 300
    np.testing.assert_array_equal(read_raw(Source(save(tmp_path / "d.png", deep))).values, deep)
    np.testing.assert_array_equal(read_raw(Source(save(tmp_path / "i.tif", indices.astype(np.int32)))).values, indices)
    np.save(tmp_path / "n.npy", indices)
    np.testing.assert_array_equal(read_raw(Source(tmp_path / "n.npy")).values, indices)
    np.testing.assert_array_equal(read_raw(Source(save(tmp_path / "f.tif", indices.astype(np.float32)))).values, indices)
    gray_rgb = read_raw(Source(save(tmp_path / "g.png", np.repeat(indices[..., None], 3, 2))))
    assert not gray_rgb.colour and np.array_equal(gray_rgb.values, indices)
    colour = read_raw(Source(save(tmp_path / "c.png", np.array(colours, np.uint8)[indices])))
    assert colour.colour and colour.values[0, 1] == 0xFF0000 and colour.values[1, 0] == 0x00FF00
    packed = read_raw(Source(tmp_path / "p.png"), colour=True)
    np.testing.assert_array_equal(packed.values, colour.values)


def test_jpeg_masks_are_refused_whatever_their_name(tmp_path: Path) -> None:
    Image.fromarray(GRAY).save(tmp_path / "m.jpg")
    Image.fromarray(GRAY).save(tmp_path / "m.png", format="JPEG")
    for name in ("m.jpg", "m.png"):
        with pytest.raises(DataError, match=rf"{name} is a JPEG, whose compression changes label values; export the masks as PNG"):
            read_raw(Source(tmp_path / name))


def test_masks_of_fractions_are_refused(tmp_path: Path) -> None:
    path = save(tmp_path / "f.tif", np.float32([[0, 0.5]]))
    with pytest.raises(DataError, match="holds fractions"):
        read_raw(Source(path))


def masks_of(tmp_path: Path, *arrays: object) -> list[Source]:
    return [Source(save(tmp_path / f"m{i}.png", np.asarray(a, np.uint8))) for i, a in enumerate(arrays)]


@pytest.mark.parametrize(
    ("found", "names", "values", "ignored"),
    [
        ([0, 1], None, (0, 1), ()),
        ([0, 255], None, (0, 255), ()),  # complaint 1: black and white masks
        ([0, 255], ("a", "b"), (0, 255), ()),
        ([0, 1, 2], None, (0, 1, 2), ()),
        ([0, 1, 2, 255], None, (0, 1, 2), (255,)),
        ([1, 2, 3], None, (1, 2, 3), ()),
        ([1, 2, 3, 255], None, (1, 2, 3), (255,)),
        ([0, 128, 255], None, (0, 128, 255), ()),
        ([0, 2], ("a", "b", "c"), (0, 1, 2), ()),  # an index that does not occur
        ([0, 2, 255], ("a", "b", "c", "d"), (0, 1, 2, 3), (255,)),
        ([7, 90], ("a", "b"), (7, 90), ()),
    ],
)
def test_what_gray_values_mean(tmp_path: Path, found: list[int], names: tuple[str, ...] | None, values: object, ignored: object) -> None:
    table = infer_table(scan(masks_of(tmp_path, [found], [found[:1] * 2])), names, None, tmp_path)
    assert (table.values, table.ignored) == (values, ignored)


def test_colour_masks(tmp_path: Path) -> None:
    red, black, white = (255, 0, 0), (0, 0, 0), (255, 255, 255)
    sources = masks_of(tmp_path, [[black, red, white]], [[black, black]])  # the second alone would pass for gray
    table = infer_table(scan(sources), None, None, tmp_path)
    assert table.values == (black, red, white) and table.colour
    np.testing.assert_array_equal(table.read(sources[0]), [[0, 1, 2]])
    np.testing.assert_array_equal(table.read(sources[1]), [[0, 0]])
    table = infer_table(scan(sources), None, [white], tmp_path)
    assert table.values == (black, red) and table.ignored == (white,)
    np.testing.assert_array_equal(table.read(sources[0]), [[0, 1, 255]])


def test_too_many_values_are_smooth_edges(tmp_path: Path) -> None:
    ramp = np.arange(0, 256, 3)[None]
    with pytest.raises(
        DataError,
        match=r"hold 86 different values \(0, 3, 6, 9, 12 and 81 more\), too many for classes .*m0\.png.*smooth edges.*"
        "if the values number objects, save mask > 0",
    ):
        infer_table(scan(masks_of(tmp_path, ramp)), None, None, tmp_path)
    with pytest.raises(DataError, match="hold 255 different values"):
        infer_table(scan(masks_of(tmp_path, np.arange(256)[None])), None, None, tmp_path)
    many = infer_table(scan(masks_of(tmp_path, np.arange(150)[None])), None, None, tmp_path)
    assert many.values == tuple(range(150))  # but consecutive indices are classes


def test_number_of_classes_off_by_one(tmp_path: Path) -> None:
    found = scan(masks_of(tmp_path, [[0, 1, 2]]))
    with pytest.raises(
        DataError,
        match=r"\(--classes\) names 2 \(cat, dog\) but the masks hold 3 values \(0, 1, 2; 2 in .*m0\.png\); is background missing",
    ):
        infer_table(found, ("cat", "dog"), None, tmp_path)


def test_white_is_not_ignored_where_there_would_be_nothing_but_background(tmp_path: Path) -> None:
    found = scan(masks_of(tmp_path, [[0, 255]]))
    with pytest.raises(DataError, match=r"names 3 \(a, b, c\) but the masks hold 2 values \(0, 255; .*belongs into ignored="):
        infer_table(found, ("a", "b", "c"), None, tmp_path)
    assert infer_table(found, ("a", "b", "c"), [255], tmp_path).values == (0, 1, 2)  # said, not guessed


def test_masks_of_one_value_teach_nothing(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="all masks hold the one value 0: nothing can be learned"):
        infer_table(scan(masks_of(tmp_path, [[0, 0]])), None, None, tmp_path)
    with pytest.raises(DataError, match="no mask holds a label"):
        infer_table(scan(masks_of(tmp_path, [[7]])), None, [7], tmp_path)


def test_masks_of_0_and_1_among_masks_of_0_and_255(tmp_path: Path) -> None:
    sources = masks_of(tmp_path, [[0, 255], [255, 0]], [[0, 255, 0]])
    Image.fromarray(np.array([[False, True, True]])).save(tmp_path / "bits.png")  # a black-and-white file holds 0 and 1
    sources.append(Source(tmp_path / "bits.png"))
    expected = r"1 hold 1 and never 255, such as .*bits\.png, and 2 hold 255 and never 1, such as .*m0\.png; .*\(--ignored 255\)"
    for names in (None, ("background", "cell")):
        with pytest.raises(DataError, match=expected):
            infer_table(scan(sources), names, None, tmp_path)
    assert infer_table(scan(sources), None, [255], tmp_path).ignored == (255,)  # said, not guessed


def test_255_is_ignored_where_a_mask_holds_it_beside_0_and_1(tmp_path: Path) -> None:
    table = infer_table(scan(masks_of(tmp_path, [[0, 255]], [[0, 1, 1]], [[0, 1, 255]])), None, None, tmp_path)
    assert (table.values, table.ignored) == ((0, 1), (255,))


def test_a_value_that_is_no_class_is_named_with_its_place(tmp_path: Path) -> None:
    table = LabelTable((0, 1), (255,))
    (source,) = masks_of(tmp_path, [[0, 1, 255], [0, 9, 1]])
    with pytest.raises(
        DataError, match=r"m0\.png holds 9 at row 1, column 1, which is no class; the known values are 0, 1 and, ignored, 255"
    ):
        table.read(source)
    (colours,) = masks_of(tmp_path, [[(0, 0, 1), (0, 0, 0)]])  # packed, (0, 0, 1) is the number 1
    with pytest.raises(DataError, match="holds colours, but the classes stand for gray values or indices: 0, 1"):
        table.read(colours)
    np.save(tmp_path / "wide.npy", np.array([[0, -5, 70000]]))
    with pytest.raises(DataError, match=r"wide\.npy holds -5 at row 0, column 1"):
        table.read(Source(tmp_path / "wide.npy"))


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16, np.int32, np.int64, np.float32])
def test_encoding_is_the_same_for_every_dtype(tmp_path: Path, dtype: type) -> None:
    stored = rng.choice([3, 250, 7], (6, 5))
    np.save(tmp_path / "m.npy", stored.astype(dtype))
    table = LabelTable((250, 3), (7,), ignore_index=11)
    mask = table.read(Source(tmp_path / "m.npy"))
    assert mask.dtype == np.int64
    np.testing.assert_array_equal(mask, np.where(stored == 250, 0, np.where(stored == 3, 1, 11)))


def test_tables_must_be_one_to_one() -> None:
    with pytest.raises(DataError, match="can mean one class only"):
        LabelTable((0, 1, 1))
    with pytest.raises(DataError, match="all gray values or all colours"):
        LabelTable((0, (1, 2, 3)))
    with pytest.raises(DataError, match="at most 255 classes"):
        LabelTable(tuple(range(256)))


def test_scanning_keeps_the_complaints_when_it_is_not_strict(tmp_path: Path) -> None:
    (good,) = masks_of(tmp_path, [[0, 1]])
    Image.fromarray(GRAY).save(tmp_path / "j.jpg")
    found = scan([Source(tmp_path / "j.jpg"), good], strict=False)
    assert found.values == (0, 1) and len(found.unread) == 1 and found.pixels == {0: 1, 1: 1}
    with pytest.raises(DataError, match=r"j\.jpg is a JPEG"):
        scan([Source(tmp_path / "j.jpg"), good])


def test_images_may_be_larger_than_pillows_limit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 10)  # it warns of more, and refuses more than twice as many
    stack = [Image.fromarray(GRAY), Image.fromarray(GRAY[::-1].copy())]
    stack[0].save(tmp_path / "s.tif", save_all=True, append_images=stack[1:])
    path = save(tmp_path / "g.png", GRAY)
    with opened(path):  # as another thread does
        assert read_image(Source(tmp_path / "s.tif", 1)).shape == (1, 5, 7)
        assert read_raw(Source(path)).values.shape == (5, 7)
    assert Image.MAX_IMAGE_PIXELS == 10


def test_running_out_of_memory_is_no_damage(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def exhausted(*args: object, **kwargs: object) -> None:
        raise MemoryError("8 GB")

    path = save(tmp_path / "g.png", GRAY)
    np.save(tmp_path / "g.npy", GRAY)
    monkeypatch.setattr(ImageOps, "exif_transpose", exhausted)
    monkeypatch.setattr(np, "load", exhausted)
    for read in (lambda: read_image(path), lambda: read_raw(Source(path)), lambda: read_image(tmp_path / "g.npy")):
        with pytest.raises(MemoryError, match=r"^while reading .*g\.(png|npy): 8 GB$"):
            read()


@pytest.mark.filterwarnings("ignore")  # Pillow warns of some damages before it gives up
@pytest.mark.parametrize("suffix", ["png", "tif", "gif", "bmp", "npy"])
def test_damaged_files_are_read_or_refused_but_never_crash(tmp_path: Path, suffix: str) -> None:
    damage = np.random.default_rng(5)
    path = tmp_path / f"x.{suffix}"
    if suffix == "npy":
        np.save(path, GRAY)
    else:
        save(path, GRAY)
    whole = path.read_bytes()
    refused = 0
    for _ in range(120):
        data = bytearray(whole)
        for at in damage.integers(0, min(len(data), 200), 4):
            data[at] = damage.integers(256)
        path.write_bytes(bytes(data[: damage.integers(1, len(data) + 1)]))
        for read in (read_image, lambda p: read_raw(Source(p)), lambda p: natural_channels(Source(p)), pages):
            try:
                read(path)
            except DataError as error:
                refused += 1
                assert path.name in str(error)
    assert refused > 50


def test_the_alpha_of_a_palette(tmp_path: Path) -> None:
    """It stands in a chunk of its own, not in the mode."""
    image = Image.fromarray(np.array([[0, 1]], np.uint8)).convert("P")
    image.putpalette([255, 0, 0, 0, 255, 0] + [0] * 762)
    image.save(tmp_path / "a.png", transparency=1)
    np.testing.assert_array_equal(read_image(tmp_path / "a.png", 4)[3], [[1, 0]])


def test_numbers_below_zero_have_no_known_range(tmp_path: Path) -> None:
    np.save(tmp_path / "a.npy", np.array([[-0.5, 0.5]], np.float32))
    with pytest.raises(DataError, match="values from -0.5 to 0.5"):
        read_image(tmp_path / "a.npy")
