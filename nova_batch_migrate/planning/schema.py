"""The JSON schema of planning's values, made from their types: one for RPC, API and files.

Published as doc/source/plan-request.schema.json and by `nova-batch-plan --schema`; a test holds the
file against this. Never written by hand.
"""

import dataclasses
import types
import typing

from nova_batch_migrate.planning import values
from nova_batch_migrate.planning.values import Value

DIALECT = "https://json-schema.org/draft/2020-12/schema"


def json_schema(root: type[Value]) -> dict:
    """Return the schema of a value; all it is made of is under `$defs` by its name."""
    definitions: dict[str, dict] = {}
    _define(root, definitions)
    return {"$schema": DIALECT, "title": root.__name__, "$ref": f"#/$defs/{root.__name__}",
            "$defs": dict(sorted(definitions.items()))}


def _define(kind: type[Value], definitions: dict[str, dict]) -> None:
    if kind.__name__ in definitions:
        return
    told = definitions[kind.__name__] = {
        "type": "object", "description": " ".join(kind.__doc__.split()), "properties": {},
        "required": [f.name for f in dataclasses.fields(kind)
                     if f.default is dataclasses.MISSING
                     and f.default_factory is dataclasses.MISSING]}
    hints = typing.get_type_hints(kind)
    for field in dataclasses.fields(kind):
        described = _described(hints[field.name], definitions)
        if isinstance(field.default, (str, int, float, bool, type(None))):
            described = {**described, "default": field.default}
        told["properties"][field.name] = described


def _described(kind, definitions: dict[str, dict]) -> dict:
    origin, arguments = typing.get_origin(kind), typing.get_args(kind)
    if origin in (typing.Union, types.UnionType):
        other = next(a for a in arguments if a is not type(None))
        return {"anyOf": [_described(other, definitions), {"type": "null"}]}
    if origin is typing.Literal:
        return {"enum": list(arguments)}
    if origin is tuple:
        return _list_of(arguments, definitions)
    if isinstance(kind, type) and issubclass(kind, Value):
        _define(kind, definitions)
        return {"$ref": f"#/$defs/{kind.__name__}"}
    return dict(_SCALARS[kind])


def _list_of(arguments, definitions) -> dict:
    if arguments[-1] is Ellipsis:
        return {"type": "array", "items": _described(arguments[0], definitions)}
    return {"type": "array", "prefixItems": [_described(a, definitions) for a in arguments],
            "minItems": len(arguments), "maxItems": len(arguments)}


_SCALARS = {
    str: {"type": "string"}, bool: {"type": "boolean"},
    # A count, a size or a time, unless its type says Signed.
    int: {"type": "integer", "minimum": 0}, float: {"type": "number", "minimum": 0},
    values.SignedInt: {"type": "integer"}, values.SignedFloat: {"type": "number"},
}
