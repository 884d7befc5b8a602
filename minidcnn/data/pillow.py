"""What Pillow would hand out otherwise than a file holds it, and says nothing."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from PIL import ImageFile, TiffImagePlugin

# TIFF's BitsPerSample, PhotometricInterpretation, SamplesPerPixel and SampleFormat
_BITS, _PHOTOMETRIC, _SAMPLES, _FORMAT = 258, 262, 277, 339
_NATIVE = {"F;32BF": "F;32NF", "I;32BS": "I;32NS", "I;16BS": "I;16NS"}


def keep_byte_order(image: ImageFile.ImageFile) -> None:
    """Of compressed TIFFs, libtiff hands out numbers as the machine stores them; of big-endian ones Pillow would swap their bytes once more."""
    tiles: list[Any] = image.tile
    for i, (codec, extents, offset, args) in enumerate(tiles):
        if codec == "libtiff" and args[0] in _NATIVE:
            make = getattr(tiles[i], "_make", tuple)  # older versions of Pillow have tuples without names here
            tiles[i] = make((codec, extents, offset, (_NATIVE[args[0]], *args[1:])))


def lost(image: ImageFile.ImageFile) -> str:
    """What of the file would not be read, and the way out; "" if nothing is lost."""
    if image.format in ("GIF", "PNG", "WEBP") and getattr(image, "is_animated", False):
        return "is an animation, of which only the first picture can be read: save its pictures as pages of one TIFF, or as one file each"
    single = image.mode in ("1", "L", "P", "I", "F") or image.mode.startswith("I;16")
    bits, samples = _bits(image), 1
    if isinstance(image, TiffImagePlugin.TiffImageFile):
        samples = int(image.tag_v2.get(_SAMPLES, 1))
    if single and samples > 1:
        return f"has {samples} channels, of which only the first can be read: save them as pages of one gray TIFF, or as .npy"
    if bits > 8 and not (image.mode in ("I", "F") or image.mode.startswith("I;16")):
        return f"holds {bits} bits per channel, of which only 8 can be read: save it with 8, or its channels as pages of one gray TIFF, or as .npy"
    return ""


def _bits(image: ImageFile.ImageFile) -> int:
    """Bits of a sample, as far as files of more than 8 are concerned."""
    if isinstance(image, TiffImagePlugin.TiffImageFile):
        return int(max(image.tag_v2.get(_BITS, (1,))))
    args: Any = image.tile[0][3] if image.tile else None
    if image.format == "PNG" and isinstance(args, str) and ";16" in args:
        return 16
    return 16 if maxval(image) > 255 else 8


def inverts(image: ImageFile.ImageFile) -> bool:
    """Whether white is stored as 0, and Pillow hands out 255 (or 1) for it: a TIFF with an inverted lookup table."""
    return isinstance(image, TiffImagePlugin.TiffImageFile) and image.mode in ("1", "L") and image.tag_v2.get(_PHOTOMETRIC) == 0


def signed(image: ImageFile.ImageFile) -> bool:
    """Whether a TIFF holds 8-bit numbers from -128 to 127, and Pillow hands out 0 to 255 for them."""
    return isinstance(image, TiffImagePlugin.TiffImageFile) and image.mode == "L" and image.tag_v2.get(_FORMAT) == (2,)


def maxval(image: ImageFile.ImageFile) -> int:
    """The greatest number of a PGM or PPM file if Pillow stretches it to 255 or 65535, else 0."""
    codec, args = (image.tile[0][0], image.tile[0][3]) if image.tile else ("", ())
    return int(args[1]) if codec in ("ppm", "ppm_plain") and isinstance(args, tuple) and len(args) == 2 else 0


def lossy(image: ImageFile.ImageFile, path: Path) -> str:
    """ "a JPEG" and the like if the file's compression changes its numbers, else ""."""
    if image.format in ("JPEG", "MPO", "JPEG2000"):
        return "a JPEG"
    if image.format == "TIFF" and image.info.get("compression") in ("jpeg", "tiff_jpeg"):
        return "a TIFF compressed as JPEG"
    if image.format == "WEBP":
        with path.open("rb") as file:
            file.seek(12)
            while len(head := file.read(8)) == 8:  # chunks: a name, the length of what follows, and that, padded to an even length
                if head[:4] == b"VP8 ":
                    return "a lossy WebP"
                file.seek((int.from_bytes(head[4:], "little") + 1) // 2 * 2, 1)
    return ""
