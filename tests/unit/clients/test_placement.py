"""PlacementClient against answers in Placement's form."""

from nova_batch_migrate import exception
from nova_batch_migrate.clients import placement
from tests.unit.clients import cloud
from tests.unit.clients.cloud import PLACEMENT

PROVIDERS = f"{PLACEMENT}/resource_providers"


def inventory(total: int, reserved: int = 0, ratio: float = 1.0) -> dict:
    return {"total": total, "reserved": reserved, "allocation_ratio": ratio, "min_unit": 1,
            "max_unit": total, "step_size": 1}


class PlacementTest(cloud.CloudTestCase):
    def setUp(self):
        super().setUp()
        self.client = placement.PlacementClient(self.conf)
        self.http.get(PROVIDERS, json={"resource_providers": [
            {"uuid": "rp-a", "name": "cmpa", "generation": 1},
            {"uuid": "rp-b", "name": "cmpb.example", "generation": 1}]})

    def _holds(self, uuid: str, inventories: dict, usages: dict) -> None:
        self.http.get(f"{PROVIDERS}/{uuid}/inventories", json={
            "inventories": inventories, "resource_provider_generation": 1})
        self.http.get(f"{PROVIDERS}/{uuid}/usages", json={
            "usages": usages, "resource_provider_generation": 1})

    def test_what_is_free_counts_ratio_reserve_and_use(self):
        self._holds("rp-a",
                    {"VCPU": inventory(8, 1, 4.0), "MEMORY_MB": inventory(16384, 512, 1.5),
                     "DISK_GB": inventory(100, 10), "PCPU": inventory(4)},
                    {"VCPU": 3, "MEMORY_MB": 1024, "DISK_GB": 20, "PCPU": 1})

        # (8-1)*4-3, (16384-512)*1.5-1024 MiB, 100-10-20, 4-1
        self.assertEqual(
            {"cmpa": {"vcpus": 25, "memory_bytes": 22784 << 20, "disk_gb": 70, "pcpus": 3}},
            self.client.free_capacity(["cmpa"]))

    def test_an_over_committed_host_has_less_than_nothing(self):
        self._holds("rp-a", {"MEMORY_MB": inventory(1024), "DISK_GB": inventory(1)},
                    {"MEMORY_MB": 2048})

        free = self.client.free_capacity(["cmpa"])["cmpa"]

        self.assertEqual((-1024 << 20, 0), (free["memory_bytes"], free["vcpus"]))

    def test_a_host_whose_hypervisor_has_another_name(self):
        self._holds("rp-b", {"VCPU": inventory(2), "DISK_GB": inventory(1)}, {})

        self.assertEqual({}, self.client.free_capacity(["cmpb"]))
        self.assertEqual(
            2, self.client.free_capacity(["cmpb"], {"cmpb": "cmpb.example"})["cmpb"]["vcpus"])

    def test_disk_that_is_shared_is_looked_up_where_it_is(self):
        self._holds("rp-a", {"VCPU": inventory(2)}, {})
        self._holds("rp-s", {"DISK_GB": inventory(1000, 100)}, {"DISK_GB": 300})
        self.http.get(f"{PROVIDERS}/rp-a/aggregates", json={"aggregates": ["agg-1", "agg-2"]})
        self.http.get(f"{PROVIDERS}?member_of=in:agg-1,agg-2&required=MISC_SHARES_VIA_AGGREGATE",
                      json={"resource_providers": [{"uuid": "rp-s", "name": "nfs"}]})

        self.assertEqual(600, self.client.free_capacity(["cmpa"])["cmpa"]["disk_gb"])

    def test_disk_that_nobody_accounts_is_unknown(self):
        self._holds("rp-a", {"VCPU": inventory(2)}, {})
        self.http.get(f"{PROVIDERS}/rp-a/aggregates", json={"aggregates": []})

        self.assertIsNone(self.client.free_capacity(["cmpa"])["cmpa"]["disk_gb"])

    def test_allocations_by_the_providers_name(self):
        self.http.get(f"{PLACEMENT}/allocations/s-1", json={"allocations": {
            "rp-a": {"generation": 1, "resources": {"VCPU": 1, "MEMORY_MB": 128}},
            "rp-z": {"generation": 1, "resources": {"DISK_GB": 1}}}})
        self.http.get(f"{PROVIDERS}?uuid=rp-a", json={"resource_providers": [
            {"uuid": "rp-a", "name": "cmpa"}]})
        self.http.get(f"{PROVIDERS}?uuid=rp-z", json={"resource_providers": []})

        self.assertEqual({"cmpa": {"VCPU": 1, "MEMORY_MB": 128}, "rp-z": {"DISK_GB": 1}},
                         self.client.allocations("s-1"))

    def test_a_consumer_without_allocations_holds_nothing(self):
        self.http.get(f"{PLACEMENT}/allocations/s-1", json={"allocations": {}})

        self.assertEqual({}, self.client.allocations("s-1"))

    def test_a_refusal_is_told_in_placements_words(self):
        self.http.get(PROVIDERS, status_code=403, json={"errors": [{
            "status": 403, "title": "Forbidden", "request_id": "req-1",
            "detail": "Access was denied to this resource.\n\n Policy does not allow it.  "}]})

        error = self.assertRaises(exception.NovaPermanentError,
                                  self.client.free_capacity, ["cmpa"])

        self.assertIn("Policy does not allow it", str(error))

    def test_the_microversion_is_fixed(self):
        self.client.free_capacity([])

        self.assertEqual(f"placement {placement.MICROVERSION}",
                         self.asked("/resource_providers")[0].headers["OpenStack-API-Version"])
