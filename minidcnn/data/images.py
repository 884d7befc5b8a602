"""Image files of every kind as (C, H, W) float32 in [0, 1], and folders of them in natural order."""

from __future__ import annotations

import os
import re
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from threading import Lock

import numpy as np
from PIL import Image, ImageFile, ImageOps, UnidentifiedImageError

from ..words import counted
from .pillow import keep_byte_order, lost, signed
from .sample import Array, DataError

SUFFIXES = frozenset(".png .jpg .jpeg .tif .tiff .bmp .gif .webp .ppm .pgm .pbm .pnm .npy".split())
_LUMINANCE = np.array([0.299, 0.587, 0.114], np.float32)  # ITU-R BT.601, as Pillow's conversion to "L"


@dataclass(frozen=True)
class Source:
    """Where an image or a mask is stored: a file, and which page of it. `page=None` takes all pages of a TIFF as channels."""

    path: Path
    page: int | None = 0

    def __str__(self) -> str:
        return f"{self.path}" if not self.page else f"{self.path} (page {self.page + 1})"


def natural_key(name: str | Path) -> tuple[tuple[int, str], ...]:
    """Sort key that puts "cell2" before "cell10"."""
    text = str(name)
    parts = [(int(part), "") if part.isdecimal() else (-1, part.lower()) for part in re.split(r"([0-9]+)", text)]
    return *parts, (-1, text)  # names that differ in case only keep one order


def list_images(folder: Path) -> list[Path]:
    """The image files in `folder`, in natural order. Hidden files, sub-folders and files of other kinds are not images."""
    files = (p for p in folder.iterdir() if _is_image_name(p.name) and p.is_file())
    return sorted(files, key=lambda p: natural_key(p.name))


def in_sub_folders(folder: Path, but: Collection[Path] = ()) -> str:
    """What `list_images` does not see: "images/a holds 8 images", or "images/a and 2 more sub-folders hold 20 images"; "" if there is nothing.

    Hidden folders are left out, and those whose resolved paths are in `but`.
    """
    found: list[tuple[Path, int]] = []
    for path in sorted((Path(entry) for entry in os.scandir(folder) if entry.is_dir() and not entry.name.startswith(".")), key=natural_key):
        number = 0
        for _, folders, files in os.walk(path) if path.resolve() not in but else ():
            folders[:] = [name for name in folders if not name.startswith(".")]
            number += sum(map(_is_image_name, files))
        if number:
            found.append((path, number))
    if not found:
        return ""
    holds = f" and {counted(len(found) - 1, 'more sub-folder')} hold" if len(found) > 1 else " holds"
    return f"{found[0][0]}{holds} {counted(sum(number for _, number in found), 'image')}"


def _is_image_name(name: str) -> bool:
    return not name.startswith(".") and os.path.splitext(name)[1].lower() in SUFFIXES


class _Large:
    """While any thread is in it, Pillow opens files of `pixels` pixels, and of its own limit afterwards: there is one limit for all threads."""

    def __init__(self, pixels: int) -> None:
        self.pixels, self.inside, self.lock = pixels, 0, Lock()

    def __enter__(self) -> None:
        with self.lock:
            if not self.inside:
                self.before, Image.MAX_IMAGE_PIXELS = Image.MAX_IMAGE_PIXELS, self.pixels
            self.inside += 1

    def __exit__(self, *_: object) -> None:
        with self.lock:
            self.inside -= 1
            if not self.inside:
                Image.MAX_IMAGE_PIXELS = self.before


_large = _Large(2**32)  # Pillow takes much less for an attack, but here the user has named the files; more is a damaged header


@contextmanager
def opened(source: Source | Path) -> Iterator[ImageFile.ImageFile]:
    """The file, opened by Pillow and at the source's page. DataError if it is missing or no image, also while it is read; MemoryError names it."""
    source = source if isinstance(source, Source) else Source(source)
    try:
        # Pillow maps some turned TIFFs into memory with their sides swapped, unless it does not know the file's name
        with _large, source.path.open("rb") as file, Image.open(file) as image:
            if source.page:
                image.seek(source.page)
            keep_byte_order(image)
            yield image
    except FileNotFoundError:
        raise DataError(f"{source.path} does not exist") from None
    except DataError:
        raise
    except UnidentifiedImageError:
        raise DataError(
            f"{source} cannot be read as an image (it is none, or of a variant that Pillow does not know); export it again, as PNG or TIFF of 8 or "
            f"16 bits, or take it out of the folder"
        ) from None
    except MemoryError as error:
        raise MemoryError(f"while reading {source}{f': {error}' if str(error) else ''}") from error
    except Exception as error:  # of damaged files Pillow raises nearly anything
        raise DataError(f"{source} cannot be read as an image ({error}); export it again or take it out of the folder") from error


def pages(path: Path) -> int:
    """Number of pages of a TIFF. Every other file is one page: the further frames of a JPEG or GIF are previews or animation."""
    if path.suffix.lower() not in (".tif", ".tiff"):
        return 1
    with opened(path) as image:
        return int(getattr(image, "n_frames", 1))


def natural_channels(source: Source) -> int:
    """Channels of a file by its header alone: 1 for gray, 3 for colour; an alpha channel is not counted."""
    if source.path.suffix.lower() == ".npy":
        shape = load_npy(source.path, header_only=True).shape
        return int(shape[2]) if len(shape) == 3 else 1
    with opened(source) as image:
        single = 1 if _is_gray(image) else 3
        return single if source.page is not None else single * int(getattr(image, "n_frames", 1))


def read_image(source: Source | Path | str, channels: int | None = None, white: float | None = None) -> Array:
    """A file as (C, H, W) float32.

    source: PNG, JPEG, TIFF and the like, or a NumPy .npy file of (H, W) or (H, W, C), for any number of channels. Gray, RGB, RGBA, palette,
    black-and-white and CMYK files of 8 bits are understood, gray ones of 16 bits and of floating-point numbers, too; a photograph is turned
    upright as its EXIF tag says.
    channels: None takes what the file has (colour without alpha); 1 turns colour into luminance, 3 repeats gray, 4 keeps alpha.
    white: the value that becomes 1.0, above 0. None means 255 for 8-bit, 65535 for 16-bit files; other files must then lie in [0, 1].
    DataError if the file cannot be read, or not all of it (16-bit colours, animations), does not have the channels asked for, holds NaN or
    infinity, or has no known range, and for a white that is no positive number.
    """
    if white is not None and not (hasattr(white, "__float__") and 0 < white < np.inf):
        raise DataError(f"read_image: white=... (--white) must be a positive number, got {white!r}")
    source = source if isinstance(source, Source) else Source(Path(source))
    raw = load_npy(source.path) if source.path.suffix.lower() == ".npy" else _load_pixels(source, alpha=channels == 4)
    return _with_channels(_in_range(raw, white, source), channels, source)


def _is_gray(image: Image.Image) -> bool:
    if image.mode in ("P", "PA"):
        colours = np.array(image.getpalette() or [0, 0, 0]).reshape(-1, 3)
        return bool((colours == colours[:, :1]).all())
    return image.mode in ("1", "L", "LA", "La", "F", "I") or image.mode.startswith("I;16")


def _load_pixels(source: Source, alpha: bool) -> Array:
    """(H, W, C) in the file's own numbers."""
    if source.page is None:
        stack = [_load_pixels(Source(source.path, page), alpha=False) for page in range(pages(source.path))]
        if len({layer.shape for layer in stack}) > 1:
            raise DataError(f"{source.path} has pages of different sizes, so that they cannot be channels of one image")
        return np.concatenate(stack, axis=2)
    with opened(source) as file:
        if loss := lost(file):
            raise DataError(f"{source} {loss}")
        image: Image.Image = file
        has_alpha = "transparency" in image.info or image.mode in ("RGBA", "LA", "PA")
        if alpha and has_alpha:
            image = image.convert("RGBA")
        elif _is_gray(image):
            if image.mode in ("1", "P", "PA", "LA", "La"):
                image = image.convert("L")
        elif image.mode != "RGB":
            image = image.convert("RGB")
        pixels = np.asarray(ImageOps.exif_transpose(image))
        if signed(file):
            pixels = pixels.view(np.int8)
    if file.format == "PPM" and file.mode == "I":  # 16 bits, which Pillow keeps in 32
        pixels = pixels.astype(np.uint16)
    return pixels if pixels.ndim == 3 else pixels[:, :, None]


def load_npy(path: Path, header_only: bool = False) -> Array:
    """(H, W, C) from a .npy file of (H, W) or (H, W, C); never unpickles. DataError if it is anything else."""
    try:
        pixels = np.load(path, mmap_mode="r" if header_only else None, allow_pickle=False)
    except FileNotFoundError:
        raise DataError(f"{path} does not exist") from None
    except MemoryError as error:
        raise MemoryError(f"while reading {path}: {error}") from error
    except Exception as error:  # of damaged headers NumPy raises nearly anything
        raise DataError(f"{path} cannot be read as a NumPy array ({error})") from error
    if pixels.ndim not in (2, 3) or pixels.dtype.kind not in "uifb":
        shapes = "(height, width) or (height, width, channels)"
        raise DataError(f"{path} must hold numbers of shape {shapes}, got {pixels.dtype} {pixels.shape}")
    return np.asarray(pixels if pixels.ndim == 3 else pixels[:, :, None])


def _in_range(pixels: Array, white: float | None, source: Source) -> Array:
    """(H, W, C) of any dtype -> (C, H, W) float32, `white` at 1.0."""
    if pixels.dtype.kind == "f" and not (finite := np.isfinite(pixels)).all():
        row, column = np.argwhere(~finite)[0, :2].tolist()
        raise DataError(f"{source} holds NaN or infinity at row {row}, column {column}: every value must be a finite number")
    if white is None:
        white = {"uint8": 255.0, "uint16": 65535.0}.get(pixels.dtype.name, 1.0)
        if white == 1.0 and pixels.size:
            low, high = float(pixels.min()), float(pixels.max())
            if low < 0 >= high:
                raise DataError(
                    f"{source} holds {pixels.dtype.name} values from {low:g} to {high:g}, none of them positive: save it so that 0 is black"
                )
            if not (0.0 <= low and high <= 1.0):
                raise DataError(
                    f"{source} holds {pixels.dtype.name} values from {low:g} to {high:g}, whose range is not known; "
                    f"say which value is white, for example white={high:g} (--white {high:g})"
                )
    return np.multiply(pixels.transpose(2, 0, 1), np.float32(1.0 / white), dtype=np.float32, order="C")


def luminance(image: Array) -> Array:
    """(3, H, W) of RGB -> (1, H, W)."""
    return np.asarray(np.tensordot(_LUMINANCE, image, 1)[None])


def _with_channels(image: Array, channels: int | None, source: Source) -> Array:
    has = image.shape[0]
    if channels in (None, has):
        return image
    if channels == 1 and has == 3:
        return luminance(image)
    if channels == 3 and has == 1:
        return np.repeat(image, 3, axis=0)
    if channels == 4 and has in (1, 3):  # a file without alpha is opaque
        colour = np.repeat(image, 3, axis=0) if has == 1 else image
        return np.concatenate([colour, np.ones_like(image[:1])])
    raise DataError(
        f"{source} has {counted(has, 'channel')}, {channels} were asked for; only gray, RGB and RGBA are converted into each other"
    )
