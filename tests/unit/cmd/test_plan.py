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

    def test_figures_that_are_none_are_named_with_their_place(self):
        wrong = self.request.to_dict()
        wrong["hosts"][0]["servers"][1]["changed"]["rate_pages_per_second"] = float("nan")
        status, _, err = self.run_with(json.dumps(wrong))
        self.assertEqual(1, status)
        self.assertIn("PlanRequest.hosts[0].servers[1].changed.rate_pages_per_second must be a "
                      "number not below 0, not nan", err)

    def test_a_server_without_telemetry_is_named(self):
        wrong = self.request.to_dict()
        del wrong["hosts"][0]["servers"][1]
        status, _, err = self.run_with(json.dumps(wrong))
        self.assertEqual(1, status)
        self.assertIn("no host's telemetry names id-db; measure the source again", err)

    def test_what_is_no_plan_is_named(self):
        for text, word in (("{", "no JSON"), ("[]", "PlanRequest"), ("{}", "hosts"),
                           (json.dumps({"request": {"hosts": 3}}), "PlanRequest.hosts")):
            status, out, err = self.run_with(text)
            self.assertEqual((1, ""), (status, out))
            self.assertIn(word, err)
