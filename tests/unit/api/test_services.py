"""The way to the conductors, on oslo.messaging's in-process bus."""

import threading

import fixtures
import oslo_messaging as messaging
from oslotest import base

from nova_batch_migrate import conf as own_conf
from nova_batch_migrate import context, exception, rpc
from nova_batch_migrate.api import services


class Endpoint:
    """A conductor that knows no batch."""

    target = messaging.Target(version="1.0")

    def list(self, ctxt, filters, limit, marker):
        return []

    def get(self, ctxt, batch_id):
        raise exception.BatchNotFound(batch_id=f"{batch_id} of {ctxt.user_id}")


class ConductorLinkTest(base.BaseTestCase):
    def setUp(self):
        super().setUp()
        (path,) = self.create_tempfiles([("own", "[DEFAULT]\ntransport_url = fake:/\n")], ".conf")
        self.conf = own_conf.new()
        own_conf.parse(self.conf, [], [path])
        self.conf.set_override("conductor_timeout_seconds", 60, "api")
        # the in-process bus is one for all tests of a process
        self.useFixture(fixtures.MonkeyPatch(
            "nova_batch_migrate.rpc.CONDUCTOR_TOPIC", self.id()))
        self.link = services.ConductorLink(self.conf)

    def serve(self):
        server = rpc.get_server(rpc.get_transport(self.conf), rpc.conductor_target("one"),
                                [Endpoint()])
        server.start()
        self.addCleanup(server.wait)
        self.addCleanup(server.stop)

    def replace_client(self, **methods):
        """Put a client of ``methods`` where the RPC client would be made."""
        made = []

        def make(conf):
            made.append(type("Client", (), {name: staticmethod(method)
                                            for name, method in methods.items()})())
            return made[-1]
        self.useFixture(fixtures.MonkeyPatch(
            "nova_batch_migrate.conductor.rpcapi.ConductorAPI", make))
        return made

    def test_calls_and_errors_cross(self):
        self.serve()
        caller = context.RequestContext(user_id="operator", overwrite=False)
        error = self.assertRaises(exception.BatchNotFound, self.link.client().get, caller, "7")
        self.assertIn("7 of operator", error.args[0])

    def test_one_client_for_all_requests(self):
        made = self.replace_client(list=lambda *_: [])
        self.assertIs(self.link.client(), self.link.client())
        self.assertEqual(1, len(made))

    def test_nobody_listens(self):
        self.conf.set_override("conductor_timeout_seconds", 1, "api")
        error = self.assertRaises(exception.ConductorUnavailable, self.link.client)
        self.assertIn("within 1 seconds", str(error))

    def test_nothing_is_sent_while_the_bus_is_out_of_reach(self):
        self.conf.set_override("conductor_timeout_seconds", 1, "api")
        back, sent = threading.Event(), []
        self.addCleanup(back.set)
        self.replace_client(list=lambda *_: back.wait(30), create=lambda *_: sent.append("create"))
        self.assertRaises(exception.ConductorUnavailable, self.link.client)
        back.set()
        self.link._reached.wait(30)
        self.assertEqual([], sent)
        self.link.client().create({}, {})
        self.assertEqual(["create"], sent)

    def test_knocks_again_when_the_broker_drops_it(self):
        answers = iter([messaging.MessageDeliveryFailure("gone"), None])

        def knock(*_):
            answer = next(answers)
            if answer:
                raise answer
        self.replace_client(list=knock)
        self.assertIsNotNone(self.link.client())
        self.assertIsNone(next(answers, None))

    def test_any_answer_shows_that_the_bus_is_there(self):
        def knock(*_):
            raise messaging.RemoteError("OperationalError", "database is locked")
        self.replace_client(list=knock)
        self.assertIsNotNone(self.link.client())
