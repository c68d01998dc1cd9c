"""A batch migration with its address."""


def url(base_url: str, batch: dict) -> str:
    """Return the address of ``batch``."""
    return f"{base_url}/{batch['id']}"


def item(base_url: str, batch: dict) -> dict:
    """Return ``batch`` with links."""
    return {**batch, "links": [{"rel": "self", "href": url(base_url, batch)}]}


def show(base_url: str, batch: dict) -> dict:
    """Return the body of an answer about one batch migration."""
    return {"batch_migration": item(base_url, batch)}
