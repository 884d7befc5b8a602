"""Mask files: the values that they hold, exactly or not at all."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from PIL import ImageOps

from .images import Source, load_npy, opened
from .sample import Array, DataError, Value


@dataclass(frozen=True, eq=False)
class RawMask:
    """A mask as stored. values: (H, W) gray values or palette indices, or packed colours 0xRRGGBB if `colour`."""

    values: Array
    colour: bool


def pack(value: Value) -> int:
    """A gray value or a colour as one integer; gray g is not the colour (g, g, g) here."""
    return value if isinstance(value, int) else value[0] << 16 | value[1] << 8 | value[2]


def unpack(key: int, colour: bool) -> Value:
    """The inverse of `pack`."""
    return (key >> 16, key >> 8 & 255, key & 255) if colour else key


def read_raw(source: Source, colour: bool = False) -> RawMask:
    """Reads a mask file. `colour` asks for colours even if the file holds gray values or palette indices.

    An RGB file whose pixels are all gray counts as gray. DataError for JPEG files (their compression changes labels), fractions, and
    files that cannot be read.
    """
    if source.path.suffix.lower() == ".npy":
        values = load_npy(source.path)
        if values.shape[2] != 1:
            raise DataError(f"{source} must hold one class index per pixel, shape (height, width), got {values.shape}")
        return _integers(values[:, :, 0], source)
    with opened(source) as image:
        if image.format in ("JPEG", "MPO", "JPEG2000"):
            raise DataError(
                f"{source} is a JPEG, whose compression changes label values; export the masks as PNG from the labelling tool "
                f"(saving this JPEG as PNG does not repair it)"
            )
        if colour or not (image.mode in ("1", "L", "LA", "P", "PA", "I", "F") or image.mode.startswith("I;16")):
            pixels = np.asarray(ImageOps.exif_transpose(image).convert("RGB"))
            if not colour and (pixels == pixels[:, :, :1]).all():
                return RawMask(pixels[:, :, 0], colour=False)
            packed = pixels.astype(np.int32)
            return RawMask(packed[:, :, 0] << 16 | packed[:, :, 1] << 8 | packed[:, :, 2], colour=True)
        pixels = np.asarray(ImageOps.exif_transpose(image))
    return _integers(pixels[:, :, 0] if pixels.ndim == 3 else pixels, source)  # of gray or palette with alpha, the first


def _integers(values: Array, source: Source) -> RawMask:
    if values.dtype.kind == "b":
        values = values.astype(np.uint8)
    if values.dtype.kind == "f":
        if not (np.isfinite(values).all() and (values == np.rint(values)).all()):
            raise DataError(f"{source} holds fractions ({values.min():g} to {values.max():g}); a mask needs one integer per class")
        values = values.astype(np.int64)
    return RawMask(values, colour=False)
