"""Data sets on disk: layouts, pairs, splits, and what is said when something is missing. Tiny files, made here."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from unicodedata import normalize

import numpy as np
import pytest
from PIL import Image

from minidcnn.data import (
    CAMVID_CLASS_WEIGHTS,
    CAMVID_CLASSES,
    DATASETS,
    ISBI,
    VOC,
    VOC_CLASSES,
    Arrays,
    CamVid,
    DataError,
    Folder,
    OxfordPet,
    check,
    open_dataset,
    voc_palette,
)
from minidcnn.data.files import divide
from minidcnn.data.folder import read_classes

rng = np.random.default_rng(1)


def put(path: Path, array: object) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.asarray(array, np.uint8)).save(path)
    return path


def put_image(path: Path, channels: int = 3, size: tuple[int, int] = (6, 9)) -> Path:
    return put(path, rng.integers(0, 256, size if channels == 1 else (*size, channels)))


def put_mask(path: Path, values: Sequence[object] = (0, 255), size: tuple[int, int] = (6, 9)) -> Path:
    """Every value occurs."""
    array = np.asarray(values, np.uint8)
    return put(path, array[np.arange(size[0] * size[1]).reshape(size) % len(array)])


def put_pairs(root: Path, names: Sequence[str] = ("1", "2", "10"), values: Sequence[object] = (0, 255), suffix: str = "") -> Path:
    for name in names:
        put_image(root / "images" / f"{name}.png")
        put_mask(root / "masks" / f"{name}{suffix}.png", values)
    return root


def names_of(dataset: Sequence[object]) -> list[str]:
    return [sample.name for sample in dataset]  # type: ignore[attr-defined]


# -- Folder --------------------------------------------------------------------------------------------------------


def test_black_and_white_masks_become_classes(tmp_path: Path) -> None:
    data = Folder(put_pairs(tmp_path), "all")
    assert names_of(data) == ["1", "2", "10"]  # natural order
    assert data.classes == ("background", "foreground") and data.mask_values == (0, 255) and data.channels == 3
    sample = data[0]
    assert sample.image.shape == (3, 6, 9) and sample.image.dtype == np.float32
    assert sample.mask.dtype == np.int64 and np.array_equal(sample.mask.ravel(), np.arange(54) % 2)
    assert check(data).ok


@pytest.mark.parametrize("suffix", ["_mask", "-label", ".seg", "_L"])
def test_masks_may_share_an_ending(tmp_path: Path, suffix: str) -> None:
    put_pairs(tmp_path, ("1", "img.2", "a_b.png"), suffix=suffix)  # dots in names are no suffixes
    assert names_of(Folder(tmp_path, "all")) == ["1", "a_b.png", "img.2"]
    assert names_of(Folder(tmp_path, "all", suffix=suffix)) == ["1", "a_b.png", "img.2"]


@pytest.mark.parametrize("prefix", ["mask_", "gt-"])
def test_masks_may_share_a_beginning(tmp_path: Path, prefix: str) -> None:
    names = ("1", "img.2", "a_b")
    put_pairs(tmp_path, names)
    for name in names:
        (tmp_path / "masks" / f"{name}.png").rename(tmp_path / "masks" / f"{prefix}{name}.png")
    data = Folder(tmp_path, "all")
    assert [(e.name, e.mask.path.name) for e in data.entries] == [(n, f"{prefix}{n}.png") for n in ("1", "a_b", "img.2")]
    (tmp_path / "masks" / f"{prefix}1.png").unlink()
    with pytest.raises(DataError, match=rf"images/1\.png has no mask: .*masks/{prefix}1\.png is expected"):
        Folder(tmp_path, "all")


@pytest.mark.parametrize(("image", "mask"), [("B\u00e4r", "Ba\u0308r"), ("Ba\u0308r", "B\u00e4r_mask"), ("Ba\u0308r", "mask-B\u00e4r")])
def test_names_that_look_alike_belong_together(tmp_path: Path, image: str, mask: str) -> None:
    """An accent may be part of a letter or a character of its own: what comes from a Mac has the latter."""
    put_image(tmp_path / "images" / f"{image}.png")
    put_mask(tmp_path / "masks" / f"{mask}.png")
    (entry,) = Folder(tmp_path, "all").entries
    assert (entry.name, entry.image.path.stem, entry.mask.path.stem) == ("B\u00e4r", image, mask)


def test_a_folder_copied_to_a_mac_and_back_is_divided_alike(tmp_path: Path) -> None:
    for form in ("NFC", "NFD"):
        put_pairs(tmp_path / form, [normalize(form, name) for name in ("B\u00e4r", "Baz", "B\u00f6", "Bz", "\u00c4")])
    for split in ("train", "val", "all"):
        assert names_of(Folder(tmp_path / "NFD", split)) == names_of(Folder(tmp_path / "NFC", split))


def test_hidden_files_and_strays_do_not_count(tmp_path: Path) -> None:
    put_pairs(tmp_path)
    for stray in ("images/.DS_Store", "images/._1.png", "images/Thumbs.db", "masks/notes.txt", "readme.md"):
        (tmp_path / stray).write_text("stray")
    for folder in ("__MACOSX", ".git", "images/sub.png", "masks/old"):
        (tmp_path / folder).mkdir()
    put_image(tmp_path / "images" / "sub.png" / "5.png")
    assert names_of(Folder(tmp_path, "all")) == ["1", "2", "10"]


def test_images_without_a_mask_are_named(tmp_path: Path) -> None:
    put_pairs(tmp_path)
    put_image(tmp_path / "images" / "cell_007.png")
    put_mask(tmp_path / "masks" / "cell_07.png")
    expected = r"images/cell_007\.png has no mask: .*masks/cell_007\.png is expected; cell_07\.png has a similar name \(1 more"
    with pytest.raises(DataError, match=expected):
        Folder(tmp_path)
    data = Folder(tmp_path, "all", strict=False)
    assert names_of(data) == ["1", "2", "10"] and len(data.problems) == 2
    assert "masks/cell_07.png belongs to no image" in data.problems[1]
    report = check(data)
    assert not report.ok and report.errors == data.problems


def test_similar_names_are_looked_for_a_few_times_only(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    searches = []
    monkeypatch.setattr("minidcnn.data.files.get_close_matches", lambda *_: searches.append(1) or [])
    (tmp_path / "images").mkdir()
    put_mask(tmp_path / "masks" / "other.png")
    for i in range(50):
        (tmp_path / "images" / f"cell{i}.png").touch()
    with pytest.raises(DataError, match=r"images/cell0\.png has no mask: .*\(50 more problems"):
        Folder(tmp_path)
    assert 0 < len(searches) <= 20  # each takes as long as there are masks


def test_several_files_of_one_name(tmp_path: Path) -> None:
    put_pairs(tmp_path)
    put_mask(tmp_path / "masks" / "2.tif")
    with pytest.raises(DataError, match=r"two masks of one name, .*2\.png and 2\.tif; keep one"):
        Folder(tmp_path)


def test_an_empty_folder(tmp_path: Path) -> None:
    (tmp_path / "images").mkdir()
    (tmp_path / "masks").mkdir()
    with pytest.raises(DataError, match=r"there are no images in .*images; it should hold PNG"):
        Folder(tmp_path)


def test_the_random_split_is_repeatable_and_complete(tmp_path: Path) -> None:
    put_pairs(tmp_path, [str(i) for i in range(10)])
    train, val = names_of(Folder(tmp_path, "train")), names_of(Folder(tmp_path, "val"))
    assert (len(train), len(val)) == (8, 2) and sorted(train + val) == sorted(names_of(Folder(tmp_path, "all")))
    assert names_of(Folder(tmp_path, "val")) == val
    assert names_of(Folder(tmp_path, "validation")) == val
    others = {tuple(names_of(Folder(tmp_path, "val", seed=s))) for s in range(5)}
    assert len(others) > 1
    assert len(Folder(tmp_path, "val", val_fraction=0.5)) == 5
    with pytest.raises(DataError, match=r"val_fraction must lie between 0 and 1, got 1.5"):
        Folder(tmp_path, "val", val_fraction=1.5)
    with pytest.raises(DataError, match="no split 'test'; this data set has train, val, all"):
        Folder(tmp_path, "test")


def test_one_image_cannot_be_divided(tmp_path: Path) -> None:
    put_pairs(tmp_path, ["only"])
    with pytest.raises(DataError, match="1 image cannot be divided"):
        Folder(tmp_path, "train")
    assert len(Folder(tmp_path, "all")) == 1


def test_images_in_sub_folders_are_not_left_out_in_silence(tmp_path: Path) -> None:
    put_pairs(tmp_path)
    put_image(tmp_path / "images" / "more" / "4.png")
    put_image(tmp_path / "images" / "more" / "deeper" / "5.JPG")
    for stray in ("more/notes.txt", "more/.hidden.png", ".thumbnails/1.png"):
        (tmp_path / "images" / stray).parent.mkdir(exist_ok=True)
        (tmp_path / "images" / stray).write_text("no image")
    (tmp_path / "images" / "nothing").mkdir()
    said = f"{tmp_path}/images/more holds 2 images that nothing uses: sub-folders are not searched; move up what is meant, and the masks"
    for split in ("train", "val", "all"):
        assert Folder(tmp_path, split).unused == (said,)
    report = check(Folder(tmp_path, "all")[:2])  # of a part, too
    assert report.ok and said in report.warnings
    put_image(tmp_path / "images" / "a" / "6.png")
    put_image(tmp_path / "images" / "b" / "7.png")
    (said,) = Folder(tmp_path, "all").unused
    assert said.startswith(f"{tmp_path}/images/a and 2 more sub-folders hold 4 images that nothing uses")


def test_sub_folders_that_are_parts_are_used(tmp_path: Path) -> None:
    put_pairs(tmp_path)
    for part in ("images", "masks"):
        (tmp_path / part / "test").mkdir()
        (tmp_path / part / "10.png").rename(tmp_path / part / "test" / "10.png")
    assert not Folder(tmp_path, "all").unused
    put_image(tmp_path / "images" / "test" / "night" / "1.png")
    (said,) = Folder(tmp_path, "all").unused
    assert said.startswith(f"{tmp_path}/images/test/night holds 1 image that nothing uses: sub-folders are not searched")


@pytest.mark.parametrize("kinds", [("images", "masks"), ("masks",)])
def test_a_folder_with_nothing_but_sub_folders(kinds: Sequence[str], tmp_path: Path) -> None:
    put_pairs(tmp_path)
    for kind in kinds:
        (tmp_path / kind / "patient 1").mkdir()
        for path in (tmp_path / kind).glob("*.png"):
            path.rename(path.parent / "patient 1" / path.name)
    said = (
        f"Folder: there are no {kinds[0]} in {tmp_path}/{kinds[0]} itself; {tmp_path}/{kinds[0]}/patient 1 holds 3 images, but sub-folders are not "
        f"searched: move them up"
    )
    with pytest.raises(DataError) as raised:
        Folder(tmp_path)
    assert str(raised.value).startswith(said)


@pytest.mark.parametrize("nested", [False, True])
def test_folders_that_are_divided_already(tmp_path: Path, nested: bool) -> None:
    for part, values in (("train", (0, 1, 2)), ("valid", (0, 1))):
        a, b = (tmp_path / part, tmp_path / part) if not nested else (tmp_path, tmp_path)
        for i in range(2):
            put_image((a / "Images" / (part if nested else "")) / f"{i}.png")
            put_mask((b / "labels" / (part if nested else "")) / f"{i}.png", values)
    train, val = Folder(tmp_path, "train"), Folder(tmp_path, "val")
    assert len(train) == len(val) == 2
    assert train.classes == val.classes == ("background", "class 1", "class 2")  # though class 2 is not in val
    assert names_of(Folder(tmp_path, "all")) == ["train-0", "train-1", "val-0", "val-1"]
    with pytest.raises(DataError, match="no split 'test'; this data set has train, val, all"):
        Folder(tmp_path, "test")


def test_a_folder_of_another_layout_is_described(tmp_path: Path) -> None:
    (tmp_path / "pictures").mkdir()
    with pytest.raises(DataError, match=r"should hold images/ and masks/, or train/ and val/ .*but holds pictures"):
        Folder(tmp_path)
    with pytest.raises(DataError, match=r"the folder .*nowhere does not exist; say where the data lies \(root=\.\.\., --root\)"):
        Folder(tmp_path / "nowhere")
    (tmp_path / "file").touch()
    with pytest.raises(DataError, match="is a file, not a folder"):
        Folder(tmp_path / "file")


def test_class_names(tmp_path: Path) -> None:
    put_pairs(tmp_path, values=(0, 1, 2))
    assert Folder(tmp_path, "all").classes == ("background", "class 1", "class 2")
    assert Folder(tmp_path, "all", classes=4).classes == ("background", "class 1", "class 2", "class 3")
    assert Folder(tmp_path, "all", classes=["sky", "sea", "sand"]).classes == ("sky", "sea", "sand")
    with pytest.raises(DataError, match="is background missing"):
        Folder(tmp_path, "all", classes=2)
    (tmp_path / "classes.txt").write_text("# names\nsky\n\nblue sea\nsand\n")
    assert Folder(tmp_path, "all").classes == ("sky", "blue sea", "sand")


def test_classes_txt_with_values(tmp_path: Path) -> None:
    red, green, gray = (255, 0, 0), (0, 255, 0), (7, 7, 7)
    put_pairs(tmp_path, values=(red, green, gray))
    (tmp_path / "classes.txt").write_text("255 0 0 rose\nleaf 0, 255, 0\n7 7 7\tstone wall\n")
    data = Folder(tmp_path, "all")
    assert data.classes == ("rose", "leaf", "stone wall") and data.mask_values == (red, green, gray)
    assert np.array_equal(data.palette, [red, green, gray])
    assert np.array_equal(data[0].mask.ravel(), np.arange(54) % 3)


def test_a_classes_txt_in_another_encoding_is_named(tmp_path: Path) -> None:
    put_pairs(tmp_path)
    (tmp_path / "classes.txt").write_bytes("grün\nweiß\n".encode("latin-1"))
    with pytest.raises(DataError, match=r"classes\.txt is no text in UTF-8 \(it holds the byte 0xfc\): save it as UTF-8"):
        Folder(tmp_path)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (
            "background\nstage 1\nstage 2\n",
            r"all or none of them its mask value, got 3 names and 2 values \(a number at either end of a line is its mask value: write stage-1",
        ),
        ("phase 0\nphase 1\n", r"the class 'phase' is named twice \(a number at either end of a line is its mask value"),
        ("", "every line must name a class, and either all or none of them its mask value, got 0 names and 0 values$"),
        ("a\na\n", "the class 'a' is named twice$"),
        ("a 1 2 300\n", "line 1: 1 2 300 is neither a gray value nor a colour"),
    ],
)
def test_wrong_classes_txt(tmp_path: Path, text: str, message: str) -> None:
    put_pairs(tmp_path)
    (tmp_path / "classes.txt").write_text(text)
    with pytest.raises(DataError, match=message):
        Folder(tmp_path)


def test_values_that_are_given_are_not_scanned_for(tmp_path: Path) -> None:
    put_pairs(tmp_path, values=(0, 255))
    (tmp_path / "masks" / "2.png").write_text("broken")
    data = Folder(tmp_path, "all", values=(255, 0), classes=("bright", "dark"))  # opens, since no mask is read
    assert np.array_equal(data[0].mask.ravel(), 1 - np.arange(54) % 2)
    with pytest.raises(DataError, match=r"2\.png cannot be read"):
        data[1]
    with pytest.raises(
        DataError, match=r"\(--classes\) has 3 \(background, class 1, class 2\) but values=\.\.\. \(--values\) 2 \(0, 255\)"
    ):
        Folder(tmp_path, "all", values=(0, 255), classes=3)
    one = Folder(tmp_path, "all", values=[(0, 0, 0)], ignored=[[255, 255, 255]])
    assert set(one[0].mask.ravel().tolist()) == {0, 255}


def test_ignored_values(tmp_path: Path) -> None:
    put_pairs(tmp_path, values=(0, 1, 255, 9))
    data = Folder(tmp_path, "all", ignored=[255, 9])
    assert len(data.classes) == 2 and data.ignore_index == 255
    assert np.array_equal(data[0].mask.ravel()[:4], [0, 1, 255, 255])


@pytest.mark.parametrize(
    ("values", "in_masks"), [((0, 128), (0, 128, 255)), ((0,), (0, 255)), ((128, 0), (0, 128, 255)), ((0, 2), (0, 2, 255))]
)
def test_255_beside_other_values_than_indices_is_not_left_out_unasked(
    values: tuple[int, ...], in_masks: tuple[int, ...], tmp_path: Path
) -> None:
    put_pairs(tmp_path, values=in_masks)
    with pytest.raises(
        DataError, match=r"holds 255 at row 0, column \d, which is no class; .*leave its pixels out with ignored=\.\.\. \(--ignored\)"
    ):
        Folder(tmp_path, "all", values=values)[0]
    assert 255 in Folder(tmp_path, "all", values=values, ignored=[255])[0].mask


@pytest.mark.parametrize("values", [(0, 1, 2), (2, 0, 1), (1, 2), (1, 2, 3)])
def test_255_beside_indices_is_ignored(values: tuple[int, ...], tmp_path: Path) -> None:
    data = Folder(put_pairs(tmp_path, values=(*values, 255)), "all", values=values)
    assert data.mask_ignored == (255,)
    np.testing.assert_array_equal(data[0].mask.ravel(), np.array([*range(len(values)), 255])[np.arange(54) % (len(values) + 1)])


def test_255_beside_three_indices_is_ignored_though_no_mask_holds_all(tmp_path: Path) -> None:
    data = Folder(put_pairs(tmp_path, values=(0, 2, 255)), "all", values=(0, 1, 2))
    assert data.mask_ignored == (255,)


def test_white_beside_0_and_1_is_ignored_only_if_a_mask_holds_all_three(tmp_path: Path) -> None:
    put_pairs(tmp_path, ("a", "b"), values=(0, 1))
    put_mask(tmp_path / "masks" / "b.png", (0, 255))
    with pytest.raises(DataError, match=r"b\.png holds 255 at row 0, column 1, which is no class"):
        Folder(tmp_path, "all", values=(0, 1))[1]
    put_mask(tmp_path / "masks" / "a.png", (0, 1, 255))
    assert Folder(tmp_path, "all", values=(0, 1)).mask_ignored == (255,)


def test_jpeg_masks(tmp_path: Path) -> None:
    put_pairs(tmp_path)
    (tmp_path / "masks" / "2.png").unlink()
    put_mask(tmp_path / "masks" / "2.jpg")
    with pytest.raises(DataError, match=r"2\.jpg is a JPEG, whose compression changes label values"):
        Folder(tmp_path)
    report = check(Folder(tmp_path, "all", strict=False))
    assert len(report.errors) == 1 and "2.jpg is a JPEG" in report.errors[0]


def test_gray_among_colour_images(tmp_path: Path) -> None:
    put_pairs(tmp_path)
    put_image(tmp_path / "images" / "2.png", channels=1)
    data = Folder(tmp_path, "all")
    assert data.channels == 3 and all(s.image.shape[0] == 3 for s in data)
    assert {s.image.shape[0] for s in Folder(tmp_path, "all", channels=1)} == {1}
    np.save(tmp_path / "images" / "5.npy", np.zeros((6, 9, 7), np.uint8))
    put_mask(tmp_path / "masks" / "5.png")
    with pytest.raises(DataError, match=r"images/2\.png has 1 channel, .*images/5\.npy has 7; all images of a data set need"):
        Folder(tmp_path, "all")


def test_images_and_masks_of_different_size(tmp_path: Path) -> None:
    put_pairs(tmp_path)
    put_mask(tmp_path / "masks" / "2.png", size=(9, 6))
    with pytest.raises(DataError, match=r"images/2\.png is 6x9 but its mask .*masks/2\.png is 9x6 .*same size; .*EXIF"):
        Folder(tmp_path, "all")[1]


def test_pages(tmp_path: Path) -> None:
    def put_stack(path: Path, pages: Sequence[np.ndarray]) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        images = [Image.fromarray(p) for p in pages]
        images[0].save(path, save_all=True, append_images=images[1:])

    gray = [rng.integers(0, 256, (6, 9), np.uint8) for _ in range(12)]
    masks = [np.where(g > 99, 255, 0).astype(np.uint8) for g in gray]
    put_stack(tmp_path / "a" / "images" / "s.tif", gray)
    put_stack(tmp_path / "a" / "masks" / "s.tif", masks)
    data = Folder(tmp_path / "a", "all")  # a sample per page
    assert len(data) == 12 and data.channels == 1 and names_of(data)[::11] == ["s-01", "s-12"]
    for sample, g in zip(data, gray, strict=True):
        assert np.array_equal(sample.mask, g > 99) and np.allclose(sample.image[0] * 255, g, atol=1e-4)

    put_stack(tmp_path / "b" / "images" / "s.tif", gray[:5])
    put_stack(tmp_path / "b" / "masks" / "s.tif", masks[:1])
    data = Folder(tmp_path / "b", "all")  # a channel per page
    assert len(data) == 1 and data.channels == 5 and data[0].image.shape == (5, 6, 9)

    put_stack(tmp_path / "b" / "masks" / "s.tif", masks[:2])
    with pytest.raises(DataError, match=r"s\.tif has 5 pages but its mask .*s\.tif has 2"):
        Folder(tmp_path / "b", "all")


# -- CamVid --------------------------------------------------------------------------------------------------------


def camvid_folders(root: Path, suffix: str = "png") -> Path:
    for split, count in (("train", 3), ("val", 2)):
        for i in range(count):
            put_image(root / split / f"{split}_{i}.{suffix}")
            put_mask(root / f"{split}annot" / f"{split}_{i}.png", range(12))
    return root


def test_camvid_folders(tmp_path: Path) -> None:
    train = CamVid(camvid_folders(tmp_path), "train")
    assert len(train) == 3 and len(CamVid(tmp_path, "val")) == 2 and len(CamVid(tmp_path, "all")) == 5
    assert train.classes == CAMVID_CLASSES and len(train.palette) == 11 and train.channels == 3
    assert train.ignore_index == 11 and np.array_equal(train[0].mask.ravel(), np.arange(54) % 12)
    assert train[0].ignore_index == 11
    assert len(CAMVID_CLASS_WEIGHTS) == len(CAMVID_CLASSES) == 11
    with pytest.raises(DataError, match="no split 'test'; this data set has train, val, all"):
        CamVid(tmp_path, "test")


def test_camvid_lists(tmp_path: Path) -> None:
    camvid_folders(tmp_path, "jpg")  # the lists say png
    lines = [f"/SegNet/CamVid/train/train_{i}.png /SegNet/CamVid/trainannot/train_{i}.png" for i in (2, 0)]
    (tmp_path / "train.txt").write_text("\n".join(lines) + "\n\n")
    train = CamVid(tmp_path, "train")
    assert names_of(train) == ["train_2", "train_0"]  # the list's order and choice
    (tmp_path / "val.txt").write_text("val/val_0.jpg valannot/val_0.png\nval/val_7.jpg valannot/val_7.png\n")
    with pytest.raises(DataError, match=r"val\.txt, line 2: val/val_7\.jpg is not in .*\(1 more"):
        CamVid(tmp_path, "val")
    assert names_of(CamVid(tmp_path, "val", strict=False)) == ["val_0"]
    (tmp_path / "val.txt").write_text("val/val_0.jpg\n")
    with pytest.raises(DataError, match=r"val\.txt, line 1: expected an image and its label, got 'val/val_0\.jpg'"):
        CamVid(tmp_path, "val")


def test_camvid_with_wrong_labels_or_folders(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="should hold train/ and trainannot/"):
        CamVid(tmp_path)
    camvid_folders(tmp_path)
    put_mask(tmp_path / "trainannot" / "train_1.png", range(32))
    with pytest.raises(DataError, match=r"train_1\.png holds 12 at row 1, column 3, which is no class"):
        CamVid(tmp_path)[1]
    put_mask(tmp_path / "trainannot" / "train_1.png", [(64, 128, 64), (0, 0, 0)])
    with pytest.raises(DataError, match="holds colours, but the classes stand for gray values or indices"):
        CamVid(tmp_path)[1]


# -- ISBI ----------------------------------------------------------------------------------------------------------


def test_isbi_folder_and_stack_are_alike(tmp_path: Path) -> None:
    images = [rng.integers(0, 256, (8, 6), np.uint8) for _ in range(24)]
    labels = [np.where(i > 50, 255, 0).astype(np.uint8) for i in images]
    for i in range(24):
        put(tmp_path / "png" / "images" / f"{i}.png", images[i])
        put(tmp_path / "png" / "labels" / f"{i}.png", labels[i])
    (tmp_path / "tif").mkdir()
    for name, stack in (("train-volume", images), ("train-labels", labels)):
        pages = [Image.fromarray(p) for p in stack]
        pages[0].save(tmp_path / "tif" / f"{name}.tif", save_all=True, append_images=pages[1:])
    for split, sections in (("train", range(20)), ("val", range(20, 24)), ("all", range(24))):
        for a, b, i in zip(ISBI(tmp_path / "png", split), ISBI(tmp_path / "tif", split), sections, strict=True):
            assert np.array_equal(a.image, b.image) and np.array_equal(a.mask, b.mask)
            assert np.array_equal(a.mask, images[i] > 50) and a.image.shape == (1, 8, 6)
    assert ISBI(tmp_path / "tif").divided and not ISBI(tmp_path / "tif", "all").divided
    assert ISBI(tmp_path / "tif").classes == ("membrane", "cell") and ISBI(tmp_path / "tif").mask_values == (0, 255)
    assert len(ISBI(tmp_path / "tif", "val", train_sections=4)) == 20
    with pytest.raises(DataError, match="train_sections must leave sections on both sides, got 24 of 24"):
        ISBI(tmp_path / "tif", train_sections=24)
    (tmp_path / "png" / "labels" / "3.png").unlink()
    with pytest.raises(DataError, match=r"images/3\.png has no mask"):
        ISBI(tmp_path / "png")


def test_isbi_elsewhere(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"should hold images/ and labels/, or train-volume\.tif and train-labels\.tif"):
        ISBI(tmp_path)


# -- VOC and Oxford pets -------------------------------------------------------------------------------------------


def test_voc(tmp_path: Path) -> None:
    root = tmp_path / "VOCdevkit" / "VOC2012"
    for name in ("2007_000032", "2007_000039"):
        (root / "JPEGImages").mkdir(parents=True, exist_ok=True)
        Image.fromarray(rng.integers(0, 256, (6, 9, 3), np.uint8)).save(root / "JPEGImages" / f"{name}.jpg")
        mask = Image.fromarray(np.array([[0, 15, 255]] * 6, np.uint8).repeat(3, 1))
        mask.putpalette(voc_palette(256).ravel().tolist())
        (root / "SegmentationClass").mkdir(exist_ok=True)
        mask.save(root / "SegmentationClass" / f"{name}.png")
    lists = root / "ImageSets" / "Segmentation"
    lists.mkdir(parents=True)
    (lists / "train.txt").write_text("2007_000032\n2007_000039\n")
    (lists / "val.txt").write_text("2007_000039\n2007_000061\n")
    for given in (root, root.parent, tmp_path):
        data = VOC(given)
        assert names_of(data) == ["2007_000032", "2007_000039"] and data.classes == VOC_CLASSES and data.ignore_index == 255
    assert np.array_equal(data[0].mask[0], np.repeat([0, 15, 255], 3))
    with pytest.raises(DataError, match=r"2007_000061\.jpg is in val\.txt but does not exist"):
        VOC(root, "val")
    assert len(VOC(root, "val", strict=False)) == 1
    with pytest.raises(DataError, match="no split 'trainval'; this data set has train, val"):
        VOC(root, "trainval")
    # the same masks in colours, as some tools convert them
    for path in (root / "SegmentationClass").glob("*.png"):
        with Image.open(path) as image:
            image.convert("RGB").save(path)
    assert np.array_equal(VOC(root)[0].mask[0], np.repeat([0, 15, 255], 3))
    with pytest.raises(DataError, match="should hold JPEGImages, SegmentationClass and ImageSets"):
        VOC(root / "JPEGImages")


def test_voc_palette_is_the_published_one() -> None:
    palette = voc_palette(256)
    assert palette[[1, 2, 3, 15, 20]].tolist() == [[128, 0, 0], [0, 128, 0], [128, 128, 0], [192, 128, 128], [0, 64, 128]]
    assert palette[255].tolist() == [224, 224, 192] and len(np.unique(palette, axis=0)) == 256


def test_oxford_pets(tmp_path: Path) -> None:
    for i in range(6):
        put_image(tmp_path / "images" / f"Cat_{i}.jpg", size=(6, 9 + i))
        put_mask(tmp_path / "annotations" / "trimaps" / f"Cat_{i}.png", (1, 2, 3), size=(6, 9 + i))
    (tmp_path / "annotations" / "trimaps" / "._Cat_0.png").write_text("stray")
    annotations = tmp_path / "annotations"
    (annotations / "list.txt").write_text("#Image CLASS-ID\n" + "".join(f"Cat_{i} 1 1 1\n" for i in range(6)))
    train, val = OxfordPet(tmp_path, "train", val_fraction=0.34), OxfordPet(tmp_path, "val", val_fraction=0.34)
    assert len(train) == 4 and len(val) == 2 and not set(names_of(train)) & set(names_of(val)) and train.divided
    (annotations / "trainval.txt").write_text("Cat_0 1 1 1\nCat_3 1 1 1\n")
    (annotations / "test.txt").write_text("Cat_1 1 1 1\nCat_9 1 1 1\n")
    train = OxfordPet(tmp_path)
    assert names_of(train) == ["Cat_0", "Cat_3"] and not train.divided and train.classes == ("background", "pet", "border")
    assert np.array_equal(train[0].mask[0, :3], [1, 0, 2])  # stored 1 pet, 2 background, 3 border
    two = OxfordPet(tmp_path, border="ignore")
    assert two.classes == ("background", "pet") and np.array_equal(two[0].mask[0, :3], [1, 0, 255])
    with pytest.raises(DataError, match=r"Cat_9\.jpg is listed in .*annotations but does not exist"):
        OxfordPet(tmp_path, "val")
    with pytest.raises(DataError, match="border must be 'class' or 'ignore', got 'drop'"):
        OxfordPet(tmp_path, border="drop")
    for name in ("list", "test"):
        (annotations / f"{name}.txt").unlink()
    with pytest.raises(DataError, match=r"should hold test\.txt, or list\.txt"):
        OxfordPet(tmp_path, "val")


# -- by name -------------------------------------------------------------------------------------------------------


def test_open_dataset(tmp_path: Path) -> None:
    assert len(open_dataset("cells", count=3)) == 3
    put_pairs(tmp_path)
    assert len(open_dataset("Folder", tmp_path, "all")) == 3
    assert len(open_dataset("folder", str(tmp_path), "all", val_fraction=0.5)) == 3
    with pytest.raises(DataError, match=r"no data set called 'coco'; known are cells, folder, camvid, isbi, voc, oxford_pet"):
        open_dataset("coco", tmp_path)
    with pytest.raises(DataError, match="the data set camvid needs a folder"):
        open_dataset("camvid")
    with pytest.raises(DataError, match="cells is generated and takes no folder"):
        open_dataset("cells", tmp_path)
    with pytest.raises(DataError, match=r"OxfordPet: .*annotations should hold trainval\.txt, or list\.txt"):
        open_dataset("Oxford-Pet", tmp_path)
    assert set(DATASETS) == {"cells", "folder", "camvid", "isbi", "voc", "oxford_pet"}


def test_arrays() -> None:
    masks = [np.zeros((4, 6), np.int64), np.ones((5, 3), np.uint8)]
    images = [rng.integers(0, 256, (4, 6), np.uint8), rng.random((1, 5, 3))]
    data = Arrays(images, masks, classes=2)
    assert data.channels == 1 and data.classes == ("class 0", "class 1") and len(data.palette) == 2
    assert data[0].image.dtype == np.float32 and np.allclose(data[0].image[0] * 255, images[0], atol=1e-4)
    assert data[1].mask.dtype == np.int64 and data[1].name == "0001"
    with pytest.raises(DataError, match="2 images and 1 masks"):
        Arrays(images, masks[:1], 2)
    with pytest.raises(DataError, match="0000: the image is 4x6 but its mask 5x3"):
        Arrays(images[:1], masks[1:], 2)[0]
    with pytest.raises(DataError, match="uint8 or uint16, got int64"):
        Arrays([np.zeros((4, 6), np.int64)], masks[:1], 2)[0]
    with pytest.raises(DataError, match=r"integer class indices .* got float64"):
        Arrays(images[:1], [np.zeros((4, 6))], 2)[0]
    with pytest.raises(DataError, match=r"same number of channels, got \[1, 2\]"):
        Arrays([images[0], np.zeros((2, 5, 3))], masks, 2)


def test_importing_the_data_sets_does_not_import_scipy() -> None:
    code = "import sys, minidcnn.data; assert 'scipy' not in sys.modules and 'matplotlib' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True, cwd=Path(__file__).parents[1])


@pytest.mark.parametrize(("count", "fraction"), [(2, 0.9), (3, 0.9), (5, 0.95)])
def test_one_image_is_always_left_to_train_on(count: int, fraction: float) -> None:
    train, val = divide(count, fraction, 0, "Folder")
    assert (len(train), len(val)) == (1, count - 1)


def test_a_byte_order_mark_is_no_part_of_a_name(tmp_path: Path) -> None:
    (tmp_path / "classes.txt").write_bytes(b"\xef\xbb\xbfbackground 0\r\ncell 255\r\n")
    assert read_classes(tmp_path / "classes.txt") == (("background", "cell"), (0, 255))
