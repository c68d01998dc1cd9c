"""The privileged processes of the agent: they may look into the memory of QEMU, and nothing else.

Entry points below ``nova_batch_migrate`` are marked with ``memory_pctxt.entrypoint``, and the one
that needs more with ``frames_pctxt.entrypoint``; they give back counts and keyed sketches, never
pages or hashes of pages (design 5).
"""

from oslo_config import cfg
from oslo_privsep import capabilities, daemon, priv_context

SECTION = "nova_batch_memory"

memory_pctxt = priv_context.PrivContext(
    "nova_batch_migrate",
    cfg_section=SECTION,
    pypath=f"{__name__}.memory_pctxt",
    # /proc/PID/mem of another user's process: tracing rights, and the file is that user's.
    capabilities=[capabilities.CAP_SYS_PTRACE, capabilities.CAP_DAC_READ_SEARCH],
)
# A measurement holds one thread for minutes; asking for its progress must find another free.
cfg.CONF.set_default("thread_pool_size", 4, group=SECTION)

FRAMES_SECTION = "nova_batch_frames"

# A process of its own, started only where [agent] mapped_pages is set.
frames_pctxt = priv_context.PrivContext(
    "nova_batch_migrate",
    cfg_section=FRAMES_SECTION,
    pypath=f"{__name__}.frames_pctxt",
    # The kernel shows the frame numbers in /proc/PID/pagemap to CAP_SYS_ADMIN only.
    capabilities=[capabilities.CAP_SYS_PTRACE, capabilities.CAP_DAC_READ_SEARCH,
                  capabilities.CAP_SYS_ADMIN],
)

#: What calling an entry point raises when the process does not start, or dies.
FAILURES = (daemon.FailedToDropPrivileges, daemon.ProtocolError, OSError)
