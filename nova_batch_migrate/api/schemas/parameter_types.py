"""Kinds of values that several schemas share."""

MAX_NAME_CHARACTERS = 255
MAX_HOSTS = 100
MAX_SERVERS = 1000

BOOLEAN = {"type": "boolean", "description": "true or false"}
HOST = {
    "type": "string",
    "pattern": r"\A[a-zA-Z0-9._-]+\Z",
    "maxLength": MAX_NAME_CHARACTERS,
    "description": "the name of a compute host as 'openstack compute service list' shows it, at "
                   f"most {MAX_NAME_CHARACTERS} letters, digits, dots, hyphens and underscores",
}
SERVER = {
    "type": "string",
    "format": "name",
    "maxLength": MAX_NAME_CHARACTERS,
    "description": f"the id or the name of a server, at most {MAX_NAME_CHARACTERS} characters",
}
MOMENT = {
    "type": "string",
    "format": "moment",
    "maxLength": 40,
    "description": "a moment in ISO 8601 with its time zone, such as 2026-10-01T22:00:00Z",
}
LIMIT = {
    "type": "string",
    "format": "count",
    "maxLength": 9,
    "description": "the most items that one answer may carry, 0 or more",
}


def hosts(meaning: str) -> dict:
    """Return the schema of a list of different compute hosts."""
    return {"type": "array", "items": HOST, "minItems": 1, "maxItems": MAX_HOSTS,
            "uniqueItems": True,
            "description": f"a list of 1 to {MAX_HOSTS} different compute hosts {meaning}"}


def servers(minimum: int, meaning: str) -> dict:
    """Return the schema of a list of at least ``minimum`` different servers."""
    return {"type": "array", "items": SERVER, "minItems": minimum, "maxItems": MAX_SERVERS,
            "uniqueItems": True,
            "description": f"a list of {minimum} to {MAX_SERVERS} different servers {meaning}"}


def one_of(*words: str) -> dict:
    """Return the schema of a field that takes one of ``words``."""
    return {"type": "string", "enum": list(words), "description": "one of: " + ", ".join(words)}


def integer(minimum: int, maximum: int, meaning: str) -> dict:
    """Return the schema of an integer with both ends included."""
    return {"type": "integer", "minimum": minimum, "maximum": maximum,
            "description": f"an integer from {minimum} to {maximum}: {meaning}"}


def record(description: str, properties: dict, **others) -> dict:
    """Return the schema of an object that takes nothing but ``properties``."""
    return {"type": "object", "properties": properties, "additionalProperties": False,
            "description": description, **others}
