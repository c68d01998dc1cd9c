"""A compute endpoint for the tests of sdk/ and osc/: HTTP is faked, everything above is real."""

import fixtures
import openstack.connection
import requests_mock
from keystoneauth1 import session, token_endpoint
from openstack.config import cloud_region
from oslotest import base

ENDPOINT = "http://nova.example:8774/v2.1"
BATCHES = f"{ENDPOINT}/os-batch-evacuate"
BATCH_ID = "5f0b2d9c-93a1-4f0e-a7a5-0a7c8c2c9a11"
#: What a tenant may call a server: clears the screen, forges a line, reverses what follows.
HOSTILE = "db\x1b[2J\n2026 web: completed\u202e\x9b31m"
HOSTILE_ESCAPED = r"db\x1b[2J\n2026 web: completed\u202e\x9b31m"

_DISCOVERY = {
    "versions": [
        {
            "id": "v2.1", "status": "CURRENT", "version": "2.104", "min_version": "2.1",
            "links": [{"rel": "self", "href": f"{ENDPOINT}/"}],
        }
    ]
}


class ApiTestCase(base.BaseTestCase):
    """Has ``self.http`` (requests_mock) and ``self.compute``, the SDK's real compute adapter."""

    def setUp(self):
        super().setUp()
        self.http = self.useFixture(_Http()).mocker
        self.compute = self.connection().compute

    @staticmethod
    def connection(**config):
        region = cloud_region.from_session(
            session.Session(auth=token_endpoint.Token(ENDPOINT, "token")),
            region_name="one", app_name="tests",
            **config,
        )
        return openstack.connection.Connection(config=region)

    def sent(self, method):
        """Return the requests of ``method`` to this project's API."""
        return [
            request for request in self.http.request_history
            if request.method == method and request.url.startswith(BATCHES)
        ]


class _Http(fixtures.Fixture):
    def _setUp(self):
        self.mocker = requests_mock.Mocker()
        self.mocker.start()
        self.addCleanup(self.mocker.stop)
        for url in (ENDPOINT, f"{ENDPOINT}/", "http://nova.example:8774/"):
            self.mocker.get(url, json=_DISCOVERY)


def server(server_id, name=None, **fields):
    """Return a server of a batch as the API shows it."""
    known = dict.fromkeys((
        "destination", "reason", "certainty", "command", "group", "order", "progress",
        "bytes_per_second", "eta_seconds", "projected_seconds", "projected_stream_seconds",
        "projected_queue_seconds", "projected_nova_seconds", "actual_seconds",
        "actual_stream_seconds", "actual_queue_seconds", "actual_nova_seconds",
        "projected_bytes", "projected_wire_bytes", "raw_bytes", "wire_bytes", "downtime_seconds",
    ))
    return {
        **known, "id": server_id, "name": name or server_id, "source": "cmpa",
        "status": "pending", **fields,
    }


def batch(status, servers=None, **fields):
    """Return a batch as the API shows it; without ``servers`` as in a list."""
    known = {
        "id": BATCH_ID, "status": status, "hosts": ["cmpa"], "servers_requested": None,
        "strategy": "group", "plan_only": False, "progress": 0, "eta_seconds": None,
        "projected_seconds": 60.04, "actual_seconds": None, "projected_bytes": 3 * 2**20,
        "wire_bytes": None, "error": None, "notes": [], "created_at": "2026-11-23T08:00:00Z",
        **fields,
    }
    if servers is not None:
        known["servers"] = servers
    return known


def plan(members, staying=()):
    """Return a plan of one group; ``members`` and ``staying`` are (id, name) pairs."""
    projection = {
        "stream_seconds": 20.0, "queue_seconds": 0.0, "nova_seconds": 4.0,
        "projected_seconds": 24.0, "raw_bytes": 2**20, "wire_bytes": 2**20, "rounds": 2,
        "downtime_seconds": 0.05, "verdict": "converges", "abort_at_seconds": None,
        "interval_seconds": [20.0, 30.0],
    }
    return {
        "schema_version": "1.0", "strategy": "group", "relay": False,
        "notes": ["No discount for common content."], "projected_seconds": 48.0,
        "raw_bytes": 2**21, "wire_bytes": 2**21,
        "groups": [{
            "index": 0, "source": "cmpa", "projected_seconds": 48.0, "raw_bytes": 2**21,
            "wire_bytes": 2**21, "common_pages_bytes": 2**19, "reason": "most in common",
            "members": [
                {
                    "server_id": server_id, "name": name, "destination": "cmpb", "order": order,
                    "projection": projection, "reason": "shortest first",
                }
                for order, (server_id, name) in enumerate(members)
            ],
        }] if members else [],
        "staying": [
            {
                "server_id": server_id, "name": name, "source": "cmpa", "reason": "It is locked.",
                "certainty": "certain", "command": f"openstack server unlock {server_id}",
            }
            for server_id, name in staying
        ],
        "request": {"schema_version": "1.0", "hosts": [{"host": "cmpa"}]},
    }
