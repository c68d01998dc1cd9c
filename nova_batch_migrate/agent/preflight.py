"""What an operator should know of a host before its servers move: versions, options, problems.

Called by manager.py. Only looks; every problem is a sentence that says what to do.
"""

import pathlib

from oslo_log import log

from nova_batch_migrate import exception, privsep, version
from nova_batch_migrate.agent import bandwidth, nova_options, relays, scan

LOG = log.getLogger(__name__)

_KSM = pathlib.Path("/sys/kernel/mm/ksm")
_KSM_FIGURES = ("run", "pages_shared", "pages_sharing")
#: QEMU 7.2 without KVM loses memory of busy guests in live migration; 10.0 was seen not to.
_SAFE_TCG_MAJOR = 10


def check(conf, hypervisor) -> dict:
    """Return versions, accelerator, the Nova options that decide, KSM and problems.

    Answers also where libvirt or the privileged process do not: those are problems then.
    """
    problems = []
    libvirt_version = qemu_version = None
    accelerator = "unknown"
    try:
        libvirt_version, qemu_version = hypervisor.versions()
        accelerator = _accelerator(hypervisor)
    except exception.BatchMigrateError as error:
        problems.append(str(error))
    options = nova_options.read(conf.agent.nova_config_files)
    problems += _qemu_problems(accelerator, qemu_version)
    problems += _configuration_problems(conf, options)
    problems += privilege_problems()
    return {
        "host": conf.host,
        "agent_version": version.version_string(),
        "libvirt_version": libvirt_version,
        "qemu_version": qemu_version,
        "accelerator": accelerator,
        "nova_options": options,
        "ksm": _ksm(),
        "relay": relays.describe(conf),
        "problems": problems,
    }


def _accelerator(hypervisor) -> str:
    """Return kvm or tcg as the domains here run, else as libvirt would run one."""
    kinds = {domain.definition.virt_type for domain in hypervisor.domains()}
    if not kinds:
        kinds = {hypervisor.default_virt_type()}
    if kinds == {"kvm"}:
        return "kvm"
    return "tcg" if "qemu" in kinds else "unknown"


def _qemu_problems(accelerator: str, qemu_version: str | None) -> list[str]:
    if accelerator == "tcg" and qemu_version \
            and int(qemu_version.split(".")[0]) < _SAFE_TCG_MAJOR:
        return [f"QEMU {qemu_version} runs guests without KVM: 7.2 was seen to lose memory of "
                "busy guests in live migration that way. Use QEMU 10.0 or newer, or KVM."]
    return []


def _configuration_problems(conf, options: dict) -> list[str]:
    problems = []
    unknown = sorted(name for name, value in options.items() if value == nova_options.UNKNOWN)
    if unknown:
        problems.append(
            f"Nova's options {', '.join(unknown)} are unknown and taken as Nova's defaults. Set "
            "[agent] nova_config_files to the files of nova-compute, readable for the agent.")
    interface = conf.agent.migration_interface or bandwidth.find_interface(options)
    if bandwidth.link_speed(conf, interface)[1] == "unknown":
        problems.append(
            f"The speed of the migration link {interface or '(no interface found)'} is unknown, "
            "1 Gbit/s is assumed. Set [agent] link_mib_s (and migration_interface).")
    return problems


def privilege_problems() -> list[str]:
    """Start the privileged process where it is not; return what keeps it from starting."""
    try:
        scan.probe()
    except privsep.FAILURES as error:
        LOG.exception("the privileged process does not start")
        return [f"Guest memory cannot be read: the privileged process does not start ({error}). "
                "Set [nova_batch_memory] helper_command and allow it in sudoers. Until then dirty "
                "rates come from QEMU's page sampling and no common memory is known."]
    return []


def _ksm() -> dict:
    try:
        return {name: int((_KSM / name).read_text()) for name in _KSM_FIGURES}
    except OSError:
        # a kernel without KSM
        return {"run": 0}
