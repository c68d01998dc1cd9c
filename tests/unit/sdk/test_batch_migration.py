from openstack import exceptions

from nova_batch_migrate.sdk import batch_migration
from tests.unit.sdk import fakes

HEADER = "OpenStack-API-Version"


class BatchMigrationTest(fakes.ApiTestCase):
    def test_create_sends_only_what_was_asked_for(self):
        self.http.post(
            fakes.BATCHES, status_code=202,
            headers={"Location": f"{fakes.BATCHES}/{fakes.BATCH_ID}"},
            json={"batch_migration": fakes.batch("accepted", [])},
        )

        made = batch_migration.BatchMigration.new(hosts=["cmpa"], max_parallel=2)
        made.create(self.compute)

        self.assertEqual(
            {"batch_migration": {"hosts": ["cmpa"], "max_parallel": 2}},
            self.sent("POST")[0].json(),
        )
        self.assertEqual((fakes.BATCH_ID, "accepted"), (made.id, made.status))

    def test_every_call_asks_for_this_apis_version(self):
        url = f"{fakes.BATCHES}/{fakes.BATCH_ID}"
        self.http.get(url, json={"batch_migration": fakes.batch("running", [])})
        self.http.get(f"{url}/plan", json={"plan": {"groups": []}})
        self.http.get(f"{url}/events", json={"events": []})
        self.http.post(f"{url}/action", json={"batch_migration": fakes.batch("paused", [])})
        self.http.delete(url, status_code=204)

        found = batch_migration.BatchMigration.existing(id=fakes.BATCH_ID).fetch(self.compute)
        found.fetch_plan(self.compute)
        list(found.events(self.compute))
        found.pause(self.compute)
        found.delete(self.compute)

        sent = [r for method in ("GET", "POST", "DELETE") for r in self.sent(method)]
        self.assertEqual(
            ["batch-migration 1.0"] * 5, [request.headers[HEADER] for request in sent]
        )

    def test_the_operators_compute_microversion_is_kept_beside_it(self):
        self.http.get(fakes.BATCHES, json={"batch_migrations": []})
        compute = self.connection(compute_default_microversion="2.95").compute

        list(batch_migration.BatchMigration.list(compute))

        request = self.sent("GET")[0]
        self.assertEqual("compute 2.95, batch-migration 1.0", request.headers[HEADER])

    def test_a_request_that_hangs_ends(self):
        self.http.get(fakes.BATCHES, json={"batch_migrations": []})

        list(batch_migration.BatchMigration.list(self.compute))

        self.assertEqual(60, self.sent("GET")[0].timeout)

    def test_list_follows_the_links(self):
        first, second = fakes.batch("running"), fakes.batch("completed", id="other")
        self.http.get(fakes.BATCHES, json={
            "batch_migrations": [first],
            "batch_migrations_links": [
                {"rel": "next", "href": f"{fakes.BATCHES}?status=x&marker={fakes.BATCH_ID}"}
            ],
        })
        self.http.get(
            f"{fakes.BATCHES}?status=x&marker={fakes.BATCH_ID}",
            json={"batch_migrations": [second]},
        )

        found = list(batch_migration.BatchMigration.list(self.compute, status="x", host="cmpa"))

        self.assertEqual([fakes.BATCH_ID, "other"], [batch.id for batch in found])
        self.assertEqual({"status": ["x"], "host": ["cmpa"]}, self.sent("GET")[0].qs)

    def test_each_action_has_its_body(self):
        self.http.post(
            f"{fakes.BATCHES}/{fakes.BATCH_ID}/action", status_code=202,
            json={"batch_migration": fakes.batch("aborting", [])},
        )
        batch = batch_migration.BatchMigration.existing(id=fakes.BATCH_ID)

        for name in ("start", "pause", "resume", "replan", "abort"):
            getattr(batch, name)(self.compute)
        batch.abort(self.compute, running="abort")

        self.assertEqual(
            [
                {"start": None}, {"pause": None}, {"resume": None}, {"replan": None},
                {"abort": {"running": "finish"}}, {"abort": {"running": "abort"}},
            ],
            [request.json() for request in self.sent("POST")],
        )
        self.assertEqual("aborting", batch.status)

    def test_a_fault_carries_the_apis_own_words(self):
        self.http.get(
            f"{fakes.BATCHES}/{fakes.BATCH_ID}/plan", status_code=404,
            headers={"Content-Type": "application/json"},
            json={"itemNotFound": {"code": 404, "message": "There is no plan yet."}},
        )
        batch = batch_migration.BatchMigration.existing(id=fakes.BATCH_ID)

        error = self.assertRaises(exceptions.NotFoundException, batch.fetch_plan, self.compute)

        self.assertEqual("There is no plan yet.", error.details)

    def test_events_know_their_batch(self):
        self.http.get(f"{fakes.BATCHES}/{fakes.BATCH_ID}/events", json={"events": [
            {"id": 1, "created_at": "2026-11-23T08:00:00Z", "kind": "issued",
             "server_id": "s1", "message": "to cmpb", "request_id": "req-1"},
        ]})
        batch = batch_migration.BatchMigration.existing(id=fakes.BATCH_ID)

        (event,) = batch.events(self.compute)

        self.assertEqual(
            (1, "issued", "s1", fakes.BATCH_ID),
            (event.id, event.kind, event.server_id, event.batch_id),
        )
