"""Numbers of the house that anybody can check: `python -m bench.measure`, `--where` lists what is over a limit.

Order of events: every Python file below `claw/` is parsed (`ast`) and its tokens read (`tokenize`); each measure is a
number, its limit, and the places that spoil it. Nothing of claw is imported. `tests/test_house_measures.py` asserts the
limits, so that a house that was put in order stays so.
"""

from __future__ import annotations

import argparse
import ast
import io
import operator
import re
import sys
import tokenize
from collections import defaultdict
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from bench import citations

ROOT: Final = Path(__file__).parents[1]

PARTICIPLES_MAX_PERCENT: Final = 1.5
DUPLICATE_CLASSES_MAX: Final = 3
FUNCTION_LINES_MAX: Final = 50
"""Lines of code of a function, without its docstring, comments and blank lines."""
MODULE_LINES_MAX: Final = 449
COMMENTS_MIN_PERCENT: Final = 4.0
LINES_MAX: Final = 18_648
"""What claw had before its rooms were put in order; an order that makes it longer is none."""
CITATIONS_MIN_PERCENT: Final = 100.0

SOURCES: Final = frozenset({".py", ".lua", ".sql", ".toml"})
"""What counts as code: scripts and texts that moved out of Python are not gone."""

IRREGULAR: Final = frozenset(
    re.findall(
        r"\w+",
        """been begun bound broken brought built caught chosen done drawn driven fallen forgotten found frozen given
        gone gotten grown heard held hidden hung kept known laid led lent lost made meant met paid said seen sent shown
        sold sought spent spoken stolen stood struck stuck taken taught thought thrown told torn understood woken won
        written
        """,
    )
)
"""Past participles that do not end in -ed; none that is also an imperative, such as put, read, run, set, cut, split."""
IMPERATIVES: Final = frozenset(
    re.findall(r"\w+", "bleed breed embed exceed feed need proceed seed shed shred speed spread succeed weed")
)
"""Words that end in -ed and are no participles."""

Function = ast.FunctionDef | ast.AsyncFunctionDef


@dataclass(frozen=True, slots=True)
class Measure:
    """One number of the house. `where` names what spoils it, as file:line and a name."""

    name: str
    value: float
    limit: float
    unit: str = ""
    at_least: bool = False
    where: tuple[str, ...] = ()

    @property
    def ok(self) -> bool:
        """Whether the limit is kept."""
        keeps: Callable[[float, float], bool] = operator.ge if self.at_least else operator.le
        return keeps(self.value, self.limit)


@dataclass(frozen=True, slots=True)
class Module:
    """A parsed file; `path` is relative to the root."""

    path: str
    text: str
    tree: ast.Module

    @property
    def lines(self) -> int:
        """Lines of the file."""
        return self.text.count("\n")

    @property
    def room(self) -> str:
        """The first folder below claw/, or the module's own name where it lies in none."""
        return Path(self.path).parts[1].removesuffix(".py")

    def place(self, node: ast.stmt) -> str:
        """Say where a function or class stands."""
        return f"{self.path}:{node.lineno}"


def modules(root: Path = ROOT) -> list[Module]:
    """Parse every Python file below `root`/claw."""
    found = []
    for file in sorted((root / "claw").rglob("*.py")):
        text = file.read_text(encoding="utf-8")
        found.append(Module(str(file.relative_to(root)), text, ast.parse(text)))
    return found


def measures(root: Path = ROOT) -> list[Measure]:
    """Take every measure of the house below `root`."""
    house = modules(root)
    lines = sum(
        file.read_text(encoding="utf-8").count("\n") for file in (root / "claw").rglob("*") if file.suffix in SOURCES
    )
    return [
        _participles(house),
        _duplicate_classes(house),
        _long_functions(house),
        _largest_module(house),
        _comments(house),
        _docstrings(house),
        Measure("lines of claw/", lines, LINES_MAX),
        _citations(root),
    ]


def _participles(house: list[Module]) -> Measure:
    functions = [(module, node) for module in house for node in _functions(module.tree) if not _is_property(node)]
    named = [f"{module.place(node)} {node.name}" for module, node in functions if is_participle(first_word(node.name))]
    share = _percent(len(named), len(functions))
    return Measure(
        f"functions named by a participle, of {len(functions)}",
        share,
        PARTICIPLES_MAX_PERCENT,
        "%",
        where=tuple(named),
    )


def _duplicate_classes(house: list[Module]) -> Measure:
    """Count top-level class names that two or more rooms define: a reader must not ask which one is meant."""
    rooms: defaultdict[str, dict[str, str]] = defaultdict(dict)
    for module in house:
        for node in module.tree.body:
            if isinstance(node, ast.ClassDef) and not node.name.startswith("_"):
                rooms[node.name].setdefault(module.room, module.place(node))
    twice = {name: places for name, places in rooms.items() if len(places) > 1}
    where = tuple(f"{place} {name}" for name, places in sorted(twice.items()) for place in places.values())
    return Measure("class names in two or more rooms", len(twice), DUPLICATE_CLASSES_MAX, where=where)


def _long_functions(house: list[Module]) -> Measure:
    where = []
    for module in house:
        code = _code_lines(module.text)
        for node in _functions(module.tree):
            lines = code_lines_of(node, code)
            if lines > FUNCTION_LINES_MAX:
                where.append(f"{module.place(node)} {node.name}: {lines} lines")
    return Measure(f"functions above {FUNCTION_LINES_MAX} lines of code", len(where), 0, where=tuple(where))


def _largest_module(house: list[Module]) -> Measure:
    where = tuple(f"{each.path}:1 {each.lines} lines" for each in house if each.lines > MODULE_LINES_MAX)
    return Measure("lines of the largest module", max(each.lines for each in house), MODULE_LINES_MAX, where=where)


def _comments(house: list[Module]) -> Measure:
    """Take the share of lines that are a comment and nothing else; `where` names the rooms with less than the limit."""
    comments: defaultdict[str, int] = defaultdict(int)
    lines: defaultdict[str, int] = defaultdict(int)
    for module in house:
        comments[module.room] += comment_lines(module.text)
        lines[module.room] += module.lines
    where = tuple(
        f"claw/{room}: {comments[room]} of {lines[room]} lines, {share:.1f} %"
        for room in sorted(lines)
        if (share := _percent(comments[room], lines[room])) <= COMMENTS_MIN_PERCENT and lines[room]
    )
    share = _percent(sum(comments.values()), sum(lines.values()))
    return Measure("lines that are a comment", share, COMMENTS_MIN_PERCENT, "%", at_least=True, where=where)


def _docstrings(house: list[Module]) -> Measure:
    """Take the share of lines in docstrings, those of constants included; it has no limit."""
    strings = sum(
        (node.end_lineno or node.lineno) - node.lineno + 1
        for module in house
        for node in ast.walk(module.tree)
        if isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant) and isinstance(node.value.value, str)
    )
    return Measure("lines of docstrings", _percent(strings, sum(each.lines for each in house)), 0.0, "%", at_least=True)


def _citations(root: Path) -> Measure:
    faults = citations.faults_of_citations(root)
    good = len(citations.citations(root)) - sum("old spelling" not in fault.why for fault in faults)
    where = tuple(map(str, faults))
    share = _percent(good, good + len(faults))
    return Measure(
        f"citations that lead somewhere, of {good + len(faults)}",
        share,
        CITATIONS_MIN_PERCENT,
        "%",
        at_least=True,
        where=where,
    )


def first_word(name: str) -> str:
    """Return the first word of a function's name, without leading underscores."""
    return name.lstrip("_").partition("_")[0]


def is_participle(word: str) -> bool:
    """Tell a past participle (`kept`, `stored`) from anything else; ambiguous words are none."""
    return word in IRREGULAR or (word.endswith("ed") and word not in IMPERATIVES)


def code_lines_of(node: Function, code: set[int]) -> int:
    """Count the lines of code of a function, its signature and the functions in it included, its docstring not."""
    lines = {line for line in code if node.lineno <= line <= (node.end_lineno or node.lineno)}
    if ast.get_docstring(node, clean=False) is not None:
        lines -= set(range(node.body[0].lineno, (node.body[0].end_lineno or 0) + 1))
    return len(lines)


def comment_lines(text: str) -> int:
    """Count the lines that are a comment and nothing else."""
    return sum(token.type == tokenize.COMMENT and token.line.lstrip().startswith("#") for token in _tokens(text))


def _code_lines(text: str) -> set[int]:
    """Return the numbers of all lines that hold a token other than a comment or a line's end."""
    empty = {tokenize.COMMENT, tokenize.NL, tokenize.NEWLINE, tokenize.INDENT, tokenize.DEDENT, tokenize.ENDMARKER}
    return {
        line for token in _tokens(text) if token.type not in empty for line in range(token.start[0], token.end[0] + 1)
    }


def _tokens(text: str) -> Iterator[tokenize.TokenInfo]:
    return tokenize.generate_tokens(io.StringIO(text).readline)


def _functions(tree: ast.Module) -> Iterator[Function]:
    return (node for node in ast.walk(tree) if isinstance(node, Function))


def _is_property(node: Function) -> bool:
    names = [ast.unparse(each) for each in node.decorator_list]
    return any("property" in name or name.endswith((".setter", ".getter", ".deleter")) for name in names)


def _percent(part: int, whole: int) -> float:
    return 100 * part / whole if whole else 100.0


def main() -> int:
    """Print the table; 1 where a limit is not kept."""
    parser = argparse.ArgumentParser(prog="python -m bench.measure", description="Numbers of the house.")
    parser.add_argument("--where", action="store_true", help="list what is over a limit, by file and line")
    where = parser.parse_args().where
    taken = measures()
    for measure in taken:
        value = f"{measure.value:.1f} %" if measure.unit else f"{measure.value:.0f}"
        limit = f"{'>=' if measure.at_least else '<='} {measure.limit:g}{' %' if measure.unit else ''}"
        print(f"{'ok  ' if measure.ok else 'over'}  {value:>8}  {limit:>9}  {measure.name}")
        if where:
            for place in measure.where:
                print(f"          {place}")
    return int(not all(measure.ok for measure in taken))


if __name__ == "__main__":
    sys.exit(main())
