"""oslo.messaging as this project uses it: two buses, JSON payloads, our context and exceptions.

API and conductors share the bus of ``[DEFAULT] transport_url``; conductors and agents that of
``[agent_transport]``, so that a compute host never sees what the API says.
"""

import copy

import oslo_messaging as messaging
from oslo_serialization import jsonutils
from oslo_utils import importutils

from nova_batch_migrate import context

CONDUCTOR_EXCHANGE = "nova_batch"
CONDUCTOR_TOPIC = "nova_batch_conductor"
AGENT_EXCHANGE = "nova_batch_agent"
SEND_RETRIES = 2
REMOTE_EXCEPTION_MODULES = ["nova_batch_migrate.exception"]


class ContextSerializer(messaging.Serializer):
    """Sends entities as JSON primitives and contexts as dictionaries."""

    def serialize_entity(self, ctxt, entity):
        return jsonutils.to_primitive(entity, convert_instances=True)

    def deserialize_entity(self, ctxt, entity):
        return entity

    def serialize_context(self, ctxt):
        return ctxt.to_dict()

    def deserialize_context(self, ctxt):
        return context.RequestContext.from_dict(ctxt)


def _register_messaging_options(conf):
    """Register what oslo.messaging 18 reads from any conf, but registers on its global one only."""
    for group in ("oslo_messaging_metrics", "oslo_messaging_tracing"):
        name = group.removeprefix("oslo_messaging")
        module = importutils.try_import(f"oslo_messaging.{name}.client")
        conf.register_opts(getattr(module, group, []), group=group)


def get_transport(conf):
    """Return the transport between API and conductors."""
    _register_messaging_options(conf)
    return messaging.get_rpc_transport(conf, allowed_remote_exmods=REMOTE_EXCEPTION_MODULES)


def get_agent_transport(conf):
    """Return the transport between conductors and agents."""
    _register_messaging_options(conf)
    return messaging.get_rpc_transport(
        conf,
        url=conf.agent_transport.transport_url or None,
        allowed_remote_exmods=REMOTE_EXCEPTION_MODULES,
    )


def conductor_target(server: str | None = None) -> messaging.Target:
    """Return the target of any conductor, or of the one named ``server``."""
    return messaging.Target(exchange=CONDUCTOR_EXCHANGE, topic=CONDUCTOR_TOPIC, server=server,
                            version="1.0")


def agent_target(host: str) -> messaging.Target:
    """Return the target of the agent of ``host``; each host has a topic of its own."""
    return messaging.Target(exchange=AGENT_EXCHANGE, topic=f"{AGENT_EXCHANGE}.{host}", server=host,
                            version="1.1")


def get_client(transport, target, timeout: float):
    """Return a client whose calls give up after ``timeout`` seconds.

    Without a broker they raise MessageDeliveryFailure after a few attempts; only the first call of
    a process waits for the broker without an end, oslo.messaging has no bound for that one.
    """
    return messaging.get_rpc_client(transport, copy.copy(target), timeout=timeout,
                                    serializer=ContextSerializer(), retry=SEND_RETRIES)


def get_server(transport, target, endpoints: list):
    """Return a server (threads) for the endpoints; the caller starts and stops it."""
    return messaging.get_rpc_server(
        transport, target, endpoints, executor="threading", serializer=ContextSerializer(),
        access_policy=messaging.DefaultRPCAccessPolicy)
