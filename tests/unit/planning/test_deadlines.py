import dataclasses

from oslotest import base

from nova_batch_migrate.planning import plan
from tests.unit.planning import builders


class DeadlinesTest(base.BaseTestCase):

    def plan(self, **fields):
        hosts = [builders.host([builders.server(name)], name=source)
                 for name, source in (("a", "s1"), ("b", "s2"))]
        return plan.make_plan(builders.plan_request(*hosts, **fields))

    def said(self, made):
        return [note for note in made.notes if "deadline" in note.lower()]

    def test_one_that_cannot_be_met_is_said(self):
        seconds = self.plan().projected_seconds
        self.assertIsNone(self.plan().deadline_met)
        late = self.plan(deadline_seconds=1.0)
        self.assertIs(False, late.deadline_met)
        self.assertIn(f"cannot be met: the projected end is in {seconds:.0f} s", *self.said(late))

    def test_one_that_lies_within_what_is_not_known_may_be_missed(self):
        # Nova's 4 s may be 7.7 of nine times in ten: nothing is late by more than that
        seconds = self.plan(nova_deviation=0.4).projected_seconds
        unsure = self.plan(nova_deviation=0.4, deadline_seconds=seconds + 2)
        self.assertIs(True, unsure.deadline_met)
        self.assertIn("may be missed", *self.said(unsure))
        sure = self.plan(nova_deviation=0.4, deadline_seconds=seconds + 5)
        self.assertIs(True, sure.deadline_met)
        self.assertEqual([], self.said(sure))

    def test_where_one_was_not_measured_nobody_knows_how_late_it_may_be(self):
        host = builders.host([builders.server("a", error="no figures")])
        made = plan.make_plan(builders.plan_request(host, deadline_seconds=1e6))
        self.assertIn("how late it may be is not known", *self.said(made))

    def test_a_members_own_deadline(self):
        servers = [builders.server("small", 50), builders.server("large", 200)]
        request = builders.plan_request(builders.host(servers), strategy="none")
        request = dataclasses.replace(request, movable=tuple(
            dataclasses.replace(m, deadline_seconds=4.0 if m.id == "id-large" else None)
            for m in request.movable))
        made = plan.make_plan(request)
        names = [m.name for group in made.groups for m in group.members]
        self.assertEqual(["large", "small"], names)
        self.assertIn("large is to be moved within 4 s and cannot be",
                      " ".join(made.notes))
