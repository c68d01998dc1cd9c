"""What the gabbi files run on: the stand-alone API, the bus, the real conductor's manager, SQLite.

Played are the far edges only: Keystone's answers about tokens, Nova's about hosts and servers, and
the work between ``accepted`` and ``planned``, which is done at once on made-up measurements.
"""

import types

import fixtures
from gabbi import fixture
from keystonemiddleware import fixture as keystone_fixture
from keystonemiddleware import opts as keystone_opts

from nova_batch_migrate import rpc
from nova_batch_migrate.clients.types import ServerInfo
from nova_batch_migrate.conductor import loading, manager
from nova_batch_migrate.db import api as db
from nova_batch_migrate.planning import plan, request, telemetry
from nova_batch_migrate.wsgi import api as wsgi_api
from tests.functional import services

MIB = 1 << 20
PROJECT_ID = "6f70656e737461636b20342065766572"
WEB, DATABASE, LOCKED = (f"8d1f2a54-4a54-4c5f-8f0e-00000000000{n}" for n in (1, 2, 3))
HOSTS = ("cmpa", "cmpb", "cmpc", "empty")

_served = types.SimpleNamespace(app=None)


def application():
    """Return what calls the application of the gabbi file that is running then."""
    return lambda environ, start_response: _served.app(environ, start_response)


def server(server_id: str, name: str, host: str, locked: bool = False) -> ServerInfo:
    """Return a running server of 256 MiB."""
    return ServerInfo(
        id=server_id, name=name, project_id=PROJECT_ID, host=host, node=host, status="ACTIVE",
        vm_state="active", task_state=None, power_state="running", locked=locked,
        locked_reason=None, memory_bytes=256 * MIB, vcpus=1, disk_gb=1, volume_backed=False,
        volumes=(), availability_zone="nova", pinned_availability_zone=None, created_at=None,
        updated_at=None, fault=None, extra_specs={}, image_properties={},
        image_properties_known=True, scheduler_hints={})


class PlayedNova:
    """Four hosts and three servers, as clients.nova would show them."""

    servers = (server(WEB, "web <b>", "cmpa"), server(DATABASE, "db", "cmpa"),
               server(LOCKED, "safe", "cmpa", locked=True))

    def compute_services(self):
        return [{"id": host, "host": host, "state": "up", "status": "enabled",
                 "disabled_reason": None, "zone": "nova"} for host in HOSTS]

    def servers_on(self, host):
        return [each for each in self.servers if each.host == host]

    def find_server(self, name_or_id):
        return next((each for each in self.servers if name_or_id in (each.id, each.name)), None)

    def server_groups(self):
        return []


def measured(batch_id: str, empty: bool = False) -> None:
    """Bring a plan-only batch to ``planned``, as the reconciler does once it has measured."""
    row = db.get_batch(batch_id)
    if row["status"] != "accepted" or not row["request"]["plan_only"]:
        return
    pending = [each for each in db.servers_of(batch_id) if each["status"] == "pending"]
    host = telemetry.HostTelemetry(
        host="cmpa", bandwidth=telemetry.Bandwidth("eth0", 12.5e6, 12e6, 0.0, "option"),
        options=telemetry.MigrationOptions(),
        servers=tuple(_telemetry(each) for each in pending),
        page_classes=telemetry.PageClasses(True, 1.0, (telemetry.PageClass(
            tuple(each["server_id"] for each in pending), 4096),)),
        mapped_classes=telemetry.PageClasses(True, 1.0, (telemetry.PageClass(
            tuple(each["server_id"] for each in pending), 1024),)),
        portions=telemetry.Portions(512, 1.0, (telemetry.PageClass(
            tuple(each["server_id"] for each in pending), 512),)),
        confirmation=telemetry.Confirmation(512, 509))
    found = plan.make_plan(request.PlanRequest(
        hosts=(host,), destinations=(request.Destination("cmpb", 1024 * MIB, 8, 100),),
        movable=tuple(request.Movable(each["server_id"], ("cmpb",), 256 * MIB, 1, 1)
                      for each in pending)))
    made = found.to_dict()
    db.update_batch(batch_id, {
        "status": "planned", "plan": made, "first_plan": made,
        "telemetry": {"cmpa": host.to_dict()},
        "state": db.get_batch(batch_id)["state"] | {"told": loading.told(found, None)}})
    db.add_event(batch_id, "measured", f"{len(pending)} servers of cmpa")
    db.add_event(batch_id, "planned", "the plan is made")


def _telemetry(row: dict) -> telemetry.ServerTelemetry:
    pages = row["memory_bytes"] // telemetry.PAGE_BYTES
    return telemetry.ServerTelemetry(
        id=row["server_id"], name=row["name"], project_id=row["project_id"], host="cmpa",
        memory_bytes=row["memory_bytes"], vcpus=1, state="running", total_pages=pages,
        present_pages=pages, zero_pages=0, distinct_pages=pages // 2,
        changed=telemetry.DirtyModel(10.0, 100.0, 0.05, "content-diff"),
        compress_unchanged=0.5, measured_at="2026-11-23T02:00:00Z")


class Api(fixture.GabbiFixture):
    """The API and a conductor; tokens are called after the roles that they carry."""

    with_conductor = True

    def start_fixture(self):
        self._parts = fixtures.Fixture()
        self._parts.setUp()
        config = self._parts.useFixture(services.Configuration({}))
        config.set("api", conductor_timeout_seconds=60 if self.with_conductor else 1)
        self._parts.useFixture(services.Database())
        # the in-process bus is one for all tests of a process
        self._parts.useFixture(fixtures.MonkeyPatch(
            "nova_batch_migrate.rpc.CONDUCTOR_TOPIC", f"gabbi.{id(self)}"))
        if self.with_conductor:
            self._serve()
        tokens = self._parts.useFixture(keystone_fixture.AuthTokenFixture())
        for role in ("admin", "member", "reader"):
            tokens.add_token_data(token_id=role, user_id=role, project_id=PROJECT_ID,
                                  role_list=[role])
        for group, options in keystone_opts.list_auth_token_opts():
            services.CONF.register_opts(options, group)
        config.set("keystone_authtoken", www_authenticate_uri="http://keystone.invalid")
        _served.app = wsgi_api.build(services.CONF)

    def _serve(self):
        conductor = manager.ConductorManager(
            services.CONF, PlayedNova(), types.SimpleNamespace(describe=lambda *_: None), measured)
        bus = rpc.get_server(rpc.get_transport(services.CONF), rpc.conductor_target("one"),
                             [conductor])
        bus.start()
        self._parts.addCleanup(bus.wait)
        self._parts.addCleanup(bus.stop)

    def stop_fixture(self):
        _served.app = None
        self._parts.cleanUp()


class ApiWithoutConductor(Api):
    """The API alone on its bus."""

    with_conductor = False
