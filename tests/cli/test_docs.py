"""The documents quote `claw doctor` word for word: each quotation is compared with the table of texts."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from claw.cli.doctor.command import TABLE
from claw.cli.doctor.runner import CheckStatus
from claw.cli.doctor.texts import SYMPTOMS, TEXTS, Symptom
from claw.language import Language
from tests.cli.sentences import known, pattern

DOCS = Path(__file__).parents[2] / "docs"
PAGES = {
    "troubleshooting.md": Language.EN,
    "troubleshooting.zh.md": Language.ZH,
    "dingtalk-setup.md": Language.EN,
    "dingtalk-setup.zh.md": Language.ZH,
}
BEYOND = {Language.EN: "answers look other than expected", Language.ZH: "回答的样子和预期不同"}
"""The one trouble that no check explains, by the title of its section."""
QUOTE = re.compile(r"^(\S+)  (\S+)  (.+)$")


def quotations(page: str) -> list[str]:
    """The lines of all blocks that quote the doctor."""
    blocks = re.findall(r"^```doctor\n(.*?)^```$", (DOCS / page).read_text(encoding="utf-8"), re.MULTILINE | re.DOTALL)
    return [line for block in blocks for line in block.splitlines()]


@pytest.mark.parametrize("page", PAGES)
def test_every_quotation_is_what_the_doctor_says(page: str) -> None:
    """Status, check, sentence and remedy of each quoted line are real ones, in the page's language."""
    language = PAGES[page]
    statuses = {TEXTS[f"status.{status}"].message[language] for status in CheckStatus}
    names = {check.name for check in TABLE}
    lines = quotations(page)
    assert len(lines) > 10
    keys: list[str] = []
    for line in lines:
        if line.startswith("-> "):
            remedies = [pattern(TEXTS[key].remedy[language]) for key in keys]
            assert any(re.fullmatch(remedy, line[3:]) for remedy in remedies), line
            continue
        quote = QUOTE.match(line)
        assert quote, line
        assert quote[1] in statuses, line
        assert quote[2] in names, line
        keys = known(quote[3], language)
        assert keys, f"the doctor never says: {quote[3]}"


@pytest.mark.parametrize("page", [page for page in PAGES if page.startswith("troubleshooting")])
def test_each_trouble_lists_its_checks(page: str) -> None:
    """The section of each trouble has exactly the checks that carry its name; one more is told by the log alone."""
    language = PAGES[page]
    text = (DOCS / page).read_text(encoding="utf-8")
    sections = dict(re.findall(r"^## (.+?)\n(.*?)(?=^## |\Z)", text, re.MULTILINE | re.DOTALL))
    assert set(sections) == {SYMPTOMS[symptom][language] for symptom in Symptom} | {BEYOND[language]}
    for symptom in Symptom:
        listed = set(re.findall(r"^\| `([a-z._]+)` \|", sections[SYMPTOMS[symptom][language]], re.MULTILINE))
        assert listed == {check.name for check in TABLE if symptom in check.symptoms}


@pytest.mark.parametrize(("english", "chinese"), [("troubleshooting", "troubleshooting"), ("dingtalk-setup",) * 2])
def test_both_languages_quote_the_same(english: str, chinese: str) -> None:
    """A sentence that one page shows is shown by the other."""
    shown = []
    for page in (f"{english}.md", f"{chinese}.zh.md"):
        quotes = [QUOTE.match(line) for line in quotations(page)]
        shown.append([known(quote[3], PAGES[page]) for quote in quotes if quote])
    assert shown[0] == shown[1]


@pytest.mark.parametrize("page", PAGES)
def test_links_lead_somewhere(page: str) -> None:
    """Every link to another page of ours names a file that is there."""
    text = (DOCS / page).read_text(encoding="utf-8")
    for target in re.findall(r"\]\(([^)#:]+)\)", text):
        assert (DOCS / target).is_file(), target
