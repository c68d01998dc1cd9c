import ddt
from oslotest import base

from nova_batch_migrate.conductor import survey
from tests.unit.conductor import build


@ddt.ddt
class SurveyTest(base.BaseTestCase):
    def _one(self, include_locked=False, groups=(), **changes):
        return survey.survey([build.server(**changes)], groups, include_locked)

    def test_an_active_server_moves(self):
        self.assertEqual(("s1",), tuple(s.id for s in self._one().movable))
        self.assertEqual(1, len(self._one(vm_state="paused", status="PAUSED").movable))

    @ddt.data(
        ({"locked": True}, "certain", "openstack server unlock s1"),
        ({"vm_state": "stopped"}, "certain", "openstack server migrate --wait s1"),
        ({"vm_state": "suspended"}, "certain", "openstack server resume s1"),
        ({"vm_state": "rescued"}, "certain", "openstack server unrescue s1"),
        ({"vm_state": "resized"}, "certain", "openstack server resize confirm s1"),
        ({"vm_state": "error"}, "certain", "openstack server set --state active s1"),
        ({"extra_specs": {"hw:mem_encryption": "True"}}, "certain", survey.COLD),
        ({"image_properties": {"hw_mem_encryption": "true"}}, "certain", survey.COLD),
        ({"extra_specs": {"hw:tpm_version": "2.0"}}, "certain", survey.COLD),
        ({"extra_specs": {"accel:device_profile": "gpu"}}, "certain", survey.COLD),
        ({"extra_specs": {"pci_passthrough:alias": "gpu:1"}}, "likely", survey.COLD),
    )
    @ddt.unpack
    def test_who_stays_and_what_would_move_it(self, changes, certainty, command):
        looked = self._one(**changes)
        self.assertEqual((), looked.movable + looked.busy)
        why, = looked.staying
        self.assertEqual((certainty, command.format(id="s1"), "cmpa"),
                         (why.certainty, why.command, why.source))
        self.assertTrue(why.reason)

    def test_what_does_migrate(self):
        for specs in ({"hw:tpm_version": "2.0", "hw:tpm_secret_security": "host"},
                      {"hw:cpu_policy": "dedicated"}, {"hw:numa_nodes": "2"},
                      {"hw:mem_encryption": "False"}):
            self.assertEqual(1, len(self._one(extra_specs=specs).movable), specs)

    def test_locked_ones_on_request(self):
        self.assertEqual(1, len(self._one(include_locked=True, locked=True).movable))

    def test_busy_ones_are_waited_for_but_not_for_ever(self):
        looked = self._one(vm_state="building", task_state="spawning")
        self.assertEqual(1, len(looked.busy))
        given_up = survey.give_up_on_busy(looked, {})
        self.assertEqual((0, 1), (len(given_up.busy), len(given_up.staying)))
        self.assertIn("spawning", given_up.staying[0].reason)

    def test_who_is_another_batchs_is_waited_for_and_then_left_to_it(self):
        looked = survey.leave_to_others(self._one(), {"s1": "b2"})
        self.assertEqual((0, 1), (len(looked.movable), len(looked.busy)))
        given_up = survey.give_up_on_busy(looked, {"s1": "b2"})
        why, = given_up.staying
        self.assertEqual(("batch migration b2 has it",
                          "openstack server batch migration show b2"), (why.reason, why.command))

    def test_hard_affinity_ties_a_server_only_to_others(self):
        group = {"id": "g", "name": "pair", "policy": "affinity", "members": ["s1", "s2"]}
        self.assertIn("pair", self._one(groups=[group]).staying[0].reason)
        for harmless in (group | {"members": ["s1"]}, group | {"policy": "soft-affinity"},
                         group | {"policy": "anti-affinity"}, group | {"members": ["x", "y"]}):
            self.assertEqual(1, len(self._one(groups=[harmless]).movable), harmless)
