"""What an answer names: found in prose, told apart by where it lies, in linear time."""

from __future__ import annotations

import time

import pytest

from claw.reply.references import Form, Place, find_references

PNG = "data:image/png;base64,iVBORw0KGgo="
FOUND = {
    f"![cat]({PNG})": ("cat", PNG, Place.EMBEDDED, Form.PICTURE),
    f"[report.pdf]({PNG})": ("report.pdf", PNG, Place.EMBEDDED, Form.LINK),
    f'<img alt="A cat" src="{PNG}">': ("A cat", PNG, Place.EMBEDDED, Form.PICTURE),
    PNG: ("", PNG, Place.EMBEDDED, Form.HANDOVER),
    f"![cut]({PNG}": ("cut", PNG, Place.CUT, Form.PICTURE),
    "![a](https://h.example/x_(1).png 'A title')": ("a", "https://h.example/x_(1).png", Place.WEB, Form.PICTURE),
    "[**report.xlsx**](https://h.example/d?id=5)": (
        "**report.xlsx**",
        "https://h.example/d?id=5",
        Place.WEB,
        Form.LINK,
    ),
    "MEDIA:https://h.example/a.png": ("", "https://h.example/a.png", Place.WEB, Form.HANDOVER),
    "![x](/tmp/my file.png)": ("x", "/tmp/my file.png", Place.LOCAL, Form.PICTURE),
    "![](chart.png)": ("", "chart.png", Place.LOCAL, Form.PICTURE),
    "[x](file:///srv/a.pdf)": ("x", "file:///srv/a.pdf", Place.LOCAL, Form.LINK),
    "![](C:\\Users\\ann\\a.png)": ("", "C:\\Users\\ann\\a.png", Place.LOCAL, Form.PICTURE),
    "[a](sandbox:/mnt/data/r.pdf)": ("a", "sandbox:/mnt/data/r.pdf", Place.LOCAL, Form.LINK),
    "[r.md](../out/r.md)": ("r.md", "../out/r.md", Place.LOCAL, Form.LINK),
    "![q](http://127.0.0.1:8000/x.png)": ("q", "http://127.0.0.1:8000/x.png", Place.WEB, Form.PICTURE),
    "MEDIA:/Users/ann/My File.png": ("", "/Users/ann/My File.png", Place.LOCAL, Form.HANDOVER),
    "[IMAGE: /srv/a.png]": ("", "/srv/a.png", Place.LOCAL, Form.HANDOVER),
    "<attachment://a.png>": ("", "attachment://a.png", Place.LOCAL, Form.HANDOVER),
}
LEFT = [
    "[a paper](https://h.example/a.pdf)",
    "https://h.example/a.png",
    "[API](/users) [b](#top) [c](mailto:a@h.example) [d](dingtalk://x)",
    "![x](@lADfake)",
    "`![cat](/tmp/a.png)` and ``MEDIA:/tmp/a.png``",
    f"```\n![cat]({PNG})\nMEDIA:/tmp/a.png\n```",
    "MEDIA: Reuters said so",
    "it lies at /tmp/a.png",
    "[x](setup.exe)",
    "a data:image/png;base64 URL",
]
HOSTILE = {
    "data": f"![]({PNG[:22]}{'A' * 4_000_000}",
    "brackets": "[](" * 300_000,
    "nested": "[](a(b" * 200_000,
    "images": "<img " * 200_000,
    "ticks": "` " * 500_000,
    "words": "[FILE:" * 160_000,
    "lines": "MEDIA: a b\n" * 90_000,
    "fences": "```\n" * 250_000,
    "kinds": "data:a/a" + ";a" * 400_000,
}


@pytest.mark.parametrize("text", FOUND, ids=range(len(FOUND)))
def test_found(text: str) -> None:
    """Each way to name a picture or file, in a sentence of its own."""
    whole = f"See:\n{text}\nNice."
    (found,) = find_references(whole)
    assert (found.label, found.target, found.place, found.form) == FOUND[text]
    assert whole[found.start : found.end] == text


@pytest.mark.parametrize("text", LEFT, ids=range(len(LEFT)))
def test_left_alone(text: str) -> None:
    """Links to pages, what is DingTalk's, code, and words."""
    assert find_references(text) == []


def test_data_in_lines() -> None:
    """Base64 that is broken into lines is one picture."""
    url = "data:image/png;base64," + "\n".join(["A" * 76] * 5) + "\nAA=="
    (found,) = find_references(f"![x]({url}) y")
    assert (found.target, found.place) == (url, Place.EMBEDDED)


def test_the_end_of_a_sentence_is_no_part_of_a_name() -> None:
    """Neither a full stop nor a bracket."""
    first, second = find_references("See MEDIA:/tmp/a.png. (sandbox:/mnt/b.pdf)，好")
    assert (first.target, second.target) == ("/tmp/a.png", "sandbox:/mnt/b.pdf")


@pytest.mark.parametrize(
    ("text", "name"),
    [
        ("[x](file:///srv/a%20b.pdf)", "a b.pdf"),
        ("[my/../report.pdf](file:///x)", "my .. report.pdf"),
        ("![](C:\\a\\b.png)", "b.png"),
        ("[" + "n" * 200 + ".pdf](file:///x)", "n" * 76 + ".pdf"),
        ("![](/tmp/)", "tmp"),
        (f"![]({PNG})", ""),
    ],
)
def test_names(text: str, name: str) -> None:
    """A name can be given to a file anywhere: no path, no control characters, not too long."""
    (found,) = find_references(text)
    assert found.name == name


@pytest.mark.parametrize("name", HOSTILE)
def test_hostile_texts_take_no_time(name: str) -> None:
    """Linear: seconds are far more than a megabyte needs, and far less than a square of it would take."""
    begin = time.process_time()
    find_references(HOSTILE[name])
    assert time.process_time() - begin < 8
