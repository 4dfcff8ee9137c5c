"""Citations in code and pages lead somewhere: `docs/protocol.md section 6.1` has its page and its heading."""

from __future__ import annotations

from pathlib import Path

import pytest

from bench import citations


def page(root: Path, text: str, name: str = "claw/one.py") -> None:
    """Write a file below `root`, beside a page with sections 1, 6.1 and 10a and vector V5."""
    for path, content in {
        "docs/protocol.md": "# P\n\n## 1. One\n\n### 6.1 Hook `x`\n\n## 10a. Late\n\nV5 a message\n",
        name: text,
    }.items():
        (root / path).parent.mkdir(parents=True, exist_ok=True)
        (root / path).write_text(content, encoding="utf-8")


def test_every_citation_leads_somewhere() -> None:
    """A page that is cited exists, has the sections and vectors that are named, and no old spelling is left."""
    assert [str(fault) for fault in citations.faults_of_citations()] == []


def test_every_link_and_path_of_a_page_leads_somewhere() -> None:
    """Links between our pages, anchors included, and paths that they name in backticks exist."""
    assert [str(fault) for fault in citations.faults_of_pages()] == []


def test_the_map_names_every_module() -> None:
    """docs/architecture.md names each module of claw, so that a stranger finds where a change belongs."""
    assert [str(fault) for fault in citations.faults_of_map()] == []


@pytest.mark.parametrize(
    "text",
    [
        "(docs/protocol.md section 6.1)",
        "docs/protocol.md sections 1, 6.1 and 10a.",
        "# docs/protocol.md\n    # sections 1 and\n    # 6.1",
        "docs/protocol.md section 6.1, vector V5",
        "docs/protocol.md, and PROTOCOL_TLS_SERVER beside OTEL_EXPORTER_OTLP_PROTOCOL",
    ],
)
def test_a_good_citation_is_no_fault(tmp_path: Path, text: str) -> None:
    """One citation may name several sections, and go on in the next line of a comment."""
    page(tmp_path, text)
    assert citations.faults_of_citations(tmp_path) == []
    assert len([each for each in citations.citations(tmp_path) if each.path == "claw/one.py"]) == 1


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("docs/protocol.md section 6.2", "docs/protocol.md has no section 6.2"),
        ("docs/protocol.md sections 1 and 7", "docs/protocol.md has no section 7"),
        ("docs/protocol.md sections 1 and\n# 7", "docs/protocol.md has no section 7"),
        ("docs/protocol.md section 1, V6", "docs/protocol.md has no vector V6"),
        ("docs/nothing.md", "docs/nothing.md does not exist"),
        ("PROTOCOL section 6.1", "old spelling: PROTOCOL section"),
        ("PROTOCOL 6.1", "old spelling: PROTOCOL 6"),
        ("DESIGN section 2", "old spelling: DESIGN section"),
        ("(OPENCLAW: history)", "old spelling: OPENCLAW"),
        ("OPENCLAW.md", "old spelling: OPENCLAW.md"),
    ],
)
def test_a_bad_citation_is_a_fault(tmp_path: Path, text: str, why: str) -> None:
    """A missing page, section or vector and an old spelling are each told."""
    page(tmp_path, text)
    assert [each.why for each in citations.faults_of_citations(tmp_path)] == [why]


@pytest.mark.parametrize(
    ("text", "whys"),
    [
        ("[a](protocol.md) [b](protocol.md#61-hook-x) [c](#here) [d](https://example.com/x.md)\n\n## Here\n", []),
        ("`[t](u)`\n```\n[t](u)\n```\n", []),
        ("[a](other.md)", ["link to other.md: no such file"]),
        ("[a](protocol.md#two)", ["link to protocol.md#two: no such heading"]),
        ("`claw/none.py` and `docs/protocol.md`", ["claw/none.py does not exist"]),
    ],
)
def test_links_of_a_page(tmp_path: Path, text: str, whys: list[str]) -> None:
    """Links are followed to file and heading, but not in code, nor to other sites."""
    page(tmp_path, text, "docs/page.md")
    assert [each.why for each in citations.faults_of_pages(tmp_path)] == whys
