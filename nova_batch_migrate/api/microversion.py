"""Negotiates the version of this API by the header ``OpenStack-API-Version: batch-migration X.Y``.

The application calls it for every request and stamps every answer; Nova's own version, which may
stand in the same header, is none of its business.
"""

import webob
import webob.exc

SERVICE = "batch-migration"
VERSIONS = ("1.0",)
MINIMUM = VERSIONS[0]
MAXIMUM = VERSIONS[-1]
HEADER = "OpenStack-API-Version"
MINIMUM_HEADER = "OpenStack-API-Minimum-Version"
MAXIMUM_HEADER = "OpenStack-API-Maximum-Version"


def negotiate(header: str | None) -> str:
    """Return the version that ``header`` asks for, the minimum where it names no version of ours.

    ``latest`` is the maximum. Raises HTTPNotAcceptable for a version that does not exist.
    """
    asked = MINIMUM
    for part in (header or "").split(","):
        service, _, version = part.strip().partition(" ")
        if service.lower() == SERVICE:
            asked = version.strip()
    if asked == "latest":
        return MAXIMUM
    if asked not in VERSIONS:
        raise webob.exc.HTTPNotAcceptable(
            f"Version {asked!r} of the {SERVICE} API does not exist. Ask for {MINIMUM} to "
            f"{MAXIMUM} with the header '{HEADER}: {SERVICE} {MAXIMUM}', or leave it out.")
    return asked


def stamp(response: webob.Response, version: str) -> None:
    """Name in ``response`` the version it was made by and the versions there are."""
    response.headers[HEADER] = f"{SERVICE} {version}"
    response.headers[MINIMUM_HEADER] = f"{SERVICE} {MINIMUM}"
    response.headers[MAXIMUM_HEADER] = f"{SERVICE} {MAXIMUM}"
    response.headers.add("Vary", HEADER)
