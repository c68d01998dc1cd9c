import os
import tempfile

import oslo_messaging as messaging
from oslotest import base

from nova_batch_migrate import conf, exception
from nova_batch_migrate.agent import manager, relays
from nova_batch_migrate.relay import control


class Relay:
    """What stands behind the control socket."""

    def hello(self):
        return {"version": "1", "name": "cmpa", "port": 49300, "groups": 0,
                "dictionary_bytes": 5, "dictionary_free_bytes": 5}

    def open_group(self, group):
        raise exception.RelayError(reason="this is no group: no members")

    def leave_group(self, group_id, server_id):
        self.left = (group_id, server_id)
        return {}

    def limit(self, group_id, bytes_per_second):
        self.limited = (group_id, bytes_per_second)
        return {}

    def close_group(self, group_id):
        return {"raw_bytes": 7}

    def statistics(self):
        return {"groups": []}


class Relays(base.BaseTestCase):
    def setUp(self):
        super().setUp()
        directory = tempfile.TemporaryDirectory()
        self.addCleanup(directory.cleanup)
        self.nova_conf = os.path.join(directory.name, "nova.conf")
        self.conf = conf.new()
        self.conf([], default_config_files=[])
        self.conf.set_override("host", "cmpa")
        self.conf.set_override("control_socket", os.path.join(directory.name, "s"), "relay")
        self.conf.set_override("nova_config_files", [self.nova_conf], "agent")
        self.relay = Relay()
        self.manager = manager.AgentManager(self.conf, None, None, None)

    def start(self):
        server = control.Server(self.conf.relay.control_socket, None, self.relay)
        server.start()
        self.addCleanup(server.stop)

    def test_without_a_relay_there_is_none_and_what_is_asked_of_it_is_refused(self):
        self.assertIsNone(relays.describe(self.conf))
        self.assertIsNone(self.manager.relay(None))
        error = self.assertRaises(exception.AgentRefused, self._relayed, "close_group",
                                  group_id="g")
        self.assertIn("does not answer", str(error))

    def _relayed(self, method, **arguments):
        """Call a method; raise what it refuses with as it was raised."""
        try:
            return getattr(self.manager, method)(None, **arguments)
        except messaging.ExpectedException as error:
            raise error.exc_info[1] from None

    def test_its_address_is_where_migrations_come_in(self):
        self.start()
        self.assertEqual(("cmpa", 49300), self._where())
        with open(self.nova_conf, "w") as file:
            file.write("[libvirt]\nlive_migration_inbound_addr = 192.0.2.7\n")
        self.assertEqual(("192.0.2.7", 49300), self._where())

    def _where(self):
        found = relays.describe(self.conf)
        return found["address"], found["port"]

    def test_a_refusal_of_the_relay_is_one_of_the_agent(self):
        self.start()
        error = self.assertRaises(exception.AgentRefused, self._relayed, "open_group", group={})
        self.assertEqual("this is no group: no members", str(error))

    def test_what_conductors_ask_reaches_the_relay(self):
        self.start()
        self.assertEqual({"raw_bytes": 7}, self._relayed("close_group", group_id="g"))
        self._relayed("leave_group", group_id="g", server="s")
        self._relayed("limit_group", group_id="g", bytes_per_second=9.0)
        self.assertEqual({"groups": []}, self._relayed("relay_statistics"))
        self.assertEqual((("g", "s"), ("g", 9.0)), (self.relay.left, self.relay.limited))
