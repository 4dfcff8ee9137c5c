"""Texts of any kind and charset, and HTML; used in the child process."""

from __future__ import annotations

import codecs
import re
from collections.abc import Iterator
from typing import TYPE_CHECKING, Final

from claw.errors import MediaError, MediaProblem
from claw.files.output import TEXT_MAX_CHARS, FullError, Output

if TYPE_CHECKING:
    from lxml.html import HtmlElement

SAMPLE_BYTES: Final = 65_536
"""Bytes by which a charset is told."""
CONTROL_MAX: Final = 0.01
"""Part of control characters from which on something is no text."""
REPLACED_MAX: Final = 0.02
"""Part of undecodable characters that a text may have: one that is cut, or has a stray byte."""
_BOMS: Final = (
    (codecs.BOM_UTF8, "utf-8-sig"),
    (codecs.BOM_UTF32_LE, "utf-32"),
    (codecs.BOM_UTF32_BE, "utf-32"),
    (codecs.BOM_UTF16_LE, "utf-16"),
    (codecs.BOM_UTF16_BE, "utf-16"),
)
_CANDIDATES: Final = ["gb18030", "big5", "shift_jis", "euc_jp", "euc_kr", "cp1252", "cp1251", "utf_16_le", "utf_16_be"]
_CONTROL: Final = re.compile("[\x00-\x08\x0b\x0e-\x1a\x1c-\x1f\x7f]")
_WIDE: Final = re.compile(b"[\x80-\xff]")
_KOREAN: Final = re.compile(b"(?:[\\xb0-\\xc8][\\xa1-\\xfe]|[\\xa1-\\xa3][\\xa1-\\xfe]|[\0-\x7f])*[\\xa1-\\xfe]?")
"""Syllables and signs of EUC-KR. Chinese in GB2312 is written with these bytes too, but not with these alone."""
KOREAN_MIN_BYTES: Final = 16
"""Bytes beyond ASCII from which on a text of such bytes alone is Korean."""
UTF16_MIN_BYTES: Final = 12
"""Bytes from which on UTF-16 is told by its characters."""
STRAY_MAX: Final = 0.05
"""Part of undecodable characters among those beyond ASCII, in a text of that charset with stray bytes."""
_DECLARED: Final = re.compile(
    rb"""(?:<meta[^>]{0,200}?charset|<\?xml[^>]{0,100}?encoding)\s*=\s*["']?([\w.:-]{2,30})""", re.I
)
_DECLARED_BYTES: Final = 4096
_SUPERSETS: Final = {
    "gb2312": "gb18030",
    "gbk": "gb18030",
    "shift_jis": "cp932",
    "euc_kr": "cp949",
    "iso8859-1": "cp1252",
    "latin-1": "cp1252",
    "big5": "cp950",
}
"""What browsers take for the charsets that pages declare."""
_DATA_URL: Final = re.compile(r"data:[^\"'\s()<>]{100,}")
HTML_MAX_CHARS: Final = 3_000_000
"""Characters of a page's source that are looked at, without the pictures in it."""
TEXT_MAX_BYTES: Final = 8 * TEXT_MAX_CHARS
"""Bytes of a text that are decoded: more than its characters may take in any charset."""
_HAN: Final = re.compile("[\u4e00-\u9fff]")
_BLOCKS: Final = frozenset(
    {
        "address",
        "article",
        "aside",
        "blockquote",
        "br",
        "dd",
        "div",
        "dl",
        "dt",
        "fieldset",
        "figcaption",
        "figure",
        "footer",
        "form",
        "h1",
        "h2",
        "h3",
        "h4",
        "h5",
        "h6",
        "header",
        "hr",
        "li",
        "main",
        "nav",
        "ol",
        "p",
        "pre",
        "section",
        "table",
        "tbody",
        "thead",
        "tr",
        "ul",
        "title",
        "body",
    }
)
_DROPPED: Final = frozenset({"script", "style", "noscript", "template", "svg", "iframe", "object", "head"})


def read_text(content: bytes, output: Output) -> None:
    """Add a text's lines. Raises MediaError where it is none."""
    output.add(decode(content[:TEXT_MAX_BYTES]).replace("\r\n", "\n").replace("\r", "\n"))
    if len(content) > TEXT_MAX_BYTES:
        raise FullError


def decode(content: bytes) -> str:
    """Decode a text: by its mark, as UTF-8, else by what its bytes look like. Raises MediaError where it is none."""
    text = _decode(content)
    sample = text[:SAMPLE_BYTES]
    bad = len(_CONTROL.findall(sample)) / max(1, len(sample))
    replaced = sample.count("\ufffd") / max(1, len(sample))
    if bad > CONTROL_MAX or replaced > REPLACED_MAX:
        raise MediaError("the file is no text", MediaProblem.UNSUPPORTED)
    return _CONTROL.sub("", text)


def _decode(content: bytes) -> str:
    for mark, encoding in _BOMS:
        if content.startswith(mark):
            return content.decode(encoding, "replace")
    try:
        # One that is cut in a character's middle is UTF-8 all the same.
        return codecs.getincrementaldecoder("utf-8")().decode(content)
    except UnicodeDecodeError:
        pass
    if wide := _detect_wide(content[:SAMPLE_BYTES]):
        return content.decode(wide, "replace")
    # From where more than ASCII begins: what stands before tells nothing.
    first = _WIDE.search(content)
    sample = content[first.start() if first else 0 :][:SAMPLE_BYTES]
    declared = _declared_charset(content[:_DECLARED_BYTES])
    if declared and _count_strays(sample, declared) <= STRAY_MAX:
        return content.decode(declared, "replace")
    if _count_strays(sample, "utf-8") <= STRAY_MAX:
        return content.decode("utf-8", "replace")
    return content.decode(_detect_charset(sample), "replace")


def _declared_charset(head: bytes) -> str:
    """Return the charset that a page or an XML file declares, if it is one that we know."""
    if not (found := _DECLARED.search(head)):
        return ""
    try:
        name = codecs.lookup(found[1].decode("ascii")).name
        b"".decode(name)
    except LookupError:
        return ""
    return _SUPERSETS.get(name, name)


def _count_strays(sample: bytes, encoding: str) -> float:
    """Return the part of characters beyond ASCII that are none in this charset."""
    text = codecs.getincrementaldecoder(encoding)("replace").decode(sample)
    return text.count("\ufffd") / max(1, sum(each > "\x7f" for each in text))


def _detect_wide(sample: bytes) -> str:
    """Tell UTF-16 without its mark: ASCII among it leaves a zero at each other place; else it is Chinese in use."""
    even, odd = sample[::2], sample[1::2]
    half = max(1, len(odd))
    if odd.count(0) / half > 0.2 and even.count(0) / half < 0.02:
        return "utf-16-le"
    if even.count(0) / half > 0.2 and odd.count(0) / half < 0.02:
        return "utf-16-be"
    if len(sample) >= UTF16_MIN_BYTES:
        for encoding in ("utf-16-le", "utf-16-be"):
            text = codecs.getincrementaldecoder(encoding)("replace").decode(sample)
            if _is_chinese(text):
                return encoding
    return ""


def _detect_charset(sample: bytes) -> str:
    # Chinese first: what decodes with hardly a fault, and to characters that are written, is what people here send.
    for encoding in ("gb18030", "big5"):
        if _count_strays(sample, encoding) > STRAY_MAX:
            continue
        text = codecs.getincrementaldecoder(encoding)("replace").decode(sample)
        is_korean = len(_WIDE.findall(sample)) >= KOREAN_MIN_BYTES and _KOREAN.fullmatch(sample)
        if _is_chinese(text) and not is_korean:
            return encoding
    from charset_normalizer import from_bytes

    best = from_bytes(sample, cp_isolation=_CANDIDATES).best()
    found = best.encoding if best is not None else "gb18030"
    letters = [each for each in sample.decode(found, "replace") if each.isalpha()]
    # Single letters among Latin ones: Western Europe's, which a short text does not tell from Cyrillic ones.
    if found == "cp1251" and sum(each > "\x7f" for each in letters) < len(letters) / 2:
        return "cp1252"
    return found


def _is_chinese(text: str) -> bool:
    """Whether what is beyond ASCII is Chinese, in characters that are in use."""
    wide = [each for each in text if each > "\x7f"]
    common = sum("\u4e00" <= each <= "\u9fa5" or each in "，。、；：？！“”（）《》【】—…　" for each in wide)
    return bool(wide) and common / len(wide) > 0.9 and _is_common(text)


def _is_common(text: str) -> bool:
    """Whether Chinese is of characters that are in use: Big5 read as GB18030 gives rare ones."""
    han = _HAN.findall(text)
    if not han:
        return False
    # The first level of GB2312, in which its 3 755 most used characters stand in order of sound.
    used = 0
    for each in han:
        try:
            code = each.encode("gb2312")
        except UnicodeEncodeError:
            continue
        used += 0xB0 <= code[0] <= 0xD7
    return used / len(han) > 0.7


def read_html(content: bytes, output: Output) -> None:
    """Add the text of a page, without scripts and styles, with where its links lead. Raises MediaError."""
    from lxml import etree, html

    # Without the pictures that stand in it.
    source = _DATA_URL.sub("data:", decode(content))
    # An encoding that the page declares is of the bytes, which are decoded already.
    text = re.sub(r"\A\s*<\?xml[^>]*\?>", "", source[:HTML_MAX_CHARS])
    parser = html.HTMLParser(huge_tree=True, recover=True, remove_comments=True, remove_pis=True)
    try:
        root = html.document_fromstring(text, parser=parser)
    except (etree.ParserError, etree.XMLSyntaxError, ValueError):
        raise MediaError("the page is damaged", MediaProblem.DAMAGED) from None
    title = root.findtext(".//title")
    if title and title.strip():
        output.add(f"# {' '.join(title.split())}")
    for line in re.sub(r"[ \t]*\n\s*\n+", "\n\n", "".join(_iter_pieces(root))).split("\n"):
        output.add(re.sub(r"[ \t\u00a0]+", " ", line).strip())
    if len(source) > HTML_MAX_CHARS:
        raise FullError


def _iter_pieces(root: HtmlElement) -> Iterator[str]:
    """Yield a page's text with its breaks, however deep its elements stand within one another."""
    from lxml import etree

    walk = etree.iterwalk(root, events=("start", "end"))
    for event, element in walk:
        is_start, tag = event == "start", element.tag
        if tag in _DROPPED:
            if is_start:
                walk.skip_subtree()
        else:
            yield from _begin(element) if is_start else _end(element)
        if not is_start and element.tail and element is not root:
            yield element.tail.replace("\n", " ")


def _begin(element: HtmlElement) -> Iterator[str]:
    tag = element.tag
    if tag in _BLOCKS:
        yield "\n"
    if tag in {"h1", "h2", "h3", "h4", "h5", "h6"}:
        yield "#" * int(tag[1]) + " "
    elif tag == "li":
        yield "- "
    elif tag in {"td", "th"} and element.getprevious() is not None:
        yield " | "
    if element.text:
        yield element.text if tag == "pre" else element.text.replace("\n", " ")


def _end(element: HtmlElement) -> Iterator[str]:
    tag = element.tag
    target = element.get("href", "") if tag == "a" else ""
    if target.startswith(("http://", "https://", "mailto:")):
        yield f" ({target[:300]})"
    if tag in _BLOCKS and tag != "br":
        yield "\n"
