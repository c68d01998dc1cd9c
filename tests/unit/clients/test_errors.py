"""The table of errors, line by line, with Nova 34's own texts."""

import ddt
import requests
from keystoneauth1 import exceptions as ks_exc
from oslotest import base

from nova_batch_migrate import exception
from nova_batch_migrate.clients import errors

ID = "cc72a6cf-574a-4f54-935b-108174f460eb"
TRANSIENT, PERMANENT = exception.NovaTransientError, exception.NovaPermanentError


def cannot(attribute: str, state: str, action: str = "os-migrateLive") -> str:
    return f"Cannot '{action}' instance {ID} while it is in {attribute} {state}"


def answer(status: int, body=None, text: str | None = None) -> requests.Response:
    response = requests.Response()
    response.status_code = status
    response.reason = "Because"
    if text is not None:
        response._content = text.encode()
    else:
        response._content = requests.compat.json.dumps(body).encode()
    return response


@ddt.ddt
class VerdictTest(base.BaseTestCase):
    @ddt.data(
        # another operation on the server, or a conflict nobody knows: it will end
        (409, cannot("task_state", "migrating"), TRANSIENT),
        (409, cannot("task_state", "rebooting"), TRANSIENT),
        (409, cannot("vm_state", "building"), TRANSIENT),
        (409, cannot("vm_state", "resized"), TRANSIENT),
        (409, f"Instance {ID} is in an invalid state for 'os-migrateLive'", TRANSIENT),
        (409, f"Instance {ID} is not ready", TRANSIENT),
        (409, "There is a conflict.", TRANSIENT),
        # a state that stays
        (409, cannot("vm_state", "error"), PERMANENT),
        (409, cannot("vm_state", "stopped"), PERMANENT),
        (409, cannot("vm_state", "suspended"), PERMANENT),
        (409, f"Instance {ID} is locked", PERMANENT),
        (409, "Feature not supported with instances that have shares.", PERMANENT),
        (409, "Feature not supported until computes have not been updated.", PERMANENT),
        # abort and force-complete of what is over, or not yet there
        (409, f"Instance {ID} is in an invalid state for 'abort live migration'", PERMANENT),
        (409, f"Instance {ID} is in an invalid state for 'force_complete'", PERMANENT),
        (409, cannot("task_state", "rebooting", "abort live migration"), TRANSIENT),
        (404, f"Migration 7 not found for instance {ID}", PERMANENT),
        (400, f"Migration 7 state of instance {ID} is accepted. Cannot abort live migration while "
              "the migration is in this state.", TRANSIENT),
        (400, f"Migration 7 state of instance {ID} is completed. Cannot force complete while the "
              "migration is in this state.", PERMANENT),
        # refusals of a request
        (400, "Compute host nohost could not be found.", PERMANENT),
        (400, "No valid host was found. There are not enough hosts available.", PERMANENT),
        (400, "Compute service of cmpb is unavailable at this time.", TRANSIENT),
        (400, "Connection to the hypervisor is broken on host", TRANSIENT),
        (400, "Migration pre-check error: Timeout while checking if we can live migrate to host: "
              "cmpb", TRANSIENT),
        (400, "Migration pre-check error: Binding failed for port p1, please check neutron logs "
              "for more information.", TRANSIENT),
        (400, "Migration pre-check error: This request does not explicitly request "
              "live-migratable devices.", PERMANENT),
        (400, "Unacceptable CPU info: CPU doesn't have compatibility.", PERMANENT),
        (400, f"Unable to migrate instance ({ID}) to current host (cmpa).", PERMANENT),
        (400, "The instance requires a newer hypervisor version than has been provided.",
         PERMANENT),
        (400, f"Operation 'live-migration' not supported for vTPM-enabled instance ({ID}).",
         PERMANENT),
        (400, "Invalid input for field/attribute os-migrateLive.", PERMANENT),
        (404, f"Instance {ID} could not be found.", PERMANENT),
        (403, "Policy doesn't allow os_compute_api:os-services:list to be performed.", PERMANENT),
        (401, "The request you have made requires authentication.", TRANSIENT),
        (406, "Version 2.300 is not supported by the API.", PERMANENT),
        (413, "Over limit", TRANSIENT),
        (429, "Too many requests", TRANSIENT),
        (500, "Unexpected API Error. <class 'nova.exception.UnexpectedTaskStateError'>", TRANSIENT),
        (502, "Bad Gateway", TRANSIENT),
        (503, "Service Unavailable", TRANSIENT),
    )
    @ddt.unpack
    def test_an_answer(self, status, message, expected):
        error = errors.from_response(
            "live-migrate it", answer(status, {"fault": {"code": status, "message": message}}))

        self.assertIs(expected, type(error))
        self.assertIn(message, str(error))
        self.assertIn(f"HTTP {status}", str(error))

    @ddt.data(
        ("No valid host was found. There are not enough hosts available.", False),
        ("Compute service of cmpb is unavailable at this time.", True),
        ("MessagingTimeout", True),
        ("Timed out waiting for a reply to message ID 7a", True),
        ("Migration select destinations error: boom", True),
        ("Migration pre-check error: Cannot live migrate VIF with related PCI, Neutron does not "
         "support required port binding extension.", False),
        ("Unacceptable CPU info: CPU doesn't have compatibility.", False),
        (f"Unable to migrate instance ({ID}) to current host (cmpa).", False),
        ("The supplied hypervisor type of is invalid.", False),
        ("cmpb is not on shared storage: Shared storage live-migration requires either shared "
         "storage or boot-from-volume with no local disks.", False),
        (f"Operation 'live-migration' not supported for vTPM-enabled instance ({ID}).", False),
        (f"Instance {ID} could not be found.", False),
        ("internal error: qemu unexpectedly closed the monitor", True),
    )
    @ddt.unpack
    def test_the_text_of_a_failed_migration(self, text, transient):
        self.assertIs(transient, errors.is_transient_failure(text))

    def test_every_rule_decides_something_and_says_why(self):
        for rule in errors.RULES:
            self.assertTrue(rule.why)
        self.assertEqual(len(errors.RULES), len({(r.statuses, r.pattern) for r in errors.RULES}))


class WordsTest(base.BaseTestCase):
    def test_each_services_own_form_is_understood(self):
        forms = {
            "Nova's": ({"conflictingRequest": {"code": 409, "message": "Nova's"}}, None),
            "Access was denied to this resource. Policy says no.": ({"errors": [{
                "status": 403, "title": "Forbidden", "request_id": "req-1",
                "detail": "Access was denied to this resource.\n\n Policy says no.  "}]}, None),
            "Keystone's": ({"error": {"code": 401, "title": "Unauthorized",
                                      "message": "Keystone's"}}, None),
            "502 Bad Gateway nginx": (None, "<html><h1>502 Bad Gateway</h1>\n<i>nginx</i></html>"),
            "HTTP 418 Because": (None, ""),
        }
        for expected, (body, text) in forms.items():
            self.assertEqual(expected, errors.message_of(answer(418, body, text)))

    def test_strange_json_is_shown_not_hidden(self):
        for body in ([], "text", {"a": 1}, {"errors": []}, {"errors": [{"title": "T"}]}, None):
            self.assertTrue(errors.message_of(answer(400, body)).startswith("HTTP 400: "), body)

    def test_only_novas_own_404_means_missing(self):
        self.assertTrue(errors.is_missing(answer(404, {"itemNotFound": {"code": 404}})))
        self.assertFalse(errors.is_missing(answer(404, text="<h1>Not Found</h1>")))
        self.assertFalse(errors.is_missing(answer(404, {"detail": "no such route"})))
        self.assertFalse(errors.is_missing(answer(200, {"itemNotFound": {}})))

    def test_a_refused_right_tells_what_to_give(self):
        error = errors.from_response("see", answer(403, {"forbidden": {"message": "no"}}))

        self.assertIn("role", str(error))


@ddt.ddt
class NoAnswerTest(base.BaseTestCase):
    @ddt.data(
        (ks_exc.ConnectFailure("refused"), TRANSIENT),
        (ks_exc.ConnectTimeout("slow"), TRANSIENT),
        (ks_exc.SSLError("certificate"), TRANSIENT),
        (ks_exc.DiscoveryFailure("no document"), TRANSIENT),
        (ks_exc.Unauthorized("wrong password"), TRANSIENT),
        (ks_exc.ServiceUnavailable("Keystone"), TRANSIENT),
        (ks_exc.Forbidden("domain disabled"), PERMANENT),
        (ks_exc.EndpointNotFound("compute"), PERMANENT),
        (ks_exc.MissingAuthPlugin("auth_type is not set"), PERMANENT),
        (ks_exc.NoMatchingPlugin("passwort"), PERMANENT),
    )
    @ddt.unpack
    def test_an_exception(self, error, expected):
        mapped = errors.from_exception("list the servers", error)

        self.assertIs(expected, type(mapped))
        self.assertIn("list the servers", str(mapped))
