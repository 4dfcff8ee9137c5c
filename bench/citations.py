"""Citations of our own documents: where each stands, and whether it leads somewhere.

Order of events: `citations` walks over code, tests and pages and finds each `docs/<name>.md`, with the sections and
vectors that it names; `faults` says which of them lead nowhere, together with old spellings, links of Markdown without
a target, and paths in pages that do not exist. `tests/test_citations.py` asserts that there are none; `bench.measure`
counts them.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Final

ROOT: Final = Path(__file__).parents[1]
FOLDERS: Final = ("claw", "tests", "bench", "deploy", "helm", "docs", ".ci")
FILES: Final = ("Makefile", "Dockerfile", "pyproject.toml", ".env.example")
SUFFIXES: Final = frozenset({".py", ".md", ".lua", ".toml", ".yaml", ".tpl", ".txt", ".js", ".mjs", ".html", ""})
SKIPPED: Final = frozenset({"node_modules", "__pycache__"})
EXAMPLES: Final = frozenset({"bench/citations.py", "tests/test_citations.py"})
"""These two files hold citations that are to be found faulty."""
PATHS_FREE: Final = frozenset({"CHANGELOG.md", "docs/protocol.md"})
"""Pages that may name files which are not here: of former versions, or of other projects."""
PAGES_MAX_BYTES: Final = 1_000_000

_NUMBER: Final = r"\d+a?(?:\.\d+)?(?!\w)"
_GAP: Final = r"[\s#]+"  # A citation may go on in the next line of a comment.
_CITED: Final = re.compile(
    rf"(?<![\w/])docs/(?P<page>[a-z][a-z0-9-]*(?:\.zh)?\.md)"
    rf"(?:{_GAP}sections?{_GAP}(?P<sections>{_NUMBER}(?:(?:,{_GAP}and|,|{_GAP}and|{_GAP}to){_GAP}{_NUMBER})*))?"
    rf"(?P<vectors>,{_GAP}(?:vectors?{_GAP})?V\d+(?:(?:,|{_GAP}and){_GAP}V\d+)*)?"
)
_OLD: Final = re.compile(
    rf"(?<![\w/.-])(?:(?:PROTOCOL|DESIGN|OPENCLAW|HOUSE|CASES)\.md|(?:PROTOCOL|DESIGN|HOUSE|CASES){_GAP}"
    rf"(?:sections?\b|[A-Z]?\d)|OPENCLAW(?=[:,)\s]))"
)
_LINK: Final = re.compile(r"\]\((?P<target>[^)\s]+)\)")
_PATH: Final = re.compile(r"`(?P<path>(?:claw|tests|bench|deploy|helm|docs)/[\w./-]*\w/?)`")
_PATH_IN_CLAW: Final = re.compile(r"`(?P<path>(?:[a-z_]+/)+(?:[a-z_]+\.py)?|[a-z_]+\.py)`")
IN_CLAW: Final = frozenset({"docs/architecture.md", "docs/glossary.md"})
"""Pages whose paths may begin below claw/."""
MAP: Final = "docs/architecture.md"


@dataclass(frozen=True, slots=True)
class Citation:
    """A mention of one of our pages; `sections` and `vectors` are those that it names."""

    path: str
    line: int
    page: str
    sections: tuple[str, ...] = ()
    vectors: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Fault:
    """A citation, link or path that leads nowhere."""

    path: str
    line: int
    why: str

    def __str__(self) -> str:
        return f"{self.path}:{self.line}: {self.why}"


@cache
def texts(root: Path) -> dict[str, str]:
    """Return each file that may cite, by its path below `root`."""
    files = [*root.glob("*.md"), *(root / name for name in FILES)]
    for folder in FOLDERS:
        files += sorted((root / folder).rglob("*"))
    found: dict[str, str] = {}
    for file in files:
        name = file.relative_to(root)
        if str(name) in EXAMPLES:
            continue
        hidden = any(part in SKIPPED or part.startswith(".") for part in name.parts[1:])
        if hidden or file.suffix not in SUFFIXES or not file.is_file() or file.stat().st_size > PAGES_MAX_BYTES:
            continue
        found[str(name)] = file.read_text(encoding="utf-8", errors="replace")
    return found


def citations(root: Path = ROOT) -> list[Citation]:
    """Find every mention of a page of ours below `root`."""
    return [
        Citation(
            path,
            _line_of(text, found.start()),
            found["page"],
            tuple(re.findall(_NUMBER, found["sections"] or "")),
            tuple(re.findall(r"V\d+", found["vectors"] or "")),
        )
        for path, text in texts(root).items()
        for found in _CITED.finditer(text)
    ]


def faults_of_citations(root: Path = ROOT) -> list[Fault]:
    """List the citations that lead nowhere, one fault for each, and those in an old spelling."""
    found = [Fault(each.path, each.line, why) for each in citations(root) if (why := _why(each, root))]
    for path, text in texts(root).items():
        found += [Fault(path, _line_of(text, old.start()), f"old spelling: {old[0]}") for old in _OLD.finditer(text)]
    return found


def faults_of_pages(root: Path = ROOT) -> list[Fault]:
    """List the links of our Markdown pages, and the paths in them, that lead nowhere."""
    return [fault for path in texts(root) if path.endswith(".md") for fault in _page_faults(path, root)]


def faults_of_map(root: Path = ROOT) -> list[Fault]:
    """List the modules and folders of claw that the map in docs/architecture.md does not name."""
    named = set(re.findall(r"`(\w+)/?`", texts(root).get(MAP, "")))
    found = []
    for file in sorted((root / "claw").rglob("*.py")):
        name = file.relative_to(root)
        word = name.parent.name if file.stem == "__init__" else file.stem
        # The rooms of the emulator and of one adapter are described as a whole.
        inner = "emulator" in name.parts[1:-1] or (
            name.parts[1] == "store" and "__init__" not in name.name and len(name.parts) > 3
        )
        if not inner and word != "claw" and word not in named:
            found.append(Fault(MAP, 1, f"{name} is not on the map"))
    return found


def _why(citation: Citation, root: Path) -> str:
    """Say why a citation leads nowhere; empty if it leads somewhere."""
    page = f"docs/{citation.page}"
    text = texts(root).get(page)
    if text is None:
        return f"{page} does not exist"
    missing = [number for number in citation.sections if number not in _sections(text)]
    if missing:
        return f"{page} has no section {', '.join(missing)}"
    unknown = [vector for vector in citation.vectors if not re.search(rf"^{vector}\b", text, re.MULTILINE)]
    return f"{page} has no vector {', '.join(unknown)}" if unknown else ""


def _page_faults(path: str, root: Path) -> Iterator[Fault]:
    text = texts(root)[path]
    # Blanked rather than removed, so that line numbers stay.
    prose = re.sub(
        r"^```.*?^```|`[^`\n]*`", lambda code: re.sub(r"[^\n]", " ", code[0]), text, flags=re.MULTILINE | re.DOTALL
    )
    for link in _LINK.finditer(prose):
        why = _link_fault(path, link["target"], root)
        if why:
            yield Fault(path, _line_of(prose, link.start()), why)
    if path in PATHS_FREE:
        return
    starts = [root]
    if path in IN_CLAW:
        starts += [root / "claw", *(folder for folder in (root / "claw").rglob("*") if folder.is_dir())]
    for named in (_PATH_IN_CLAW if path in IN_CLAW else _PATH).finditer(text):
        if not any((start / named["path"]).exists() for start in starts):
            yield Fault(path, _line_of(text, named.start()), f"{named['path']} does not exist")


def _link_fault(path: str, target: str, root: Path) -> str:
    if re.match(r"[a-z][a-z0-9+.-]*:", target):
        return ""  # Another site's.
    name, _, anchor = target.partition("#")
    file = (root / path).parent / name if name else root / path
    if not file.exists():
        return f"link to {target}: no such file"
    if anchor and anchor not in _anchors(file.read_text(encoding="utf-8")):
        return f"link to {target}: no such heading"
    return ""


def _sections(text: str) -> set[str]:
    return set(re.findall(rf"^#+ ({_NUMBER})\.? ", text, re.MULTILINE))


def _anchors(text: str) -> set[str]:
    """Return the anchors that GitHub gives a page's headings."""
    headings = re.findall(
        r"^#{1,6} +(.+?) *$", re.sub(r"^```.*?^```", "", text, flags=re.MULTILINE | re.DOTALL), re.MULTILINE
    )
    plain = [re.sub(r"\[([^\]]*)\]\([^)]*\)", r"\1", heading) for heading in headings]
    return {re.sub(r"[^\w\- ]", "", heading).strip().lower().replace(" ", "-") for heading in plain}


def _line_of(text: str, offset: int) -> int:
    return text.count("\n", 0, offset) + 1
