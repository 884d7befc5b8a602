"""Kernels of one's own, which `use_kernels` puts in place of the library's."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pytest

from minidcnn import Function, Tensor, use_kernels
from minidcnn.backend import Kernels, kernels_of


class Doubling(Kernels):
    def double(self, x):
        return 2 * x

    def double_grad(self, g):
        return 2 * g


@dataclass(frozen=True)
class Double(Function):
    adjoint: bool = False

    def forward(self, x):
        kernels = kernels_of(x)
        return kernels.double_grad(x) if self.adjoint else kernels.double(x)

    def vjp(self, g):
        return (Double(not self.adjoint)(g),)


def test_a_kernel_of_ones_own_is_found_within_use_kernels() -> None:
    x = Tensor(np.array([[1.0, 2, 3]]), requires_grad=True)
    with use_kernels(Doubling(np)):
        Double()(x).sum().backward()
    assert x.grad.numpy().tolist() == [[2, 2, 2]]


@pytest.mark.parametrize(("which", "name"), [("fast", "CpuKernels"), ("reference", "Kernels")])
def test_the_error_of_a_kernel_that_is_not_there_names_use_kernels(which: str, name: str) -> None:
    x = Tensor(np.array([[1.0, 2, 3]]), requires_grad=True)
    sentence = rf"^{name} has no kernel '%s'; kernels of your own are there within use_kernels\(\.\.\.\), where backward\(\) must run, too$"
    with use_kernels(which):
        with pytest.raises(AttributeError, match=sentence % "double"):
            Double()(x)
        with use_kernels(Doubling(np)):
            y = Double()(x).sum()
        with pytest.raises(AttributeError, match=sentence % "double_grad"):
            y.backward()
        assert not hasattr(kernels_of(x.data), "double")
