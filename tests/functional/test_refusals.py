"""What is answered 4xx or 503: who may not, what does not exist, what makes no sense."""

import uuid

from tests.functional import base

NOBODY = str(uuid.UUID(int=1))
# Bodies with one fault each; a cloud per fault would take minutes to say little more.
MALFORMED = (
    {}, {"hosts": []}, {"hosts": "cmpa"}, {"hosts": [7]}, {"hosts": ["cmpa", "cmpa"]},
    {"servers": []}, {"servers": [None]}, {"hosts": ["cmpa"], "servers": [NOBODY]},
    *({"hosts": ["cmpa"], field: value} for field, value in (
        ("target_hosts", "cmpb"), ("exclude_hosts", [1]), ("strategy", "fastest"),
        ("plan_only", "maybe"), ("max_bandwidth_mib_s", -1), ("max_bandwidth_mib_s", "fast"),
        ("max_parallel", 0), ("max_parallel", 1.5), ("on_non_convergence", "pray"),
        ("dedup_scope", "world"), ("include_locked", "perhaps"), ("leave_disabled", 2),
        ("not_before", "tomorrow"), ("deadline", "soon"), ("max_wait_seconds", "long"),
        ("stopped", "kill"), ("fallback", "none"), ("urgent", "very"), ("synchronized", "all"),
        ("colour", "green"))))
NOT_BUILT = (
    ("stopped", "cold-migrate"),)


class Refusals(base.BatchTestCase):
    def refused(self, status, **fields):
        """Post a batch migration that must be refused; return the message."""
        answer = self.call("POST", body={"batch_migration": fields})
        self.assertEqual(status, answer.status, (fields, answer.body))
        (fault,) = answer.body.values()
        self.assertEqual(status, fault["code"])
        return fault["message"]

    def test_every_call_of_a_member_is_forbidden(self):
        self.boot("a")
        batch_id = self.drain(plan_only=True)["id"]
        self.wait_for_batch(batch_id, "planned")
        member = self.api_fixture.api
        calls = [("POST", "", {"batch_migration": {"hosts": ["cmpa"]}}), ("GET", "", None),
                 ("GET", f"/{batch_id}", None), ("GET", f"/{batch_id}/plan", None),
                 ("GET", f"/{batch_id}/commonality", None), ("GET", f"/{batch_id}/events", None),
                 ("DELETE", f"/{batch_id}", None)]
        calls += [("POST", f"/{batch_id}/action", {action: None})
                  for action in ("start", "pause", "resume", "abort", "replan")]
        for method, path, body in calls:
            answer = self.call(method, path, body, api=member)
            self.assertEqual((403, "forbidden"), (answer.status, next(iter(answer.body))),
                             (method, path, body, answer.body))
        self.assertEqual("planned", self.batch(batch_id)["status"])

    def test_names_that_nova_does_not_know(self):
        for fields in ({"hosts": ["nohost"]}, {"hosts": ["cmpa"], "target_hosts": ["nohost"]},
                       {"hosts": ["cmpa"], "exclude_hosts": ["nohost"]}):
            self.assertIn("nohost", self.refused(400, **fields))
        self.assertIn(NOBODY, self.refused(400, servers=[NOBODY]))
        self.assertIn("cmpa", self.refused(400, hosts=["cmpa"], target_hosts=["cmpa"]))

    def test_a_server_that_is_on_the_target_already(self):
        server_id, = self.boot("a", host="cmpb")
        self.refused(400, servers=[server_id], target_hosts=["cmpb"])

    def test_malformed_bodies(self):
        for fields in MALFORMED:
            self.assertTrue(self.refused(400, **fields))
        self.assertEqual([], self.call("GET").body["batch_migrations"])

    def test_a_field_that_is_not_built_yet_is_named(self):
        for field, value in NOT_BUILT:
            self.assertIn(field, self.refused(400, hosts=["cmpa"], **{field: value}))

    def test_a_second_batch_for_the_same_host_or_server_names_the_first(self):
        server_id, = self.boot("a")
        self.hypervisors.hold()
        first = self.drain()["id"]
        self.wait_for_stream(server_id)
        self.assertIn(first, self.refused(409, hosts=["cmpa"]))
        self.assertIn(first, self.refused(409, servers=[server_id]))
        self.hypervisors.release()
        self.wait_for_batch(first, "completed")
        self.wait_for_batch(self.drain()["id"], "completed")

    def test_what_does_not_exist(self):
        for method, path, body in (("GET", f"/{NOBODY}", None), ("DELETE", f"/{NOBODY}", None),
                                   ("GET", f"/{NOBODY}/plan", None),
                                   ("GET", f"/{NOBODY}/events", None),
                                   ("GET", f"/{NOBODY}/commonality", None),
                                   ("POST", f"/{NOBODY}/action", {"pause": None})):
            answer = self.call(method, path, body)
            self.assertEqual((404, "itemNotFound"), (answer.status, next(iter(answer.body))),
                             (method, path, answer.body))

    def test_no_conductor(self):
        self.conductor_service.stop()
        self.config.set("api", conductor_timeout_seconds=1)
        answer = self.call("POST", body={"batch_migration": {"hosts": ["cmpa"]}})
        self.assertEqual((503, "serviceUnavailable"),
                         (answer.status, next(iter(answer.body))))
        self.assertIn("nova-batch-conductor", answer.message)
