"""Writing prompts: one canonical layout, from a tree or from plain values.

`write` says only what a model is told; `format_prompt` lays out alike and keeps the notes. Both give the same
bytes when
they are applied to their own result. Text is escaped only where it would be read as something else, so that
`<3`, `&` and
`>_<` stay as people write them.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

from newbie_image.prompt import fields, grammar
from newbie_image.prompt.document import Comment, Element, Node, Prompt, Tag

_LESS = re.compile(r"<(?=[!?]|/?[ \t]*[^\W\d])")
_HAS_CJK = re.compile(f"[{fields.CJK}]")
_ALWAYS = re.compile("[\ufeff]")
_SEPARATORS = re.compile(r"[,，、\r\n\ufeff]")
_ESCAPED_BRACKET = re.compile(r"\\(?=[()\[\]])")


def _number(match: re.Match[str]) -> str:
    return f"&#{ord(match.group())};"


def _ampersand(match: re.Match[str]) -> str:
    """`&amp;` for an ampersand that would begin an entity."""
    written = match.group()
    return written if fields.decode(written) == written else "&amp;" + written[1:]


def escape(text: str, *, prose: bool = False) -> str:
    """A literal tag as it is written in a prompt, so that it is read back as this very tag.

    Args:
        text: the literal tag, or the text of a caption.
        prose: it stands in a caption, where commas and newlines separate nothing.
    """
    if "&" in text:
        text = fields.ENTITY.sub(_ampersand, text)
    if "<" in text:
        text = _LESS.sub("&lt;", text)
    if "\\" in text and fields.decode(text) != text.replace("&amp;", "&").replace("&lt;", "<"):
        text = _ESCAPED_BRACKET.sub("&#92;", text)
    text = (_ALWAYS if prose else _SEPARATORS).sub(_number, text)
    if not prose and _HAS_CJK.search(text):
        text = re.sub("[+＋]", _number, text)
    kept = text.strip()
    if kept != text:
        begin = len(text) - len(text.lstrip())
        text = "".join(
            f"&#{ord(c)};" if i < begin or i >= begin + len(kept) else c for i, c in enumerate(text)
        )
    return text


def weight_mark(weight: float) -> str:
    """The comment that weighs what follows."""
    return f"<!-- weight:{weight:.9g} -->"


def written_tag(tag: Tag) -> str:
    """A tag with its own weight, as it stands in canonical text."""
    section = tag.section.rpartition(".")[2]
    if section == "position" and grammar.is_box(tag.text):
        text = tag.text
    else:
        text = escape(tag.text, prose=section == "caption")
        if section == "position" and re.fullmatch(r"[-+.\d]+", text):
            text = f"&#{ord(text[0])};{text[1:]}"
    return text if tag.own_weight is None else weight_mark(tag.own_weight) + text


class _Layout:
    def __init__(self, notes: bool) -> None:
        self.notes = notes
        self.lines: list[str] = []
        self.version_seen = False

    def note(self, comment: Comment) -> str | None:
        """The comment as it is written, None where it is left out."""
        if not self.notes or comment.kind not in ("note", "version"):
            return None
        if comment.kind == "version":
            if not self.version_seen:
                self.version_seen = True
                return None
            return f"<!-- version: {comment.text} -->"
        return f"<!-- {comment.text} -->"

    def inline(self, nodes: Sequence[Node], separator: str) -> str:
        """Tags and notes in one line; a note follows the tag before it."""
        out: list[str] = []
        tagged = False
        for node in nodes:
            if isinstance(node, Tag):
                if out:
                    out.append(separator if tagged else " ")
                out.append(written_tag(node))
                tagged = True
            elif isinstance(node, Comment):
                note = self.note(node)
                if note is not None:
                    out += [" ", note] if out else [note]
        return "".join(out)

    def block(self, nodes: Sequence[Node], indent: str, separator: str) -> None:
        """Nodes in lines: each element has its own, tags and notes between them share one."""
        run: list[Node] = []
        for node in nodes:
            if isinstance(node, Element):
                self.flush(run, indent, separator)
                run = []
                self.element(node, indent)
            else:
                run.append(node)
        self.flush(run, indent, separator)

    def flush(self, run: list[Node], indent: str, separator: str) -> None:
        text = self.inline(run, separator)
        if text:
            self.lines.append(indent + text)

    def element(self, node: Element, indent: str) -> None:
        name = node.key.partition("#")[0] if node.known else node.name
        start = f"<{name}{node.attributes}>"
        if node.own_weight is not None:
            self.lines.append(indent + weight_mark(node.own_weight))
        separator = " " if node.key in grammar.PROSE else ", "
        seen = self.version_seen
        line = self.inline([child for child in node.children if not isinstance(child, Element)], separator)
        if any(isinstance(child, Element) for child in node.children) or (line and self.holds_elements(node)):
            self.version_seen = seen
            self.lines.append(indent + start)
            self.block(node.children, indent + "  ", separator)
            self.lines.append(f"{indent}</{name}>")
        else:
            self.lines.append(f"{indent}{start}{line}</{name}>")

    @staticmethod
    def holds_elements(node: Element) -> bool:
        """Whether an element of this kind usually holds others, so that it is laid out in lines even without
        any.
        """
        return (
            node.known
            and (node.key in grammar.ROOTS or node.key == grammar.GENERAL.name)
            and bool(node.children)
        )


def _write(prompt: Prompt, notes: bool) -> str:
    layout = _Layout(notes)
    if prompt.version is not None:
        layout.lines.append(f"<!-- version: {prompt.version} -->")
    layout.block(prompt.tree, "", " " if prompt.kind == "sentence" else ", ")
    return "\n".join(layout.lines) + ("\n" if prompt.kind == "xml" or prompt.version is not None else "")


def write(prompt: Prompt) -> str:
    """The prompt in canonical form: weights and version kept, notes left out. Applied to its own result it
    changes nothing.
    """
    return _write(prompt, notes=False)


def format_prompt(prompt: Prompt) -> str:
    """The prompt in the canonical layout with its notes; canonical text comes back unchanged."""
    return _write(prompt, notes=True)
