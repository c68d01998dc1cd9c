import contextlib
import io
import json
import pathlib
import tempfile

from oslotest import base

from nova_batch_migrate.cmd import plan as command
from nova_batch_migrate.planning import plan
from tests.unit.planning import builders


class PlanTest(base.BaseTestCase):
    def setUp(self):
        super().setUp()
        self.request = builders.plan_request(builders.host(
            [builders.server("web\x1b[31m", 100), builders.server("db", 200)]))
        self.made = plan.make_plan(self.request)

    def run_with(self, text, *options):
        directory = self.enterContext(tempfile.TemporaryDirectory())
        path = pathlib.Path(directory, "plan.json")
        path.write_text(text)
        out, err = io.StringIO(), io.StringIO()
        with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
            status = command.main([str(path), *options])
        return status, out.getvalue(), err.getvalue()

    def test_a_plan_is_recomputed_from_what_it_was_made_from(self):
        for known in (self.made, self.request):
            status, out, _ = self.run_with(json.dumps(known.to_dict()), "--json")
            self.assertEqual((0, json.loads(json.dumps(self.made.to_dict()))),
                             (status, json.loads(out)))

    def test_other_figures_give_another_plan(self):
        slower = self.request.to_dict()
        slower["hosts"][0]["bandwidth"]["goodput_bytes_per_second"] /= 10
        _, out, _ = self.run_with(json.dumps(slower), "--json")
        self.assertGreater(json.loads(out)["projected_seconds"], self.made.projected_seconds)

    def test_people_get_reasons_and_no_control_characters(self):
        status, out, _ = self.run_with(json.dumps(self.made.to_dict()))
        self.assertEqual(0, status)
        for group in self.made.groups:
            for member in group.members:
                self.assertIn(member.reason, out)
        self.assertNotIn("\x1b", out)

    def test_telemetry_alone_is_enough(self):
        status, out, _ = self.run_with(json.dumps(self.request.hosts[0].to_dict()), "--json")
        made = json.loads(out)
        self.assertEqual((0, {command.ANYWHERE}), (status, {
            m["destination"] for g in made["groups"] for m in g["members"]}))
        self.assertEqual(self.made.wire_bytes, made["wire_bytes"])

    def test_a_chart_and_a_schema(self):
        directory = self.enterContext(tempfile.TemporaryDirectory())
        picture = pathlib.Path(directory, "plan.png")
        status, _, _ = self.run_with(json.dumps(self.made.to_dict()), "--chart", str(picture))
        self.assertEqual((0, b"\x89PNG"), (status, picture.read_bytes()[:4]))
        status, _, err = self.run_with(json.dumps(self.made.to_dict()), "--chart",
                                       "/nowhere/plan.png")
        self.assertEqual(1, status)
        self.assertIn("/nowhere/plan.png", err)
        status, out, _ = self.run_with("", "--schema")
        self.assertEqual("PlanRequest", json.loads(out)["title"])

    def test_the_answer_of_the_api_and_a_byte_order_mark_do(self):
        _, expected, _ = self.run_with(json.dumps(self.made.to_dict()))
        for text in (json.dumps({"plan": self.made.to_dict()}),
                     "\ufeff" + json.dumps(self.made.to_dict())):
            self.assertEqual((0, expected, ""), self.run_with(text))

    def test_telemetry_of_several_hosts(self):
        other = builders.host([builders.server("other")], name="cmpz")
        hosts = [self.request.hosts[0].to_dict(), other.to_dict()]
        status, out, _ = self.run_with(json.dumps(hosts), "--json")
        self.assertEqual((0, {"cmpa", "cmpz"}),
                         (status, {group["source"] for group in json.loads(out)["groups"]}))

    def test_figures_that_are_none_are_named_with_their_place(self):
        for text in (float("nan"), -1):
            wrong = self.request.to_dict()
            wrong["hosts"][0]["servers"][1]["changed"]["rate_pages_per_second"] = text
            status, out, _ = self.run_with(json.dumps(wrong))
            self.assertEqual(0, status)
            self.assertIn("db: could not be measured (its figures cannot be true: PlanRequest."
                          "hosts[0].servers[1].changed.rate_pages_per_second must be a number not "
                          f"below 0, not {text})", out)

    def test_a_server_without_telemetry_is_named(self):
        wrong = self.request.to_dict()
        del wrong["hosts"][0]["servers"][1]
        status, out, _ = self.run_with(json.dumps(wrong))
        self.assertEqual(0, status)
        self.assertIn("id-db: could not be measured (the telemetry lacks it; measure the host "
                      "again)", out)

    def test_who_has_no_size_stays(self):
        host = self.request.hosts[0].to_dict()
        host["servers"][1] = {"id": "id-db", "error": "it left"}
        status, out, _ = self.run_with(json.dumps(host), "--json")
        staying, = json.loads(out)["staying"]
        self.assertEqual((0, "id-db"), (status, staying["server_id"]))
        self.assertIn("not even its size is known (it left); measure it again", staying["reason"])

    def test_what_is_no_plan_is_named_with_what_to_give(self):
        for text, word in (("{", "no JSON"), ("[" * 100_000, "no JSON"),
                           ("[]", "neither a plan nor telemetry"),
                           ("{}", "neither a plan nor telemetry"), ("3", "neither")):
            status, out, err = self.run_with(text)
            self.assertEqual((1, ""), (status, out))
            self.assertIn(word, err)
            self.assertIn("batch migration plan BATCH -f json", err)
        for text, word in (({"request": {"hosts": 3}}, "PlanRequest.hosts must be a list"),
                           ([3], "HostTelemetry[0] must be an object"),
                           ({"hosts": [], "schema_version": "9.0"}, "version 1.0 can be read")):
            status, out, err = self.run_with(json.dumps(text))
            self.assertEqual((1, ""), (status, out))
            self.assertIn(word, err)
            self.assertLess(len(err), 400)
