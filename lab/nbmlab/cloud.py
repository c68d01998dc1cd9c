"""Speaks to the lab's OpenStack APIs: a token and JSON over HTTP, nothing more.

Used by provision, guests and check. Standard library only, so that a call costs no second of
imports.
"""
import dataclasses
import http.client
import json
import pathlib

from nbmlab import layout, shell

PREFIX = {"keystone": "/v3", "placement": "", "glance": "/v2", "neutron": "/v2.0",
          "nova-api": "/v2.1"}
COMPUTE_MICROVERSION = "2.95"


class ApiError(shell.LabError):
    """An API answered with an error; `status` is its HTTP status."""

    def __init__(self, call: str, status: int, body: str):
        super().__init__(f"{call} answered {status}: {body[:600]}")
        self.status = status


@dataclasses.dataclass
class Cloud:
    """One user's view of the cloud."""

    user: str = "admin"
    password: str = "admin"
    project: str = "admin"
    token: str = ""

    def get(self, service: str, path: str) -> dict:
        return self.call(service, "GET", path)

    def post(self, service: str, path: str, body: dict) -> dict:
        return self.call(service, "POST", path, body)

    def call(self, service: str, method: str, path: str, body: object = None) -> dict:
        """Call an API as this user and return the parsed answer ({} when it has no body)."""
        return self._request(service, method, path, json.dumps(body) if body is not None else None,
                             {"X-Auth-Token": self._token()})[0]

    def upload(self, path: str, file: pathlib.Path) -> None:
        """Send a file to Glance."""
        with file.open("rb") as content:
            self._request("glance", "PUT", path, content, {
                "X-Auth-Token": self._token(), "Content-Type": "application/octet-stream",
                "Content-Length": str(file.stat().st_size)})

    def _token(self) -> str:
        if not self.token:
            scope = {"domain": {"id": "default"}}
            self.token = self._request("keystone", "POST", "/auth/tokens", json.dumps({"auth": {
                "identity": {"methods": ["password"], "password": {"user": {
                    "name": self.user, "password": self.password, **scope}}},
                "scope": {"project": {"name": self.project, **scope}}}}), {})[1]["x-subject-token"]
        return self.token

    @staticmethod
    def _request(service: str, method: str, path: str, body: object,
                 headers: dict[str, str]) -> tuple[dict, dict[str, str]]:
        connection = http.client.HTTPConnection(layout.CONTROLLER, layout.PORTS[service],
                                                timeout=120)
        sent = {"Content-Type": "application/json", "Accept": "application/json",
                "OpenStack-API-Version": f"compute {COMPUTE_MICROVERSION}", **headers}
        try:
            connection.request(method, PREFIX[service] + path, body, sent)
            answer = connection.getresponse()
            text = answer.read().decode()
        except OSError as error:
            raise shell.LabError(f"{service} does not answer ({error}): lab/status tells what is "
                                 "dead, lab/up starts it again") from error
        finally:
            connection.close()
        if answer.status >= 300:
            raise ApiError(f"{service} {method} {path}", answer.status, text)
        received = {name.lower(): value for name, value in answer.getheaders()}
        return (json.loads(text) if text.strip() else {}), received
