"""How the value types of planning become JSON types and come back.

Base of every dataclass in planning that crosses RPC, the database or a file. Checks types on the
way in, because telemetry comes from other hosts; never guesses a missing value.
"""

import dataclasses
import functools
import math
import types
import typing

from nova_batch_migrate import exception

PAGE_BYTES = 4096
SCHEMA_VERSION = "1.0"

#: Characters of a wrong value in a message.
_MOST_SHOWN = 80

#: What may be below 0, like the room on a host that Placement counts as overcommitted.
SignedInt = typing.NewType("SignedInt", int)
SignedFloat = typing.NewType("SignedFloat", float)


@functools.cache
def _field_types(cls) -> dict:
    return typing.get_type_hints(cls)


class Value:
    """A frozen dataclass with `to_dict()` and `from_dict()` in JSON types."""

    def to_dict(self) -> dict:
        """Return the fields as JSON types, nested values included."""
        return {f.name: _to_json(getattr(self, f.name)) for f in dataclasses.fields(self)}

    @classmethod
    def from_dict(cls, data: dict, where: str | None = None) -> typing.Self:
        """Build the value from JSON types; unknown keys are ignored (a newer sender).

        Raises PlanningError, naming the way to the field, for a missing or wrongly typed one;
        `where` is the way to this value.
        """
        where = where or cls.__name__
        if not isinstance(data, dict):
            raise _wrong(where, "an object", data)
        _same_version(cls, data, where)
        hints = _field_types(cls)
        values = {}
        for field in dataclasses.fields(cls):
            if field.name in data:
                values[field.name] = _from_json(hints[field.name], data[field.name],
                                                f"{where}.{field.name}")
            elif (field.default is dataclasses.MISSING
                    and field.default_factory is dataclasses.MISSING):
                raise exception.PlanningError(reason=f"{where}.{field.name} is missing")
        return cls(**values)


def read(kind: type[Value], field: str, data):
    """Return the value of one field from JSON types; any for a field that there is not.

    Raises PlanningError as `from_dict` does.
    """
    hint = _field_types(kind).get(field)
    return data if hint is None else _from_json(hint, data, f"{kind.__name__}.{field}")


def _to_json(value):
    if isinstance(value, Value):
        return value.to_dict()
    if isinstance(value, (tuple, list)):
        return [_to_json(item) for item in value]
    return value


def _from_json(kind, data, where: str):
    # Everything is a count, a size or a time unless its type says Signed.
    if kind in (SignedInt, SignedFloat):
        return _number_from_json(kind.__supertype__, data, where, -math.inf)
    origin = typing.get_origin(kind)
    if origin in (typing.Union, types.UnionType):
        if data is None:
            return None
        kind = next(arg for arg in typing.get_args(kind) if arg is not type(None))
        return _from_json(kind, data, where)
    if origin is typing.Literal:
        allowed = typing.get_args(kind)
        if data not in allowed:
            raise _wrong(where, "one of " + ", ".join(allowed), data)
        return data
    if origin is tuple:
        return _tuple_from_json(typing.get_args(kind), data, where)
    if isinstance(kind, type) and issubclass(kind, Value):
        return data if isinstance(data, kind) else kind.from_dict(data, where)
    return _scalar_from_json(kind, data, where)


def _tuple_from_json(args, data, where: str) -> tuple:
    if not isinstance(data, (list, tuple)):
        raise _wrong(where, "a list", data)
    if args[-1] is Ellipsis:
        plain = {SignedInt: int, str: str}.get(args[0])
        if plain is not None and all(type(item) is plain for item in data):
            return tuple(data)
        return tuple(_from_json(args[0], item, f"{where}[{at}]") for at, item in enumerate(data))
    if len(args) != len(data):
        raise _wrong(where, f"a list of {len(args)}", data)
    return tuple(_from_json(arg, item, f"{where}[{at}]")
                 for at, (arg, item) in enumerate(zip(args, data, strict=True)))


def _scalar_from_json(kind, data, where: str):
    if kind in (int, float):
        return _number_from_json(kind, data, where, 0)
    if isinstance(data, kind):
        return data
    raise _wrong(where, {bool: "a boolean", str: "a text"}[kind], data)


def _number_from_json(kind, data, where: str, least: float):
    # bool is an int to Python, but not to a reader of JSON.
    if (isinstance(data, (int, float)) and not isinstance(data, bool) and math.isfinite(data)
            and data >= least and (kind is float or data == int(data))):
        return kind(data)
    words = "a number" if kind is float else "a whole number"
    raise _wrong(where, words if least < 0 else words + " not below 0", data)


def _same_version(cls, data: dict, where: str) -> None:
    """Raise PlanningError for a value of another major version of the schema."""
    told = data.get("schema_version", SCHEMA_VERSION)
    if told != SCHEMA_VERSION and "schema_version" in _field_types(cls) \
            and str(told).partition(".")[0] != SCHEMA_VERSION.partition(".")[0]:
        raise exception.PlanningError(
            reason=f"{where}.schema_version is {_short(told)}, and version {SCHEMA_VERSION} can be "
                   "read: use the nova-batch-plan of the release that wrote it")


def _wrong(where: str, expected: str, data) -> exception.PlanningError:
    return exception.PlanningError(reason=f"{where} must be {expected}, not {_short(data)}")


def _short(data) -> str:
    """Return what was found instead, but not all of a whole file."""
    found = repr(data)
    return found if len(found) <= _MOST_SHOWN else f"{found[:_MOST_SHOWN]}..."
