"""Mistakes that can be made in functions, one at a time: a call left out, a condition that always holds, another bound.

mutmut, which does this for the protocol, leaves out decorated functions, and calls each function through another one,
which the client's protection from interrupts does not survive.
"""

import ast
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from types import CodeType
from typing import Any, Final

from attrs import frozen

BOUNDS: Final[dict[type[ast.cmpop], type[ast.cmpop]]] = {
    ast.Lt: ast.LtE,
    ast.LtE: ast.Lt,
    ast.Gt: ast.GtE,
    ast.GtE: ast.Gt,
}
OPPOSITES: Final[dict[type[ast.cmpop], type[ast.cmpop]]] = {
    ast.Eq: ast.NotEq,
    ast.NotEq: ast.Eq,
    ast.Is: ast.IsNot,
    ast.IsNot: ast.Is,
    ast.In: ast.NotIn,
    ast.NotIn: ast.In,
}
OPERATORS: Final[dict[type[ast.operator], type[ast.operator]]] = {
    ast.Add: ast.Sub,
    ast.Sub: ast.Add,
    ast.Mult: ast.Add,
    ast.Div: ast.Mult,
    ast.FloorDiv: ast.Mult,
    ast.Mod: ast.Add,
}
OTHER_FUNCTION: Final = {"min": "max", "max": "min"}
ROOT: Final = Path(__file__).parents[2]
CLIENT: Final = ROOT / "src/slipstream_trio/client"
ARGUED: Final = ROOT / "tests/client/EQUIVALENT_MUTANTS.md"
SHOWN: Final = 80
PROTECTION: Final = "enable_ki_protection"
UNPROTECTED: Final = "not protected from interrupts"
NOT_RUN: Final = ("annotation", "returns", "decorator_list")
"""Fields of nodes that are evaluated before a test runs, if ever."""

Function = ast.FunctionDef | ast.AsyncFunctionDef
Change = tuple[ast.AST, str, Any, int, str]
"""A node, its attribute, what would be a mistake there, the line, and what the mistake is."""


@frozen(eq=False)
class Mistake:
    """One mistake in a function, whose first line is `first`; each there has a `text` of its own."""

    path: Path
    function: str
    first: int
    line: int
    text: str
    near: str  # the lines around it
    protected: bool  # from interrupts, the function with the mistake too
    _tree: ast.Module
    _node: ast.AST
    _attribute: str
    _value: Any

    def __str__(self) -> str:
        return f"`{self.place}` {self.text}"

    @property
    def place(self) -> str:
        """The function, with the name of its module."""
        return f"{self.path.stem}.{self.function}"

    def made(self) -> CodeType:
        """Return the code of the module with this mistake in it."""
        right = getattr(self._node, self._attribute)
        setattr(self._node, self._attribute, self._value)
        try:
            return compile(self._tree, str(self.path), "exec")
        finally:
            setattr(self._node, self._attribute, right)


def argued() -> set[str]:
    """Return the mistakes that were argued to change nothing that can be seen."""
    return {line[2:] for line in ARGUED.read_text().splitlines() if line.startswith("- ")}


def find(path: Path) -> Iterator[Mistake]:
    """Yield the mistakes that can be made in the functions of a module."""
    code = path.read_text()
    tree, lines = ast.parse(code, str(path)), code.splitlines()
    for name, function in _functions(tree):
        texts = Counter[str]()
        first = min(node.lineno for node in (function, *function.decorator_list))
        protected = any(PROTECTION in ast.unparse(each) for each in function.decorator_list)
        changes = [*_changes(function, function)]
        if protected:  # Trio knows it by its code: the same anew is not protected
            begins = function.body[ast.get_docstring(function) is not None].lineno
            changes.append((function, "body", function.body, begins, UNPROTECTED))
        for node, attribute, value, line, text in changes:
            texts[text] += 1
            numbered = text if texts[text] == 1 else f"{text} ({texts[text]})"
            near, kept = "\n".join(lines[line - 2 : line + 1]), protected and text != UNPROTECTED
            yield Mistake(path, name, first, line, numbered, near, kept, tree, node, attribute, value)


def _functions(owner: ast.Module | ast.ClassDef, prefix: str = "") -> Iterator[tuple[str, Function]]:
    for node in owner.body:
        if isinstance(node, ast.ClassDef):
            yield from _functions(node, f"{prefix}{node.name}.")
        elif isinstance(node, Function) and "overload" not in map(ast.unparse, node.decorator_list):
            yield f"{prefix}{node.name}", node


def _changes(node: ast.AST, function: Function) -> Iterator[Change]:
    """Yield the changes at a node, and below it."""
    for attribute, value in ast.iter_fields(node):
        if attribute in NOT_RUN:
            continue
        for number, child in enumerate(value if isinstance(value, list) else (value,)):
            if isinstance(child, ast.arguments) or not isinstance(child, ast.AST):
                continue
            line: int = getattr(child, "lineno", 0)
            for changed, text in _wrong(child, node, attribute, function) if line else ():
                ast.fix_missing_locations(ast.copy_location(changed, child))
                wrong = [*value[:number], changed, *value[number + 1 :]] if isinstance(value, list) else changed
                yield node, attribute, wrong, line, text
            if isinstance(child, ast.keyword):
                rest = [each for each in value if each is not child]
                yield node, attribute, rest, child.lineno, f"without {_code(child)} of {_code(node)}"
            yield from _changes(child, function)
    if isinstance(node, ast.Try) and node.finalbody:
        first = node.finalbody[0]
        yield node, "finalbody", [ast.copy_location(ast.Pass(), first)], first.lineno, f"no finally: {_code(first)}"
    if isinstance(node, ast.ExceptHandler) and list(map(ast.unparse, node.body)) != ["raise"]:
        yield node, "body", [ast.copy_location(ast.Raise(), node)], node.lineno, f"not caught: {_code(node)}"


def _wrong(child: ast.AST, parent: ast.AST, attribute: str, function: Function) -> Iterator[tuple[ast.AST, str]]:
    """Yield what may stand in the place of a child of a node, and what is wrong with that."""
    code, is_condition = _code(child), attribute in ("test", "ifs", "guard")
    if is_condition and not isinstance(child, ast.Constant) and not isinstance(parent, ast.Assert):
        yield ast.Constant(False), f"never: {code}"
        if not isinstance(parent, ast.While):
            yield ast.Constant(True), f"always: {code}"
    if _may_be_left_out(child, function):
        yield ast.Pass(), f"left out: {code}"
    match child:
        case ast.Return(value=ast.expr() as value) if not (isinstance(value, ast.Constant) and value.value is None):
            yield ast.Return(ast.Constant(None)), f"None: {code}"
        case ast.With(items, body) | ast.AsyncWith(items, body) if not any(item.optional_vars for item in items):
            yield ast.If(ast.Constant(True), body, []), f"not in its block: {code}"
        case ast.BoolOp(both, values):
            for value in values:
                others = [each for each in values if each is not value]
                yield others[0] if len(others) == 1 else ast.BoolOp(both, others), f"without {_code(value)} of {code}"
        case ast.Compare(left, ops, comparators):
            for number, op in enumerate(ops):
                other = BOUNDS.get(type(op)) or (None if is_condition else OPPOSITES.get(type(op)))
                if other is not None:
                    yield ast.Compare(left, [*ops[:number], other(), *ops[number + 1 :]], comparators), f"other: {code}"
        case ast.BinOp(left, operator, right) if type(operator) in OPERATORS and not isinstance(left, ast.JoinedStr):
            yield ast.BinOp(left, OPERATORS[type(operator)](), right), f"other: {code}"
        case ast.UnaryOp(ast.Not(), operand) if not is_condition:
            yield operand, f"without not: {code}"
        case ast.Call(ast.Name(name), arguments, keywords) if name in OTHER_FUNCTION:
            yield ast.Call(ast.Name(OTHER_FUNCTION[name], ast.Load()), arguments, keywords), f"other function: {code}"
        case ast.Constant(bool(value)):
            yield ast.Constant(not value), f"other: {code} in {_code(parent)}"
        case ast.Constant(int(value) | float(value)) if not isinstance(parent, ast.Subscript | ast.Slice):
            yield ast.Constant(value + 1), f"other: {code} in {_code(parent)}"


def _may_be_left_out(node: ast.AST, function: Function) -> bool:
    """Tell whether a statement can be missing without an error that any test would find."""
    if isinstance(node, ast.Assign | ast.AnnAssign):
        targets = node.targets if isinstance(node, ast.Assign) else [node.target]
        stored = [each for target in targets for each in ast.walk(target) if isinstance(each, ast.expr)]
        names = Counter(
            each.id for each in ast.walk(function) if isinstance(each, ast.Name) and isinstance(each.ctx, ast.Store)
        )
        kept = any(isinstance(each, ast.Attribute | ast.Subscript) for each in stored)
        return node.value is not None and (
            kept or all(names[each.id] > 1 for each in stored if isinstance(each, ast.Name))
        )
    if isinstance(node, ast.Expr):
        return not isinstance(node.value, ast.Constant)
    if isinstance(node, ast.Return):
        return node.value is None
    return isinstance(node, ast.AugAssign | ast.Delete | ast.Raise | ast.Continue | ast.Break)


def _code(node: ast.AST) -> str:
    """Return the beginning of a node's code."""
    line = ast.unparse(node).splitlines()[0].rstrip(":")
    return f"`{line if len(line) <= SHOWN else line[: SHOWN - 1] + '…'}`"
