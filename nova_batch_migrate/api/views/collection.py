"""One page of a list and the link to the next one."""

from urllib import parse


def limit_of(query: dict[str, str], max_limit: int) -> int:
    """Return how many items one answer may carry."""
    return min(int(query.get("limit", max_limit)), max_limit)


def page(name: str, items: list[dict], limit: int, url: str, query: dict[str, str]) -> dict:
    """Return ``items`` up to ``limit`` as ``name``, with a next link where there are more.

    The caller asks for one item more than ``limit``: so a link is never to an empty page.
    """
    body = {name: items[:limit]}
    if 0 < limit < len(items):
        following = parse.urlencode(sorted({**query, "marker": items[limit - 1]["id"]}.items()))
        body[f"{name}_links"] = [{"rel": "next", "href": f"{url}?{following}"}]
    return body
