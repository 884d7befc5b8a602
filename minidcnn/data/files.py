"""Data sets that are files on disk: finding the pairs, choosing a split, reading on demand."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass
from difflib import get_close_matches
from pathlib import Path
from unicodedata import normalize

import numpy as np

from ..words import counted
from .dataset import Dataset
from .images import Source, in_sub_folders, list_images, natural_channels, natural_key, pages, read_image
from .labels import LabelTable
from .palette import default_palette
from .sample import Array, DataError, Sample, random_generator, size_text
from .written import option_text

_BETWEEN = "_-. "  # the name of an image and what its mask has beside it
_COMPARED = 20  # images without a mask for which masks of similar names are looked for; among 2000 that takes 0.05 s each


@dataclass(frozen=True)
class Entry:
    """One sample on disk."""

    name: str
    image: Source
    mask: Source


class FileDataset(Dataset):
    """Reads entries on demand. white: see `read_image`; table: what the values in mask files mean.

    channels: of every image; None looks at all of them. palette: (K, 3) uint8. problems: see `Dataset`. DataError if images differ in their
    channels and cannot be given the same, or none can be read; load() and indexing raise it for a file that cannot be read, an image and a mask of
    different sizes, and a mask value that is no class.
    """

    def __init__(
        self,
        name: str,
        entries: Sequence[Entry],
        table: LabelTable,
        classes: Sequence[str],
        *,
        channels: int | None = None,
        white: float | None = None,
        palette: Array | None = None,
        problems: Sequence[str] = (),
    ) -> None:
        self.name, self.entries, self.table, self.classes = name, tuple(entries), table, tuple(classes)
        self.ignore_index, self.mask_values, self.mask_ignored = table.ignore_index, table.values, table.ignored
        self.white, self.problems = white, tuple(problems)
        self.palette = default_palette(len(self.classes)) if palette is None else np.asarray(palette, np.uint8)
        self.channels = common_channels(self.entries) if channels is None else channels

    def __len__(self) -> int:
        return len(self.entries)

    def load(self, index: int) -> Sample:
        entry = self.entries[index]
        image = read_image(entry.image, self.channels, self.white)
        mask = self.table.read(entry.mask)
        if mask.shape != image.shape[1:]:
            turned = "; one of them may carry an EXIF rotation that the other lacks" if mask.shape == image.shape[:0:-1] else ""
            raise DataError(
                f"{entry.image} is {size_text(image.shape[1:])} but its mask {entry.mask} is {size_text(mask.shape)} "
                f"(height x width); export them at the same size{turned}"
            )
        return Sample(image, mask, entry.name, self.ignore_index)

    def label(self, index: int) -> str:
        return self.entries[index].name


def common_channels(entries: Sequence[Entry]) -> int:
    """The number of channels that all images can be given, read from their headers: gray among colour images becomes RGB.

    DataError if none can be read; one that cannot will be complained of when it is loaded.
    """
    found: dict[int, Source] = {}
    unread: list[DataError] = []
    for entry in entries:
        try:
            found.setdefault(natural_channels(entry.image), entry.image)
        except DataError as error:
            unread.append(error)
    if unread and not found:
        raise unread[0]
    if len(found) <= 1:
        return next(iter(found), 1)
    if set(found) == {1, 3}:
        return 3
    fewest, most = min(found), max(found)
    raise DataError(
        f"{found[fewest]} has {counted(fewest, 'channel')}, {found[most]} has {most}; all images of a data set need the same number (see channels=..., "
        f"--channels)"
    )


def read_lines(path: Path) -> list[str]:
    """The lines of a text file. DataError if it is no UTF-8."""
    try:
        return path.read_text(encoding="utf-8-sig").splitlines()
    except UnicodeDecodeError as error:
        wrong = error.object[error.start]
        raise DataError(f"{path} is no text in UTF-8 (it holds the byte {wrong:#04x}): save it as UTF-8") from error


def existing_folder(root: str | Path, owner: str) -> Path:
    """`root` as a Path. DataError if it is no folder."""
    path = Path(root).expanduser()
    if not path.is_dir():
        what = "is a file, not a folder" if path.exists() else "does not exist"
        raise DataError(f"{owner}: the folder {path} {what}; say where the data lies (root=..., --root)")
    return path


def split_name(split: str) -> str:
    """`split` as data sets call it: "valid" and "validation" mean "val", "training" means "train", "testing" means "test"."""
    return {"valid": "val", "validation": "val", "training": "train", "testing": "test"}.get(split, split)


def choose_split(split: str, known: Sequence[str], owner: str, way_out: str = "") -> str:
    """`split_name(split)`. DataError, with `way_out`, if it is not known."""
    split = split_name(split)
    if split not in known:
        raise DataError(f"{owner}: there is no split {split!r}; this data set has {', '.join(known)}{way_out}")
    return split


def divide(count: int, fraction: float, seed: int, owner: str) -> tuple[list[int], list[int]]:
    """Indices for training and for validation: a random choice that depends on (count, fraction, seed) alone; both in ascending order.

    DataError for a fraction that is not between 0 and 1, and for fewer than 2 images.
    """
    if not 0 < fraction < 1:
        raise DataError(f"{owner}: val_fraction must lie between 0 and 1, got {fraction} (--val-fraction)")
    if count < 2:
        raise DataError(
            f"{owner}: {count} image cannot be divided into training and validation; add images, or look at all with split='all' (--split all)"
        )
    held_out = min(max(round(count * fraction), 1), count - 1)
    order = random_generator(seed, count).permutation(count)
    return sorted(order[held_out:].tolist()), sorted(order[:held_out].tolist())


def pair_folders(images: Path, masks: Path, suffix: str | None = None) -> tuple[list[Entry], list[str], str]:
    """Pairs each image with the mask of the same name, up to the ending that all masks share, such as "_mask", or the beginning, "mask_".

    suffix: that ending; None finds it, or a beginning. Returns the entries in natural order of names, one per page where both files of a pair have pages,
    a complaint for each file that has no partner or several, and the ending.
    """
    problems: list[str] = []
    by_stem = _by_stem(list_images(images), problems, "images", "keep one of them")
    masks_by_stem = _by_stem(list_images(masks), problems, "masks", "keep one of them")
    for kind, folder, files, formats in (("images", images, by_stem, "PNG, JPEG or TIFF"), ("masks", masks, masks_by_stem, "PNG or TIFF")):
        if not files:
            inside = in_sub_folders(folder)
            itself = f" itself; {inside}, but sub-folders are not searched: move them up"
            problems.append(f"there are no {kind} in {folder}{itself if inside else f'; it should hold {formats} files'}")
    beginning, ending = _common_affixes(by_stem, masks_by_stem) if suffix is None else ("", suffix)
    other = _most_frequent(stem[cut:] for stem in masks_by_stem for cut in range(1, len(stem)) if stem[:cut] in by_stem)
    entries: list[Entry] = []
    for stem in sorted(by_stem, key=natural_key):
        expected = beginning + stem + ending
        mask = masks_by_stem.pop(expected, None)
        if mask is None:
            near = get_close_matches(expected, masks_by_stem, 1, 0.8) if len(problems) < _COMPARED else []
            hint = f"; {masks_by_stem[near[0]].name} has a similar name" if near else ""
            if stem in masks_by_stem:
                hint = f"; {masks_by_stem[stem].name} is called as the image: leave suffix=... (--suffix) out"
            elif stem + other in masks_by_stem:
                hint = f"; if {masks_by_stem[stem + other].name} is meant, say suffix={other!r} ({option_text('suffix', other)})"
            problems.append(f"{by_stem[stem]} has no mask: {masks / expected}.png is expected{hint}")
            continue
        try:
            entries += _page_entries(stem, by_stem[stem], mask)
        except DataError as error:
            problems.append(str(error))
    problems += [f"{path} belongs to no image in {images}" for path in masks_by_stem.values()]
    return entries, problems, ending


def _by_stem(files: Sequence[Path], problems: list[str], kind: str, way_out: str) -> dict[str, Path]:
    """The files by their stems, in which a letter with an accent is one character: from a Mac it may come as two, which look the same."""
    found: dict[str, Path] = {}
    for path in files:
        stem = normalize("NFC", path.stem)
        if stem in found:
            problems.append(f"there are two {kind} of one name, {found[stem]} and {path.name}; {way_out}")
        found.setdefault(stem, path)
    return found


def _common_affixes(images: Collection[str], masks: Collection[str]) -> tuple[str, str]:
    """What masks have before and after their image's name: nothing if one is named like one, else the most frequent ending after _ - . or
    space, or the most frequent beginning before it.
    """
    if any(stem in images for stem in masks):
        return "", ""
    cuts = [(stem[:cut], stem[cut:]) for stem in masks for cut in range(1, len(stem))]
    ending = _most_frequent(right for left, right in cuts if right[0] in _BETWEEN and left in images)
    beginning = "" if ending else _most_frequent(left for left, right in cuts if left[-1] in _BETWEEN and right in images)
    return beginning, ending


def _most_frequent(endings: Iterable[str]) -> str:
    return max(Counter(endings).items(), key=lambda item: item[1], default=("", 0))[0]


def _page_entries(stem: str, image: Path, mask: Path) -> list[Entry]:
    of_image, of_mask = pages(image), pages(mask)
    if of_mask == 1:  # several pages of an image with one mask are its channels
        return [Entry(stem, Source(image, 0 if of_image == 1 else None), Source(mask))]
    if of_image != of_mask:
        raise DataError(f"{image} has {of_image} pages but its mask {mask} has {of_mask}; they need as many, or the mask one")
    digits = len(str(of_image))
    return [Entry(f"{stem}-{page + 1:0{digits}d}", Source(image, page), Source(mask, page)) for page in range(of_image)]


class Incomplete(DataError):
    """Images without masks, masks without images. problems: all of them, a sentence each."""

    def __init__(self, problems: Sequence[str], owner: str) -> None:
        more = counted(len(problems) - 1, "more problem")
        super().__init__(f"{owner}: {problems[0]}" + (f" ({more}; python -m minidcnn check lists them)" if len(problems) > 1 else ""))
        self.problems = tuple(problems)


def complain(problems: Sequence[str], owner: str) -> None:
    """`Incomplete`, which says the first problem and the number of the others, if there are any."""
    if problems:
        raise Incomplete(problems, owner)
