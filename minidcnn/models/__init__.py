"""The networks: classifiers (AlexNet, VGG) and what segmentation made of them (FCN, SegNet), and U-Net."""

from __future__ import annotations

from .segmenter import MODELS, Segmenter, create_model
from .unet import UNet

__all__ = ["MODELS", "Segmenter", "UNet", "create_model"]
