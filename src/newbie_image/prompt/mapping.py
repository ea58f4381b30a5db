"""A prompt as plain values, for JSON, YAML and TOML, and back.

The shape: keys are sections in order (`character_1`, `general_tags`, `environment`, `caption`, or an unknown
element); a block
maps fields to lists; a list holds tags, a weighed one as `{"tag": …, "weight": …}`. `root`, `version` and,
for a plain
list or a sentence, `tags` or `sentence` stand at the top. A field that is weighed as a whole is
`{"weight": …, "tags": [...]}`.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

from newbie_image.errors import MissingDependencyError, PromptError
from newbie_image.prompt import grammar
from newbie_image.prompt.document import Element, Node, Prompt, Tag
from newbie_image.prompt.parse import parse
from newbie_image.prompt.write import escape, weight_mark, write


def to_mapping(prompt: Prompt) -> dict[str, Any]:
    """The prompt as plain values. Notes are left out; everything that a model is told is kept."""
    out: dict[str, Any] = {}
    if prompt.version is not None:
        out["version"] = prompt.version
    if prompt.kind == "tags":
        out["tags"] = [_value(tag) for tag in prompt.tags]
        return out
    if prompt.kind == "sentence":
        weighed = any(tag.own_weight is not None for tag in prompt.tags)
        out["sentence"] = (
            [_value(tag) for tag in prompt.tags] if weighed else " ".join(t.text for t in prompt.tags)
        )
        return out
    nodes = prompt.tree
    elements = [node for node in nodes if isinstance(node, Element)]
    if len(elements) == 1 and elements[0].key in grammar.ROOTS and not any(isinstance(n, Tag) for n in nodes):
        out["root"] = elements[0].key
        if elements[0].own_weight is not None:
            out["weight"] = elements[0].own_weight
        nodes = elements[0].children
    out.update(_block(nodes))
    return out


def _value(tag: Tag) -> str | dict[str, Any]:
    return tag.text if tag.own_weight is None else {"tag": tag.text, "weight": tag.own_weight}


def _block(nodes: Sequence[Node]) -> dict[str, Any]:
    """A block's nodes by element; several elements of one name become one list with their tags in order."""
    out: dict[str, Any] = {}
    for node in nodes:
        if isinstance(node, Tag):
            out.setdefault("text", []).append(_value(node))
        elif isinstance(node, Element):
            name = _unused(out, node.key.partition("#")[0] if node.known else node.name)
            out[name] = _element(node)
    return out


def _unused(out: Mapping[str, Any], name: str) -> str:
    """The name, with `#2` and so on where it is taken."""
    number, free = 1, name
    while free in out:
        number += 1
        free = f"{name}#{number}"
    return free


def _element(node: Element) -> Any:
    if any(isinstance(child, Element) for child in node.children) or _is_block(node):
        block = _block(node.children)
        return block if node.own_weight is None else {"weight": node.own_weight, **block}
    tags = [_value(child) for child in node.children if isinstance(child, Tag)]
    if node.own_weight is not None:
        return {"weight": node.own_weight, "tags": tags}
    if node.key in grammar.PROSE and len(tags) == 1 and isinstance(tags[0], str):
        return tags[0]
    return tags


def _is_block(node: Element) -> bool:
    key = node.key.partition("#")[0]
    return node.known and (key == grammar.GENERAL.name or grammar.character_number(key) is not None)


def from_mapping(values: Mapping[str, Any]) -> Prompt:
    """The prompt that plain values describe; see the module for their shape.

    Raises:
        PromptError: a value of another shape, or text that makes no prompt.
    """
    if not isinstance(values, Mapping):
        raise PromptError(f"a prompt in JSON, YAML or TOML is a mapping, not a {type(values).__name__}")
    values = dict(values)
    lines: list[str] = []
    version, root = values.pop("version", None), values.pop("root", None)
    if version is not None:
        if not isinstance(version, str | int | float) or "-->" in str(version):
            raise PromptError(f"version {version!r} is not allowed; give a text without -->")
        lines.append(f"<!-- version: {version} -->")
    if "tags" in values and not isinstance(values["tags"], Mapping):
        lines.append(_tags(values["tags"], "tags", ", "))
        return parse("\n".join(lines))
    if "sentence" in values:
        lines.append(_tags(values["sentence"], "caption", " "))
        return parse("\n".join(lines))
    if root is not None:
        if root not in grammar.ROOTS:
            raise PromptError(f"root {root!r} is not allowed; use one of {', '.join(grammar.ROOTS)}")
        if "weight" in values:
            lines.append(weight_mark(_weight(values.pop("weight"))))
        lines.append(f"<{root}>")
    _lines(values, lines, 0)
    if root is not None:
        lines.append(f"</{root}>")
    return parse(write(parse("\n".join(lines))))


def _lines(values: Mapping[str, Any], lines: list[str], depth: int, *, prose: bool = False) -> None:
    if depth > grammar.MAX_DEPTH:
        raise PromptError(f"the values are nested deeper than {grammar.MAX_DEPTH}; flatten the prompt")
    for key, value in values.items():
        name = str(key).partition("#")[0]
        if name == "text":
            lines.append(_tags(value, "caption", weight_mark(1)) if prose else _tags(value, name, ", "))
            continue
        if not name or any(c in name for c in "<>/&\"' \t\r\n"):
            raise PromptError(f"{key!r} is no element name; use letters, digits and underscores")
        if isinstance(value, Mapping):
            block = dict(value)
            if "weight" in block:
                lines.append(weight_mark(_weight(block.pop("weight"))))
            if set(block) == {"tags"} and not isinstance(block["tags"], Mapping):
                separator = " " if name in grammar.PROSE else ", "
                lines.append(f"<{name}>{_tags(block['tags'], name, separator)}</{name}>")
                continue
            lines.append(f"<{name}>")
            _lines(block, lines, depth + 1, prose=name in grammar.PROSE)
            lines.append(f"</{name}>")
        else:
            lines.append(f"<{name}>{_tags(value, name, ' ' if name in grammar.PROSE else ', ')}</{name}>")


def _weight(value: Any) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value <= grammar.MAX_WEIGHT:
        raise PromptError(f"weight {value!r} is not allowed; give a number from 0 to 3")
    return float(value)


def _tags(value: Any, name: str, separator: str) -> str:
    prose = name in grammar.PROSE
    items = value if isinstance(value, list | tuple) else [value]
    out: list[str] = []
    for item in items:
        weight = None
        if isinstance(item, Mapping) and set(item) <= {"tag", "weight"} and "tag" in item:
            weight = _weight(item["weight"]) if "weight" in item else None
            item = item["tag"]
        if isinstance(item, bool) or not isinstance(item, str | int | float):
            raise PromptError(f"a tag is a text, not {item!r}; write a list of texts under {name!r}")
        text = str(item)
        boxed = name == "position" and grammar.is_box(text)
        text = text if boxed else escape(text, prose=prose)
        out.append(text if weight is None else weight_mark(weight) + text)
    return separator.join(out)


def dump(prompt: Prompt, kind: str) -> str:
    """The prompt as `json`, `yaml` or `toml` text."""
    values = to_mapping(prompt)
    if kind == "json":
        return json.dumps(values, ensure_ascii=False, indent=2) + "\n"
    if kind == "yaml":
        return _yaml().safe_dump(values, allow_unicode=True, sort_keys=False, width=100)
    return _toml(values)


def load(text: str, kind: str) -> Prompt:
    """The prompt of a `json`, `yaml` or `toml` text.

    Raises:
        PromptError: the text cannot be read, or describes no prompt.
    """
    import tomllib

    if len(text.encode("utf-8", "surrogatepass")) > grammar.MAX_BYTES:
        raise PromptError("the text has more than 256 KiB; shorten it")
    try:
        if kind == "json":
            values = json.loads(text)
        elif kind == "toml":
            values = tomllib.loads(text)
        else:
            if (
                "&" in text
                and "*" in text
                and any(e.__class__.__name__ == "AliasEvent" for e in _yaml().parse(text))
            ):
                raise PromptError("YAML anchors are not read; write each list out")
            values = _yaml().safe_load(text)
    except PromptError:
        raise
    except RecursionError:
        raise PromptError(f"the {kind} text is nested too deeply; flatten it") from None
    except (ValueError, *_yaml_errors(kind)) as error:
        line = " ".join(str(error).split())
        raise PromptError(f"this is no {kind.upper()}: {line[:200]}") from None
    return from_mapping(values)


def _yaml() -> Any:
    try:
        import yaml
    except ImportError:
        raise MissingDependencyError("YAML needs PyYAML; run: pip install pyyaml") from None
    return yaml


def _yaml_errors(kind: str) -> tuple[type[Exception], ...]:
    return (_yaml().YAMLError,) if kind == "yaml" else ()


def _toml(values: Mapping[str, Any]) -> str:
    """TOML with one table a block; with dotted keys instead where tables would change the order."""
    return _tables(values, "") if _tables_keep_order(values) else "".join(_dotted(values, ""))


def _tables_keep_order(values: Mapping[str, Any]) -> bool:
    blocks = [isinstance(value, Mapping) for value in values.values()]
    inner = (value for value in values.values() if isinstance(value, Mapping))
    return blocks == sorted(blocks) and all(map(_tables_keep_order, inner))


def _key(name: str) -> str:
    bare = name.replace("_", "").isalnum() and name.isascii()
    return name if bare else json.dumps(name, ensure_ascii=False).replace("\x7f", "\\u007f")


def _tables(values: Mapping[str, Any], prefix: str) -> str:
    out: list[str] = []
    for name, value in values.items():
        if isinstance(value, Mapping):
            path = f"{prefix}{_key(name)}"
            out += [f"\n[{path}]\n", _tables(value, path + ".")]
        else:
            out.append(f"{_key(name)} = {_toml_value(value)}\n")
    return "".join(out)


def _dotted(values: Mapping[str, Any], prefix: str) -> list[str]:
    out: list[str] = []
    for name, value in values.items():
        path = f"{prefix}{_key(name)}"
        if isinstance(value, Mapping) and value:
            out += _dotted(value, path + ".")
        else:
            out.append(f"{path} = {_toml_value(value)}\n")
    return out


def _toml_value(value: Any) -> str:
    if isinstance(value, str):
        return json.dumps(value, ensure_ascii=False).replace("\x7f", "\\u007f")
    if isinstance(value, Mapping):
        return "{ " + ", ".join(f"{k} = {_toml_value(v)}" for k, v in value.items()) + " }"
    if isinstance(value, list):
        return "[" + ", ".join(_toml_value(v) for v in value) + "]"
    return repr(float(value))
