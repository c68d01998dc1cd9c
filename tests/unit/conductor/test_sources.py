"""A batch's sources: disabled and enabled again, and what a new list of their servers changes."""

import dataclasses
import datetime

from oslo_utils import fixture as time_fixture
from oslo_utils import timeutils
from oslotest import base

from nova_batch_migrate import context, exception
from nova_batch_migrate.conductor import loading, request, sources
from nova_batch_migrate.db import api as db
from tests.unit.conductor import build, test_gangs
from tests.unit.db import fixture


class PlayedNova(test_gangs.PlayedNova):
    """With compute services whose state a test may change."""

    def __init__(self):
        super().__init__()
        self.services = {host: {"id": host, "host": host, "state": "up", "status": "enabled",
                                "disabled_reason": None} for host in ("cmpa", "cmpb")}

    def compute_services(self):
        return list(self.services.values())

    def server_groups(self):
        return []

    def disable_service(self, service_id, reason):
        self.services[service_id] |= {"status": "disabled", "disabled_reason": reason}

    def enable_service(self, service_id):
        self.services[service_id] |= {"status": "enabled", "disabled_reason": None}


class PlayedExecutor:
    """Notes whom it is to close."""

    def __init__(self):
        self.closed, self.completed = {}, {}

    def close(self, ctxt, batch, row, status, reason, certainty=None, command=None):
        self.closed[row["server_id"]] = status, reason

    def complete(self, ctxt, batch, row, host, migration):
        self.completed[row["server_id"]] = host


class SourcesTest(base.BaseTestCase):
    def setUp(self):
        super().setUp()
        self.useFixture(fixture.Database())
        self.useFixture(time_fixture.TimeFixture(datetime.datetime(2026, 11, 26, 2, 0, 0)))
        self.nova, self.executor = PlayedNova(), PlayedExecutor()
        self.sources = sources.Sources(self.nova, self.executor)
        self.ctxt = context.service_context("req-1")
        self.batch = db.create_batch(
            {"request": request.normalize({"hosts": ["cmpa"]}), "state": {}},
            [loading.new_row(self.nova.servers[i]) for i in test_gangs.MEMBERS])

    def survey(self, status="accepted"):
        """Take a survey in that status of the batch; return whether the pass may go on."""
        db.update_batch(self.batch["id"], {"status": status})
        self.batch = db.get_batch(self.batch["id"])
        rows = {row["server_id"]: row for row in db.servers_of(self.batch["id"])}
        return self.sources.take_survey(self.ctxt, self.batch, rows)

    def test_what_was_enabled_is_disabled_in_the_batch_s_name_and_enabled_again(self):
        self.sources.disable(self.ctxt, self.batch)
        self.assertIn(self.batch["id"], self.nova.services["cmpa"]["disabled_reason"])
        self.assertEqual("enabled", self.nova.services["cmpb"]["status"])
        self.assertEqual(["cmpa"], db.get_batch(self.batch["id"])["disabled_hosts"])
        self.sources.enable(self.ctxt, self.batch)
        self.assertEqual("enabled", self.nova.services["cmpa"]["status"])

    def test_what_others_disabled_stays_disabled(self):
        self.nova.disable_service("cmpa", "a broken fan")
        self.sources.disable(self.ctxt, self.batch)
        self.sources.enable(self.ctxt, self.batch)
        self.assertEqual("a broken fan", self.nova.services["cmpa"]["disabled_reason"])

    def test_what_others_disabled_anew_meanwhile_is_not_enabled(self):
        self.sources.disable(self.ctxt, self.batch)
        self.nova.disable_service("cmpa", "a broken fan")
        self.sources.enable(self.ctxt, self.batch)
        self.assertEqual("disabled", self.nova.services["cmpa"]["status"])

    def test_a_cell_that_does_not_answer_shows_no_empty_host(self):
        self.nova.services["cmpa"]["state"] = "unknown"
        self.assertRaises(exception.NovaTransientError, self.survey)
        self.assertEqual({}, self.executor.closed)

    def test_a_survey_without_news_is_done(self):
        self.assertTrue(self.survey())
        self.assertTrue(self.batch["state"]["surveyed"])
        self.assertEqual(({}, {}), (self.executor.closed, self.executor.completed))

    def test_who_came_is_taken_in_and_measured(self):
        self.nova.servers["new"] = build.server(id="new", name="new")
        self.assertTrue(self.survey("running"))
        self.assertEqual("measuring", db.get_batch(self.batch["id"])["status"])
        self.assertFalse(self.batch["state"]["surveyed"])
        self.assertIn("new", {row["server_id"] for row in db.servers_of(self.batch["id"])})

    def test_who_came_and_is_another_batch_s_is_left_to_it(self):
        self.nova.servers["new"] = build.server(id="new", name="new")
        db.create_batch({"request": request.normalize({"servers": ["new"]})}, [],
                        [(db.SERVER, "new")])
        self.assertTrue(self.survey("running"))
        self.assertEqual("running", db.get_batch(self.batch["id"])["status"])

    def test_who_is_gone_is_nobody_s_work(self):
        del self.nova.servers["s0"]
        self.nova.servers["s1"] = dataclasses.replace(self.nova.servers["s1"], host="cmpz")
        self.survey()
        self.assertEqual({"s0": ("skipped", "the server was deleted")}, self.executor.closed)
        self.assertEqual({"s1": "cmpz"}, self.executor.completed)

    def test_who_is_busy_is_waited_for_but_not_for_ever(self):
        self.nova.servers["s0"] = dataclasses.replace(
            self.nova.servers["s0"], task_state="rebooting")
        self.assertTrue(self.survey())
        self.assertFalse(self.batch["state"]["surveyed"])
        self.assertFalse(self.survey(), "it looked again at once")
        timeutils.advance_time_seconds(sources.SURVEY_PAUSE_SECONDS + 1)
        self.assertTrue(self.survey())
        self.assertFalse(self.batch["state"]["surveyed"])
        timeutils.advance_time_seconds(sources.BUSY_PATIENCE_SECONDS)
        self.survey()
        self.assertTrue(self.batch["state"]["surveyed"])
        self.assertEqual("skipped", self.executor.closed["s0"][0])
