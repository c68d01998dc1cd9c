"""What may be asked of a new batch migration, and of their list."""

from nova_batch_migrate.api.schemas import parameter_types as types

MAX_PARALLEL = 100
MAX_BANDWIDTH_MIB_S = 1 << 20
MAX_WAIT_SECONDS = 7 * 24 * 3600
STATUSES = ("accepted", "measuring", "planned", "running", "paused", "aborting", "completed",
            "partial", "aborted", "failed")

FIELDS = {
    "hosts": types.hosts("to empty"),
    "servers": types.servers(1, "to move"),
    "target_hosts": types.hosts("that servers may move to; without the field any host will do"),
    "exclude_hosts": types.hosts("that no server may move to; leave the field out for none"),
    "strategy": types.one_of("group", "pair", "none"),
    "plan_only": types.BOOLEAN,
    "max_bandwidth_mib_s": types.integer(1, MAX_BANDWIDTH_MIB_S,
                                         "what the whole batch may send in MiB/s"),
    "max_parallel": types.integer(1, MAX_PARALLEL, "how many migrations may run at once"),
    "synchronized": {
        "description": "the word server-groups, or a list of lists of at least two servers that "
                       "move together",
        "if": {"type": "string"},
        "then": {"enum": ["server-groups"],
                 "description": "the word server-groups, or a list of lists of servers"},
        "else": {"type": "array", "minItems": 1, "maxItems": types.MAX_SERVERS,
                 "items": types.servers(2, "that move together"),
                 "description": "the word server-groups, or a list of lists of servers"},
    },
    "on_non_convergence": types.one_of("skip", "pause", "post-copy", "auto-converge"),
    "max_wait_seconds": types.integer(0, MAX_WAIT_SECONDS,
                                      "how long a server may wait for a better moment"),
    "not_before": types.MOMENT,
    "deadline": types.MOMENT,
    "dedup_scope": types.one_of("project", "host", "off"),
    "include_locked": types.BOOLEAN,
    "stopped": types.one_of("leave", "cold-migrate"),
    "leave_disabled": types.BOOLEAN,
    "fallback": types.one_of("plain", "refuse"),
    "urgent": types.BOOLEAN,
}

CREATE = types.record(
    'an object of the form {"batch_migration": {"hosts": ["HOST"]}}',
    {"batch_migration": types.record(
        "an object with either hosts or servers, and not both", FIELDS,
        oneOf=[{"required": ["hosts"]}, {"required": ["servers"]}])},
    required=["batch_migration"])

INDEX = types.record("query parameters", {
    "limit": types.LIMIT,
    "marker": {"type": "string", "format": "name", "maxLength": types.MAX_NAME_CHARACTERS,
               "description": "the id of the last batch migration of the page before"},
    "status": types.one_of(*STATUSES),
    "host": types.HOST,
})
