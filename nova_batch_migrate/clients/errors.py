"""Decides, by table, which answer of Nova or Placement is worth a retry, and words the error.

Called by the clients for every answer of 400 and above, and by the conductor for the text a failed
migration left behind. A server is never marked as failed for a transient error.
"""

import dataclasses
import re

from keystoneauth1 import exceptions as ks_exc

from nova_batch_migrate import exception

_ANY = frozenset()
ADMIN_HINT = "give the service user the role that this call needs (admin, by default)"
_HTML_TAG = re.compile(r"<[^>]+>")


@dataclasses.dataclass(frozen=True)
class Rule:
    """One line of the table: what it matches, the verdict, why, and what helps."""

    statuses: frozenset[int]  # empty: any status, and texts without one
    pattern: str  # searched in Nova's message, case-insensitively; empty: any message
    transient: bool
    why: str
    hint: str = ""

    def matches(self, status: int | None, message: str) -> bool:
        return ((not self.statuses or status in self.statuses)
                and re.search(self.pattern, message, re.IGNORECASE) is not None)


def _on(*statuses: int) -> frozenset[int]:
    return frozenset(statuses)


# The first match decides. Texts are Nova 34's (nova/exception.py, nova/api/openstack/common.py).
RULES = (
    Rule(_on(401), "", True, "the credentials are the operator's to mend, no server's fault",
         "check the user and password of the service user in the configuration"),
    Rule(_on(403), "", False, "policy will answer the same again",
         ADMIN_HINT),
    Rule(_on(409), r"invalid state for '(abort live migration|force_complete)'", False,
         "no live migration is under way"),
    Rule(_on(409), r"while it is in vm_state (building|rescued|resized)", True,
         "somebody is at work on the server and will finish"),
    Rule(_on(409), r"while it is in vm_state ", False,
         "this state lasts until somebody changes it"),
    Rule(_on(409), r"is locked", False, "only an unlock changes that"),
    Rule(_on(409), r"not supported", False, "the feature stays unsupported (shares)"),
    Rule(_on(409), "", True, "task_state and other conflicts end when the other operation does"),
    Rule(_on(400), r"state of instance \S+ is (accepted|queued|preparing)\. Cannot", True,
         "the migration has not reached the state in which this works"),
    Rule(_ANY, r"Compute service of .* is unavailable", True,
         "a service that missed its heartbeats may come back"),
    Rule(_ANY, r"Connection to the hypervisor is broken", True, "libvirtd may be restarting"),
    Rule(_ANY, r"Timeout while checking|MessagingTimeout|Timed out waiting for a reply", True,
         "the message bus or the other host was slow"),
    Rule(_ANY, r"Binding failed for port", True, "Neutron's agent there may come back"),
    Rule(_ANY, r"No valid host|Exceeded maximum number of retries", False,
         "the scheduler's filters or a pre-check refused this destination",
         "plan another destination"),
    Rule(_ANY, r"Unacceptable CPU info|CPU doesn't have compatibility", False,
         "the destination's CPU lacks what the guest uses", "plan another destination"),
    Rule(_ANY, r"Unable to migrate instance .* to current host", False, "it is there already"),
    Rule(_ANY, r"newer hypervisor version|hypervisor type of is invalid", False,
         "the destination's hypervisor does not fit", "plan another destination"),
    Rule(_ANY, r"is not on (shared|local) storage", False, "the hosts' storage does not fit"),
    Rule(_ANY, r"pre-check error", False, "the destination or the server does not permit it"),
    Rule(_ANY, r"not supported", False, "the server has something that cannot be live-migrated"),
    Rule(_ANY, r"could not be found", False, "it is gone"),
    Rule(_on(408, 413, 425, 429), "", True, "Nova asks to come back later"),
)
_SERVER_ERRORS = Rule(_ANY, "", True, "Nova failed, not the server")
_OTHER_REFUSALS = Rule(_ANY, "", False, "a refusal that no rule knows: repeating won't help")
_UNKNOWN_FAILURE = Rule(_ANY, "", True, "an unknown failure may pass; attempts are bounded")


def judge(status: int | None, message: str) -> Rule:
    """Return the rule that decides on an answer, or on a failure's text when ``status`` is None."""
    for rule in RULES:
        if rule.matches(status, message):
            return rule
    if status is None:
        return _UNKNOWN_FAILURE
    return _SERVER_ERRORS if status >= 500 else _OTHER_REFUSALS


def is_transient_failure(message: str) -> bool:
    """Tell whether a live migration that failed with this text is worth another attempt.

    For texts of ``NovaClient.last_action_error``; what no rule knows is (attempts are bounded).
    """
    return judge(None, message).transient


def message_of(response) -> str:
    """Return the service's own words out of an answer: Nova's, Placement's or Keystone's form."""
    try:
        body = response.json()
    except ValueError:
        text = " ".join(_HTML_TAG.sub(" ", response.text or "").split())
        return text[:500] or f"HTTP {response.status_code} {response.reason or ''}".rstrip()
    if isinstance(body, dict):
        faults = body.get("errors") or list(body.values())
        for fault in faults if isinstance(faults, list) else []:
            if isinstance(fault, dict) and (fault.get("message") or fault.get("detail")):
                return fault.get("message") or " ".join(fault["detail"].split())
    return f"HTTP {response.status_code}: {str(body)[:500]}"


def is_missing(response) -> bool:
    """Tell whether the service itself said that the thing is not there (Nova's 404)."""
    if response.status_code != 404:
        return False
    try:
        return "itemNotFound" in response.json()
    except ValueError:
        return False


def from_response(operation: str, response) -> exception.NovaError:
    """Return the error for an answer of 400 and above; ``operation`` completes 'could not'."""
    message = message_of(response)
    rule = judge(response.status_code, message)
    reason = f"{message} (HTTP {response.status_code})"
    if rule.hint:
        reason = f"{reason}; {rule.hint}"
    if not rule.transient:
        return exception.NovaPermanentError(operation=operation, reason=reason)
    return exception.NovaTransientError(operation=operation, reason=reason,
                                        conflict=response.status_code == 409)


def from_exception(operation: str, error: Exception) -> exception.NovaError:
    """Return the error for a request that got no answer.

    Transient, because servers are not to blame and the request may even have been carried out;
    only what an operator has to change in the configuration is permanent.
    """
    if isinstance(error, ks_exc.HttpError):
        rule = judge(error.http_status, str(error))
        kind = exception.NovaTransientError if rule.transient else exception.NovaPermanentError
        return kind(operation=operation,
                    reason=f"{error}; {rule.hint}" if rule.hint else str(error))
    if isinstance(error, ks_exc.MissingRequiredOptions | ks_exc.NoMatchingPlugin
                  | ks_exc.EndpointNotFound | ks_exc.MissingAuthPlugin):
        return exception.NovaPermanentError(
            operation=operation,
            reason=f"{error}. Check auth_type, auth_url, region_name and valid_interfaces in the "
                   "service's section of the configuration")
    return exception.NovaTransientError(operation=operation,
                                        reason=f"{type(error).__name__}: {error}")
