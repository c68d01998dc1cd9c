"""ML2 mechanism driver of the lab, loaded by neutron-server: binds every port, without an agent,
as a tap.

Nova then makes the tap device on whatever host the server is; hold-host puts it on that host's
bridge.
"""
from neutron_lib.api.definitions import portbindings
from neutron_lib.plugins.ml2 import api


class TapMechanismDriver(api.MechanismDriver):
    """Binds to the first segment, on any host."""

    def initialize(self):
        """Nothing to prepare: bindings depend on no agent and no state."""

    def bind_port(self, context):
        """Bind the port to its first segment as a plain tap device."""
        segment = context.segments_to_bind[0]
        context.set_binding(segment[api.ID], "tap", {portbindings.CAP_PORT_FILTER: False},
                            status="ACTIVE")
