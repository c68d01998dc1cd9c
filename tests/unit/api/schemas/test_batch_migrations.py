"""Every field of a request, value by value: what is taken and what is refused with which words."""

import ddt
from oslotest import base

from nova_batch_migrate import exception
from nova_batch_migrate.api import validation
from nova_batch_migrate.api.schemas import batch_migrations as schemas

LONG = "x" * 255
HOSTS = ["cmpa", "cmp-1.example.org", "CMP_2", LONG]
NO_HOST = ["", " ", "cmp a", "cmpa\n", "\ncmpa", "cmp/1", "cmp;1", "cmpä", LONG + "x", 1, None,
           True, ["cmpa"], {"host": "cmpa"}, "cmp\x00a"]
SERVERS = ["web-1", "Server of Ann", "8d1f2a54-4a54-4c5f-8f0e-1f1d2c3b4a59", "sërver 1", LONG]
NO_SERVER = ["", " ", " web", "web ", "web\n", "we\x00b", "\ud800", LONG + "x", 1, None, False,
             ["web"]]
MOMENTS = ["2026-10-01T22:00:00Z", "2026-10-01T22:00:00+02:00", "2026-10-01T22:00:00.5-05:30"]
NO_MOMENT = ["", "tomorrow", "2026-10-01", "2026-10-01T22:00:00", "2026-13-01T22:00:00Z", 1, None,
             "0001-01-01T00:00:00+23:00", "9999-12-31T23:59:59-23:00", "2026-10-01T22:00:00Z\n",
             "2026-10-01T25:00:00Z", True]
BOOLEANS = [True, False]
NO_BOOLEAN = ["true", "", 0, 1, None, [], {}, "yes"]


def integers(minimum, maximum):
    return [minimum, minimum + 1, maximum]


def no_integers(minimum, maximum):
    return [minimum - 1, maximum + 1, "1", 1.5, float(minimum), True, None, [], -10 ** 30]


def words(*known):
    return list(known)


def no_words(*known):
    return [known[0].upper(), f" {known[0]}", f"{known[0]}\n", "", "other", 1, None, True,
            [known[0]]]


def lists(items):
    return [[item] for item in items] + [items]


def no_lists(no_items, good, most):
    return ([[item] for item in no_items] + [[good, item] for item in no_items]
            + [[], good, None, {}, 1, True, [good, good],
               [f"{good}{number}" for number in range(most + 1)]])


# field: (taken, refused, what the refusal tells to give)
FIELDS = {
    "hosts": (lists(HOSTS), no_lists(NO_HOST, "cmpa", 100), "compute host"),
    "servers": (lists(SERVERS), no_lists(NO_SERVER, "web", 1000), "server"),
    "target_hosts": (lists(HOSTS), no_lists(NO_HOST, "cmpb", 100), "compute host"),
    "exclude_hosts": (lists(HOSTS), no_lists(NO_HOST, "cmpb", 100), "compute host"),
    "strategy": (words("group", "pair", "none"), no_words("group"), "group, pair, none"),
    "plan_only": (BOOLEANS, NO_BOOLEAN, "true or false"),
    "max_bandwidth_mib_s": (integers(1, 1 << 20), no_integers(1, 1 << 20), "MiB/s"),
    "max_parallel": (integers(1, 100), no_integers(1, 100), "from 1 to 100"),
    "synchronized": (
        ["server-groups", [["a", "b"]], [["a", "b"], ["c", "d", "e"]]],
        ["", "servers", [], [[]], [["a"]], [["a", "a"]], [["a", ""]], ["a", "b"], [["a", 1]],
         None, True, {}, 1],
        "server"),
    "on_non_convergence": (words("skip", "pause", "post-copy", "auto-converge"), no_words("skip"),
                           "skip, pause, post-copy, auto-converge"),
    "max_wait_seconds": (integers(0, 604800), no_integers(0, 604800)[:2] + ["0", 0.0, False, None],
                         "from 0 to 604800"),
    "not_before": (MOMENTS, NO_MOMENT, "ISO 8601 with its time zone"),
    "deadline": (MOMENTS, NO_MOMENT, "ISO 8601 with its time zone"),
    "dedup_scope": (words("project", "host", "off"), no_words("project"), "project, host, off"),
    "include_locked": (BOOLEANS, NO_BOOLEAN, "true or false"),
    "stopped": (words("leave", "cold-migrate"), no_words("leave"), "leave, cold-migrate"),
    "leave_disabled": (BOOLEANS, NO_BOOLEAN, "true or false"),
    "fallback": (words("plain", "refuse"), no_words("plain"), "plain, refuse"),
    "urgent": (BOOLEANS, NO_BOOLEAN, "true or false"),
}


def request(field, value):
    fields = {} if field in ("hosts", "servers") else {"hosts": ["cmpa"]}
    return {"batch_migration": {**fields, field: value}}


@ddt.ddt
class CreateTest(base.BaseTestCase):
    def check(self, body):
        validation.check(body, schemas.CREATE, "the body")

    def refusal(self, body):
        return str(self.assertRaises(exception.InvalidInput, self.check, body))

    def test_every_field_has_its_table(self):
        self.assertEqual(set(FIELDS), set(schemas.FIELDS))

    @ddt.data(*FIELDS)
    def test_taken(self, field):
        for value in FIELDS[field][0]:
            self.check(request(field, value))

    @ddt.data(*FIELDS)
    def test_refused_with_what_to_give(self, field):
        for value in FIELDS[field][1]:
            message = self.refusal(request(field, value))
            self.assertIn(f"batch_migration.{field}", message, value)
            self.assertIn(FIELDS[field][2], message.partition(". Give ")[2], value)

    def test_all_fields_together(self):
        self.check({"batch_migration": {
            field: taken[0] for field, (taken, *_) in FIELDS.items() if field != "servers"}})

    @ddt.data({}, {"hosts": ["a"], "servers": ["b"]}, {"strategy": "group"},
              {"target_hosts": ["cmpb"]})
    def test_hosts_or_servers(self, fields):
        self.assertIn("either hosts or servers, and not both",
                      self.refusal({"batch_migration": fields}))

    @ddt.data(None, [], "cmpa", 1, ["cmpa"], True)
    def test_no_object(self, value):
        self.assertIn("either hosts or servers", self.refusal({"batch_migration": value}))

    @ddt.data({}, {"hosts": ["cmpa"]}, [], None, "batch_migration", 1)
    def test_no_batch_migration(self, body):
        message = self.refusal(body)
        self.assertTrue("batch_migration" in message, message)

    def test_unknown_keys(self):
        message = self.refusal({"batch_migration": {"hosts": ["a"], "host": "a", "x": 1}})
        self.assertIn('batch_migration has no "host", "x". Known are: deadline, ', message)
        message = self.refusal({"batch_migration": {"hosts": ["a"]}, "other": 1})
        self.assertIn('the body has no "other". Known are: batch_migration.', message)

    def test_the_place_in_a_list_is_named(self):
        self.assertIn("batch_migration.hosts[1] is 5.",
                      self.refusal(request("hosts", ["cmpa", 5])))


@ddt.ddt
class IndexTest(base.BaseTestCase):
    @ddt.data({}, {"limit": "0"}, {"limit": "100"}, {"marker": "8d1f2a54"}, {"status": "running"},
              {"host": "cmpa"}, {"limit": "1", "marker": "x", "status": "partial", "host": "a"})
    def test_taken(self, query):
        validation.check(query, schemas.INDEX, "the query")

    @ddt.data(
        ({"limit": "-1"}, "limit is"), ({"limit": ""}, "limit is"), ({"limit": "1.5"}, "limit is"),
        ({"limit": "ten"}, "limit is"), ({"limit": "٣"}, "limit is"),
        ({"limit": "1" * 10}, "limit is"), ({"marker": ""}, "marker is"),
        ({"marker": "x" * 256}, "marker is"), ({"status": "done"}, "one of: accepted"),
        ({"status": ""}, "one of: accepted"), ({"host": "a b"}, "host is"),
        ({"sort_key": "id"}, "Known are: host, limit, marker, status."))
    @ddt.unpack
    def test_refused(self, query, words):
        error = self.assertRaises(exception.InvalidInput, validation.check, query, schemas.INDEX,
                                  "the query")
        self.assertIn(words, str(error))
