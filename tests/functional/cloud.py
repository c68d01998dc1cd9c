"""Nova for one test: API with this project's filter, conductor, scheduler, Placement and computes.

Base of the functional tests' own base class. All of it is Nova's real code in this process;
libvirt below the computes is Nova's fakelibvirt. It starts nothing of this project's services.
"""

import pathlib
import sys

import fixtures
import webob
import webob.dec
import webob.exc
from nova.conf import CONF as NOVA_CONF
from nova.tests.fixtures import libvirt as fakelibvirt
from nova.tests.functional.libvirt import base
from placement import deploy

from tests.functional import hypervisor, loopback

NOVA_PASTE = pathlib.Path(sys.prefix) / "etc" / "nova" / "api-paste.ini"
PIPELINES = ("openstack_compute_api_v21", "openstack_compute_api_v21_legacy_v2_compatible")
APPLICATION = "osapi_compute_app_v21"
HOST_MEMORY_MIB = 16384
FILTER = "batch_evacuate"
FILTER_FACTORY = "nova_batch_migrate.api.filter:filter_factory"


def paste_with_filter() -> str:
    """Return Nova's own paste file with our filter right before Nova's application."""
    text = NOVA_PASTE.read_text()
    for pipeline in PIPELINES:
        head, section, rest = text.partition(f"[composite:{pipeline}]")
        text = head + section + rest.replace(APPLICATION, f"{FILTER} {APPLICATION}", 1)
    return text + f"\n[filter:{FILTER}]\npaste.filter_factory = {FILTER_FACTORY}\n"


class NovaTestCase(base.ServersTestBase):
    """A cloud of the hosts in ``HOSTS``; ``with_filter`` False leaves Nova's paste file alone."""

    HOSTS: tuple[str, ...] = ("cmpa", "cmpb")
    ADMIN_API = True
    microversion = "latest"
    # A cast that waits for its work is not what a conductor meets in a cloud.
    CAST_AS_CALL = False
    with_filter = True

    def setUp(self):
        self._use_paste_file()
        super().setUp()
        # Nova's tests let idle threads look for work a hundred times a second, which here takes
        # more of the processor than all work.
        self.stub_out("futurist._thread.ThreadWorker.MAX_IDLE_FOR", 0.2)
        # The pool of live migrations is one per process here, not one per host: leave it room.
        self.flags(max_concurrent_live_migrations=8)
        self.flags(group="libvirt", live_migration_monitor_interval=1)
        for host in self.HOSTS:
            # fakelibvirt gives this number out in the place where libvirt has MiB
            self.start_compute(host, host_info=fakelibvirt.HostInfo(
                cpu_nodes=2, cpu_sockets=1, cpu_cores=2, cpu_threads=2, kB_mem=HOST_MEMORY_MIB))
        self.hypervisors = self.useFixture(hypervisor.Hypervisors(self.computes))

    def endpoints(self) -> dict[str, str]:
        """Serve Nova, Placement and Neutron on 127.0.0.1; return their URLs by service name."""
        admin = {"X-Roles": "admin,member,reader,service"}
        # What the stubs of keystonemiddleware in Nova's and Placement's fixtures look at.
        nova = loopback.LoopbackServer(self.api_fixture.app(), admin | {
            "X-Auth-User": "admin", "X-User-Id": "admin",
            "X-Auth-Project-Id": self.api.project_id})
        placement = loopback.LoopbackServer(
            deploy.loadapp(self.placement_fixture.conf_fixture.conf),
            admin | {"X-Auth-Token": "admin"})
        neutron = loopback.LoopbackServer(self._neutron)
        return {"nova": self.useFixture(nova).url + "/v2.1",
                "placement": self.useFixture(placement).url,
                "neutron": self.useFixture(neutron).url}

    @webob.dec.wsgify
    def _neutron(self, request):
        """Answer GET /v2.0/ports of one device from the Neutron that Nova has in this process."""
        if request.path in ("/", "/v2.0/"):
            return webob.Response(json={"versions": [{
                "id": "v2.0", "status": "CURRENT",
                "links": [{"rel": "self", "href": f"{request.host_url}/v2.0/"}]}]})
        if (request.method, request.path) != ("GET", "/v2.0/ports"):
            raise webob.exc.HTTPNotFound(f"{request.method} {request.path} is not played")
        ports = self.neutron.list_ports(is_admin=True, device_id=request.GET["device_id"])
        return webob.Response(json=ports)

    def _use_paste_file(self):
        path = pathlib.Path(self.useFixture(fixtures.TempDir()).path) / "api-paste.ini"
        path.write_text(paste_with_filter() if self.with_filter else NOVA_PASTE.read_text())
        NOVA_CONF.set_override("api_paste_config", str(path), "wsgi")
        self.addCleanup(NOVA_CONF.clear_override, "api_paste_config", "wsgi")
