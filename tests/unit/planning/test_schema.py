import json
import pathlib

import ddt
import jsonschema
from oslotest import base

from nova_batch_migrate import exception
from nova_batch_migrate.planning import schema, telemetry
from nova_batch_migrate.planning.request import PlanRequest
from tests.unit.planning import builders

PUBLISHED = pathlib.Path(__file__).parents[3] / "doc/source/plan-request.schema.json"


def request():
    busy = telemetry.DirtyModel(500.0, 1000.0, 0.1, "content-diff")
    return builders.plan_request(builders.host(
        [builders.server("a", dirty=busy, touched=busy, disks=(
            telemetry.Disk("vda", 1024, 10.0, False),),
            sequence=telemetry.PageSequence(0.5, (1, -4, 1))),
         builders.server("b", error="gone")],
        builders.classes(("a b", 7), background=telemetry.Background(2, 3)))).to_dict()


@ddt.ddt
class TestSchema(base.BaseTestCase):

    def setUp(self):
        super().setUp()
        self.schema = schema.json_schema(PlanRequest)
        self.validator = jsonschema.Draft202012Validator(self.schema)

    def test_the_published_one_is_made_from_the_types(self):
        self.assertEqual(self.schema, json.loads(PUBLISHED.read_text()),
                         f"nova-batch-plan --schema > {PUBLISHED.name}")

    def test_it_is_a_schema_and_takes_what_the_values_write(self):
        jsonschema.Draft202012Validator.check_schema(self.schema)
        self.validator.validate(json.loads(json.dumps(request())))

    @ddt.data(
        (("hosts", 0, "bandwidth", "other_bytes_per_second"), -1),
        (("hosts", 0, "servers", 0, "changed", "rate_pages_per_second"), "fast"),
        (("hosts", 0, "servers", 0, "present_pages"), 1.5),
        (("hosts", 0, "servers", 0, "sequence", "contents"), [1, "x"]),
        (("hosts", 0, "page_classes", "classes"), [{"pages": 3}]),
        (("strategy",), "guess"),
        (("movable",), None),
    )
    @ddt.unpack
    def test_values_and_schema_refuse_the_same(self, way, wrong):
        data = request()
        place = data
        for step in way[:-1]:
            place = place[step]
        place[way[-1]] = wrong
        self.assertFalse(self.validator.is_valid(data))
        error = self.assertRaises(exception.PlanningError, PlanRequest.from_dict, data)
        named = "".join(f"[{step}]" if isinstance(step, int) else f".{step}" for step in way)
        self.assertIn("PlanRequest" + named, str(error))
