"""Data sets, transforms, batches: plain arrays, no autograd.

A data set is a sequence of `Sample(image, mask, name)`; a transform maps (sample, rng) to a sample; a `Loader` makes batches of them.

    train = open_dataset("camvid", "data/camvid", "train")
    print(check(train))
    loader = Loader(train, 4, shuffle=True, transform=Compose(RandomCrop(256), RandomHorizontalFlip()))
    for batch in loader.batches(epoch): ...
"""

from __future__ import annotations

from . import transforms
from .camvid import CAMVID_CLASS_WEIGHTS, CAMVID_CLASSES, CamVid
from .cells import Cells
from .dataset import Arrays, Dataset, Subset
from .files import Entry, FileDataset
from .folder import Folder
from .images import Source, read_image
from .isbi import ISBI
from .labels import LabelTable
from .loader import Loader, collate
from .palette import default_palette, voc_palette
from .pets import OxfordPet
from .registry import DATASETS, open_dataset
from .report import Report, check
from .sample import IGNORE, Batch, DataError, Sample, Value
from .statistics import ChannelStatistics, LabelCounts, channel_statistics, class_frequencies, count_labels, median_frequency_weights
from .transforms import (
    CenterCrop,
    ColorJitter,
    Compose,
    ElasticDeformation,
    Normalize,
    PadToMultiple,
    RandomApply,
    RandomCrop,
    RandomGamma,
    RandomHorizontalFlip,
    RandomQuarterTurn,
    RandomRotation,
    RandomScale,
    RandomVerticalFlip,
    Resize,
    Transform,
    UNetWeights,
)
from .voc import VOC, VOC_CLASSES
from .weight_map import unet_weight_map

__all__ = [
    "CAMVID_CLASSES",
    "CAMVID_CLASS_WEIGHTS",
    "DATASETS",
    "IGNORE",
    "ISBI",
    "VOC",
    "VOC_CLASSES",
    "Arrays",
    "Batch",
    "CamVid",
    "Cells",
    "CenterCrop",
    "ChannelStatistics",
    "ColorJitter",
    "Compose",
    "DataError",
    "Dataset",
    "ElasticDeformation",
    "Entry",
    "FileDataset",
    "Folder",
    "LabelCounts",
    "LabelTable",
    "Loader",
    "Normalize",
    "OxfordPet",
    "PadToMultiple",
    "RandomApply",
    "RandomCrop",
    "RandomGamma",
    "RandomHorizontalFlip",
    "RandomQuarterTurn",
    "RandomRotation",
    "RandomScale",
    "RandomVerticalFlip",
    "Report",
    "Resize",
    "Sample",
    "Source",
    "Subset",
    "Transform",
    "UNetWeights",
    "Value",
    "channel_statistics",
    "check",
    "class_frequencies",
    "collate",
    "count_labels",
    "default_palette",
    "median_frequency_weights",
    "open_dataset",
    "read_image",
    "transforms",
    "unet_weight_map",
    "voc_palette",
]
