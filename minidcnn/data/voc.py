"""PASCAL VOC, the benchmark of the FCN paper."""

from __future__ import annotations

from pathlib import Path

from .files import Entry, FileDataset, choose_split, complain, existing_folder, read_lines
from .images import Source, opened
from .labels import LabelTable
from .palette import voc_palette
from .sample import DataError, Value

#: The background and the 20 classes of PASCAL VOC, in the order of its masks.
VOC_CLASSES = (
    "background", "aeroplane", "bicycle", "bird", "boat", "bottle", "bus", "car", "cat", "chair", "cow", "diningtable", "dog", "horse",
    "motorbike", "person", "pottedplant", "sheep", "sofa", "train", "tvmonitor",
)  # fmt: skip

_BORDER = (224, 224, 192)  # the colour of index 255 in VOC's palette: pixels beside objects, which count nowhere


class VOC(FileDataset):
    """21 classes with background, ignore label 255; RGB, sizes vary: crop them or use batches of one.

    root: the folder that holds JPEGImages, SegmentationClass and ImageSets/Segmentation, or one above it (VOCdevkit, VOCdevkit/VOC2012).
    split: the name of any list in ImageSets/Segmentation ("train", "val", "trainval", ...). labels: the folder of masks, also for
    SegmentationClassAug. Masks are palette PNGs of indices, or the same in colours. strict: False leaves out what is missing.
    DataError for another layout, for a split without a list, and for images or masks that a list names and that are not there.
    """

    def __init__(self, root: str | Path, split: str = "train", *, labels: str = "SegmentationClass", strict: bool = True) -> None:
        given = existing_folder(root, "VOC")
        root = _find_root(given)
        lists = {p.stem: p for p in sorted((root / "ImageSets" / "Segmentation").glob("*.txt")) if not p.name.startswith(".")}
        split = choose_split(split, tuple(lists), f"VOC {root}")
        entries: list[Entry] = []
        problems: list[str] = []
        for name in " ".join(read_lines(lists[split])).split():
            image, mask = root / "JPEGImages" / f"{name}.jpg", root / labels / f"{name}.png"
            missing = [p for p in (image, mask) if not p.is_file()]
            problems += [f"{path} is in {lists[split].name} but does not exist" for path in missing]
            if not missing:
                entries.append(Entry(name, Source(image), Source(mask)))
        if strict:
            complain(problems, "VOC")
        palette = voc_palette(len(VOC_CLASSES))
        super().__init__(f"voc {split}", entries, _table(entries), VOC_CLASSES, channels=3, palette=palette, problems=problems)


def _find_root(given: Path) -> Path:
    inside = [p for folder in ("", "VOCdevkit") for p in sorted((given / folder).glob("VOC2*"), reverse=True)]
    for root in (given, *inside):
        if (root / "ImageSets" / "Segmentation").is_dir() and (root / "JPEGImages").is_dir():
            return root
    raise DataError(f"VOC: {given} should hold JPEGImages, SegmentationClass and ImageSets/Segmentation, or a folder VOC2012 that does")


def _table(entries: list[Entry]) -> LabelTable:
    """Indices, or colours if the first mask is stored in colours."""
    count = len(VOC_CLASSES)
    if entries:
        with opened(entries[0].mask) as mask:
            if mask.mode in ("RGB", "RGBA"):
                colours: list[Value] = [(int(r), int(g), int(b)) for r, g, b in voc_palette(count)]
                return LabelTable(tuple(colours), (_BORDER,))
    return LabelTable(tuple(range(count)), (255,))
