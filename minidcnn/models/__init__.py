"""The networks: classifiers (AlexNet, VGG) and what segmentation made of them (FCN, SegNet), and U-Net."""

from __future__ import annotations

from .alexnet import AlexNet, CaffeNet
from .classifier import Classifier, convolutionalize
from .fcn import FCN, FCN8s, FCN8sAtOnce, FCN16s, FCN32s, FCNAlexNet
from .segmenter import MODELS, Segmenter, create_model
from .segnet import SegNet, SegNetBasic
from .unet import UNet
from .vgg import VGG, VGG11, VGG13, VGG16, VGG19

__all__ = [
    "FCN",
    "MODELS",
    "VGG",
    "VGG11",
    "VGG13",
    "VGG16",
    "VGG19",
    "AlexNet",
    "CaffeNet",
    "Classifier",
    "FCN8s",
    "FCN8sAtOnce",
    "FCN16s",
    "FCN32s",
    "FCNAlexNet",
    "SegNet",
    "SegNetBasic",
    "Segmenter",
    "UNet",
    "convolutionalize",
    "create_model",
]
