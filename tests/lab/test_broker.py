"""What the broker lets a compute host's user do: its own queues, answers, and nothing of another
host.

Run by tools/test lab on a lab that is up; makes one queue of its own that goes with the connection.
"""
import pathlib
import sys

import amqp.exceptions
import kombu
from oslotest import base

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[2] / "lab"))

from nbmlab import layout  # noqa: E402

AGENTS = kombu.Exchange("nova_batch_agent", type="topic", durable=False)


class AgentUserTestCase(base.BaseTestCase):
    """Speaks to RabbitMQ as agent-cmpa."""

    def setUp(self):
        super().setUp()
        self.channel = self._channel("agent-cmpa", "batch-agents")
        self.queue = kombu.Queue("nova_batch_agent.cmpa_probe", AGENTS, channel=self.channel,
                                 routing_key="nova_batch_agent.cmpa_probe", exclusive=True,
                                 durable=False)

    def _channel(self, user, vhost):
        connection = kombu.Connection(
            f"amqp://{user}:{user}@{layout.CONTROLLER}:{layout.RABBIT_PORT}/{vhost}",
            transport_options={"confirm_publish": True}, connect_timeout=60)
        self.addCleanup(connection.release)
        return connection.channel()

    def _refused(self, action, *args, **kwargs):
        error = self.assertRaises(amqp.exceptions.AccessRefused, action, *args, **kwargs)
        self.assertEqual(403, error.reply_code)

    def test_its_own_queue_is_its_own(self):
        self.queue.declare()
        self.assertIsNone(self.queue.get(no_ack=True))

    def test_another_hosts_queue_cannot_be_read(self):
        self._refused(kombu.Queue("nova_batch_agent.cmpb", channel=self.channel).get)

    def test_another_hosts_queue_cannot_be_emptied(self):
        self._refused(kombu.Queue("nova_batch_agent.cmpb", channel=self.channel).purge)

    def test_another_hosts_messages_cannot_be_copied_into_an_own_queue(self):
        self.queue.declare()
        self._refused(self.queue.bind_to, AGENTS, routing_key="nova_batch_agent.cmpb")

    def test_no_call_can_be_sent_to_another_agent_over_the_exchange(self):
        self.queue.declare()
        self._refused(kombu.Producer(self.channel, AGENTS).publish, {},
                      routing_key="nova_batch_agent.cmpb")

    def test_the_conductors_reply_queues_cannot_be_read(self):
        self._refused(kombu.Queue("reply_0123", channel=self.channel).get)

    def test_the_bus_of_the_api_is_closed(self):
        self.assertRaises(amqp.exceptions.NotAllowed, self._channel, "agent-cmpa", "batch")
