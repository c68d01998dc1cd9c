"""Every error this project raises across its rooms, RPC included.

``code`` is what the API answers; only the API's edge turns it into HTTP. A message says what to
do next.
Instances keep their keyword arguments, because oslo.messaging rebuilds them on the caller's side.
"""


class BatchMigrateError(Exception):
    """Base of all; ``msg_fmt`` is filled from the keyword arguments unless ``message`` is given."""

    msg_fmt = "An unexpected error occurred; see the log of nova-batch-conductor."
    code = 500

    def __init__(self, message: str | None = None, **kwargs):
        self.kwargs = kwargs
        super().__init__(message or self.msg_fmt % kwargs)

    @property
    def text(self) -> str:
        """The message alone: ``str()`` of an error that came over RPC has a traceback behind it."""
        return str(self.args[0])

    def __str__(self) -> str:
        return self.text


class InvalidInput(BatchMigrateError):
    msg_fmt = "Invalid input: %(reason)s"
    code = 400


class FieldNotSupported(BatchMigrateError):
    msg_fmt = "%(field)s = %(value)s is not built yet. Leave the field out, or use: %(supported)s."
    code = 400


class HostNotFound(BatchMigrateError):
    msg_fmt = (
        "Nova knows no compute host %(host)s. List the hosts with: "
        "openstack compute service list --service nova-compute"
    )
    code = 400


class ServerNotFound(BatchMigrateError):
    msg_fmt = (
        "Nova knows no server %(server)s. List the servers of a host with: "
        "openstack server list --all-projects --host HOST"
    )
    code = 400


class BatchNotFound(BatchMigrateError):
    msg_fmt = (
        "There is no batch migration %(batch_id)s. List them with: "
        "openstack server batch migration list"
    )
    code = 404


class BatchConflict(BatchMigrateError):
    msg_fmt = "%(reason)s"
    code = 409


class InvalidBatchState(BatchMigrateError):
    msg_fmt = (
        "Cannot %(action)s batch migration %(batch_id)s while it is %(status)s; "
        "this works while it is: %(allowed)s."
    )
    code = 409


class Forbidden(BatchMigrateError):
    msg_fmt = "Policy doesn't allow %(action)s to be performed."
    code = 403


class ConductorUnavailable(BatchMigrateError):
    msg_fmt = (
        "No nova-batch-conductor answered within %(seconds)s seconds. Check that one is running "
        "and reaches the message bus, then look at the list of batch migrations before you repeat "
        "the request."
    )
    code = 503


class AgentUnavailable(BatchMigrateError):
    msg_fmt = (
        "The nova-batch-agent of host %(host)s does not answer. Check that it is running there "
        "and reaches the message bus of [agent_transport]."
    )
    code = 503


class AgentRefused(BatchMigrateError):
    msg_fmt = "%(reason)s"
    code = 400


class NovaError(BatchMigrateError):
    """``operation`` is what was asked of Nova, ``reason`` Nova's own words."""

    msg_fmt = "Nova could not %(operation)s: %(reason)s"
    code = 502


class NovaTransientError(NovaError):
    """Worth a retry with back-off; says nothing about the server."""

    @property
    def conflict(self) -> bool:
        """Whether Nova said that another operation is in the way: nothing has begun."""
        return self.kwargs.get("conflict", False)


class NovaPermanentError(NovaError):
    """A retry would end the same way."""


class PlanningError(BatchMigrateError):
    msg_fmt = "No plan could be made: %(reason)s"
    code = 500

    @property
    def reason(self) -> str:
        """The reason alone, for a plan that is made all the same."""
        return self.kwargs.get("reason", self.text)


class RelayError(BatchMigrateError):
    """What a relay cannot do; the migration then goes the plain way or fails cleanly."""

    msg_fmt = "The relay cannot do this: %(reason)s"
    code = 502


class RelayUnavailable(RelayError):
    msg_fmt = (
        "nova-batch-relay does not answer at %(socket)s. Start it there, or leave "
        "[relay] control_socket as it is and do without: migrations then go the plain way."
    )
    code = 503
