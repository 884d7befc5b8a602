"""The house: imports only go down. Every import of every module is read, those inside functions and type checks too."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
PACKAGE = "minidcnn"

# room -> what it may know. A room is a module or folder directly under minidcnn/; those of FLOOR_3 share the third floor.
BELOW_3 = {"window", "words", "backend"}
FLOOR_3 = {"recording", "operators", "tensor", "autograd", "probe", "gradcheck"}
BELOW_5 = BELOW_3 | FLOOR_3 | {"functional"}
BELOW_7 = BELOW_5 | {"nn", "optim", "models", "data"}
KNOWS: dict[str, set[str]] = {
    "window": set(),
    "words": set(),
    "testing": {"window"},  # what property tests draw; nothing else knows it
    "backend": {"window", "words"},
    **dict.fromkeys(FLOOR_3, BELOW_3 | FLOOR_3),
    "functional": BELOW_3 | FLOOR_3,
    "study": BELOW_5,  # what docs/math computes with; nothing else knows it
    "nn": BELOW_5,
    "optim": BELOW_5,
    "models": BELOW_5 | {"nn"},
    "data": {"window", "words"},
    "interop": BELOW_7,
    "segmentation": BELOW_7 | {"interop"},  # the trainer writes checkpoints
    "bench": BELOW_7,
    "cli": BELOW_7 | {"interop", "segmentation", "bench"},
    "__main__": BELOW_7 | {"interop", "segmentation", "cli"},
}
# The one bell that rings upstairs: the first operator used on a Tensor loads functional, which hangs the operators into the class.
BELLS = {("operators", "functional")}
NEVER = {"torch", "torchvision", "tensorflow", "jax"}


def imported(tree: ast.Module, module: str) -> Iterator[tuple[int, str]]:
    """(line, absolute name) of everything that `module` imports: `from a import b` gives a.b, `import_module("a")` gives a.

    `module` is a dotted name; that of a package ends with .__init__.
    """
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from ((node.lineno, alias.name) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = module.split(".")[: -node.level] if node.level else []
            base += node.module.split(".") if node.module else []
            yield from ((node.lineno, ".".join([*base, alias.name])) for alias in node.names)
        elif isinstance(node, ast.Call) and node.args and isinstance(node.args[0], ast.Constant) and isinstance(node.args[0].value, str):
            called = node.func.attr if isinstance(node.func, ast.Attribute) else getattr(node.func, "id", "")
            if called in ("import_module", "__import__"):
                yield node.lineno, node.args[0].value


def violations(source: str, module: str) -> list[str]:
    """What `module` (dotted, see `imported`) may not import or name, one sentence each."""
    tree, found = ast.parse(source), []
    parts = module.split(".")
    room = parts[1] if parts[0] == PACKAGE else "examples"
    for line, name in imported(tree, module):
        target = name.split(".")
        where = f"{module}:{line}"
        if target[0] in NEVER:
            found.append(f"{where} imports {name}: the product stands on its own")
        if room in ("examples", "__init__") or target[0] != PACKAGE:
            continue
        to = target[1] if len(target) > 1 else ""
        if to == "__version__" or to == room or (room, to) in BELLS:
            continue
        if to not in KNOWS:
            found.append(f"{where} imports {name} through the roof; import it from its room")
        elif to not in KNOWS[room]:
            found.append(f"{where}: {room} may not know {to}")
    if room == "backend":
        named = {n.id for n in ast.walk(tree) if isinstance(n, ast.Name)} | {n.attr for n in ast.walk(tree) if isinstance(n, ast.Attribute)}
        if "Tensor" in named:
            found.append(f"{module} names Tensor: the backend works on arrays only")
    return found


def modules() -> list[tuple[str, Path]]:
    """(dotted name, file) of every module of the package and of every example."""
    package = [(".".join(p.relative_to(ROOT).with_suffix("").parts), p) for p in sorted((ROOT / PACKAGE).rglob("*.py"))]
    return package + [(f"examples.{p.stem}", p) for p in sorted((ROOT / "examples").glob("*.py"))]


def test_imports_only_go_down() -> None:
    assert not [v for module, path in modules() for v in violations(path.read_text(encoding="utf-8"), module)]


def test_every_module_lives_in_a_known_room() -> None:
    rooms = {p.stem for p in (ROOT / PACKAGE).iterdir() if p.suffix == ".py" or any(p.glob("*.py"))} - {"__init__"}
    assert rooms <= set(KNOWS), "give the new room a floor in DESIGN's table and in this file"
    assert len(modules()) > 50  # the walk really found the package


def test_no_cycle_between_rooms() -> None:
    """The table itself is a house: apart from the third floor, whoever is known does not know back, over any number of steps."""
    known = {room: set(below) for room, below in KNOWS.items()}
    for _ in known:
        known = {room: below.union(*(known[b] for b in below)) for room, below in known.items()}
    assert {room for room, below in known.items() if room in below} == FLOOR_3


@pytest.mark.parametrize(
    ("module", "source"),
    [
        ("minidcnn.window", "from .backend import Array"),
        ("minidcnn.backend.cpu.conv", "from ...tensor import Tensor"),
        ("minidcnn.backend.__init__", "from .. import tensor"),
        ("minidcnn.backend.arrays", "def f(x):\n    return isinstance(x, Tensor)"),
        ("minidcnn.backend.arrays", "def f(x, core):\n    return core.Tensor(x)"),
        ("minidcnn.autograd", "def f():\n    from . import functional"),
        ("minidcnn.autograd", "import minidcnn.functional.conv"),
        ("minidcnn.gradcheck", "from importlib import import_module\nimport_module('minidcnn.functional')"),
        ("minidcnn.functional.conv", "from ..nn import init"),
        ("minidcnn.functional.__init__", "from ..optim import SGD"),
        ("minidcnn.nn.conv", "from ..optim.sgd import SGD"),
        ("minidcnn.nn.conv", "from .. import Tensor"),
        ("minidcnn.optim.sgd", "from minidcnn.nn import Parameter"),
        ("minidcnn.optim.sgd", "from minidcnn import nn"),
        ("minidcnn.models.unet", "if TYPE_CHECKING:\n    from ..optim import SGD"),
        ("minidcnn.models.unet", "from ..data import Dataset"),
        ("minidcnn.data.transforms.base", "from ... import functional as F"),
        ("minidcnn.data.loader", "from ..backend import Array"),
        ("minidcnn.data.loader", "import minidcnn"),
        ("minidcnn.interop.weights", "from ..segmentation import train"),
        ("minidcnn.segmentation.train", "from ..cli import main"),
        ("minidcnn.segmentation.train", "import torch.nn"),
        ("examples.train_unet", "def f():\n    import torch"),
        ("minidcnn.interop.weights", "import importlib\nx = importlib.import_module('torchvision')"),
    ],
)
def test_planted_violations_are_caught(module: str, source: str) -> None:
    assert len(violations(source, module)) == 1


@pytest.mark.parametrize(
    ("module", "source"),
    [
        ("minidcnn.backend.cpu.conv", '"""Never sees a Tensor."""\nfrom ...window import Window\nfrom ..arrays import Array\nimport numpy'),
        ("minidcnn.backend.__init__", "from .arrays import Array\nfrom ..window import Window"),
        ("minidcnn.operators", "def f():\n    from .tensor import Tensor\n    import_module('minidcnn.functional')"),
        ("minidcnn.nn.conv", "from .. import functional as F\nfrom ..tensor import Tensor\nfrom . import init"),
        ("minidcnn.data.transforms.base", "from ..sample import Sample\nfrom ...window import Window"),
        ("minidcnn.segmentation.train", "from .. import __version__, data, models, optim\nfrom ..interop.checkpoints import save"),
        ("minidcnn.__init__", "from .tensor import Tensor\nfrom . import nn"),
        ("examples.train_unet", "import minidcnn\nfrom minidcnn.segmentation import train"),
    ],
)
def test_what_is_allowed_passes(module: str, source: str) -> None:
    assert not violations(source, module)
