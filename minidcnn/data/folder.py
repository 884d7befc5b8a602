"""Anyone's images and masks in two folders."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from ..window import integer
from ..words import some
from .files import Entry, FileDataset, choose_split, complain, divide, existing_folder, pair_folders, read_lines, split_name
from .images import Source, in_sub_folders, list_images
from .labels import LabelTable, infer_table, scan
from .palette import default_palette
from .sample import DataError, Value
from .written import value_text

_IMAGES = ("images", "image", "imgs", "img")
_MASKS = ("masks", "mask", "labels", "label", "annotations")
_WAY_OUT = "; name it in values=... (--values), or leave its pixels out with ignored=... (--ignored)"
_NUMBERS = " (a number at either end of a line is its mask value: write stage-1 for a class called stage 1, or add the value to each line)"
_SPLIT_FOLDERS = {"train": ("train", "training"), "val": ("val", "valid", "validation"), "test": ("test", "testing")}


class Folder(FileDataset):
    """Images and masks of one's own, in one of three layouts:

        root/images/*, root/masks/*                       divided into "train" and "val" at random (val_fraction, seed); test/ may lie beside
        root/train/images/*, root/train/masks/*           and root/val/..., root/test/... alike
        root/images/train/*, root/masks/train/*           and val, test alike

    An image and its mask have the same name; masks may share an ending such as "_mask", or a beginning. Also: image, imgs, img; mask, labels, label,
    annotations. Sub-folders are not searched (`unused` tells of those that hold images). A TIFF with pages is a sample per page if its mask has as
    many, or an image with a channel per page if the mask has one.

    Masks hold class indices, or 0 and 255, or other gray values, palette indices or colours; palettes whose order differs from file to file are
    read as colours. All masks of all splits are read once to find the values, so that every split has the same classes; `classes` and
    `mask_values` tell what was found. Naming `values` skips that.

    split: "train", "val", "test" or "all". classes: names, or their number; else classes.txt in root (one name a line, after it, if
    wanted, its gray value or three numbers of its colour); else "background", "class 1", ... Background is a class, too.
    values: the gray value or colour (r, g, b) of each class. ignored: values whose pixels don't count (255 beside indices 0, 1, ... does so
    anyway, beside 0 and 1 if a mask holds all three).
    channels, white: see `read_image`, whose errors come when a sample is loaded. suffix: the masks' ending. strict: False leaves incomplete
    pairs out, for `check` to report.
    `guessed` holds those of classes, values, ignored and suffix that were found out or invented; `transparent` is the first mask found to have
    transparent pixels, which count as black, and `inverted` the first that stores white as 0; `shown` has the colours of palette indices.
    DataError for a folder, a split, classes, values or masks that do not fit together, and unless `strict` is False for files without a partner.
    """

    def __init__(
        self,
        root: str | Path,
        split: str = "train",
        *,
        classes: Sequence[str] | int | None = None,
        values: Sequence[Value] | None = None,
        ignored: Sequence[Value] | None = None,
        channels: int | None = None,
        white: float | None = None,
        suffix: str | None = None,
        val_fraction: float = 0.2,
        seed: int = 0,
        strict: bool = True,
    ) -> None:
        root = existing_folder(root, "Folder")
        if isinstance(classes, float | np.generic):
            classes = integer(classes, "Folder: classes")
        folders = _find_layout(root)
        undivided = "all" in folders
        known = ("train", "val", *(part for part in folders if part != "all"), "all") if undivided else (*folders, "all")
        way_out = f"; put images/ and masks/ into {root}/{split_name(split)}" if split_name(split) in _SPLIT_FOLDERS else ""
        if way_out and not undivided:
            way_out += f", or for a division at random all of them straight into {root}"
        split = choose_split(split, known, f"Folder {root}", way_out)
        self.guessed: dict[str, Any] = {}
        self.transparent: Source | None = None
        self.inverted: Source | None = None
        self.shown: dict[int, Value] = {}
        pairs: dict[str, list[Entry]] = {}
        problems: list[str] = []
        endings: set[str] = set()
        for part, (images, masks) in folders.items():
            pairs[part], complaints, ending = pair_folders(images, masks, suffix)
            problems += complaints
            endings.add(ending)
        parts = {images.resolve() for images, _ in folders.values()}
        inside = [text for images, _ in folders.values() if (text := in_sub_folders(images, parts))]
        self.unused = tuple(
            f"{text} that nothing uses: sub-folders are not searched; move up what is meant, and the masks" for text in inside
        )
        if suffix is None and len(endings) == 1:
            self.guessed["suffix"] = ending
        everything = [entry for part in pairs.values() for entry in part]
        if strict or not everything:
            complain(problems, "Folder")
        names, values = _names_and_values(root, classes, values)
        ignored = None if ignored is None else _tuples(ignored, "ignored")
        if values is None:
            found = scan([entry.mask for entry in everything], strict)
            table = infer_table(found, names, ignored, root)
            self.transparent, self.inverted, self.shown = found.transparent, found.inverted, found.shown
            self.guessed |= {"values": table.values} | ({} if ignored is not None else {"ignored": table.ignored})
        else:
            unasked = (255,) if ignored is None and _ignores_255(values, everything) else ()
            table = LabelTable(values, ignored or unasked)
        table = replace(table, way_out=_WAY_OUT)
        if names is None or isinstance(classes, int):
            names = names or _invented_names(len(table.values), table.values[0] in (0, (0, 0, 0)))
            self.guessed["classes"] = names
        if len(names) != len(table.values):
            raise DataError(
                f"Folder {root}: classes=... (--classes) has {len(names)} ({some(names)}) but values=... (--values) "
                f"{len(table.values)} ({some(map(value_text, table.values))}); each class needs one value, in the same order"
            )

        self.divided = undivided and split in ("train", "val")
        if self.divided:
            at = divide(len(pairs["all"]), val_fraction, seed, f"Folder {root}")[("train", "val").index(split)]
            entries = [pairs["all"][i] for i in at]
        elif split == "all":  # the same names may occur in train and in val
            plain = pairs.keys() if len(pairs) == 1 else {"all"}
            entries = [e if part in plain else replace(e, name=f"{part}-{e.name}") for part, part_of in pairs.items() for e in part_of]
        else:
            entries = pairs[split]
        palette = default_palette(len(names)) if not table.colour else np.array(table.values, np.uint8)
        super().__init__(
            f"{root.resolve().name} {split}", entries, table, names, channels=channels, white=white, palette=palette, problems=problems
        )


def _find_layout(root: Path) -> dict[str, tuple[Path, Path]]:
    """Split -> (image folder, mask folder). Images that lie beside no train folder are to be divided, and called "all"; or "train" beside val."""
    images, masks = _first_folder(root, _IMAGES), _first_folder(root, _MASKS)
    found: dict[str, tuple[Path, Path]] = {}
    for split, names in _SPLIT_FOLDERS.items():
        part = _first_folder(root, names)
        if part:
            a, b = _first_folder(part, _IMAGES), _first_folder(part, _MASKS)
        else:
            a, b = (images and _first_folder(images, names)), (masks and _first_folder(masks, names))
        if a and b:
            found[split] = (a, b)
    if images and masks and "train" not in found and (not found or list_images(images)):
        return {"train" if "val" in found else "all": (images, masks), **found}
    if found:
        return found
    inside = ", ".join(sorted(p.name for p in root.iterdir() if p.is_dir() and not p.name.startswith("."))) or "no folders"
    raise DataError(
        f"Folder: {root} should hold images/ and masks/, or train/ and val/ with images/ and masks/ in each, but holds {inside}"
    )


def _first_folder(root: Path, names: Sequence[str]) -> Path | None:
    """The first of `names` that is a folder in `root`, whatever its case."""
    folders = {p.name.lower(): p for p in sorted(root.iterdir(), reverse=True) if p.is_dir()}
    return next((folders[name] for name in names if name in folders), None)


def _names_and_values(
    root: Path, classes: Sequence[str] | int | None, values: Sequence[Value] | None
) -> tuple[tuple[str, ...] | None, tuple[Value, ...] | None]:
    """Names and values of the classes from the arguments, else from classes.txt, else None."""
    names: tuple[str, ...] | None = None
    if isinstance(classes, int):
        if classes < 2:
            raise DataError(f"classes=... (--classes) must be at least 2, got {classes}: background is a class, too")
        names = _invented_names(classes, background=True)
    elif classes is not None:
        names = tuple(classes)
    elif (root / "classes.txt").is_file():
        names, listed = read_classes(root / "classes.txt")
        values = listed if values is None else values
    if names is not None and len(set(names)) < len(names):
        raise DataError(f"classes=... (--classes): {_twice(names)!r} is named twice; give each class a name of its own")
    return names, None if values is None else _tuples(values, "values")


def read_classes(path: Path) -> tuple[tuple[str, ...], tuple[Value, ...] | None]:
    """Names, and values if they are given, from lines "name", "name 255", "name 255 0 0" or "255 0 0 name"; # begins a comment line."""
    names: list[str] = []
    values: list[Value | None] = []
    for number, line in enumerate(read_lines(path), 1):
        words = line.replace(",", " ").split()
        if not words or words[0].startswith("#"):
            continue
        for count in (3, 1):
            tail, head = words[-count:], words[:count]
            if len(words) > count and all(w.isdigit() for w in tail):
                words, numbers = words[:-count], tail
                break
            if len(words) > count and all(w.isdigit() for w in head):
                words, numbers = words[count:], head
                break
        else:
            numbers = []
        if any(int(n) > (255 if len(numbers) == 3 else 65535) for n in numbers):
            raise DataError(f"{path}, line {number}: {' '.join(numbers)} is neither a gray value nor a colour")
        names.append(" ".join(words))
        values.append(None if not numbers else _value([int(n) for n in numbers]))
    given = tuple(v for v in values if v is not None)
    if not names or 0 < len(given) < len(names):
        counts = f"{len(names)} names and {len(given)} values{_NUMBERS if given else ''}"
        raise DataError(f"{path}: every line must name a class, and either all or none of them its mask value, got {counts}")
    if len(set(names)) < len(names):
        raise DataError(f"{path}: the class {_twice(names)!r} is named twice{_NUMBERS if given else ''}")
    return tuple(names), given or None


def _value(numbers: int | Sequence[int]) -> Value:
    """A gray value, or a colour from three numbers."""
    if isinstance(numbers, Sequence) and len(numbers) == 3:
        return int(numbers[0]), int(numbers[1]), int(numbers[2])
    return int(numbers[0]) if isinstance(numbers, Sequence) else int(numbers)


def _tuples(values: Sequence[Value], argument: str) -> tuple[Value, ...]:
    if not values and argument == "values":
        raise DataError("values=... (--values) is empty: name the mask value of each class, or leave it out to have them found")
    for value in values:
        if isinstance(value, Sequence) and not (len(value) == 3 and all(0 <= v <= 255 for v in value)):
            raise DataError(f"{argument}=... (--{argument}): {tuple(value)} is no colour, which is three numbers from 0 to 255")
    return tuple(_value(v) for v in values)


def _twice(names: Sequence[str]) -> str:
    return next(name for name in names if names.count(name) > 1)


def _ignores_255(values: tuple[Value, ...], entries: Sequence[Entry]) -> bool:
    """Whether 255 may be taken for pixels that don't count, though nobody said so: beside indices, 0, 1, ... or 1, 2, ... in any order.

    Beside 0 and 1 it may be the white of masks of another kind: only if some mask holds both it and 1. For that alone all masks are read.
    """
    if 255 in values:
        return False
    numbers = sorted(v for v in values if isinstance(v, int))
    first = numbers[0] if numbers else -1
    if len(values) < 2 or first not in (0, 1) or numbers != list(range(first, first + len(values))):
        return False
    return numbers != [0, 1] or any({1, 255} <= held for held in scan([e.mask for e in entries], strict=False).alike)


def _invented_names(count: int, background: bool) -> tuple[str, ...]:
    others = ("foreground",) if background and count == 2 else tuple(f"class {i}" for i in range(1, count))
    return "background" if background else "class 0", *others
