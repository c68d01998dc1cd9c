"""What db.api promises, on whatever database the class that mixes this in has set up."""

import datetime
import threading
import uuid

from oslo_utils import fixture as utils_fixture
from oslo_utils import timeutils

from nova_batch_migrate import exception
from nova_batch_migrate.db import api

REQUEST = {"hosts": ["cmpa"], "strategy": "group"}


def server(name: str, **values) -> dict:
    return {"server_id": str(uuid.uuid5(uuid.NAMESPACE_DNS, name)), "name": name,
            "source": "cmpa"} | values


def together(*calls):
    """Run the calls in a thread each, all at the same moment; return results or exceptions."""
    barrier = threading.Barrier(len(calls))
    results = [None] * len(calls)

    def run(index, call):
        barrier.wait()
        try:
            results[index] = call()
        except Exception as error:
            results[index] = error

    threads = [threading.Thread(target=run, args=item) for item in enumerate(calls)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return results


class ApiCases:
    """Mixed into a test case whose setUp has made the tables."""

    def create(self, *claims, **values) -> dict:
        return api.create_batch({"request": REQUEST} | values, claims=claims)

    # creation and claims

    def test_a_new_batch_has_every_column_and_sane_beginnings(self):
        batch = api.create_batch(
            {"request": REQUEST, "user_id": "u", "project_id": "p", "request_id": "req-1"},
            [server("one"), server("two")], [(api.HOST, "cmpa")])

        self.assertEqual(batch, api.get_batch(batch["id"]))
        self.assertEqual("accepted", batch["status"])
        self.assertEqual(REQUEST, batch["request"])
        self.assertEqual([], batch["disabled_hosts"])
        self.assertEqual({"started": False, "paused": False, "abort": None, "replan": False},
                         batch["control"])
        self.assertIsNone(batch["created_at"].tzinfo)
        rows = api.servers_of(batch["id"])
        self.assertEqual(["one", "two"], [row["name"] for row in rows])
        self.assertEqual({("pending", 0, False)},
                         {(row["status"], row["attempts"], row["healed"]) for row in rows})
        self.assertEqual([], rows[0]["known_migrations"])

    def test_any_character_a_tenant_may_use_in_a_name_survives(self):
        name = "été 🐍 <b>\u2028 %s \\ '\""
        batch = api.create_batch({"request": {"note": name}}, [server(name)])

        self.assertEqual(name, api.servers_of(batch["id"])[0]["name"])
        self.assertEqual(name, api.get_batch(batch["id"])["request"]["note"])

    def test_megabytes_of_telemetry_survive(self):
        telemetry = {"classes": [{"servers": [f"s{i}"], "pages": i} for i in range(30_000)]}
        batch = self.create()

        api.update_batch(batch["id"], {"telemetry": telemetry})

        self.assertEqual(telemetry, api.get_batch(batch["id"])["telemetry"])

    def test_a_second_batch_of_a_host_is_refused_and_told_the_first(self):
        first = self.create((api.HOST, "cmpa"))

        error = self.assertRaises(exception.BatchConflict, self.create, (api.HOST, "cmpa"))

        self.assertIn(first["id"], str(error))
        self.assertIn("cmpa", str(error))
        self.assertEqual([first["id"]], [batch["id"] for batch in api.list_batches()])

    def test_a_refused_batch_leaves_none_of_its_claims(self):
        self.create((api.SERVER, "s2"))

        self.assertRaises(exception.BatchConflict, self.create,
                          (api.SERVER, "s1"), (api.SERVER, "s2"), (api.HOST, "cmpb"))

        self.assertEqual({}, api.claims_of([(api.SERVER, "s1"), (api.HOST, "cmpb")]))

    def test_a_host_and_a_server_of_the_same_name_are_two_things(self):
        self.create((api.HOST, "x"))
        other = self.create((api.SERVER, "x"))

        self.assertEqual(other["id"], api.claims_of([(api.SERVER, "x")])[(api.SERVER, "x")])

    def test_released_claims_are_free_for_the_next(self):
        first = self.create((api.HOST, "cmpa"))
        api.finish_batch(first["id"], "completed", None, None)

        second = self.create((api.HOST, "cmpa"))

        self.assertEqual({(api.HOST, "cmpa"): second["id"]},
                         api.claims_of([(api.HOST, "cmpa"), (api.HOST, "cmpb")]))

    def test_an_end_is_recorded_once_however_often_it_is_told(self):
        batch = self.create((api.HOST, "cmpa"))
        for status in ("partial", "completed"):
            api.finish_batch(batch["id"], status, "one stayed", "req-1")

        ended = api.get_batch(batch["id"])
        self.assertEqual(("partial", "one stayed"), (ended["status"], ended["error"]))
        self.assertIsNotNone(ended["finished_at"])
        self.assertEqual([("finished", "one stayed", "req-1")], [
            (event["kind"], event["message"], event["request_id"])
            for event in api.events_of(batch["id"])])
        self.assertRaises(exception.BatchNotFound, api.finish_batch, "nobody", "failed", None, None)

    def test_what_arrives_where_for_other_batches(self):
        mine, other, ended = self.create(), self.create(), self.create()
        for batch, status, destination in (
                (mine, "migrating", "cmpb"), (other, "migrating", "cmpb"),
                (other, "migrating", "cmpb"), (other, "migrating", "cmpc"),
                (other, "pending", "cmpb"), (ended, "migrating", "cmpb")):
            api.add_servers(batch["id"], [server(
                f"{len(api.servers_of(batch['id']))}-{batch['id']}"[:36])
                | {"status": status, "destination": destination}])
        api.finish_batch(ended["id"], "failed", None, None)

        self.assertEqual({"cmpb": 2, "cmpc": 1}, api.arriving(except_batch=mine["id"]))

    def test_more_claims_than_one_statement_takes(self):
        claims = [(api.SERVER, f"server-{number}") for number in range(1203)]
        batch = self.create(*claims)

        self.assertEqual({batch["id"]}, set(api.claims_of(claims).values()))
        self.assertEqual(1203, len(api.claims_of(claims)))

    def test_of_many_creations_for_one_host_at_once_one_wins(self):
        results = together(*[lambda: self.create((api.HOST, "cmpa"))] * 4)

        won = [result for result in results if isinstance(result, dict)]
        lost = [result for result in results if isinstance(result, exception.BatchConflict)]
        self.assertEqual((1, 3), (len(won), len(lost)), results)
        self.assertTrue(all(won[0]["id"] in str(error) for error in lost), lost)
        self.assertEqual(1, len(api.list_batches()))

    def test_creations_for_different_hosts_at_once_all_win(self):
        results = together(*[
            lambda host=host: self.create((api.HOST, host), (api.SERVER, f"on-{host}"))
            for host in ("cmpa", "cmpb", "cmpc", "cmpd")])

        self.assertEqual(4, len(api.list_batches()), results)

    def test_a_misspelt_column_is_an_error(self):
        batch = self.create()
        api.add_servers(batch["id"], [server("one")])

        self.assertRaises(ValueError, api.update_batch, batch["id"], {"stauts": "running"})
        self.assertRaises(ValueError, api.update_server, batch["id"],
                          server("one")["server_id"], {"stauts": "running"})
        self.assertRaises(ValueError, api.create_batch, {"request": {}, "name": "x"})

    # lists

    def test_lists_are_newest_first_and_page_by_marker(self):
        ids = []
        with self._clock() as clock:
            for _ in range(5):
                ids.insert(0, self.create()["id"])
                clock.advance_time_seconds(1)

        seen, marker = [], None
        while page := api.list_batches(limit=2, marker=marker):
            seen += [batch["id"] for batch in page]
            marker = seen[-1]

        self.assertEqual(ids, seen)

    def test_batches_of_the_same_moment_page_without_gap_or_repetition(self):
        with self._clock():
            ids = {self.create()["id"] for _ in range(5)}

        first = [batch["id"] for batch in api.list_batches(limit=3)]
        rest = [batch["id"] for batch in api.list_batches(limit=3, marker=first[-1])]

        self.assertEqual(5, len(first + rest))
        self.assertEqual(ids, set(first + rest))

    def test_an_unknown_marker_is_the_callers_mistake(self):
        self.assertRaises(exception.InvalidInput, api.list_batches, marker="nonsense")

    def test_lists_filter_by_status_and_by_host(self):
        of_host = api.create_batch({"request": {}, "status": "running"}, [], [(api.HOST, "cmpa")])
        of_server = api.create_batch({"request": {}, "status": "completed"}, [server("one")])
        only_planned = api.create_batch({"request": {}}, hosts=["cmpa"])
        self.create((api.HOST, "cmpb"))
        api.finish_batch(of_host["id"], "partial", None, None)

        self.assertEqual({of_host["id"], of_server["id"], only_planned["id"]},
                         {batch["id"] for batch in api.list_batches(host="cmpa")})
        self.assertEqual([of_host["id"]],
                         [batch["id"] for batch in api.list_batches(["partial"], "cmpa")])
        self.assertEqual([], api.list_batches(["failed"]))

    def test_lists_leave_the_heavy_columns_where_they_are(self):
        batch = self.create(telemetry={"a": 1}, plan={"b": 2})

        listed = api.list_batches()[0]

        self.assertEqual(set(batch) - set(listed), set(api.HEAVY_COLUMNS))
        self.assertEqual(listed, api.get_batch(batch["id"], heavy=False))

    def test_active_are_all_but_the_final(self):
        for status in api.ACTIVE_STATUSES + api.FINAL_STATUSES:
            self.create(status=status)

        self.assertEqual(set(api.ACTIVE_STATUSES),
                         {batch["status"] for batch in api.active_batches()})

    # changes, versions, leases

    def test_a_change_counts_the_version_up(self):
        batch = self.create()

        self.assertTrue(api.update_batch(batch["id"], {"status": "measuring"}))

        changed = api.get_batch(batch["id"])
        self.assertEqual(("measuring", batch["version"] + 1),
                         (changed["status"], changed["version"]))

    def test_a_change_of_what_was_changed_meanwhile_is_not_done(self):
        batch = self.create()
        api.update_batch(batch["id"], {"state": {"by": "other"}})

        self.assertFalse(api.update_batch(
            batch["id"], {"state": {"by": "me"}}, expected_version=batch["version"]))

        self.assertEqual({"by": "other"}, api.get_batch(batch["id"])["state"])

    def test_of_many_changes_of_one_version_one_is_done(self):
        batch = self.create()

        results = together(*[
            lambda number=number: api.update_batch(
                batch["id"], {"state": {"by": number}}, expected_version=batch["version"])
            for number in range(4)])

        self.assertEqual([False, False, False, True], sorted(results, key=str))
        self.assertEqual({"by": results.index(True)}, api.get_batch(batch["id"])["state"])

    def test_no_change_is_lost_when_many_threads_retry(self):
        batch = self.create(state={"count": 0})

        def count():
            for _ in range(10):
                while True:
                    seen = api.get_batch(batch["id"], heavy=False)
                    state = {"count": seen["state"]["count"] + 1}
                    if api.update_batch(batch["id"], {"state": state}, seen["version"]):
                        break

        results = together(*[count] * 4)

        self.assertEqual([None] * 4, results)
        self.assertEqual({"count": 40}, api.get_batch(batch["id"])["state"])

    def test_a_lease_has_one_owner(self):
        batch = self.create()

        self.assertTrue(api.acquire_lease(batch["id"], "one", 30))
        self.assertFalse(api.acquire_lease(batch["id"], "two", 30))
        self.assertTrue(api.acquire_lease(batch["id"], "one", 30))
        self.assertFalse(api.release_lease(batch["id"], "two"))
        self.assertTrue(api.release_lease(batch["id"], "one"))
        self.assertTrue(api.acquire_lease(batch["id"], "two", 30))

    def test_an_expired_lease_is_anybodys(self):
        batch = self.create()
        api.acquire_lease(batch["id"], "one", -1)

        self.assertTrue(api.acquire_lease(batch["id"], "two", 30))
        self.assertFalse(api.acquire_lease(batch["id"], "one", 30))

    def test_of_many_conductors_at_once_one_gets_the_lease(self):
        batch = self.create()
        api.acquire_lease(batch["id"], "dead", -1)

        results = together(*[
            lambda number=number: api.acquire_lease(batch["id"], f"c{number}", 30)
            for number in range(4)])

        self.assertEqual([False, False, False, True], sorted(results, key=str))
        self.assertEqual(f"c{results.index(True)}", api.get_batch(batch["id"])["lease_owner"])

    def test_a_lease_does_not_disturb_a_change_under_way(self):
        batch = self.create()
        api.acquire_lease(batch["id"], "one", 30)

        self.assertTrue(api.update_batch(batch["id"], {"status": "measuring"},
                                         expected_version=batch["version"]))

    # servers and events

    def test_a_server_is_changed_alone_and_times_keep_their_microseconds(self):
        batch = api.create_batch({"request": {}}, [server("one"), server("two")])
        issued = datetime.datetime(2026, 11, 23, 8, 0, 0, 123456)

        api.update_server(batch["id"], server("two")["server_id"], {
            "status": "migrating", "issued_at": issued, "known_migrations": [3, 5],
            "projection": {"projected_seconds": 12.5}, "memory_bytes": 3 << 40})

        one, two = api.servers_of(batch["id"])
        self.assertEqual("pending", one["status"])
        self.assertEqual(("migrating", issued, [3, 5], 12.5, 3 << 40),
                         (two["status"], two["issued_at"], two["known_migrations"],
                          two["projection"]["projected_seconds"], two["memory_bytes"]))

    def test_servers_found_again_stay_as_they_are(self):
        batch = api.create_batch({"request": {}}, [server("one")], [(api.SERVER, "s1")])
        api.update_server(batch["id"], server("one")["server_id"], {"status": "completed"})

        for _ in range(2):
            api.add_servers(batch["id"], [server("one"), server("two", status="skipped")],
                            [(api.SERVER, "s1"), (api.SERVER, "s2")])

        self.assertEqual([("one", "completed"), ("two", "skipped")],
                         [(row["name"], row["status"]) for row in api.servers_of(batch["id"])])
        self.assertEqual({batch["id"]},
                         set(api.claims_of([(api.SERVER, "s1"), (api.SERVER, "s2")]).values()))

    def test_a_server_of_another_batch_is_not_added(self):
        other = self.create((api.SERVER, "s1"))
        batch = self.create()

        error = self.assertRaises(exception.BatchConflict, api.add_servers, batch["id"],
                                  [server("one")], [(api.SERVER, "s1")])

        self.assertIn(other["id"], str(error))
        self.assertEqual([], api.servers_of(batch["id"]))

    def test_what_is_not_there_is_said_so(self):
        batch = self.create()

        self.assertRaises(exception.BatchNotFound, api.get_batch, "nope")
        self.assertRaises(exception.BatchNotFound, api.update_batch, "nope", {}, 1)
        self.assertRaises(exception.BatchNotFound, api.delete_batch, "nope")
        self.assertFalse(api.acquire_lease("nope", "one", 30))
        error = self.assertRaises(exception.ServerNotFound, api.update_server, batch["id"],
                                  "nope", {"status": "failed"})
        self.assertIn(batch["id"], str(error))

    def test_events_come_in_order_and_page_by_id(self):
        batch, other = self.create(), self.create()
        added = [api.add_event(batch["id"], "issued", f"m{number}", "s1", "req-1")
                 for number in range(5)]
        api.add_event(other["id"], "created", "of another batch")

        self.assertEqual(added, api.events_of(batch["id"]))
        page = api.events_of(batch["id"], limit=2)
        self.assertEqual(["m0", "m1"], [event["message"] for event in page])
        self.assertEqual(added[2:4], api.events_of(batch["id"], limit=2, marker=page[-1]["id"]))

    # the end

    def test_a_deleted_batch_takes_all_of_its_own_along(self):
        batch = api.create_batch({"request": {}}, [server("one")], [(api.HOST, "cmpa")])
        api.add_event(batch["id"], "created", "m")
        kept = api.create_batch({"request": {}}, [server("one")], [(api.HOST, "cmpb")])

        api.delete_batch(batch["id"])

        self.assertEqual([], api.servers_of(batch["id"]))
        self.assertEqual([], api.events_of(batch["id"]))
        self.assertEqual({(api.HOST, "cmpb"): kept["id"]},
                         api.claims_of([(api.HOST, "cmpa"), (api.HOST, "cmpb")]))

    def test_a_purge_takes_what_finished_before(self):
        now = timeutils.utcnow()
        ago = {days: now - datetime.timedelta(days=days) for days in (1, 3)}
        old = self.create(status="completed", finished_at=ago[3])
        fresh = self.create(status="partial", finished_at=ago[1])
        running = self.create(status="running", created_at=ago[3], finished_at=ago[3])

        self.assertEqual(1, api.purge(now - datetime.timedelta(days=2)))

        self.assertEqual({fresh["id"], running["id"]},
                         {batch["id"] for batch in api.list_batches()})
        self.assertRaises(exception.BatchNotFound, api.get_batch, old["id"])

    def test_migrations_to_learn_from_are_the_last_completed_ones(self):
        finished = datetime.datetime(2026, 11, 23, 8, 0, 0)
        told = {"stream_seconds": 1.0}
        rows = [
            server(f"s{number}", status=status, actual=actual, current_projection=projection,
                   issued_at=issued, attempts=1, destination="cmpb",
                   finished_at=finished + datetime.timedelta(seconds=number))
            for number, (status, issued, projection, actual) in enumerate([
                ("completed", finished, told, {"nova_seconds": 4.0}),
                ("completed", finished, {"stream_seconds": 2.0}, {"nova_seconds": 3.5}),
                ("failed", finished, told, {"nova_seconds": 99.0}),
                ("completed", finished, told, None), ("completed", finished, None, told),
                ("completed", None, told, told),
                ("completed", finished, told, {"nova_seconds": 3.0})])]
        batch = api.create_batch({"request": {}}, rows)

        found = api.recent_migrations(10, finished)
        self.assertEqual([4.0, 3.5, 3.0], [row["actual"]["nova_seconds"] for row in found])
        self.assertEqual(
            {"batch_id": batch["id"], "source": rows[1]["source"],
             "destination": "cmpb", "attempts": 1,
             "issued_at": finished, "finished_at": finished + datetime.timedelta(seconds=1),
             "projection": {"stream_seconds": 2.0}, "actual": {"nova_seconds": 3.5}}, found[1])
        self.assertEqual(found[2:], api.recent_migrations(1, finished))
        self.assertEqual(found[1:], api.recent_migrations(
            10, finished + datetime.timedelta(seconds=1)))

    @staticmethod
    def _clock():
        return utils_fixture.TimeFixture(datetime.datetime(2026, 11, 23, 8, 0, 0, 5))
