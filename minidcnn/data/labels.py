"""What the values in masks mean: the table that turns them into class indices, and how it is found out.

A mask may hold class indices, 0 and 255, any other gray values, palette indices or colours. What it holds is found by reading all masks
of a data set once (`scan`), turned into a `LabelTable` (`infer_table`) and kept in the data set as `mask_values`.
"""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import cached_property
from typing import NamedTuple

import numpy as np

from ..words import some
from .images import Source
from .masks import RawMask, pack, read_raw, unpack
from .sample import IGNORE, Array, DataError, Value
from .written import option_text, value_text

_COLOURS = "; a colour is one value: values=[(255, 0, 0), ...] (--values 255/0/0,...)"
_MOST_CLASSES = 255  # indices 0 to 254: a mask must fit an 8-bit PNG, and 255 means "ignore"
_MOST_GUESSED = 32  # more different values than this are no classes but smooth edges or a photograph,
_MOST_INDICES = 200  # unless they are 0, 1, 2, ..., which may go up to this


@dataclass(frozen=True)
class LabelTable:
    """Which stored value means which class.

    values: the stored value of every class in class order, gray values or colours, all of one kind. ignored: values to ignore.
    way_out: what to do about a value that is neither, for the sentence that complains of it, if values are the user's to choose.
    DataError for no class or more than 255, for gray values beside colours, and for a value named twice.
    """

    values: tuple[Value, ...]
    ignored: tuple[Value, ...] = ()
    ignore_index: int = IGNORE
    way_out: str = ""

    def __post_init__(self) -> None:
        kinds = {isinstance(v, tuple) for v in self.values + self.ignored}
        both = f"{_some(self.values)}" + (f" and, ignored, {_some(self.ignored)}" if self.ignored else "")
        if len(kinds) > 1:
            raise DataError(
                f"mask values must be all gray values or all colours, got {both}; mend values=... or ignored=... (--values, --ignored)"
            )
        if not self.values:
            raise DataError("LabelTable: values is empty; name the mask value of each class")
        _demand_few(len(self.values))
        if len(set(self.values + self.ignored)) < len(self.values) + len(self.ignored):
            raise DataError(f"every mask value can mean one class only, or be ignored, got {both}; name each once{_COLOURS}")

    @property
    def colour(self) -> bool:
        """Whether the values are colours."""
        return any(isinstance(v, tuple) for v in self.values)

    @cached_property
    def _lookup(self) -> tuple[Array, Array]:
        """Packed values in ascending order, and the index of each."""
        keys = np.array([pack(v) for v in self.values + self.ignored], np.int64)
        indices = np.array([*range(len(self.values)), *[self.ignore_index] * len(self.ignored)], np.int64)
        order = np.argsort(keys)
        return keys[order], indices[order]

    def encode(self, raw: RawMask, source: object) -> Array:
        """Stored values -> (H, W) int64 class indices. DataError that names the first value that is no class."""
        keys, indices = self._lookup
        stored = raw.values
        if raw.colour != self.colour:
            held, wanted = ("colours", "gray values or indices") if raw.colour else ("gray values", "colours")
            raise DataError(f"{source} holds {held}, but the classes stand for {wanted}: {_some(self.values)}{self.way_out and _COLOURS}")
        if stored.size and not raw.colour and stored.dtype.itemsize <= 2 and stored.dtype.kind == "u":
            table = np.full(np.iinfo(stored.dtype).max + 1, -1, np.int64)
            inside = (keys >= 0) & (keys < len(table))
            table[keys[inside]] = indices[inside]
            mask = table[stored]
        else:
            at = np.minimum(np.searchsorted(keys, stored), len(keys) - 1)
            mask = np.where(keys[at] == stored, indices[at], -1)
        if mask.size and mask.min() < 0:
            row, column = (int(i[0]) for i in np.nonzero(mask < 0))
            wrong = value_text(unpack(int(stored[row, column]), raw.colour))
            raise DataError(
                f"{source} holds {wrong} at row {row}, column {column}, which is no class; the known values are "
                f"{_some(self.values)}" + (f" and, ignored, {_some(self.ignored)}" if self.ignored else "") + self.way_out
            )
        return mask

    def read(self, source: Source) -> Array:
        """A mask file -> (H, W) int64 class indices. DataError if it cannot be read exactly, or holds what is no class."""
        return self.encode(read_raw(source, self.colour), source)


def _demand_few(classes: int) -> None:
    if classes > _MOST_CLASSES:
        raise DataError(
            f"at most {_MOST_CLASSES} classes are possible (masks are kept in 8 bits), got {classes}; give several classes one mask value, or leave "
            f"some out with ignored=... (--ignored)"
        )


def _some(values: Sequence[Value], most: int = 12) -> str:
    return some(map(value_text, values), most)


@dataclass
class Scan:
    """The values that occur in a set of masks: for every value its number of pixels and one file that has it."""

    colour: bool = False
    pixels: dict[Value, int] = field(default_factory=dict)
    example: dict[Value, Source] = field(default_factory=dict)
    alike: dict[frozenset[Value], list[Source]] = field(default_factory=dict)  # files by the values they hold, if these are few
    unread: list[str] = field(default_factory=list)  # complaints of the files that could not be read
    transparent: Source | None = None  # a file with transparent pixels, which count as black
    upright: Source | None = None  # a gray file that stores white as its highest value,
    inverted: Source | None = None  # and one that stores it as 0
    shown: dict[int, Value] = field(default_factory=dict)  # the colours of palette indices
    disagree: str = ""  # how palettes contradict each other, so that neither indices nor colours are certain

    @property
    def values(self) -> tuple[Value, ...]:
        """All values in ascending order."""
        return tuple(sorted(self.pixels, key=pack))


class _Counted(NamedTuple):
    """What one mask holds: its values, packed if `colour`, and the number of pixels of each."""

    colour: bool
    keys: Array
    counts: Array
    transparent: bool
    inverted: bool
    colours: Array | None  # of palette indices, as in `RawMask.palette`


def scan(sources: Sequence[Source], strict: bool = True) -> Scan:
    """Reads all masks once. With `strict` the first bad file raises its DataError, else the complaint is kept in `unread`."""

    def count(source: Source, colour: bool) -> _Counted | DataError:
        try:
            raw = read_raw(source, colour)
        except DataError as error:
            return error
        if raw.values.dtype == np.uint8:
            every = np.bincount(raw.values.ravel(), minlength=256)
            keys = np.flatnonzero(every)
            counts = every[keys]
        else:
            keys, counts = np.unique(raw.values, return_counts=True)
        return _Counted(raw.colour, keys, counts, raw.transparent, raw.inverted, None if raw.palette is None else raw.palette[keys])

    with ThreadPoolExecutor() as threads:  # decoding runs outside Python's lock
        found = list(threads.map(lambda s: count(s, False), sources))
        by_colour, shown, disagree = _palettes(sources, found)
        result = Scan(by_colour or any(isinstance(f, _Counted) and f.colour for f in found))
        if result.colour:  # gray and palette files among colour masks stand for their colours
            again = [i for i, f in enumerate(found) if isinstance(f, _Counted) and not f.colour]
            for i, f in zip(again, threads.map(lambda i: count(sources[i], True), again), strict=True):
                found[i] = f
        else:
            result.shown, result.disagree = shown, disagree
    for source, f in zip(sources, found, strict=True):
        if isinstance(f, DataError):
            if strict:
                raise f
            result.unread.append(str(f))
            continue
        if f.transparent and result.transparent is None:
            result.transparent = source
        if f.inverted:
            result.inverted = result.inverted or source
        elif len(f.keys) > 1:  # what is 0 throughout looks alike in both
            result.upright = result.upright or source
        held = [unpack(key, result.colour) for key in f.keys.tolist()]
        if len(held) <= _MOST_GUESSED:
            result.alike.setdefault(frozenset(held), []).append(source)
        for value, number in zip(held, f.counts.tolist(), strict=True):
            result.pixels[value] = result.pixels.get(value, 0) + number
            result.example.setdefault(value, source)
    return result


def _palettes(sources: Sequence[Source], found: Sequence[_Counted | DataError]) -> tuple[bool, dict[int, Value], str]:
    """Whether palette indices stand for their colours alone, since each file has an order of its own; else their colours, and how these disagree.

    Each has its own order if an index has two colours and a colour two indices, but no file two indices of one colour.
    """
    colour_of: dict[int, tuple[int, Source]] = {}
    index_of: dict[int, int] = {}
    disagree, moved, double = "", False, False
    for source, f in zip(sources, found, strict=True):
        if isinstance(f, DataError) or f.colours is None:
            continue
        opaque = [colour for colour in f.colours.tolist() if colour >= 0]
        double = double or len(set(opaque)) < len(opaque)
        for index, colour in zip(f.keys.tolist(), np.maximum(f.colours, 0).tolist(), strict=True):
            before, first = colour_of.setdefault(index, (colour, source))
            if before != colour and not disagree:
                shown, other = (value_text(unpack(c, True)) for c in (before, colour))
                disagree = f"in {first} index {index} is {shown}, in {source} {other}"
            moved = moved or index_of.setdefault(colour, index) != index
    seen = {index: unpack(colour, True) for index, (colour, _) in colour_of.items()}
    if not disagree or (moved and not double):
        return bool(disagree), seen, ""
    colours, indices = [unpack(c, True) for c in sorted(index_of)], sorted(colour_of)
    disagree = (
        f"the palettes of the masks disagree: {disagree}; say what stands for each class, either the colours, {_values_option(colours)}, or the "
        f"indices, {_values_option(indices)}"
    )
    return False, seen, disagree


def _values_option(values: Sequence[Value]) -> str:
    return f"values=... ({option_text('values', tuple(values[:_MOST_GUESSED]))}{'' if len(values) <= _MOST_GUESSED else ',...'})"


def infer_table(found: Scan, names: Sequence[str] | None, ignored: Sequence[Value] | None, where: object) -> LabelTable:
    """The table for the values found.

    1. `ignored` values are set aside. If nothing is said, gray 255 is ignored beside at least two consecutive indices (0, 1, ... or
       1, 2, ...) and beside indices that `names` covers; in masks of 0 and 255 it is a class.
    2. Values that all lie below the number of names are indices, even where some don't occur.
    3. Otherwise every value is a class, in ascending order (colours by red, green, blue: black first).
    DataError if the names do not fit in number, or some are of ignored values, only one value occurs, there are too many to be classes, palettes or
    lookup tables contradict each other, or masks of 0 and 1 are mixed with masks of 0 and 255: taken for indices, the latter would lose
    their objects.
    """
    if found.disagree:
        raise DataError(f"{where}: {found.disagree}")
    if found.inverted and found.upright:
        raise DataError(
            f"{where}: {found.inverted} stores white as 0 (an inverted lookup table), {found.upright} as its highest value, so that objects may be "
            f"white in one and black in the other: save all masks alike (in ImageJ: Image > Lookup Tables > Invert LUT), or if they look alike, say "
            f"{_values_option(found.values)}"
        )
    values = tuple(v for v in found.values if v not in (ignored or ()))
    grays = [v for v in values if isinstance(v, int)]
    rest = [v for v in grays if v != IGNORE]
    if ignored is None and len(rest) < len(grays):
        consecutive = len(rest) >= 2 and rest[0] in (0, 1) and rest[-1] - rest[0] == len(rest) - 1
        if consecutive or (names and rest and rest != [0] and len(names) != len(grays) and rest[-1] < len(names)):
            if rest == [0, 1]:
                _demand_one_kind(found, where)
            ignored, values = (IGNORE,), tuple(rest)
    ignored = tuple(ignored or ())
    ascending = values == tuple(range(len(values)))
    if names is None and len(values) > (_MOST_INDICES if ascending else _MOST_GUESSED):
        rare = min(values, key=lambda v: found.pixels[v])
        raise DataError(
            f"{where}: the masks hold {len(values)} different values ({_some(values, 5)}), too many for classes ({value_text(rare)} occurs in "
            f"{found.example[rare]}{_most_pixels(found, values)}); save them as PNG without smooth edges, or name the value of every class with "
            f"values=... (--values); if the values number objects, save mask > 0 as 0 and 1 instead"
        )
    if not values and found.unread:
        raise DataError(f"{where}: none of the masks can be read: {found.unread[0]}")
    if not values:
        raise DataError(f"{where}: no mask holds a label; are all pixels ignored?")
    if names is not None:
        _demand_few(len(names))
        if not found.colour and isinstance(values[-1], int) and 0 <= pack(values[0]) and values[-1] < len(names):
            taken = [v for v in ignored if isinstance(v, int) and 0 <= v < len(names)]
            if taken:
                raise DataError(
                    f"{where}: classes=... (--classes) names {len(names)}, for the values 0 to {len(names) - 1}, but {_some(taken)} "
                    f"{'is' if len(taken) == 1 else 'are'} ignored: leave the names of ignored values out, or say which value each class has with "
                    f"values=... (--values)"
                )
            return LabelTable(tuple(range(len(names))), ignored)
        if len(names) != len(values):
            one = len(names) == len(values) - 1
            extra = "; is background missing from the names? It is a class, too" if one else ""
            odd = values[len(names)] if ascending else min(values, key=lambda v: found.pixels[v])
            option = option_text("ignored", (*ignored, odd)) if ascending and one else "--ignored"
            raise DataError(
                f"{where}: classes=... (--classes) names {len(names)} ({some(names)}) but the masks hold {len(values)} values "
                f"({_some(values)}; {value_text(odd)} in {found.example[odd]}){extra}; each value needs a name, or belongs into ignored=... ({option})"
            )
    if len(values) == 1:
        raise DataError(
            f"{where}: all masks hold the one value {value_text(values[0])}: nothing can be learned from them; were they exported right?"
            + (f" (transparent pixels, as in {found.transparent}, count as black)" if found.transparent else "")
        )
    return LabelTable(values, ignored)


def _demand_one_kind(found: Scan, where: object) -> None:
    """DataError if some masks hold 1, others 255 and none both: then 255 is their white, and no mark of pixels that don't count."""
    if any({1, IGNORE} <= held for held in found.alike):
        return
    ones, whites = ([file for held, files in found.alike.items() if value in held for file in files] for value in (1, IGNORE))
    raise DataError(
        f"{where}: masks of 0/1 and of 0/255 are mixed: {len(ones)} hold 1 and never 255, such as {ones[0]}, and {len(whites)} hold 255 "
        f"and never 1, such as {whites[0]}; save all of them with the same values, or, if 255 marks pixels that don't count, say "
        f"ignored=[255] (--ignored 255)"
    )


def _most_pixels(found: Scan, values: Sequence[Value]) -> str:
    """ "; 0, 255 are 96 % of the pixels": what the classes probably are, if a few values stand out."""
    total = sum(found.pixels[v] for v in values)
    often = [v for v in values if found.pixels[v] >= 0.01 * total]
    share = sum(found.pixels[v] for v in often) / total
    return f"; {_some(often)} are {100 * share:.0f} % of the pixels" if share > 0.5 and len(often) <= _MOST_GUESSED // 4 else ""
