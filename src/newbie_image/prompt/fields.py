"""The text of a field: where one tag ends and the next begins, and what a tag says once its spelling is
undone.
"""

from __future__ import annotations

import re

CJK = "\u3041-\u30ff\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff\uac00-\ud7af々〆ー"
SEPARATOR = re.compile(r"[,，、\r\n]")
SEPARATOR_OR_PLUS = re.compile(
    rf"[,，、\r\n]|(?<=[{CJK}])[ \t\u3000]*+[+＋](?=[^\S\r\n]*+[^\s,，、+＋<>&]{{0,8}}?[{CJK}])"
)
BOX = re.compile(r"[\s,，、]*([-+.\d]{1,24}(?:\s{0,8}[,，]\s{0,8}[-+.\d]{1,24}){3})[\s,，、]*\Z")
ENTITY = re.compile(r"&(?:#(\d{1,7})|#[xX]([0-9a-fA-F]{1,6})|([a-zA-Z][a-zA-Z0-9]{1,31}));")
_NAMED = {"amp": "&", "lt": "<", "gt": ">", "quot": '"', "apos": "'"}
_WEIGHT = re.compile(r"\s*weight\s*[:=：]\s*(.*?)\s*\Z", re.IGNORECASE | re.DOTALL)
_NUMBER = re.compile(r"[+-]?(?:\d{1,9}(?:\.\d{0,9})?|\.\d{1,9})\Z")
_VERSION = re.compile(r"\s*version\s*[:：]\s*(.*?)\s*\Z", re.IGNORECASE | re.DOTALL)


def _entity(match: re.Match[str]) -> str:
    decimal, hexadecimal, name = match.groups()
    if name:
        return _NAMED.get(name) or _of_html(name, match.group())
    code = int(decimal) if decimal else int(hexadecimal, 16)
    if code == 0 or code > 0x10FFFF or 0xD800 <= code <= 0xDFFF:
        return match.group()
    return chr(code)


def _of_html(name: str, written: str) -> str:
    """The character of one of HTML's entities (`hearts`, `eacute`); as written where HTML has none."""
    from html.entities import html5

    return html5.get(name + ";", written)


def decode(raw: str) -> str:
    r"""The literal text: entities decoded, `\(` with its `\)` and `\[` with its `\]` freed of their
    backslashes.

    An ampersand that begins no entity is an ampersand; `\(^o^)/`, whose bracket has no escaped partner, keeps
    it.
    """
    if "\\" in raw:
        for left, right in ("()", "[]"):
            if raw.count("\\" + left) == raw.count("\\" + right) > 0:
                raw = raw.replace("\\" + left, left).replace("\\" + right, right)
    return ENTITY.sub(_entity, raw) if "&" in raw else raw


def weight_comment(inner: str) -> str | None:
    """What stands after `weight:` in a comment, None where it is no weight."""
    match = _WEIGHT.match(inner)
    return match.group(1) if match else None


def weight_value(text: str) -> float | None:
    """The number of a weight as written, None where it is none."""
    return float(text) if _NUMBER.match(text) else None


def version_note(inner: str) -> str | None:
    """What stands after `version:` in a comment, None where it is no version note."""
    match = _VERSION.match(inner)
    return match.group(1) if match else None


_CJK_CHARACTER = re.compile(f"[{CJK}]")
_WORDY = re.compile(
    r"\b(?:a|an|the|is|are|was|were|her|his|their|she|he|they|it|who|which|that|there|wearing|standing in|"
    r"sits|stands)\b",
    re.IGNORECASE,
)
_CJK_WORDY = re.compile(r"[的了着在是有]|一个|一位|一名|です|ます|ている|した|して|の[^,，、]*が|[をがは]")
_STOP = re.compile(r"[.!?](?:\s|\Z)|[。！？]")


def items(text: str) -> list[str]:
    """The literal items between separators, entities decoded first; the kind of a text is told from them."""
    plain = re.sub(r"\\(?=[()\[\]])", "", ENTITY.sub(_entity, text))
    return [item for item in map(str.strip, SEPARATOR_OR_PLUS.split(plain)) if item]


def looks_like_sentence(items: list[str]) -> bool:
    """Whether the items between separators are natural language rather than tags.

    Tags are short and have no articles, pronouns or full stops. The vocabulary is not asked.
    """
    items = items[:256]
    if not items:
        return False
    wordy = 0
    for item in items:
        if " " not in item and "_" in item:
            continue
        if len(_CJK_CHARACTER.findall(item, 0, 64)) > 2:
            wordy += len(item) > 14 or (len(item) > 4 and _CJK_WORDY.search(item) is not None)
        else:
            words = len(item.split())
            stop = words > 2 and _STOP.search(item) is not None
            wordy += words > 6 or stop or (words > 1 and _WORDY.search(item) is not None)
    return wordy * 2 >= len(items)
