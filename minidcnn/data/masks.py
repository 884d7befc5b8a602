"""Mask files: the values that they hold, exactly or not at all."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from PIL import Image, ImageFile, ImageOps

from .images import Source, load_npy, opened
from .pillow import inverts, lossy, lost, maxval, signed
from .sample import Array, DataError, Value


@dataclass(frozen=True, eq=False)
class RawMask:
    """A mask as stored. values: (H, W) gray values or palette indices, or packed colours 0xRRGGBB if `colour`.

    palette: the packed colour of each palette index, see `_palette`. transparent: whether some pixels are, which therefore count as black.
    inverted: whether the file stores white as 0; values are as it looks, not as stored.
    """

    values: Array
    colour: bool
    palette: Array | None = None
    transparent: bool = False
    inverted: bool = False


_MODES = ("1", "L", "LA", "La", "P", "PA", "I", "F", "RGB", "RGBA", "RGBX")
_BLACK_AND_WHITE = np.array([0, 0xFFFFFF], np.int32)  # the colours of a file of one bit


def pack(value: Value) -> int:
    """A gray value or a colour as one integer; gray g is not the colour (g, g, g) here."""
    return value if isinstance(value, int) else value[0] << 16 | value[1] << 8 | value[2]


def unpack(key: int, colour: bool) -> Value:
    """The inverse of `pack`."""
    return (key >> 16, key >> 8 & 255, key & 255) if colour else key


def read_raw(source: Source, colour: bool = False) -> RawMask:
    """Reads a mask file. `colour` asks for colours even if the file holds gray values or palette indices.

    An RGB file whose pixels are all gray counts as gray, and pixels that are transparent throughout as black, whatever colour is hidden there.
    DataError for what cannot be read exactly: JPEG and other lossy files, 16-bit colours, fractions, damaged files.
    """
    raw = _read_npy(source) if source.path.suffix.lower() == ".npy" else _read_image(source)
    return _in_colours(raw, source) if colour and not raw.colour else raw


def _read_npy(source: Source) -> RawMask:
    values = load_npy(source.path)
    if values.shape[2] != 1:
        raise DataError(f"{source} must hold one class index per pixel, shape (height, width), got {values.shape}")
    return RawMask(_integers(values[:, :, 0], source), colour=False)


def _read_image(source: Source) -> RawMask:
    with opened(source) as image:
        if kind := lossy(image, source.path):
            raise DataError(
                f"{source} is {kind}, whose compression changes label values; export the masks as PNG from the labelling tool "
                f"(saving this file as PNG does not repair it)"
            )
        if loss := lost(image):
            raise DataError(f"{source} {loss}")
        if image.mode not in _MODES and not image.mode.startswith("I;16"):
            raise DataError(f"{source} stores colours as {image.mode}, not as red, green and blue; export the masks as PNG")
        mode, clear, most = image.mode, _clear_gray(image), maxval(image)
        inverted, negative = inverts(image), signed(image)
        ImageOps.exif_transpose(image, in_place=True)
        if mode == "P":
            return RawMask(np.asarray(image), colour=False, palette=_palette(image))
        if mode in ("LA", "La"):
            gray, alpha = np.moveaxis(np.asarray(image.convert("LA")), 2, 0)
            values, transparent = _blackened(gray, alpha == 0)
            return RawMask(values, colour=False, transparent=transparent)
        if mode in ("1", "L", "I", "F") or mode.startswith("I;16"):
            values = _integers(np.asarray(image), source)
            if negative:
                values = values.view(np.int8)
            if most:  # a PGM of 0 to `most`, stretched to 8 or 16 bits
                values = np.rint(values * (most / (65535 if mode == "I" else 255))).astype(np.uint16)
            values, transparent = _blackened(values, values == clear) if clear is not None else (values, False)
            return RawMask(values, False, _BLACK_AND_WHITE if mode == "1" else None, transparent, inverted)
        pixels = np.asarray(image if mode == "RGBA" else image.convert("RGBA"))
    packed = (pixels.view(">u4")[:, :, 0] >> 8).astype(np.int32)  # (H, W, 4) bytes as (H, W) numbers 0xRRGGBBAA
    packed, transparent = _blackened(packed, pixels[:, :, 3] == 0)
    gray = packed & 255
    if (packed == gray * 0x010101).all():
        return RawMask(gray.astype(np.uint8), colour=False, transparent=transparent)
    return RawMask(packed, colour=True, transparent=transparent)


def _blackened(values: Array, hidden: Array) -> tuple[Array, bool]:
    """(H, W) values with 0 where they are hidden, and whether any is."""
    transparent = bool(hidden.any())
    return np.where(hidden, 0, values) if transparent else values, transparent


def _clear_gray(image: ImageFile.ImageFile) -> int | None:
    """The one gray value that a PNG can name as transparent, as `np.asarray(image)` has it."""
    clear = image.info.get("transparency")
    if not isinstance(clear, int):
        return None
    if image.mode == "1":
        return int(clear > 0)
    return clear * {"L;2": 85, "L;4": 17}.get(str(image.tile[0][3]), 1)  # Pillow makes 8 bits of the pixels, but not of this


def _palette(image: Image.Image) -> Array:
    """(256,) int32, the packed colour of each index: -1 where it is transparent, black where the file names none."""
    colours = np.frombuffer(bytes(image.getpalette() or []), np.uint8).reshape(-1, 3)
    bytes_of = np.zeros((256, 4), np.uint8)
    bytes_of[: len(colours), 1:] = colours
    packed = bytes_of.view(">i4")[:, 0].astype(np.int32)
    if (clear := image.info.get("transparency")) is not None:  # one index, or the alpha of the first ones
        packed[clear if isinstance(clear, int) else np.flatnonzero(np.frombuffer(clear, np.uint8) == 0)] = -1
    return packed


def _in_colours(raw: RawMask, source: Source) -> RawMask:
    """Gray values and palette indices as the colours that they stand for."""
    if raw.palette is not None:
        values = raw.palette[raw.values]
        values, transparent = _blackened(values, values < 0)
        return RawMask(values, colour=True, transparent=raw.transparent or transparent)
    if raw.values.size and not 0 <= raw.values.min() <= raw.values.max() <= 255:
        wrong = raw.values.min() if raw.values.min() < 0 else raw.values.max()
        raise DataError(f"{source} holds {wrong}, which is no gray of 8 bits, but other masks hold colours; save all masks alike")
    return RawMask(raw.values.astype(np.int32) * 0x010101, colour=True, transparent=raw.transparent)


def _integers(values: Array, source: Source) -> Array:
    """(H, W) whole numbers. DataError for fractions."""
    if values.dtype.kind == "b":
        values = values.astype(np.uint8)
    if values.dtype.kind == "f":
        if not (np.isfinite(values).all() and (values == np.rint(values)).all()):
            raise DataError(f"{source} holds fractions ({values.min():g} to {values.max():g}); a mask needs one integer per class")
        values = values.astype(np.int64)
    return values
