"""From the tree to the groups: which tags belong to which character, and which to the picture."""

from __future__ import annotations

from newbie_image.prompt import grammar
from newbie_image.prompt.diagnostics import Diagnostic
from newbie_image.prompt.document import Character, Element, Group, Kind, Node, Prompt, Section, Source, Tag


class _Collected:
    """The sections of a group while they fill."""

    def __init__(self, key: str) -> None:
        self.key = key
        self.tags: dict[str, list[Tag]] = {}
        self.elements: dict[str, list[Element]] = {}
        self.blocks: list[Element] = []

    def sections(self) -> tuple[Section, ...]:
        return tuple(
            Section(path, _section_name(path), tuple(tags), tuple(self.elements.get(path, ())))
            for path, tags in self.tags.items()
        )


def _section_name(path: str) -> str:
    name = path.rpartition(".")[2]
    return "text" if grammar.character_number(name.partition("#")[0]) is not None else name


def _is_section(node: Element) -> bool:
    """Whether an element is a field of its own, also while it holds no tag; blocks are none."""
    if node.path == "environment":
        return any(isinstance(child, Tag) for child in node.children)
    return not node.known or node.key not in grammar.CONTAINERS or node.key == "environment"


def gather(
    document: Source,
    kind: Kind,
    tree: tuple[Node, ...],
    tags: tuple[Tag, ...],
    diagnostics: tuple[Diagnostic, ...],
    version: str | None,
) -> Prompt:
    """Sort the tree's tags into groups and sections, and make the prompt of it."""
    general = _Collected("general")
    groups: dict[str, _Collected] = {}
    root: str | None = None

    def visit(nodes: tuple[Node, ...], group: _Collected, depth: int) -> None:
        nonlocal root
        for node in nodes:
            if isinstance(node, Tag):
                group.tags.setdefault(node.section, []).append(node)
            elif isinstance(node, Element):
                inside = group
                if node.known and node.path.startswith("character_") and node.path == node.key:
                    inside = groups[node.key] = _Collected(node.key)
                    inside.blocks.append(node)
                elif node.key in grammar.ROOTS and depth == 0 and root is None:
                    root = node.name
                else:
                    if _is_section(node):
                        group.tags.setdefault(node.path, [])
                        group.elements.setdefault(node.path, []).append(node)
                    if depth == 0 or node.path == node.key:
                        group.blocks.append(node)
                visit(node.children, inside, depth + 1)

    visit(tree, general, 0)
    holder: list[Prompt] = []
    characters = tuple(
        Character(key, c.sections(), tuple(c.blocks), holder, number=int(key[10:].partition("#")[0]))
        for key, c in groups.items()
    )
    whole = Group("general", general.sections(), tuple(general.blocks), holder)
    prompt = Prompt(document.text, kind, root, tree, characters, whole, tags, diagnostics, version, document)
    holder.append(prompt)
    return prompt
