"""Weights that stay as they are for many runs of a network, so that what kernels make of them is made once."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager

from ..backend import Array, Kernels, kernels_of
from ..tensor import Storage
from .module import Module

FEWEST = 16  # runs: with fewer, the memory costs more time than it saves


@contextmanager
def constant_weights(module: Module, runs: int = FEWEST) -> Iterator[None]:
    """Within a `with` block, keep what the kernels make of the module's weights, until these change.

        with minidcnn.no_grad(), nn.constant_weights(model.eval()):
            scores = [model(image) for image in images]

    On the CPU that is the weights transformed for Winograd convolution: 4 times as large as the weights in float32, 2.7 times with factors in
    bf16, or on a processor's matrix unit the weights in bf16. To fill so much memory costs more than a few runs save, so nothing is kept if
    `runs`, how many are expected, is below 16. Results have the same bits in any case.

    A weight that the engine changes (an optimizer, load_state_dict, assignment) is noticed and transformed anew. `.data` is read-only within the
    block, as it is before a backward pass; what writes through an array that was taken from it before is not noticed.
    TypeError for what is no Module.
    """
    if not isinstance(module, Module):
        raise TypeError(f"constant_weights: module must be a Module, got {type(module).__name__}")
    parameters = list(module.parameters()) if runs >= FEWEST else []
    of_kernels: dict[Kernels, list[tuple[Array, Storage]]] = {}
    for p in parameters:
        of_kernels.setdefault(kernels_of(p._array), []).append((p._array, p._storage))
    with ExitStack() as stack:
        for kernels, weights in of_kernels.items():
            stack.enter_context(kernels.constant_weights(weights))
        for p in parameters:
            p._storage.needed += 1
        try:
            yield
        finally:
            for p in parameters:
                p._storage.needed -= 1
