"""The interface of every data set, and the simplest one: arrays in memory."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from typing import overload

import numpy as np

from ..window import integer
from ..words import counted
from .palette import default_palette
from .sample import IGNORE, Array, DataError, Sample, Value, validate


class Dataset(ABC):
    """A sequence of samples with the facts that belong to all of them.

    classes: the name of every class, in the order of the mask's indices. Background, where there is one, is a class like the others.
    channels: of every image. palette: (K, 3) uint8, a colour per class. ignore_index: the label that counts nowhere.
    problems: what was found wrong when the data set was opened with `strict=False` (`check` reports it).
    unused: what lies beside the data, but where it is not looked for; sentences, of which `check` makes warnings.
    mask_values: of data sets in files, what stands for each class there: a gray value, a palette index or a colour (r, g, b).
    mask_ignored: what stands there for pixels that count nowhere.
    white: of data sets in files, the value that their images were read with as 1.0, if it was given (see `read_image`).
    divided: whether it is a part that the class chose itself, so that images which come or go move others to another part.

    A subclass sets these and implements `__len__` and `load(index)`. Negative indices and slices work everywhere. IndexError for an index
    out of range, TypeError for one that is no integer, DataError for a sample that cannot be read.
    """

    name: str = "data set"
    classes: tuple[str, ...]
    channels: int
    palette: Array
    ignore_index: int = IGNORE
    problems: tuple[str, ...] = ()
    unused: tuple[str, ...] = ()
    mask_values: tuple[Value, ...] | None = None
    mask_ignored: tuple[Value, ...] = ()
    white: float | None = None
    divided: bool = False

    @abstractmethod
    def __len__(self) -> int: ...

    @abstractmethod
    def load(self, index: int) -> Sample:
        """The sample at 0 <= index < len(self). DataError if it cannot be read, or image and mask do not fit together."""

    @overload
    def __getitem__(self, index: int) -> Sample: ...

    @overload
    def __getitem__(self, index: slice) -> Dataset: ...

    def __getitem__(self, index: int | slice) -> Sample | Dataset:
        if isinstance(index, slice):
            return Subset(self, range(len(self))[index])
        index = integer(index, f"{self.name}: an index")
        if not -len(self) <= index < len(self):
            raise IndexError(f"index {index} is out of range: {self.name} has {counted(len(self), 'image')}")
        return self.load(index % len(self))

    def __iter__(self) -> Iterator[Sample]:
        return (self.load(i) for i in range(len(self)))

    def label(self, index: int) -> str:
        """A name for sample `index` that can be shown even if the sample cannot be read."""
        return f"sample {index}"

    def __repr__(self) -> str:
        numbers = (len(self), "image"), (self.channels, "channel"), (len(self.classes), "class")
        return f"<{self.name}: {', '.join(counted(*number) for number in numbers)}>"


class Subset(Dataset):
    """Some samples of another data set, in the given order. IndexError where it lacks one, TypeError for what is no integer."""

    def __init__(self, dataset: Dataset, indices: Sequence[int]) -> None:
        self.dataset, self.indices = dataset, tuple(integer(i, "Subset: an index") for i in indices)
        for i in self.indices:
            if not -len(dataset) <= i < len(dataset):
                raise IndexError(f"Subset: index {i} is out of range: {dataset.name} has {counted(len(dataset), 'image')}")
        self.name, self.classes, self.channels = dataset.name, dataset.classes, dataset.channels
        self.palette, self.ignore_index = dataset.palette, dataset.ignore_index
        self.problems, self.unused = dataset.problems, dataset.unused
        self.mask_values, self.mask_ignored, self.white = dataset.mask_values, dataset.mask_ignored, dataset.white

    def __len__(self) -> int:
        return len(self.indices)

    def load(self, index: int) -> Sample:
        return self.dataset[self.indices[index]]

    def label(self, index: int) -> str:
        return self.dataset.label(self.indices[index])


class Arrays(Dataset):
    """Images and masks that are in memory already.

    images: sequence of (C, H, W) or (H, W) arrays, floating point in [0, 1], or uint8/uint16, which are divided by 255 or 65535.
    masks: sequence of (H, W) integer arrays of class indices. classes: names, or their number. palette: (K, 3) uint8.
    Sizes may differ from image to image, channels may not. DataError where something does not fit, TypeError for a number of classes that is
    no integer.
    """

    name = "arrays"

    def __init__(
        self,
        images: Sequence[Array] | Array,
        masks: Sequence[Array] | Array,
        classes: Sequence[str] | int,
        *,
        names: Sequence[str] | None = None,
        ignore_index: int = IGNORE,
        palette: Array | None = None,
    ) -> None:
        if len(images) != len(masks):
            raise DataError(f"every image needs one mask, got {len(images)} images and {len(masks)} masks")
        if names is not None and len(names) != len(images):
            raise DataError(f"every image needs one name, got {len(images)} images and {len(names)} names")
        self.names = tuple(names) if names is not None else tuple(f"{i:04d}" for i in range(len(images)))
        self.images, self.masks = images, masks
        number = integer(classes, "Arrays: classes") if isinstance(classes, int | float | np.generic) else None
        self.classes = tuple(classes) if number is None else tuple(f"class {i}" for i in range(number))  # type: ignore[arg-type]
        if not self.classes:
            raise DataError(f"Arrays: classes must be names or a number of at least 1, got {classes!r}")
        self.palette = default_palette(len(self.classes)) if palette is None else np.asarray(palette, np.uint8)
        if self.palette.shape != (len(self.classes), 3):
            raise DataError(f"Arrays: palette must have shape ({len(self.classes)}, 3), a colour for each class, got {self.palette.shape}")
        self.ignore_index = ignore_index
        channels = {1 if np.ndim(x) == 2 else int(np.shape(x)[0]) for x in images}
        if len(channels) > 1:
            raise DataError(f"all images need the same number of channels, got {sorted(channels)}")
        self.channels = channels.pop() if channels else 1

    def __len__(self) -> int:
        return len(self.images)

    def load(self, index: int) -> Sample:
        image, mask = np.asarray(self.images[index]), np.asarray(self.masks[index])
        white = {np.dtype(np.uint8): 255.0, np.dtype(np.uint16): 65535.0}.get(image.dtype, 1.0)
        if image.dtype.kind != "f" and white == 1.0:
            raise DataError(f"{self.names[index]}: an image must be floating point in [0, 1], uint8 or uint16, got {image.dtype}")
        if mask.dtype.kind not in "iu":
            raise DataError(f"{self.names[index]}: a mask must hold integer class indices (height, width), got {mask.dtype}")
        image = (image if image.ndim == 3 else image[None]).astype(np.float32) / np.float32(white)
        sample = Sample(image, mask.astype(np.int64), self.names[index], self.ignore_index)
        validate(sample)
        return sample

    def label(self, index: int) -> str:
        return self.names[index]
