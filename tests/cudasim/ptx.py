"""From PTX, what a CUDA compiler makes of a kernel, to C++ that g++ compiles: an instruction becomes a statement, a register a variable.

So the simulator can run not only what stands in a .cu file but what was compiled from it: inline assembly with its operands, and all that the compiler
did. runtime/ptx.h says what instructions mean, after PTX's documentation of each. Registers keep bits, as in PTX; an instruction's type says how to
read them.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path

from .translate import SimError

_TYPES = {
    **{f"{kind}{bits}": f"{'' if kind == 's' else 'u'}int{bits}_t" for kind in "bus" for bits in (8, 16, 32, 64)},
    "f32": "float",
    "f64": "double",
    "pred": "bool",
}
_SPECIAL = {
    f"{name}.{axis}": f"sim::registers.{field}.{axis}"
    for name, field in (("tid", "thread"), ("ctaid", "block"), ("ntid", "block_dim"), ("nctaid", "grid_dim"))
    for axis in "xyz"
} | {"laneid": "unsigned(sim::registers.lane)"}
_RUNTIME = (Path(__file__).parent / "runtime" / "ptx.h").read_text()
_KNOWN = {
    *re.findall(r"^(?:UNARY|BINARY)\((\w+),", _RUNTIME, re.M),
    *(f"setp_{comparison}" for comparison in re.findall(r"^COMPARE\((\w+),", _RUNTIME, re.M)),
    *re.findall(r"inline void (\w+)_\(", _RUNTIME),
}
_COMMENT = re.compile(r"//[^\n]*|/\*.*?\*/", re.S)
_FUNCTION = re.compile(
    r"(?P<kernel>\.visible\s+\.entry)?(?(kernel)|\.func)\s*(?:\((?P<returned>[^()]*)\))?\s*(?P<name>[\w$]+)\s*\((?P<parameters>[^()]*)\)"
    r"(?P<directives>[^{;]*)(?P<end>[{;])"
)
_POINTER = r"(?:\.ptr\s+(?:\.(?:global|shared|local|const)\s+)?(?:\.align\s+\d+\s+)?)?"  # what newer compilers say of a parameter
_PARAMETER = re.compile(rf"\.param\s+(?:\.align\s+(?P<align>\d+)\s+)?\.(?P<type>\w+)\s+{_POINTER}(?P<name>[\w$]+)(?:\[(?P<count>\d+)\])?")
_SHARED = re.compile(r"(?P<extern>\.extern\s+)?\.shared\s+\.align\s+(?P<align>\d+)\s+\.b8\s+(?P<name>[\w$]+)\[(?P<bytes>\d*)\]")
_LOCAL = re.compile(r"\.local\s+\.align\s+(?P<align>\d+)\s+\.b8\s+(?P<name>[\w$]+)\[(?P<bytes>\d+)\]")
_REGISTERS = re.compile(r"\.reg\s+\.(?P<type>\w+)\s+(?P<name>%?[\w$]+)(?:<(?P<count>\d+)>)?")
_INSTRUCTION = re.compile(r"(?:@(?P<guard>!?%\w+)\s+)?(?P<opcode>[a-z][\w.:]*)\s*(?P<operands>.*)", re.S)
_OPERAND = re.compile(r"\{[^{}]*\}|\([^()]*\)|\[[^\[\]]*\]|[^,\s]+")
_STATE_SPACES = ("global", "shared", "local", "param", "const")
# What an instruction means the same without: hints to caches, and rounding to nearest, which all do that round at all.
_HINTS = set("nc cs cg ca cv lu wb wt volatile relaxed gpu cta sys uni ftz rn aligned sync lo full".split())


def is_ptx(code: str) -> bool:
    """Whether a module's code is a compiler's PTX and not a .cu source."""
    return re.search(r"^\.version \d", code, re.M) is not None


def translate_ptx(code: str) -> tuple[str, list[str]]:
    """(C++, kernels) of a module in PTX. Lines of the .cu source are kept where the compiler was asked for them (-lineinfo).

    SimError that names the instruction for one that runtime/ptx.h does not know.
    """
    files = dict(re.findall(r'^\s*\.file\s+(\d+)\s+"([^"]*)"', code, re.M))
    code = re.sub(r"^\s*\.(?:file|section|version|target|address_size)\b[^\n{]*", "", _COMMENT.sub("", code), flags=re.M)
    code = re.sub(r"\.section[^{]*\{.*?\n\}", "", code, flags=re.S)
    parts, names, at = [], [], 0
    for match in _FUNCTION.finditer(code):
        parts.append(_outside(code[at : match.start()]))
        parameters = [*_PARAMETER.finditer(match["returned"] or ""), *_PARAMETER.finditer(match["parameters"])]
        reference = "&" if match["returned"] else ""
        signature = ", ".join(f"{_bits(p)}{reference if i == 0 else ''} {p['name']}" for i, p in enumerate(parameters))
        linkage = "static" if not match["kernel"] else 'extern "C" __attribute__((visibility("hidden")))'
        head = f"{linkage} void {match['name']}({signature})"
        if match["end"] == ";":
            parts.append(head + ";\n")
            at = match.end()
            continue
        at = _closing(code, match.end())
        parts.append(f"{head} {{\n{_body(code[match.end() : at - 1], files)}\n}}\n")
        if match["kernel"]:
            names.append(match["name"])
    records = "".join(
        f'extern "C" __attribute__((visibility("default"))) const sim::Kernel sim_kernel_{i} = sim::Record<&{name}>::make("{name}");\n'
        for i, name in enumerate(names)
    )
    return f'#include "ptx.h"\n{"".join(parts)}\n#line 1 "records"\n{records}', names


def _bits(parameter: re.Match[str]) -> str:
    size = int(re.sub(r"\D", "", parameter["type"])) // 8 * int(parameter["count"] or 1)
    return f"ptx::Bits<{size}, {parameter['align'] or size}>"


def _closing(code: str, at: int) -> int:
    """Just behind the brace that closes the one before `at`."""
    depth = 1
    while depth:
        at = re.compile(r"[{}]").search(code, at).end()  # type: ignore[union-attr]
        depth += 1 if code[at - 1] == "{" else -1
    return at


def _outside(text: str) -> str:
    """Shared arrays outside functions. Constants there are only what the compiler has already put in place."""
    return "".join(_shared(match) for match in _SHARED.finditer(text))


def _shared(match: re.Match[str]) -> str:
    name = match["name"]
    if match["extern"]:
        return f"#define {name} 0u\n"
    key = f"static char {name}_key;"
    return f"{key}\n#define {name} sim::shared_address(sim::static_shared(&{name}_key, {match['bytes']}, {match['align']}))\n"


def _body(text: str, files: dict[str, str]) -> str:
    """The statements of a function."""
    text = re.sub(r"^\s*\.loc\s+(\d+)\s+(\d+)[^\n]*$", lambda m: f'\n#line {m[2]} "{files.get(m[1], "kernel.ptx")}"\n', text, flags=re.M)
    text = re.sub(r"\.pragma[^;]*;", "", text)
    pieces = re.split(r"(#line[^\n]*\n)|(\$?[\w$]+:(?!:))|;|(?<=\s)([{}])(?=\s)", text)
    return "\n".join(_statement(piece.strip()) for piece in pieces if piece and piece.strip())


def _statement(text: str) -> str:
    if text.startswith("#line") or text in "{}":
        return text
    if text.endswith(":"):
        return f"{text};"
    if match := _REGISTERS.fullmatch(text):
        kind, name = "bool" if match["type"] == "pred" else f"uint{match['type'][1:]}_t", match["name"].replace("%", "")
        names = [f"{name}{i}" for i in range(int(match["count"]))] if match["count"] else [name]
        return f"[[maybe_unused]] {kind} {', '.join(names)};"
    if match := _SHARED.fullmatch(text):
        return _shared(match).rstrip()
    if match := _LOCAL.fullmatch(text):
        return f"alignas({match['align']}) char {match['name']}[{match['bytes']}];"
    if match := _PARAMETER.fullmatch(text):
        return f"{_bits(match)} {match['name']};"
    match = _INSTRUCTION.fullmatch(text)
    if not match:
        raise SimError(f"this is no PTX that the simulator can read: {text!r}")
    opcode, operands = match["opcode"], _OPERAND.findall(match["operands"])
    try:
        statement = _instruction(opcode.split("."), operands)
    except (AttributeError, KeyError, IndexError, ValueError) as error:
        raise SimError(f"a PTX instruction that the simulator does not know: {' '.join(text.split())}") from error
    return f"if ({_value(match['guard'])}) {statement}" if match["guard"] else statement


def _value(operand: str) -> str:
    """C++ for a register, a number, a special register or the address of a symbol."""
    if operand == "_":
        return "ptx::sink"
    if operand.startswith("!"):
        return f"!{_value(operand[1:])}"
    if operand.startswith("%"):
        return _SPECIAL.get(operand[1:], operand[1:])
    if re.fullmatch(r"0[fFdD][0-9a-fA-F]+", operand):
        return f"0x{operand[2:]}ull"
    if re.fullmatch(r"-?\d+", operand):
        return f"uint64_t({operand}ll)" if operand != "-9223372036854775808" else "(1ull << 63)"
    return operand if operand.startswith("0x") else f"ptx::address({operand})"


def _place(operand: str) -> tuple[str, str]:
    """C++ for the register and the offset of [register + offset]."""
    match = re.fullmatch(r"\[\s*([%\w$]+)\s*(?:\+\s*(-?\d+))?\s*\]", operand)
    if not match:
        raise ValueError
    return _value(match[1]), match[2] or "0"


def _address(operand: str, space: str) -> str:
    """C++ for the place in memory that it means."""
    return f"ptx::place<ptx::{space.upper()}>({', '.join(_place(operand))})"


def _list(operand: str) -> list[str]:
    """The operands of {a, b, ...}, or the one that stands alone."""
    return [_value(part.strip()) for part in operand.strip("{}").split(",")]


def _instruction(opcode: list[str], operands: list[str]) -> str:
    name, modifiers = opcode[0], opcode[1:]
    if name in _WHOLE:
        return _WHOLE[name](modifiers, operands)
    kept = [m for m in modifiers if m not in _HINTS]
    types = [_TYPES[m] for m in kept if m in _TYPES]
    words = [m for m in kept if m not in _TYPES]
    if name == "mov" and any(o.startswith("{") for o in operands):
        return f"ptx::{'unpack' if operands[0].startswith('{') else 'pack'}({', '.join([*_list(operands[0]), *_list(operands[1])])});"
    special = name == "cvt" and words  # of a type that C++ does not have
    function = "_".join([name, *(kept if special else words)])
    if function not in _KNOWN:
        raise ValueError
    arguments = "" if special else f"<{', '.join(types)}>"
    return f"ptx::{function}_{arguments}({', '.join(map(_value, operands))});"


def _branch(modifiers: list[str], operands: list[str]) -> str:
    return f"goto {operands[0]};"


def _call(modifiers: list[str], operands: list[str]) -> str:
    groups = [[part.strip() for part in o[1:-1].split(",") if part.strip()] if o.startswith("(") else o for o in operands]
    returned, function, given = groups if isinstance(groups[0], list) else ([], *groups)  # type: ignore[misc]
    return f"{function}({', '.join([*returned, *given])});"


def _memory(modifiers: list[str], operands: list[str], load: bool) -> str:
    space = next((m for m in modifiers if m in _STATE_SPACES), "generic")
    rest = [m for m in modifiers if m not in _HINTS and m not in _STATE_SPACES]
    kind = _TYPES[rest[-1]]
    count = int(rest[0][1:]) if len(rest) == 2 else 1
    registers, place = operands if load else operands[::-1]
    values = _list(registers)
    if len(values) != count or len(rest) > 2:
        raise ValueError
    return f"ptx::{'load' if load else 'store'}<{kind}, ptx::{space.upper()}>({', '.join([*_place(place), *values])});"


def _atomic(modifiers: list[str], operands: list[str]) -> str:
    space, operation, kind = [m for m in modifiers if m not in _HINTS]
    where = operands[1] if operands[0][0] != "[" else operands[0]
    result, given = ([operands[0]], operands[2:]) if operands[0][0] != "[" else ([], operands[1:])
    values = ", ".join([_address(where, space), *map(_value, [*result, *given])])
    return f"ptx::atomic_{operation}<{_TYPES[kind]}>({values});"


def _barrier(modifiers: list[str], operands: list[str]) -> str:
    if modifiers == ["sync"] and operands == ["0"]:
        return "sim::sync_block(__LINE__, sim::NO_VOTE, nullptr);"
    if modifiers[:1] == ["red"] and operands[1] == "0":
        vote = {"and": "ALL", "or": "ANY", "popc": "COUNT"}[modifiers[1]]
        return f"ptx::vote({_value(operands[0])}, {_value(operands[2])}, sim::{vote}, __LINE__);"
    raise ValueError


def _copy(modifiers: list[str], operands: list[str]) -> str:
    if modifiers == ["async", "commit_group"]:
        return "sim::async_commit();"
    if modifiers == ["async", "wait_group"]:
        return f"sim::async_wait({int(operands[0])});"
    if modifiers[0] != "async" or modifiers[1] not in ("cg", "ca") or modifiers[-2:] != ["shared", "global"]:
        raise ValueError
    given = _value(operands[3]) if len(operands) > 3 else operands[2]
    return f"ptx::copy({_address(operands[0], 'shared')}, {_address(operands[1], 'global')}, {int(operands[2])}, {given});"


def _mma(modifiers: list[str], operands: list[str]) -> str:
    shape, kinds = modifiers[2], modifiers[5:]
    factors = {("m16n8k8", "tf32"): "TF32", ("m16n8k16", "f16"): "F16", ("m16n8k16", "bf16"): "BF16"}[shape, kinds[1]]
    if modifiers[:2] != ["sync", "aligned"] or modifiers[3:5] != ["row", "col"] or kinds != ["f32", kinds[1], kinds[1], "f32"]:
        raise ValueError
    d, a, b, c = (", ".join(_list(o)) for o in operands)
    held = f"uint32_t mma_a[4] = {{{a}}}, mma_b[2] = {{{b}}}, mma_c[4] = {{{c}}};"
    return f"{{ {held} ptx::mma(sim::{factors}, mma_a, mma_b, mma_c, __LINE__); ptx::take(mma_c, {d}); }}"


def _wgmma(modifiers: list[str], operands: list[str]) -> str:
    if modifiers[0] == "mma_async":
        columns, depth = re.fullmatch(r"m64n(\d+)k(\d+)", modifiers[3]).groups()  # type: ignore[union-attr]
        factors = {("8", "tf32"): "TF32", ("16", "f16"): "F16"}[depth, modifiers[5]]
        d, a, b, scale, *signs = operands
        across = signs[2:] or ["0", "0"]
        if modifiers[4:] != ["f32", modifiers[5], modifiers[5]] or scale != "1" or signs[:2] != ["1", "1"]:
            raise ValueError
        registers = ", ".join(f"ptx::number({r})" for r in _list(d))
        return (
            f"{{ float* wgmma_d[] = {{{registers}}}; static_assert(sizeof wgmma_d == {columns} / 2 * sizeof(float*)); "
            f"sim::warpgroup_multiply(wgmma_d, {columns}, sim::{factors}, {across[0]}, {across[1]}, {_value(a)}, {_value(b)}); }}"
        )
    if modifiers == ["fence", "sync", "aligned"]:
        return "sim::warpgroup_fence();"
    if modifiers == ["commit_group", "sync", "aligned"]:
        return "sim::warpgroup_commit();"
    if modifiers == ["wait_group", "sync", "aligned"]:
        return f"sim::warpgroup_wait({int(operands[0])});"
    raise ValueError


def _fence(modifiers: list[str], operands: list[str]) -> str:
    if modifiers == ["proxy", "async", "shared::cta"]:
        return "sim::proxy_fence();"
    raise ValueError


_WHOLE: dict[str, Callable[[list[str], list[str]], str]] = {
    "bra": _branch,
    "ret": lambda m, o: "return;",
    "call": _call,
    "ld": lambda m, o: _memory(m, o, True),
    "st": lambda m, o: _memory(m, o, False),
    "atom": _atomic,
    "red": _atomic,
    "bar": _barrier,
    "cp": _copy,
    "mma": _mma,
    "wgmma": _wgmma,
    "fence": _fence,
}
