"""The pages in Chinese: each says what its English page says, heading by heading, row by row, command by command."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from tests.deploy import test_pages

DOCS = Path(__file__).parents[2] / "docs"
CHINESE = sorted(page.name for page in DOCS.glob("*.zh.md"))
DEPLOYMENT = ["alibaba-cloud.md", "alibaba-cloud.zh.md", "cloud-run.zh.md", "docker.zh.md", "kubernetes.zh.md"]
"""Those that tests/deploy/test_pages.py does not look at."""
SHELL = re.compile(r"^```(?:sh|bash|shell|console)\n(.*?)^```$", re.MULTILINE | re.DOTALL)


def both(chinese: str) -> tuple[str, str]:
    """A page in English and in Chinese."""
    english = chinese.removesuffix(".zh.md") + ".md"
    return (DOCS / english).read_text(encoding="utf-8"), (DOCS / chinese).read_text(encoding="utf-8")


def without_blocks(text: str) -> str:
    """The page without its fenced blocks, where `#` and `|` mean other things."""
    return re.sub(r"^```.*?^```$", "", text, flags=re.MULTILINE | re.DOTALL)


def commands(text: str) -> list[list[str]]:
    """The lines of each shell block, without their comments."""
    blocks = [[re.sub(r"(?:^|\s+)#\s.*$", "", line) for line in block.splitlines()] for block in SHELL.findall(text)]
    return [[line for line in block if line] for block in blocks]


@pytest.mark.parametrize("page", CHINESE)
def test_english_page_is_there(page: str) -> None:
    """Each page in Chinese has its page in English, and each leads to the other in the line below its title."""
    english = page.removesuffix(".zh.md") + ".md"
    assert (DOCS / english).is_file()
    texts = both(page)
    for text, link in zip(texts, (f"[中文]({page})", f"[English]({english})"), strict=True):
        assert text.splitlines()[2].startswith(link)


@pytest.mark.parametrize("page", CHINESE)
def test_headings_are_the_same(page: str) -> None:
    """Both pages have as many headings, of the same levels in the same order."""
    english, chinese = (re.findall(r"^(#+) ", without_blocks(text), re.MULTILINE) for text in both(page))
    assert english == chinese


@pytest.mark.parametrize("page", CHINESE)
def test_tables_are_the_same(page: str) -> None:
    """Both pages have as many rows of tables, each with as many columns."""
    english, chinese = (
        [row.count("|") for row in re.findall(r"^\|.*$", without_blocks(text), re.MULTILINE)] for text in both(page)
    )
    assert english == chinese


@pytest.mark.parametrize("page", CHINESE)
def test_commands_are_the_same(page: str) -> None:
    """Both pages show the same shell blocks, apart from comments."""
    english, chinese = (commands(text) for text in both(page))
    assert english == chinese


@pytest.mark.parametrize("page", DEPLOYMENT)
def test_examples_are_the_same(page: str) -> None:
    """Both pages about a deployment show the same YAML."""
    chinese = page if page.endswith(".zh.md") else page.removesuffix(".md") + ".zh.md"
    names = (f"docs/{chinese.removesuffix('.zh.md')}.md", f"docs/{chinese}")
    english, translated = (test_pages.examples(name) for name in names)
    assert english == translated


@pytest.mark.parametrize("page", DEPLOYMENT)
def test_names_and_links_are_real(page: str) -> None:
    """Variables that a page names are claw's, and its links within the repository lead to a file and a heading."""
    test_pages.test_variables_exist(f"docs/{page}")
    test_pages.test_links_lead_somewhere(f"docs/{page}")


def test_every_command_that_needs_more_says_so() -> None:
    """No shell block of these pages runs on a plain machine, and above each stands what it wants."""
    for page in DEPLOYMENT:
        for text in both(page) if page.endswith(".zh.md") else ():
            blocks = len(SHELL.findall(text))
            assert len(re.findall(r"^<!-- not run: [^>]+ -->\n```sh$", text, re.MULTILINE)) == blocks, page
