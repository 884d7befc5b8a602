"""Class indices as colours: plain arrays in, plain arrays out, and the two kinds of PNG that a prediction is saved as."""

from __future__ import annotations

import os

import numpy as np

from ..backend import Array
from ..data.palette import default_palette
from ..interop.atomic import replacing

STRIPES = (np.uint8(150), np.uint8(205))  # the two grays of pixels without a class
_BLOCK = 1 << 20  # pixels of a large image that are painted together
UNUSED = (128, 128, 128)  # the colour, in an index PNG, of indices that are no class


def as_palette(palette: Array | None, classes: int) -> Array:
    """(K, 3) uint8: the palette, checked, or the default one for so many classes."""
    colours = default_palette(classes) if palette is None else np.asarray(palette)
    if colours.ndim != 2 or colours.shape[1] != 3 or len(colours) < classes:
        raise ValueError(f"palette must be ({classes}, 3), a colour for each of {classes} classes, got {colours.shape}")
    if colours.dtype != np.uint8:
        raise TypeError(f"palette must hold uint8 colours, 0 to 255, got {colours.dtype}")
    return colours


def as_rgb(image: Array) -> Array:
    """Any image (C, H, W) or (H, W) as one that can be shown, (H, W, 3) uint8.

    Of other than three channels: one or two show the first as gray, more show the first three as red, green and blue. Integers are
    divided by their largest value (uint8 stays as it is). Floating point in [0, 1] is taken as it is; outside of that, as after
    normalisation, all channels together are stretched so that 0.5 % of the values fall on either side. NaN and infinities show black.
    """
    image = np.asarray(image)
    if image.ndim == 2:
        image = image[None]
    if image.ndim != 3 or not image.shape[0]:
        raise ValueError(f"an image must be (channels, height, width) or (height, width), got {image.shape}")
    shown = (image[:3] if image.shape[0] >= 3 else image[:1]).transpose(1, 2, 0)  # (H, W, 3 or 1)
    if shown.dtype == np.bool_:
        shown = shown.astype(np.float32)
    if shown.dtype != np.uint8:
        values = np.nan_to_num(shown.astype(np.float64), nan=0.0, posinf=0.0, neginf=0.0)
        if shown.dtype.kind in "iu":
            values /= np.iinfo(shown.dtype).max
        elif values.size and (values.min() < 0 or values.max() > 1):
            low, high = np.percentile(values, [0.5, 99.5])
            values = (values - low) / max(high - low, 1e-12)
        shown = np.round(255 * values.clip(0, 1)).astype(np.uint8)
    return np.ascontiguousarray(np.broadcast_to(shown, (*shown.shape[:2], 3)))


def as_colours(mask: Array, palette: Array) -> Array:
    """Class indices (H, W) as colours (H, W, 3) uint8. Indices without a colour in the palette, such as ignored pixels, get gray stripes."""
    mask = as_mask(mask)
    known = (mask >= 0) & (mask < len(palette))
    return np.where(known[..., None], palette[np.where(known, mask, 0)], _stripes(mask.shape)[..., None])


def overlay(image: Array, mask: Array, palette: Array | None = None, alpha: float = 0.45) -> Array:
    """The image with its classes laid over it, (H, W, 3) uint8: colours blended in by `alpha`, with a solid line where classes meet.

    image: (C, H, W) or (H, W), see `as_rgb`. mask: (H, W) class indices. palette: (K, 3) uint8. A black class, the usual background, and
    indices without a colour leave the image as it is.
    """
    rgb, mask = as_rgb(image), as_mask(mask)
    if mask.shape != rgb.shape[:2]:
        raise ValueError(f"overlay: the image is {rgb.shape[0]}x{rgb.shape[1]} pixels but the mask {mask.shape[0]}x{mask.shape[1]}")
    if not 0 <= alpha <= 1:
        raise ValueError(f"overlay: alpha must be between 0 (the image alone) and 1 (the classes alone), got {alpha}")
    palette = as_palette(palette, int(mask.max(initial=0)) + 1) if palette is None else as_palette(palette, 0)
    width = max(1, round(min(mask.shape) / 400))
    result = np.empty_like(rgb)
    rows = max(1, _BLOCK // max(mask.shape[1], 1))
    for start in range(0, mask.shape[0], rows):  # block by block, since the sums are made in floating point
        here = slice(start, start + rows)
        above = min(start, width)
        part = mask[here]
        known = (part >= 0) & (part < len(palette))
        colours = palette[np.where(known, part, 0)]
        lines = _lines(mask[start - above : start + rows + width], width)[above : above + len(part)]
        weight = np.where(lines, max(alpha, 0.9 * (alpha > 0)), alpha) * (known & colours.any(axis=-1))
        result[here] = np.round(rgb[here] + weight[..., None] * (colours.astype(np.float64) - rgb[here])).astype(np.uint8)
    return result


def index_png(mask: Array, path: str | os.PathLike[str], palette: Array | None = None) -> None:
    """Write class indices (H, W) as an 8-bit palette PNG whose pixel values are the indices and whose colours are the palette's."""
    from PIL import Image

    mask = as_mask(mask)
    if mask.size and (mask.min() < 0 or mask.max() > 255):
        raise ValueError(f"an 8-bit PNG holds class indices 0 to 255, the mask holds {mask.min()} to {mask.max()}")
    palette = as_palette(palette, 0) if palette is not None else as_palette(None, _used(mask))
    if len(palette) > 256:
        raise ValueError(f"an 8-bit PNG holds 256 colours, the palette {len(palette)}")
    image = Image.fromarray(mask.astype(np.uint8), "L")
    image.putpalette([*palette.ravel().tolist(), *(UNUSED * (256 - len(palette)))])
    with replacing(path) as temporary:
        image.save(temporary, format="PNG", optimize=True)


def rgb_png(image: Array, path: str | os.PathLike[str]) -> None:
    """Write an image (H, W, 3) uint8, such as an overlay, as a PNG."""
    from PIL import Image

    with replacing(path) as temporary:
        Image.fromarray(image, "RGB").save(temporary, format="PNG")


def as_mask(mask: Array) -> Array:
    """The mask as an array, checked: (H, W), integers."""
    mask = np.asarray(mask)
    if mask.ndim != 2 or mask.dtype.kind not in "iu":
        raise ValueError(f"a mask must hold integer class indices (height, width), got {mask.dtype} {mask.shape}")
    return mask.astype(np.int64, copy=False)


def _used(mask: Array) -> int:
    """Classes that a mask of unknown origin seems to have: up to its largest index, 255 aside, which is the usual ignore label."""
    return int(mask[mask != 255].max(initial=0)) + 1


def _stripes(shape: tuple[int, ...]) -> Array:
    """(H, W) uint8: diagonal stripes, wide enough to be seen when the whole image is."""
    width = max(2, round(min(shape, default=0) / 60))
    i, j = np.ogrid[: shape[0], : shape[1]]
    return np.where((i + j) // width % 2, *STRIPES)


def _lines(mask: Array, width: int) -> Array:
    """(H, W) bool: pixels within `width` pixels of another class, along rows or columns."""
    near = np.zeros(mask.shape, bool)
    for step in range(1, width + 1):
        down, right = mask[step:] != mask[:-step], mask[:, step:] != mask[:, :-step]
        near[step:] |= down
        near[:-step] |= down
        near[:, step:] |= right
        near[:, :-step] |= right
    return near
