"""Which hosts a plan counts on as having a relay, and who stays because nobody measured it."""

from types import SimpleNamespace

from oslotest import base

from nova_batch_migrate import conf
from nova_batch_migrate.conductor import planner
from nova_batch_migrate.planning.request import RelayHost
from nova_batch_migrate.planning.telemetry import ServerTelemetry

SPEED = {"new_bytes_per_second": 4e8, "known_bytes_per_second": 1e9}


class PlayedRelays:
    def __init__(self, **found):
        self.found, self.asked = found, []

    def describe(self, ctxt, host):
        self.asked.append(host)
        return self.found.get(host)


class RelaysOfTest(base.BaseTestCase):
    def relays_of(self, played, sources=("cmpa", "cmpc"), destinations=("cmpb", "cmpd")):
        made = planner.Planner(conf.CONF, None, None, played)
        return made._relays_of({"request_id": "req-1"}, list(sources), list(destinations))

    def test_hosts_with_a_relay_and_what_it_was_measured_to_do(self):
        played = PlayedRelays(cmpa={"speed": SPEED}, cmpd={},
                              cmpb={"speed": None, "dictionary_bytes": 1 << 30})
        self.assertEqual((RelayHost("cmpa", 4e8, 1e9), RelayHost("cmpb", None, None, 1 << 30)),
                         self.relays_of(played, destinations=("cmpb",)))

    def test_there_is_no_way_with_a_relay_at_one_end_only(self):
        self.assertEqual((), self.relays_of(PlayedRelays(cmpa={"speed": SPEED})))
        alone = PlayedRelays(cmpb={"speed": SPEED})
        self.assertEqual((), self.relays_of(alone))
        self.assertEqual(["cmpa", "cmpc"], alone.asked)

    def test_a_plan_reckons_with_the_smallest_dictionary(self):
        self.assertEqual(512 << 20, planner._dictionary_bytes(()))
        self.assertEqual(1 << 28, planner._dictionary_bytes((
            RelayHost("a"), RelayHost("b", dictionary_bytes=1 << 30),
            RelayHost("c", dictionary_bytes=1 << 28))))

    def test_a_destination_without_room_is_no_end_of_a_way(self):
        relays = tuple(RelayHost(name) for name in ("cmpa", "cmpb", "cmpd"))
        self.assertEqual(relays[:2], planner._usable(relays, {"cmpa"}, {"cmpb": {}, "cmpc": {}}))
        self.assertEqual((), planner._usable(relays, {"cmpa"}, {"cmpc": {}}))


class UnmeasuredTest(base.BaseTestCase):
    ROW = {"server_id": "id-a", "name": "a", "source": "cmpa"}

    def test_whom_the_agent_does_not_mention_stays_and_is_named(self):
        found = planner._unmeasured(self.ROW, [])
        self.assertEqual(("id-a", "likely"), (found.server_id, found.certainty))
        self.assertIn("the agent sent no figures for it", found.reason)
        self.assertIn("server migrate --live-migration --wait id-a", found.command)

    def test_the_agents_words_are_told(self):
        host = SimpleNamespace(servers=(ServerTelemetry("id-a", error="it is migrating"),))
        self.assertIn("it is migrating", planner._unmeasured(self.ROW, [host]).reason)
