"""Networks as ONNX files. The package onnx, which `import onnx` means here too, is imported when a file is written."""

from __future__ import annotations

from . import functions as functions  # importing them enters what they know of functions
from . import images as images
from . import resize as resize
from . import shapes as shapes
