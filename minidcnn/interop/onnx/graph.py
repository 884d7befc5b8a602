"""An ONNX graph in the making: nodes, initializers and sizes that are known only when the model runs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, TypeAlias

import numpy as np

from ... import __version__
from ...backend import Array
from .trace import ExportError

OPSET = 18  # the first with all we need (ScatterElements that adds, Resize along chosen axes); most programs have read it since 2023
END = np.iinfo(np.int64).max  # "up to the last", as the end of a slice
LARGEST = 2**31 - 2**20  # bytes in a file: what protobuf holds, and room for the nodes

#: A size: a number, or the name of an int64 value with one element.
Size: TypeAlias = int | str


def required() -> Any:
    """The package onnx. ImportError says how to install it."""
    try:
        import onnx
    except ImportError as error:
        raise ImportError(
            f'exporting needs the package onnx ({error}); install it with: pip install "minidcnn[onnx]", or pip install onnx'
        ) from error
    return onnx


class Graph:
    """Nodes in the order in which they run. Values are called by names, those made up here by "/..." as no parameter is."""

    def __init__(self) -> None:
        self.onnx = required()
        self.nodes: list[Any] = []
        self.initializers: dict[str, Array] = {}
        self.bytes = 0
        self._known: dict[Any, str] = {}
        self._count = 0

    def node(self, kind: str, *inputs: str, **attributes: Any) -> str:
        """Add a node; the name of its output. Inputs that are left out are ""."""
        return self.several(kind, *inputs, outputs=1, **attributes)[0]

    def several(self, kind: str, *inputs: str, outputs: int, **attributes: Any) -> tuple[str, ...]:
        """Add a node with several outputs; their names."""
        self._count += 1
        names = tuple(f"/{kind}_{self._count}" + (f"_{k}" if k else "") for k in range(outputs))
        self.nodes.append(self.onnx.helper.make_node(kind, inputs, names, name=names[0], **attributes))
        return names

    def cast(self, value: str, dtype: Any) -> str:
        """A value in another dtype."""
        return self.node("Cast", value, to=self.onnx.helper.np_dtype_to_tensor_dtype(np.dtype(dtype)))

    def array(self, values: Any, name: str | None = None) -> str:
        """An initializer; without a name of its own the same numbers are stored once."""
        array = np.asarray(values, order="C")
        key = None if name is not None else (array.tobytes(), array.shape, array.dtype.str)
        if key in self._known:
            return self._known[key]
        name = name or f"/constant_{len(self.initializers)}"
        self.initializers[name] = array
        self.bytes += array.nbytes
        if key is not None:
            self._known[key] = name
        return name

    def once(self, kind: str, *inputs: str, **attributes: Any) -> str:
        """A node, or the output of one that is there already."""
        key = (kind, inputs, tuple(attributes.items()))
        if key not in self._known:
            self._known[key] = self.node(kind, *inputs, **attributes)
        return self._known[key]

    # -- sizes -------------------------------------------------------------------------------------------------------------------

    def ints(self, *sizes: Size) -> str:
        """Sizes side by side, (len(sizes),) int64."""
        if all(isinstance(size, int) for size in sizes):
            return self.array(np.array(sizes, np.int64))
        parts: list[str] = [self.ints(size) if isinstance(size, int) else size for size in sizes]
        return parts[0] if len(parts) == 1 else self.once("Concat", *parts, axis=0)

    def length(self, value: str, axis: int, stop: int | None = None) -> str:
        """The sizes of a value along `axis`, or along axis ... stop - 1."""
        return self.once("Shape", value, start=axis, end=axis + 1 if stop is None else stop)

    def compute(self, kind: str, a: Size, b: Size) -> Size:
        """Add, Sub, Mul or Div (which rounds down) of sizes that are not negative."""
        if isinstance(a, int) and isinstance(b, int):
            return {"Add": a + b, "Sub": a - b, "Mul": a * b, "Div": a // b if b else 0}[kind]
        if (b == 0 and kind in ("Add", "Sub")) or (b == 1 and kind in ("Mul", "Div")):
            return a
        return self.once(kind, self.ints(a), self.ints(b))

    # -- the model ---------------------------------------------------------------------------------------------------------------------

    def model(
        self,
        inputs: Sequence[tuple[str, Any, Sequence[Size]]],
        outputs: Sequence[tuple[str, Any, Sequence[Size]]],
        about: Mapping[str, str],
        doc: str,
    ) -> bytes:
        """The file of all that its outputs need, checked. `inputs`, `outputs`: (name, dtype, shape), with names for open sizes."""
        onnx, helper = self.onnx, self.onnx.helper
        if self.bytes > LARGEST:
            raise ExportError(
                f"export_onnx: the weights take {self.bytes / 2**30:.1f} GiB, and an ONNX file holds at most 2 GiB; "
                f'export a narrower network, or convert it first: model.to("float16")'
            )
        needed = {name for name, *_ in outputs}
        kept = []
        for node in reversed(self.nodes):
            if needed.intersection(node.output):
                needed.update(node.input)
                kept.append(node)
        described = [
            [
                helper.make_tensor_value_info(name, helper.np_dtype_to_tensor_dtype(np.dtype(dtype)), list(shape))
                for name, dtype, shape in values
            ]
            for values in (inputs, outputs)
        ]
        opset = [helper.make_opsetid("", OPSET)]
        model = helper.make_model(
            helper.make_graph(kept[::-1], "minidcnn", *described, doc_string=doc),
            opset_imports=opset,
            ir_version=helper.find_min_ir_version_for(opset),
            producer_name="minidcnn",
            producer_version=__version__,
        )
        helper.set_model_props(model, dict(about))
        for name, array in self.initializers.items():  # one by one, since each function above copies what it is given
            if name in needed:
                model.graph.initializer.append(onnx.numpy_helper.from_array(array, name))
        contents: bytes = model.SerializeToString(deterministic=True)
        del model
        onnx.checker.check_model(contents, full_check=True)
        return contents


def rename(nodes: Sequence[Any], names: Mapping[str, str]) -> None:
    """Call values by other names in all nodes."""
    for node in nodes:
        for k, name in enumerate(node.input):
            node.input[k] = names.get(name, name)
        for k, name in enumerate(node.output):
            node.output[k] = names.get(name, name)


def plain(array: Array) -> Array:
    """An array of one element along each axis on which it is repeated, as broadcasting takes it."""
    return array[tuple(slice(0, 1) if step == 0 and n > 1 else slice(None) for n, step in zip(array.shape, array.strides, strict=True))]
