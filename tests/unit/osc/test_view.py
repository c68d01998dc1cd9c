import datetime
import io

from oslotest import base

from nova_batch_migrate.osc import view, wait
from nova_batch_migrate.sdk.batch_migration import BatchMigration
from tests.unit.osc import screen
from tests.unit.sdk import fakes

NOW = datetime.datetime(2026, 11, 23, 8, 30, tzinfo=datetime.UTC)


def seen(status, servers, **fields):
    return BatchMigration.existing(**fakes.batch(status, servers, **fields))


class PlainViewTest(base.BaseTestCase):
    def setUp(self):
        super().setUp()
        self.stream = io.StringIO()
        self.view = view.PlainView(self.stream, now=lambda: NOW)

    def new_lines(self):
        lines = self.stream.getvalue().splitlines()
        self.stream.seek(0)
        self.stream.truncate()
        return [line.removeprefix("2026-11-23T08:30:00+00:00 ") for line in lines]

    def test_the_further_off_the_end_the_less_often_it_asks(self):
        for eta, interval in ((None, 3.0), (3.0, 3.0), (45.0, 4.5), (3600.0, 6.0)):
            self.assertEqual(interval, self.view.interval_seconds(
                seen("running", [], eta_seconds=eta)))

    def test_only_changes_are_printed(self):
        waiting = fakes.server("s1", "web", status="waiting")
        self.view.show(seen("running", [waiting]))
        self.assertEqual(
            [f"batch migration {fakes.BATCH_ID}: running", "web: waiting"], self.new_lines()
        )

        self.view.show(seen("running", [waiting]))
        self.assertEqual([], self.new_lines())

        moving = waiting | {
            "status": "migrating", "destination": "cmpb", "projected_seconds": 21.04,
        }
        self.view.show(seen("running", [moving], progress=25, eta_seconds=75))
        self.assertEqual(
            ["web: migrating cmpa -> cmpb, projected 21.0 s",
             "20 % of all bytes done, 1:15 left"],
            self.new_lines(),
        )

        moved = moving | {"status": "completed", "actual_seconds": 20.5}
        self.view.show(seen("completed", [moved], progress=29))
        self.assertEqual(
            [f"batch migration {fakes.BATCH_ID}: completed", "web: completed in 20.5 s"],
            self.new_lines(),
        )

    def test_who_stays_is_told_with_the_way_out(self):
        self.view.show(seen("running", [fakes.server(
            "s1", "db", status="skipped", reason="It is locked.",
            command="openstack server unlock s1",
        )]))

        self.assertIn(
            "db: skipped: It is locked.; to move it: openstack server unlock s1",
            self.new_lines(),
        )

    def test_lines_are_time_stamped_and_hostile_names_stay_in_theirs(self):
        self.view.show(seen("running", [fakes.server("s1", fakes.HOSTILE, status="waiting")]))

        self.assertEqual(
            [f"2026-11-23T08:30:00+00:00 batch migration {fakes.BATCH_ID}: running",
             f"2026-11-23T08:30:00+00:00 {fakes.HOSTILE_ESCAPED}: waiting"],
            self.stream.getvalue().splitlines(),
        )


class LiveViewTest(base.BaseTestCase):
    def setUp(self):
        super().setUp()
        self.terminal = self.useFixture(screen.Terminal(columns=100, rows=20))
        self.view = view.LiveView(self.terminal.stream)

    def servers(self, count=3):
        return [
            fakes.server(f"s{i}", f"web-{i}", status="waiting", group=0, order=i)
            for i in range(count)
        ]

    def test_it_is_redrawn_in_place(self):
        first, second, third = self.servers()
        first |= {"status": "migrating", "destination": "cmpb", "progress": 43,
                  "bytes_per_second": 11.5 * 2**20, "eta_seconds": 12,
                  "bandwidth_bytes_per_second": 12 * 2**20}
        third |= {"status": "skipped", "reason": "It is locked."}
        self.view.show(seen("measuring", [first, second, third]))

        self.view.show(seen("running", [first, second, third], progress=25, eta_seconds=75,
                            bandwidth_bytes_per_second=12 * 2**20))

        rows = self.terminal.rows()
        self.assertEqual([
            f"Batch migration {fakes.BATCH_ID}: running",
            "[######..................]  25 %  0 of 2 moved  11.5 MiB/s of 12.0 MiB/s  1:15 left",
            "SERVER  STATE       %        RATE       SHARE   ETA  TO",
            "web-0   migrating  43  11.5 MiB/s  12.0 MiB/s  0:12  cmpb",
            "web-1   waiting",
            "web-2   skipped                                            It is locked.",
        ], rows)

    def test_shorter_drawings_leave_nothing_of_longer_ones(self):
        self.view.show(seen("running", self.servers(9)))
        self.view.show(seen("running", self.servers(1)))

        self.assertEqual(4, len(self.terminal.rows()))

    def test_a_hostile_name_cannot_leave_its_cell(self):
        self.view.show(seen("running", [fakes.server("s1", fakes.HOSTILE, status="waiting")]))

        self.assertEqual(4, len(self.terminal.rows()))
        self.assertNotIn("\x1b[2J", self.terminal.raw)
        self.assertNotIn("\u202e", self.terminal.raw)
        self.assertIn(fakes.HOSTILE_ESCAPED[:31] + "…", self.terminal.rows()[3])

    def test_narrowing_the_terminal_leaves_no_remains(self):
        reason = "a reason that is longer than a narrow terminal has columns, by far and more"
        servers = [fakes.server("s1", "web", status="skipped", reason=reason)]
        self.view.show(seen("running", servers))
        self.terminal.resize(40, 20)

        self.view.show(seen("running", servers))

        rows = self.terminal.rows()
        self.assertEqual(4, len(rows))
        self.assertTrue(all(len(row) < 40 for row in rows), rows)

    def test_more_servers_than_rows_shows_those_that_move(self):
        servers = self.servers(40)
        servers[33]["status"] = "migrating"
        for server in servers[:20]:
            server["status"] = "completed"
        self.terminal.resize(80, 10)

        self.view.show(seen("running", servers))
        self.view.show(seen("running", servers))

        rows = self.terminal.rows()
        self.assertEqual(9, len(rows))
        self.assertTrue(any(row.startswith("web-33") for row in rows), rows)
        self.assertFalse(any(row.startswith("web-0 ") for row in rows), rows)
        self.assertEqual("... and 35 more", rows[-1])

    def test_a_terminal_that_knows_no_size_is_taken_for_a_usual_one(self):
        self.terminal.resize(0, 0)

        self.view.show(seen("running", self.servers(2)))

        self.assertIn(f"Batch migration {fakes.BATCH_ID}: running", self.terminal.read())

    def test_a_notice_stands_until_the_next_state(self):
        self.view.show(seen("running", self.servers(1)))
        self.view.notice("no answer\x1b[2J")
        self.assertIn(r"no answer\x1b[2J", self.terminal.rows())

        self.view.show(seen("running", self.servers(1)))
        self.assertEqual(4, len(self.terminal.rows()))

    def test_a_notice_may_come_before_any_state(self):
        self.view.notice("no answer")

        self.assertEqual(["no answer"], self.terminal.rows())

    def test_the_cursor_comes_back(self):
        self.view.show(seen("running", self.servers(1)))
        self.assertEqual(1, self.terminal.read().count("\x1b[?25l"))

        self.view.close()

        self.assertTrue(self.terminal.read().endswith("\x1b[?25h"))


class OpenViewTest(base.BaseTestCase):
    def test_a_terminal_gets_the_live_view_and_a_file_plain_lines(self):
        terminal = self.useFixture(screen.Terminal())

        self.assertIsInstance(wait.open_view(terminal.stream), view.LiveView)
        self.assertIsInstance(wait.open_view(io.StringIO()), view.PlainView)


