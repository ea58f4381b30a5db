"""The grammar for editors: RELAX NG, XSD and JSON Schema, all made from the tables of :mod:`grammar`.

They serve completion and a first check. The parser accepts more than any of them: faces, several top-level
elements, unknown
elements.
"""

from __future__ import annotations

import json
from typing import Any
from xml.sax.saxutils import escape as xml_escape

from newbie_image.errors import PromptError
from newbie_image.prompt import grammar

KINDS = ("rng", "xsd", "json")
CHARACTERS = 16
"""Numbered characters that the XML schemas list by name."""


def schema(kind: str = "rng") -> str:
    """The schema as text.

    Args:
        kind: `rng` (RELAX NG), `xsd` (XML Schema) or `json` (of the JSON, YAML and TOML form).

    Raises:
        PromptError: another kind.
    """
    if kind == "rng":
        return relax_ng()
    if kind == "xsd":
        return xml_schema()
    if kind == "json":
        return json.dumps(json_schema(), ensure_ascii=False, indent=2) + "\n"
    raise PromptError(f"unknown schema {kind!r}; choose one of {', '.join(KINDS)}")


def _fields_of(block: grammar.Block) -> list[tuple[str, grammar.Field]]:
    return [(name, field) for field in block.fields for name in (field.name, *field.aliases)]


def _character_names() -> list[str]:
    return [grammar.CHARACTER.name, *(f"{grammar.CHARACTER.name}_{n}" for n in range(1, CHARACTERS + 1))]


def relax_ng() -> str:
    """RELAX NG in XML syntax; unknown elements are allowed, as the parser keeps them."""
    known = sorted({*grammar.FIELDS, *grammar.ALIASES, *grammar.CONTAINERS, *_character_names()})
    out = [
        '<?xml version="1.0" encoding="UTF-8"?>',
        '<grammar xmlns="http://relaxng.org/ns/structure/1.0" xmlns:a="http://relaxng.org/ns/compatibility/annotations/1.0">',
        "  <start>",
        "    <choice>",
        *(f'      <element name="{root}"><ref name="scene"/></element>' for root in grammar.ROOTS),
        '      <ref name="block"/>',
        "    </choice>",
        "  </start>",
        '  <define name="scene"><mixed><zeroOrMore><ref name="block"/></zeroOrMore></mixed></define>',
        '  <define name="tags"><mixed><zeroOrMore><ref name="unknown"/></zeroOrMore></mixed></define>',
        '  <define name="unknown">',
        "    <element>",
        f"      <anyName><except>{''.join(f'<name>{n}</name>' for n in known)}</except></anyName>",
        '      <zeroOrMore><choice><text/><ref name="unknown"/>',
        "        <attribute><anyName/></attribute></choice></zeroOrMore>",
        "    </element>",
        "  </define>",
        '  <define name="block">',
        "    <choice>",
        "      <element>",
        f"        <choice>{''.join(f'<name>{n}</name>' for n in _character_names())}</choice>",
        '        <ref name="character.content"/>',
        "      </element>",
        f'      <element name="{grammar.GENERAL.name}"><ref name="general_tags.content"/></element>',
        f'      <element name="{grammar.ENVIRONMENT.name}"><ref name="environment.content"/></element>',
        f'      <element name="{grammar.CAPTION.name}"><ref name="tags"/></element>',
        '      <ref name="unknown"/>',
        "    </choice>",
        "  </define>",
    ]
    for block in grammar.BLOCKS:
        out += [f'  <define name="{block.name}.content">', "    <mixed><zeroOrMore><choice>"]
        for name, field in _fields_of(block):
            content = "environment.content" if name == grammar.ENVIRONMENT.name else "tags"
            out.append(
                f'      <element name="{name}"><a:documentation>{xml_escape(field.doc)}</a:documentation>'
                f'<ref name="{content}"/></element>'
            )
        out += ['      <ref name="unknown"/>', "    </choice></zeroOrMore></mixed>", "  </define>"]
    return "\n".join([*out, "</grammar>", ""])


def xml_schema() -> str:
    """XML Schema 1.0; lists the known elements only."""
    out = [
        '<?xml version="1.0" encoding="UTF-8"?>',
        '<xs:schema xmlns:xs="http://www.w3.org/2001/XMLSchema">',
    ]
    out.append('  <xs:complexType name="tags" mixed="true"><xs:sequence/></xs:complexType>')
    for block in grammar.BLOCKS:
        out += [
            f'  <xs:complexType name="{block.name}" mixed="true">',
            '    <xs:choice minOccurs="0" maxOccurs="unbounded">',
        ]
        for name, field in _fields_of(block):
            content = grammar.ENVIRONMENT.name if name == grammar.ENVIRONMENT.name else "tags"
            out.append(
                f'      <xs:element name="{name}" type="{content}"><xs:annotation><xs:documentation>'
                f"{xml_escape(field.doc)}</xs:documentation></xs:annotation></xs:element>"
            )
        out += ["    </xs:choice>", "  </xs:complexType>"]
    elements = [(name, grammar.CHARACTER.name) for name in _character_names()]
    elements += [
        (grammar.GENERAL.name, grammar.GENERAL.name),
        (grammar.ENVIRONMENT.name, grammar.ENVIRONMENT.name),
    ]
    elements += [(grammar.CAPTION.name, "tags"), *((name, "tags") for name in grammar.KEPT)]
    out += [f'  <xs:element name="{name}" type="{type_}"/>' for name, type_ in elements]
    out += [
        '  <xs:complexType name="scene" mixed="true">',
        '    <xs:choice minOccurs="0" maxOccurs="unbounded">',
    ]
    out += [f'      <xs:element ref="{name}"/>' for name, _ in elements]
    out += ["    </xs:choice>", "  </xs:complexType>"]
    out += [f'  <xs:element name="{root}" type="scene"/>' for root in grammar.ROOTS]
    return "\n".join([*out, "</xs:schema>", ""])


def json_schema() -> dict[str, Any]:
    """JSON Schema (2020-12) of the plain-value form."""

    def properties(block: grammar.Block) -> dict[str, Any]:
        return {
            name: {"$ref": "#/$defs/field", "description": field.doc}
            for name, field in _fields_of(block)
            if name != grammar.ENVIRONMENT.name
        } | {"text": {"$ref": "#/$defs/field"}, "weight": {"$ref": "#/$defs/weight"}}

    blocks = {
        block.name: {"type": "object", "description": block.doc, "properties": properties(block)}
        for block in grammar.BLOCKS
    }
    blocks[grammar.GENERAL.name]["properties"][grammar.ENVIRONMENT.name] = {
        "anyOf": [{"$ref": "#/$defs/field"}, {"$ref": "#/$defs/environment"}]
    }
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "Prompt",
        "type": "object",
        "properties": {
            "version": {"type": "string"},
            "root": {"enum": list(grammar.ROOTS)},
            "tags": {"$ref": "#/$defs/field"},
            "sentence": {"$ref": "#/$defs/field"},
            grammar.CAPTION.name: {"$ref": "#/$defs/field", "description": grammar.CAPTION.doc},
            grammar.GENERAL.name: {"$ref": f"#/$defs/{grammar.GENERAL.name}"},
            grammar.ENVIRONMENT.name: {
                "anyOf": [{"$ref": "#/$defs/field"}, {"$ref": f"#/$defs/{grammar.ENVIRONMENT.name}"}]
            },
        },
        "patternProperties": {r"^character(_\d+)?(#\d+)?$": {"$ref": f"#/$defs/{grammar.CHARACTER.name}"}},
        "$defs": {
            **blocks,
            "weight": {"type": "number", "minimum": grammar.MIN_WEIGHT, "maximum": grammar.MAX_WEIGHT},
            "tag": {
                "anyOf": [
                    {"type": "string"},
                    {
                        "type": "object",
                        "properties": {"tag": {"type": "string"}, "weight": {"$ref": "#/$defs/weight"}},
                        "required": ["tag"],
                        "additionalProperties": False,
                    },
                ]
            },
            "field": {
                "anyOf": [
                    {"$ref": "#/$defs/tag"},
                    {"type": "array", "items": {"$ref": "#/$defs/tag"}},
                    {
                        "type": "object",
                        "properties": {
                            "weight": {"$ref": "#/$defs/weight"},
                            "tags": {"type": "array", "items": {"$ref": "#/$defs/tag"}},
                        },
                        "required": ["tags"],
                    },
                ]
            },
        },
    }
