import os
import pathlib
import stat
import tempfile

from oslotest import base

from nova_batch_migrate import exception
from nova_batch_migrate.relay import control


class Relay:
    def hello(self):
        return {"name": "cmpa"}

    def open_group(self, group):
        if "members" not in group:
            raise exception.RelayError(reason="this is no group")
        self.opened = group
        return {}

    def close_group(self, group_id):
        return {"id": group_id, "raw_bytes": 5}

    def limit(self, group_id, bytes_per_second):
        self.limited = (group_id, bytes_per_second)
        return {}

    def statistics(self):
        raise ZeroDivisionError("a bug")


class Control(base.BaseTestCase):
    def setUp(self):
        super().setUp()
        directory = tempfile.TemporaryDirectory()
        self.addCleanup(directory.cleanup)
        self.path = os.path.join(directory.name, "run", "control.sock")
        self.relay = Relay()
        self.server = control.Server(self.path, None, self.relay)
        self.server.start()
        self.addCleanup(self.server.stop)
        self.client = control.Client(self.path)

    def test_questions_and_answers(self):
        self.assertEqual({"name": "cmpa"}, self.client.hello())
        self.client.open_group({"members": []})
        self.assertEqual({"members": []}, self.relay.opened)
        self.client.limit("g", None)
        self.assertEqual(("g", None), self.relay.limited)
        self.assertEqual(5, self.client.close_group("g")["raw_bytes"])

    def test_a_refusal_comes_with_its_reason_and_the_relay_goes_on(self):
        error = self.assertRaises(exception.RelayError, self.client.open_group, {})
        self.assertIn("this is no group", str(error))
        error = self.assertRaises(exception.RelayError, self.client.statistics)
        self.assertIn("a bug", str(error))
        self.assertEqual({"name": "cmpa"}, self.client.hello())

    def test_only_owner_and_group_may_ask(self):
        self.assertEqual(0o660, stat.S_IMODE(pathlib.Path(self.path).stat().st_mode))

    def test_commands_that_are_none(self):
        for line in (b"{}", b"[]", b"nonsense", b'{"command": "stop"}',
                     b'{"command": "hello", "arguments": [1]}'):
            self.assertIn("error", control._answer(self.relay, line))

    def test_a_socket_left_by_a_killed_relay_is_taken_over(self):
        second = control.Server(self.path, None, self.relay)
        second.start()
        self.addCleanup(second.stop)
        self.assertEqual({"name": "cmpa"}, self.client.hello())

    def test_without_a_relay_the_error_says_so(self):
        error = self.assertRaises(exception.RelayUnavailable,
                                  control.Client("/nonexistent/sock").hello)
        self.assertIn("does not answer at /nonexistent/sock", str(error))
