"""Checks what came in against a JSON schema and says what to give instead.

Handlers call it after the policy. Every part of a schema has a ``description`` that completes the
sentence "Give ...": the schema is the only place where a field's meaning is written.
"""

import datetime
import json

import jsonschema
import webob
import webob.exc

from nova_batch_migrate import exception

JSON = "application/json"
SHOWN_CHARACTERS = 80
FORMATS = jsonschema.FormatChecker(formats=())
# 1.0 is no integer and True no number, as in Nova
_TYPES = jsonschema.Draft202012Validator.TYPE_CHECKER.redefine(
    "integer", lambda _, value: isinstance(value, int) and not isinstance(value, bool))
_Validator = jsonschema.validators.extend(jsonschema.Draft202012Validator, type_checker=_TYPES)


@FORMATS.checks("name")
def _is_name(value) -> bool:
    return not isinstance(value, str) or (value.isprintable() and value == value.strip() != "")


@FORMATS.checks("moment", raises=(ValueError, OverflowError))
def _is_moment(value) -> bool:
    if not isinstance(value, str):
        return True
    moment = datetime.datetime.fromisoformat(value)
    moment.astimezone(datetime.UTC)  # fails at the ends of time
    return moment.tzinfo is not None


@FORMATS.checks("count")
def _is_count(value) -> bool:
    return not isinstance(value, str) or (value.isascii() and value.isdigit())


def body(request: webob.Request, schema: dict) -> dict:
    """Return the JSON body of ``request``, checked against ``schema``.

    Raises HTTPUnsupportedMediaType for another content type, InvalidInput for all else.
    """
    if request.content_type not in ("", JSON):
        raise webob.exc.HTTPUnsupportedMediaType(
            f"The content type {request.content_type} is not supported. Send {JSON}.")
    try:
        value = json.loads(request.body.decode("utf-8"), parse_constant=_refuse_constant,
                           object_pairs_hook=_unique_keys)
    except (ValueError, RecursionError) as error:
        raise exception.InvalidInput(
            reason=f"the body is not valid JSON: {error}. Give "
                   f"{schema['description']}.") from error
    check(value, schema, "the body")
    return value


def query(request: webob.Request, schema: dict) -> dict[str, str]:
    """Return the query parameters of ``request``; none may come twice."""
    try:
        pairs = list(request.GET.items())
    except UnicodeDecodeError as error:
        raise exception.InvalidInput(reason="the query is not UTF-8.") from error
    found = dict(pairs)
    if len(found) < len(pairs):
        raise exception.InvalidInput(reason="a query parameter came twice. Give each one once.")
    check(found, schema, "the query")
    return found


def check(value, schema: dict, whole: str) -> None:
    """Raise InvalidInput with the first thing that is wrong; ``whole`` names ``value``."""
    error = min(_Validator(schema, format_checker=FORMATS).iter_errors(value),
                key=lambda error: (len(error.absolute_path), list(map(str, error.absolute_path))),
                default=None)
    if error is not None:
        raise exception.InvalidInput(reason=_reason(error, whole))


def _reason(error: jsonschema.ValidationError, whole: str) -> str:
    where = _where(error.absolute_path) or whole
    if error.validator == "additionalProperties":
        known = error.schema["properties"]
        unknown = ", ".join(_shown(key) for key in error.instance if key not in known)
        return f"{where} has no {unknown}. Known are: {', '.join(sorted(known)) or 'none'}."
    return f"{where} is {_shown(error.instance)}. Give {error.schema['description']}."


def _where(path) -> str:
    words = ""
    for step in path:
        words += f"[{step}]" if isinstance(step, int) else f".{step}"
    return words.lstrip(".")


def _shown(value) -> str:
    text = json.dumps(value)
    return text if len(text) <= SHOWN_CHARACTERS else text[:SHOWN_CHARACTERS] + "..."


def _refuse_constant(name: str):
    raise ValueError(f"{name} is no JSON value")


def _unique_keys(pairs: list) -> dict:
    found = dict(pairs)
    if len(found) < len(pairs):
        raise ValueError("a key came twice in one object")
    return found
