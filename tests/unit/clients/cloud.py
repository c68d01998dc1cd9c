"""Keystone, Nova and Placement as the clients see them: answers in the form of Nova 34's own."""

import re

import requests_mock
from keystoneauth1 import fixture as ks_fixture
from keystoneauth1 import loading as ks_loading
from oslotest import base

from nova_batch_migrate import conf

KEYSTONE = "http://keystone.example:5000/v3"
NOVA = "http://nova.example:8774/v2.1"
PLACEMENT = "http://placement.example:8778"

SERVER_ID = "cc72a6cf-574a-4f54-935b-108174f460eb"


def fault(name: str, code: int, message: str) -> dict:
    return {name: {"code": code, "message": message}}


def server(**changes) -> dict:
    """A server as GET /servers/{id} shows it to an administrator at 2.100."""
    return {
        "accessIPv4": "", "accessIPv6": "", "addresses": {}, "created": "2026-11-23T08:26:48Z",
        "flavor": {"vcpus": 2, "ram": 384, "disk": 10, "ephemeral": 3, "swap": 1025,
                   "original_name": "m1", "extra_specs": {"hw:cpu_policy": "dedicated"}},
        "hostId": "f863", "id": SERVER_ID,
        "image": {"id": "cca25d29-f951-4980-a57a-ca678150c6d3", "links": [],
                  "properties": {"hw_machine_type": "pc", "hw_tpm_version": "2.0"}},
        "links": [], "metadata": {}, "name": "web", "status": "ACTIVE", "tenant_id": "009f",
        "user_id": "7289", "updated": "2026-11-23T08:27:01Z", "OS-DCF:diskConfig": "MANUAL",
        "progress": 0, "OS-EXT-AZ:availability_zone": "nova", "config_drive": "",
        "key_name": None, "OS-SRV-USG:launched_at": "2026-11-23T08:27:01.000000",
        "OS-SRV-USG:terminated_at": None, "OS-EXT-SRV-ATTR:host": "cmpa",
        "OS-EXT-SRV-ATTR:instance_name": "instance-00000003",
        "OS-EXT-SRV-ATTR:hypervisor_hostname": "cmpa.example",
        "OS-EXT-SRV-ATTR:root_device_name": "/dev/vda", "OS-EXT-STS:task_state": None,
        "OS-EXT-STS:vm_state": "active", "OS-EXT-STS:power_state": 1,
        "os-extended-volumes:volumes_attached": [{"id": "vol-1", "delete_on_termination": False}],
        "locked": True, "host_status": "UP", "description": None, "tags": [],
        "trusted_image_certificates": None, "server_groups": [], "locked_reason": "payroll",
        "pinned_availability_zone": "nova", "scheduler_hints": {"group": ["g-1"]},
    } | changes


def migration(number: int, **changes) -> dict:
    """A row of GET /os-migrations at 2.80 and later."""
    return {
        "id": number, "uuid": f"9ca9c3a7-6021-462c-8b35-{number:012d}", "source_compute": "cmpa",
        "dest_compute": "cmpb", "source_node": "cmpa", "dest_node": "cmpb", "dest_host": None,
        "old_instance_type_id": 1, "new_instance_type_id": 1, "instance_uuid": SERVER_ID,
        "status": "completed", "migration_type": "live-migration", "user_id": "7289",
        "project_id": "009f", "created_at": "2026-11-23T08:27:37.000000",
        "updated_at": "2026-11-23T08:27:52.000000",
    } | changes


class CloudTestCase(base.BaseTestCase):
    """Sets up a cloud whose services answer what a test tells them to."""

    max_microversion = "2.104"

    def setUp(self):
        super().setUp()
        self.http = requests_mock.Mocker()
        self.http.start()
        self.addCleanup(self.http.stop)
        self.conf = conf.new()
        self.conf([], default_config_files=[], default_config_dirs=[])
        for group in ("nova", "placement"):
            self._set_credentials(group)
        self._publish()

    def _set_credentials(self, group: str) -> None:
        self.conf.register_opts(ks_loading.get_auth_plugin_conf_options("password"), group=group)
        for name, value in {
                "auth_type": "password", "auth_url": KEYSTONE, "username": "nova",
                "password": "secret", "project_name": "service", "user_domain_id": "default",
                "project_domain_id": "default", "region_name": "RegionOne"}.items():
            self.conf.set_override(name, value, group)

    def _publish(self) -> None:
        token = ks_fixture.V3Token(user_name="nova", project_id="009f")
        token.set_project_scope()
        for kind, name, url in (("compute", "nova", NOVA), ("placement", "placement", PLACEMENT)):
            token.add_service(kind, name=name).add_standard_endpoints(
                public="http://public.invalid", internal=url, region="RegionOne")
        self.http.get(KEYSTONE, json={"version": ks_fixture.V3Discovery(KEYSTONE)})
        self.http.post(f"{KEYSTONE}/auth/tokens", json=token, headers={"X-Subject-Token": "token"})
        self.http.get(NOVA, json={"version": {
            "id": "v2.1", "status": "CURRENT", "version": self.max_microversion,
            "min_version": "2.1", "updated": "2013-07-23T11:33:21Z",
            "links": [{"rel": "self", "href": f"{NOVA}/"}]}})
        self.http.get(f"{PLACEMENT}/", json={"versions": [{
            "id": "v1.0", "max_version": "1.39", "min_version": "1.0", "status": "CURRENT",
            "links": [{"rel": "self", "href": ""}]}]})

    def asked(self, path: str) -> list:
        """Return the requests whose path matches the regular expression, in order."""
        return [request for request in self.http.request_history
                if re.search(path, request.path)]
