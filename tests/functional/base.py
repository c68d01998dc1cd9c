"""Base class of the functional tests: a cloud, this project beside it, and words for both.

A test boots guests, asks the batch API for something as an operator would, and looks at Nova and
at the streams that ran. It waits for conditions, never for a time.
"""

import dataclasses
import json
import pathlib
import time

import fixtures

from tests.functional import agents, cloud, services

BATCHES = "/os-batch-evacuate"
#: On a machine that has better things to do.
WAIT_SECONDS = 180.0
#: Now and then Nova finds its SQLite file locked while it builds several at once, and gives one up.
BUILDS = 3
ENDED = ("completed", "partial", "aborted", "failed")


@dataclasses.dataclass(frozen=True)
class Answer:
    """What the batch API said: status, headers, decoded body."""

    status: int
    headers: dict
    body: dict

    @property
    def message(self) -> str:
        """Return the message of a fault in Nova's form."""
        (fault,) = self.body.values()
        return fault["message"]


class BatchTestCase(cloud.NovaTestCase):
    """Two hosts and everything of this project around them; see ``boot`` and ``drain``."""

    def setUp(self):
        self.useFixture(services.ApiProcess())
        super().setUp()
        self.config = self.useFixture(services.Configuration(self.endpoints()))
        self.useFixture(services.Database())
        self.guests = self.useFixture(agents.Guests())
        # An agent watches its link for other traffic; there is none here.
        self.stub_out("nova_batch_migrate.agent.bandwidth._WATCH_SECONDS", 0.01)
        nova_conf = pathlib.Path(self.useFixture(fixtures.TempDir()).path) / "nova.conf"
        nova_conf.write_text("[DEFAULT]\nmax_concurrent_live_migrations = 4\n")
        self.agents = {host: self.useFixture(agents.Agent(
            host, self.guests, self.hypervisors, str(nova_conf))) for host in self.HOSTS}
        self.conductor_service = self.useFixture(services.Conductor())

    # -- guests -----------------------------------------------------------------------------

    def boot(self, *names: str, host: str = "cmpa", memory_mib: int = 512, **telemetry) -> list:
        """Boot a server per name on ``host``; return their ids. ``telemetry``: agents.Guest."""
        flavor = self._create_flavor(memory_mb=memory_mib, vcpu=1, disk=1, ephemeral=0)

        def post(name: str) -> str:
            request = self._build_server(name, flavor_id=flavor, networks="none", host=host)
            server_id = self.api.post_server({"server": request})["id"]
            self.guests.add(server_id, name, memory_mib << 20, **telemetry)
            return server_id
        return [self._built(server_id, name, post) for server_id, name in
                [(post(name), name) for name in names]]

    def _built(self, server_id: str, name: str, post) -> str:
        """Return the id of a server that is ACTIVE, of another one where Nova gave this one up."""
        for _ in range(BUILDS):
            status = self.wait(lambda: self._state_of(server_id, "ACTIVE", "ERROR"),  # noqa: B023
                               f"server {server_id} to be ACTIVE")
            if status == "ACTIVE":
                return server_id
            self._delete_server({"id": server_id})
            server_id = post(name)
        self.fail(f"Nova gave {name} up {BUILDS} times")

    def _state_of(self, server_id: str, *wanted: str) -> str | None:
        """Return a server's status, if it is one of those."""
        status = self.api.get_server(server_id)["status"]
        return status if status in wanted else None

    def server(self, server_id: str) -> dict:
        return self.api.get_server(server_id)

    def host_of(self, server_id: str) -> str:
        return self.server(server_id)["OS-EXT-SRV-ATTR:host"]

    def compute_service(self, host: str) -> dict:
        return self.api.get_services(host=host, binary="nova-compute")[0]

    # -- the batch API ----------------------------------------------------------------------

    def call(self, method: str, path: str = "", body=None, api=None, **headers) -> Answer:
        """Call the batch API as admin (or as ``api``'s user), whatever it answers."""
        api = api or self.api
        response = api.api_request(f"{BATCHES}{path}".lstrip("/"), method=method, headers=headers,
                                   body=None if body is None else json.dumps(body))
        return Answer(response.status_code, response.headers,
                      response.json() if response.content else {})

    def drain(self, **fields) -> dict:
        """Ask for a batch migration, of host cmpa unless ``fields`` say otherwise; return it."""
        if "hosts" not in fields and "servers" not in fields:
            fields["hosts"] = ["cmpa"]
        answer = self.call("POST", body={"batch_migration": fields})
        self.assertEqual(202, answer.status, answer.body)
        return answer.body["batch_migration"]

    def batch(self, batch_id: str) -> dict:
        answer = self.call("GET", f"/{batch_id}")
        self.assertEqual(200, answer.status, answer.body)
        return answer.body["batch_migration"]

    def servers_of(self, batch_id: str) -> dict[str, dict]:
        """Return the servers of a batch by their ids."""
        return {server["id"]: server for server in self.batch(batch_id)["servers"]}

    def act(self, batch_id: str, action: str, params: dict | None = None) -> Answer:
        return self.call("POST", f"/{batch_id}/action", {action: params})

    def events_of(self, batch_id: str) -> list[dict]:
        return self.call("GET", f"/{batch_id}/events").body["events"]

    def kinds_of_events(self, batch_id: str) -> list[str]:
        return [event["kind"] for event in self.events_of(batch_id)]

    # -- waiting ----------------------------------------------------------------------------

    def wait(self, condition, what: str, seconds: float = WAIT_SECONDS):
        """Wait until ``condition()`` is true and return what it returned."""
        ends = time.monotonic() + seconds
        while not (value := condition()):
            if time.monotonic() > ends:
                self.fail(f"waited {seconds} s in vain for {what}")
            time.sleep(0.25)
        return value

    def wait_for_batch(self, batch_id: str, *statuses: str) -> dict:
        """Wait until a batch has one of ``statuses``; return it. Fails early if it ended else."""
        def reached():
            batch = self.batch(batch_id)
            if batch["status"] in statuses:
                return batch
            if batch["status"] in ENDED:
                self.fail(f"the batch ended as {batch['status']}: {batch['error']}, events "
                          f"{self.events_of(batch_id)}")
            return None
        return self.wait(reached, f"batch {batch_id} to be {' or '.join(statuses)}")

    def wait_for_stream(self, server_id: str) -> None:
        self.wait(lambda: server_id in self.hypervisors.running(),
                  f"the stream of {server_id} to begin")
