"""Module and containers: registration, walking, state, copies, hooks. Nothing here needs PyTorch."""

from __future__ import annotations

import copy
import re
from collections import OrderedDict

import numpy as np
import pytest

import minidcnn
from minidcnn import Tensor, nn


class Block(nn.Module):
    def __init__(self, channels: int = 2) -> None:
        super().__init__()
        self.conv = nn.Conv2d(channels, channels, (1, 3))
        self.scale = nn.Parameter(np.array([2.0], np.float32))
        self.register_buffer("offset", Tensor([1.0]))
        self.register_buffer("scratch", Tensor([3.0]), persistent=False)
        self.register_parameter("absent", None)
        self.note = "text"

    def forward(self, x: Tensor) -> Tensor:
        return self.conv(x) * self.scale + self.offset


# -- registration ------------------------------------------------------------------------------------------------------------------


def test_attributes_are_registered_by_kind() -> None:
    block = Block()
    assert [n for n, _ in block.named_parameters()] == ["scale", "conv.weight", "conv.bias"]
    assert [n for n, _ in block.named_buffers()] == ["offset", "scratch"]
    assert [n for n, _ in block.named_children()] == ["conv"]
    assert [n for n, _ in block.named_modules()] == ["", "conv"]
    assert list(block.state_dict()) == ["scale", "offset", "conv.weight", "conv.bias"]
    assert block.absent is None and block.note == "text" and "conv" in dir(block) and "offset" in dir(block)


def test_an_attribute_can_change_its_kind_and_be_deleted() -> None:
    block = Block()
    block.scale = nn.Conv2d(1, 1, 1)
    assert [n for n, _ in block.named_parameters()] == ["conv.weight", "conv.bias", "scale.weight", "scale.bias"]
    block.note = nn.Parameter(np.zeros(3))
    assert "note" in dict(block.named_parameters()) and block.note.shape == (3,)
    del block.scale, block.offset, block.note
    assert [n for n, _ in block.named_parameters()] == ["conv.weight", "conv.bias"]
    for name in ("scale", "offset", "note"):
        with pytest.raises(AttributeError, match=f"'Block' object has no attribute '{name}'"):
            getattr(block, name)
    with pytest.raises(AttributeError):
        del block.nothing


def test_slots_keep_their_kind() -> None:
    block = Block()
    block.offset = Tensor([5.0])
    assert block.state_dict()["offset"] == [5.0]
    block.scale = None
    assert block.scale is None and "scale" not in block.state_dict()
    with pytest.raises(TypeError, match=re.escape("Block.conv must be a Module or None, got int; del it first to change its kind")):
        block.conv = 3
    with pytest.raises(TypeError, match=r"Block.offset must be a Tensor or None, got ndarray"):
        block.offset = np.zeros(1)
    with pytest.raises(TypeError, match=r"Block.scale must be a Parameter or None, got Tensor"):
        block.scale = Tensor([1.0])


def test_forgetting_super_init_is_said() -> None:
    class Forgetful(nn.Module):
        def __init__(self) -> None:
            self.conv = nn.Conv2d(1, 1, 1)

    with pytest.raises(AttributeError, match=re.escape("Forgetful: call super().__init__() before assigning 'conv'")):
        Forgetful()


def test_registering_checks_names_and_kinds() -> None:
    block = Block()
    with pytest.raises(KeyError, match="must not be empty or contain a dot"):
        block.add_module("a.b", nn.Identity())
    with pytest.raises(KeyError, match="must not be empty"):
        block.register_parameter("", None)
    with pytest.raises(KeyError, match="Block: attribute 'note' exists already"):
        block.register_buffer("note", Tensor([1.0]))
    with pytest.raises(KeyError, match="exists already"):
        block.add_module("forward", nn.Identity())
    with pytest.raises(TypeError, match=r"Block.x must be a Parameter or None, got Tensor; wrap it in nn.Parameter"):
        block.register_parameter("x", Tensor([1.0]))
    with pytest.raises(TypeError, match=r"Block.x must be a Tensor or None, got list"):
        block.register_buffer("x", [1.0])
    with pytest.raises(TypeError, match=r"Block.x must be a Module or None, got str"):
        block.add_module("x", "conv")


def test_forward_must_be_defined() -> None:
    class Empty(nn.Module):
        pass

    with pytest.raises(NotImplementedError, match="Empty does not define forward"):
        Empty()(1)


# -- walking -----------------------------------------------------------------------------------------------------------------------


def test_shared_parameters_and_modules_count_once_but_are_saved_under_every_name() -> None:
    shared = nn.Linear(3, 3)
    net = nn.Sequential(shared, nn.ReLU(), shared, nn.Linear(3, 3))
    net[3].weight = shared.weight
    assert [n for n, _ in net.named_parameters()] == ["0.weight", "0.bias", "3.bias"]
    assert [n for n, _ in net.named_modules()] == ["", "0", "1", "3"]
    assert [n for n, _ in net.named_modules(remove_duplicate=False)] == ["", "0", "1", "2", "3"]
    assert [n for n, _ in net.named_children()] == ["0", "1", "3"]
    assert list(net.state_dict()) == ["0.weight", "0.bias", "2.weight", "2.bias", "3.weight", "3.bias"]
    assert sum(p.size for p in net.parameters()) == 9 + 3 + 3
    state = net.state_dict()
    other = nn.Sequential(nn.Linear(3, 3), nn.ReLU(), nn.Linear(3, 3), nn.Linear(3, 3))
    other.load_state_dict(state)
    np.testing.assert_array_equal(other[2].weight.numpy(), shared.weight.numpy())


def test_a_module_used_twice_gets_the_sum_of_both_gradients() -> None:
    layer = nn.Linear(3, 3).double()
    x = Tensor(np.arange(6.0).reshape(2, 3))
    layer(layer(x)).sum().backward()
    both = layer.weight.grad.numpy().copy()
    first, second = nn.Linear(3, 3).double(), nn.Linear(3, 3).double()
    for copy_ in (first, second):
        copy_.load_state_dict(layer.state_dict())
    second(first(x)).sum().backward()
    np.testing.assert_allclose(both, first.weight.grad.numpy() + second.weight.grad.numpy(), rtol=1e-14)


def test_deep_nesting() -> None:
    depth = 150
    net: nn.Module = nn.Linear(2, 2, bias=False)
    for _ in range(depth):
        net = nn.Sequential(net)
    name = ".".join(["0"] * depth)
    assert list(net.state_dict()) == [f"{name}.weight"]
    assert net.get_submodule(name).in_features == 2
    assert not net.eval().get_submodule(name).training
    assert net(Tensor(np.ones((1, 2), np.float32))).shape == (1, 2)
    assert repr(net).count("Sequential") == depth
    seen = []
    net.apply(seen.append)
    assert len(seen) == depth + 1 and isinstance(seen[0], nn.Linear)


def test_get_submodule_names_what_is_missing() -> None:
    net = nn.Sequential(nn.Sequential(nn.ReLU()))
    assert net.get_submodule("") is net and isinstance(net.get_submodule("0.0"), nn.ReLU)
    with pytest.raises(AttributeError, match="Sequential has no module '0.1.x': Sequential has no child '1'"):
        net.get_submodule("0.1.x")


# -- state -----------------------------------------------------------------------------------------------------------------------


def test_state_dicts_are_copies_in_c_order_and_load_back_exactly() -> None:
    block = Block(4)
    state = block.state_dict()
    before = {k: v.copy() for k, v in state.items()}
    assert all(type(v) is np.ndarray and v.flags.c_contiguous and v.flags.owndata for v in state.values())
    nn.init.zeros_(block.conv.weight)
    assert all(np.array_equal(state[k], before[k]) for k in state)
    fresh = Block(4)
    layout = fresh.conv.weight._array.strides
    assert fresh.load_state_dict(state) == ([], [])
    assert all(np.array_equal(v, before[k]) for k, v in fresh.state_dict().items())
    assert fresh.conv.weight._array.strides == layout


def test_load_state_dict_says_all_that_does_not_fit_and_changes_nothing() -> None:
    block = Block()
    before = block.state_dict()
    state = {
        "scale": np.zeros(1),
        "conv.weight": np.zeros((2, 3, 1, 3)),
        "conv.bias": np.zeros(2),
        "more": np.zeros(1),
        "most": np.zeros(1),
    }
    message = (
        "load_state_dict: the state does not fit Block: 1 key missing: offset; 2 keys unexpected: more, most; "
        "1 shape differs: conv.weight is (2, 3, 1, 3), the model's is (2, 2, 1, 3)"
    )
    with pytest.raises(ValueError, match=re.escape(message) + "$"):
        block.load_state_dict(state)
    with pytest.raises(ValueError, match=re.escape("does not fit Block: 1 shape differs: conv.weight is")):
        block.load_state_dict(state, strict=False)
    assert all(np.array_equal(v, before[k]) for k, v in block.state_dict().items())
    with pytest.raises(TypeError, match="needs a mapping from names to arrays, got str"):
        block.load_state_dict("file.pth")
    with pytest.raises(TypeError, match="scale holds <U1 values instead of numbers"):
        block.load_state_dict({"scale": np.array(["a"])})
    with pytest.raises(ValueError, match="2 keys unexpected: 0, 1;"):
        block.load_state_dict({**before, 0: np.zeros(1), 1: np.zeros(1)})
    many = {f"extra{i}": np.zeros(1) for i in range(8)}
    with pytest.raises(ValueError, match=r"8 keys unexpected: extra0, .*extra4 and 3 more; pass strict=False to load what fits by name"):
        block.load_state_dict({**before, **many})


def test_load_state_dict_not_strict_reports_and_converts() -> None:
    block = Block()
    result = block.load_state_dict({"scale": np.array([7], np.int64), "offset": Tensor([8.0]), "other": np.zeros(2)}, strict=False)
    assert result.missing_keys == ["conv.weight", "conv.bias"] and result.unexpected_keys == ["other"]
    assert block.scale.item() == 7 and block.scale.dtype == np.float32 and block.offset.item() == 8


def test_loading_between_forward_and_backward_is_an_error_not_a_wrong_gradient() -> None:
    block = Block()
    y = block(Tensor(np.ones((1, 2, 2, 5), np.float32), requires_grad=True))
    block.load_state_dict(block.state_dict())
    with pytest.raises(RuntimeError, match="was changed in place after the forward pass"):
        y.sum().backward()


# -- switching and copying ----------------------------------------------------------------------------------------------------------


def test_train_eval_apply_freeze() -> None:
    net = nn.Sequential(Block(), nn.ModuleDict({"a": nn.Dropout()}))
    assert all(m.training for m in net.modules())
    assert net.eval() is net and not any(m.training for m in net.modules())
    assert net.train() is net and all(m.training for m in net.modules())
    with pytest.raises(TypeError, match="train: mode must be True or False, got int"):
        net.train(0)
    order: list[str] = []
    net.apply(lambda m: order.append(type(m).__name__))
    assert order == ["Conv2d", "Block", "Dropout", "ModuleDict", "Sequential"]
    net.requires_grad_(False)
    assert not any(p.requires_grad for p in net.parameters())
    assert not net[0](Tensor(np.ones((1, 2, 2, 5), np.float32))).requires_grad
    net.requires_grad_()
    net[0](Tensor(np.ones((1, 2, 2, 5), np.float32))).sum().backward()
    assert all(p.grad is not None for p in net.parameters())
    net.zero_grad()
    assert all(p.grad is None for p in net.parameters())


def test_an_overridden_train_is_heard_below() -> None:
    class AlwaysOn(nn.Dropout):
        def train(self, mode: bool = True) -> AlwaysOn:
            self.training = True
            return self

    net = nn.Sequential(nn.Sequential(AlwaysOn()), nn.Dropout()).eval()
    assert net[0][0].training and not net[1].training


def test_to_converts_floats_only_and_keeps_the_objects() -> None:
    net = nn.Sequential(nn.Conv2d(2, 3, (1, 2)), nn.BatchNorm2d(3))
    weight, layout = net[0].weight, [s * 2 for s in net[0].weight._array.strides]
    net[0](Tensor(np.ones((1, 2, 2, 5), np.float32))).sum().backward()
    assert net.double() is net and net[0].weight is weight
    assert weight.dtype == weight.grad.dtype == net[1].running_var.dtype == np.float64
    assert list(weight._array.strides) == layout and net[1].num_batches_tracked.dtype == np.int64
    assert net.to(np.float32)[0].weight.dtype == np.float32
    assert net.to("numpy") is net
    for wrong in ("cuda", np.int32, 3):
        with pytest.raises(ValueError, match="neither a backend"):
            net.to(wrong)


def test_deepcopy_is_independent() -> None:
    net = nn.Sequential(Block(), nn.BatchNorm2d(2))
    net(Tensor(np.ones((1, 2, 2, 5), np.float32))).sum().backward()
    twin = copy.deepcopy(net)
    assert isinstance(twin[0].scale, nn.Parameter) and twin[0].scale.requires_grad and twin[0].scale.grad is not net[0].scale.grad
    assert all(np.array_equal(v, twin.state_dict()[k]) for k, v in net.state_dict().items())
    nn.init.zeros_(twin[0].conv.weight)
    nn.init.zeros_(twin[1].running_var)
    assert net[0].conv.weight.numpy().any() and net[1].running_var.numpy().all()
    tied = nn.ModuleList([nn.Linear(2, 2), nn.Linear(2, 2)])
    tied[1].weight = tied[0].weight
    assert len(list(copy.deepcopy(tied).parameters())) == 3
    for data in (np.array([1, 2]), np.array([1.0, 2.0])):
        frozen = copy.deepcopy(nn.Parameter(data, requires_grad=False))
        assert type(frozen) is nn.Parameter and not frozen.requires_grad and frozen.dtype == data.dtype and frozen.numpy()[1] == 2


def test_hooks_see_and_replace_inputs_and_outputs() -> None:
    layer = nn.Identity()
    log: list[object] = []
    with layer.register_forward_pre_hook(lambda m, x: log.append(x)), layer.register_forward_hook(lambda m, x, y: log.append(y)):
        assert layer(3) == 3 and log == [(3,), 3]
    first = layer.register_forward_pre_hook(lambda m, x: x[0] + 1)
    second = layer.register_forward_pre_hook(lambda m, x: (x[0] * 2,))
    third = layer.register_forward_hook(lambda m, x, y: -y)
    assert layer(3) == -8
    first.remove()
    assert layer(3) == -6
    second.remove(), third.remove(), third.remove()
    assert layer(3) == 3 and len(log) == 2


# -- parameters --------------------------------------------------------------------------------------------------------------------


def test_parameter_is_a_leaf_that_requires_gradients() -> None:
    data = np.ones((2, 3), np.float32)
    p = nn.Parameter(data)
    data[0, 0] = 5
    assert isinstance(p, Tensor) and p.requires_grad and p.is_leaf and p.numpy()[0, 0] == 1
    assert not nn.Parameter(data, requires_grad=False).requires_grad
    assert repr(nn.Parameter([1.0])) == "Parameter([1.], shape=(1,), dtype=float32, requires_grad=True)"
    assert type(p * 2) is Tensor
    with pytest.raises(TypeError, match="only floating-point tensors can require gradients"):
        nn.Parameter(np.arange(3))


def test_parameters_are_made_on_channels_last_memory() -> None:
    assert nn.Conv2d(3, 5, (2, 4)).weight._array.transpose(0, 2, 3, 1).flags.c_contiguous
    assert nn.ConvTranspose2d(3, 5, (2, 4)).weight._array.transpose(0, 2, 3, 1).flags.c_contiguous
    assert nn.Linear(3, 5).weight._array.flags.c_contiguous


def test_the_same_seed_gives_the_same_weights() -> None:
    def weights(seed: int) -> list[np.ndarray]:
        minidcnn.manual_seed(seed)
        return list(nn.Sequential(Block(), nn.Linear(3, 2), nn.ConvTranspose2d(2, 3, (2, 1))).state_dict().values())

    assert all(np.array_equal(a, b) for a, b in zip(weights(5), weights(5), strict=True))
    assert not all(np.array_equal(a, b) for a, b in zip(weights(5), weights(6), strict=True))


# -- containers -------------------------------------------------------------------------------------------------------------------


def test_sequential_is_a_list() -> None:
    a, b, c = nn.ReLU(), nn.Identity(), nn.Tanh()
    net = nn.Sequential(a, b)
    assert net.append(c) is net and len(net) == 3 and list(net) == [a, b, c] and net[-1] is c
    assert isinstance(net[1:], nn.Sequential) and list(net[1:]) == [b, c]
    net[1] = c
    assert list(net) == [c if m is b else m for m in (a, b, c)]
    del net[0]
    assert list(net._modules) == ["0", "1"]
    net.insert(0, b).extend([a, a])
    assert list(net) == [b, c, c, a, a] and list(net._modules) == ["0", "1", "2", "3", "4"]
    del net[1:4]
    assert list(net) == [b, a]
    with pytest.raises(IndexError, match="Sequential: index 2 is out of range for 2 modules"):
        net[2]
    with pytest.raises(TypeError, match="an index must be an int or a slice, got str"):
        net["0"]
    with pytest.raises(TypeError, match=r"Sequential: 0 must be a Module, got list; unpack lists with Sequential\(\*layers\)"):
        nn.Sequential([a, b])
    with pytest.raises(TypeError, match=r"Sequential.0 must be a Module or None, got int"):
        net[0] = 1
    with pytest.raises(TypeError, match="insert needs a Module, got int"):
        net.insert(0, 1)


def test_sequential_runs_in_order_and_keeps_given_names() -> None:
    double, add = nn.Linear(1, 1), nn.Linear(1, 1)
    for layer, weight, bias in ((double, 2, 0), (add, 1, 1)):
        nn.init.constant_(layer.weight, weight)
        nn.init.constant_(layer.bias, bias)
    net = nn.Sequential(OrderedDict(twice=double, add=add))
    assert net(Tensor([[3.0]])).item() == 7 and net.twice is double
    assert list(net.state_dict()) == ["twice.weight", "twice.bias", "add.weight", "add.bias"]
    assert list(net[:1]._modules) == ["twice"]
    assert nn.Sequential()(5) == 5


def test_module_list_and_dict() -> None:
    layers = nn.ModuleList(nn.Linear(2, 2) for _ in range(3))
    assert len(layers) == 3 and len(list(layers.parameters())) == 6 and isinstance(layers[:2], nn.ModuleList)
    named = nn.ModuleDict({"b": nn.ReLU(), "a": nn.Tanh()})
    assert list(named) == list(named.keys()) == ["b", "a"] and "a" in named and len(named) == 2
    assert [type(m) for m in named.values()] == [nn.ReLU, nn.Tanh] and dict(named.items())["a"] is named["a"]
    named.update([("c", nn.Identity())])
    named["b"] = nn.Sigmoid()
    del named["a"]
    assert isinstance(named.pop("b"), nn.Sigmoid) and list(named) == ["c"]
    with pytest.raises(TypeError, match=r"ModuleDict.x must be a Module or None, got int"):
        named["x"] = 3


def test_nothing_is_lost_when_parts_grow() -> None:
    a, b, c, d = (nn.Linear(i, 2) for i in (3, 4, 5, 6))
    part = nn.ModuleList([a, b, c])[1:].append(d)
    assert list(part) == [b, c, d] and list(part._modules) == ["0", "1", "2"]
    assert list(nn.ModuleList([a, b, c])[::-1].extend([d])) == [c, b, a, d]
    steps = nn.Sequential(a, b, c)[1:].append(d)
    assert list(steps) == [b, c, d] and list(steps._modules) == ["1", "2", "3"]
    assert list(nn.Sequential({"1": a}).append(b)._modules) == ["1", "2"]
    assert list(nn.Sequential({"2": a, "x": b}).extend([c, d])._modules.items()) == [("2", a), ("x", b), ("3", c), ("4", d)]


def test_parts_have_torchs_names() -> None:
    torch = pytest.importorskip("torch")
    for kind in ("ModuleList", "Sequential"):
        ours, theirs = (getattr(n, kind) for n in (nn, torch.nn))
        layers = [n.Linear(i, 2) for n in (nn, torch.nn) for i in (3, 4, 5)]
        for index in (slice(1, None), slice(None, None, 2), slice(2)):
            mine, its = (f(layers) if kind == "ModuleList" else f(*layers) for f, layers in ((ours, layers[:3]), (theirs, layers[3:])))
            assert list(mine[index].state_dict()) == list(its[index].state_dict())
