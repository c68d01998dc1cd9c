"""A host of the real cloud is about to fail: emptied by what is known of its guests, unmeasured.

Run by tools/test lab on a lab that is up; all guests that it finds are deleted first.
"""
import datetime
import json

from tests.lab import base

from nbmlab import drain, guests, shell  # noqa: E402, isort: skip

#: From the request to the first call of Nova: survey and plan. Looking at the memory of guests
#: without a history is three of them.
BEGUN_SECONDS = 10.0


class UrgentTestCase(base.LabTestCase):

    MEMBERS = (guests.Wanted("web", "lab-web1"), guests.Wanted("writer-slow", "lab-slow"),
               guests.Wanted("writer-mid", "lab-mid"))
    LINK_MIB_PER_SECOND = 20.0

    def test_it_begins_at_once_and_moves_all(self):
        batch_id = self.begin("--urgent")
        self.all_moved(batch_id)
        told = {event["kind"]: event for event in reversed(drain.events(batch_id))}
        self.assertIn("unmeasured (urgent)", told["measured"]["message"])
        asked, issued = (datetime.datetime.fromisoformat(moment) for moment in (
            drain.batch(batch_id)["created_at"], told["issued"]["created_at"]))
        seconds = (issued - asked).total_seconds()
        shell.say(f"the first migration was asked for {seconds:.1f} s after the batch")
        self.assertLess(seconds, BEGUN_SECONDS)
        plan = json.loads(self.openstack("server", "batch", "migration", "plan", batch_id,
                                         "-f", "json"))
        self.assertEqual(set(self.ids.values()), {
            member["server_id"] for group in plan["groups"] for member in group["members"]})
