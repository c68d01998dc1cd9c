"""Whatever stands in a file, nova-batch-plan makes a plan of it or says what is wrong, and ends."""

import copy
import json
import random

from oslotest import base

from nova_batch_migrate import exception
from nova_batch_migrate.cmd import plan as command
from nova_batch_migrate.planning import commonality
from nova_batch_migrate.planning import telemetry as t
from tests.unit.planning import builders

FILES = 400
WRONG = (None, float("nan"), float("inf"), -1, 0, 1, 1e300, 10 ** 18, 1e-300, "x", "", [], {}, True,
         [None], [[]], {"a": 1}, 0.5, 2 ** 63)


def request(relay: bool) -> dict:
    """A request in which every kind of value is."""
    busy = t.DirtyModel(300.0, 900.0, 0.1, "content-diff", 50.0, 20.0)
    servers = [
        builders.server(
            "a", 10, dirty=busy, touched=busy, windows=(t.DirtyWindow(1.0, 5.0, "content-diff"),),
            history=t.History((1.0, 61.0), (3.0, 4.0), 2.0, "content-diff", busy,
                              t.Periodicity(30.0, 5.0, 12.0, 1.0, 300.0, 0.95)),
            disks=(t.Disk("vda", 1 << 24, 1000.0, False),),
            sequence=t.PageSequence(1.0, (1, 2, 3, -4, 2)), compress_unchanged=0.4,
            compress_changed=0.5, compress_own=0.5, compress_own_behind_like=0.3,
            compress_shared=0.4),
        builders.server("b", 12, sequence=t.PageSequence(1.0, (1, 2, -9)), compress_own=0.4),
        builders.server("c", 8, error="gone"),
        builders.server("d", 9, project="q", sequence=t.PageSequence(1.0, (1, 3)))]
    first = builders.host(servers, builders.classes(("a b", 900), ("b d", 300),
                                                    background=t.Background(3, 40))).to_dict()
    first |= {
        "mapped_classes": builders.classes(("a b", 10)).to_dict(),
        "portions": t.Portions(512, 1.0, (t.PageClass(("id-a", "id-b"), 5),)).to_dict(),
        "confirmation": {"pairs": 9, "held": 8},
        "sketch": {"key_id": "k", "theta": 1.0, "identities": [f"{7:016x}", f"{9:016x}"]}}
    second = builders.host([builders.server("z", 7)], name="cmpz").to_dict()
    second["sketch"] = {"key_id": "k", "theta": 0.5, "identities": [f"{7:016x}"]}
    return builders.plan_request(
        t.HostTelemetry.from_dict(first), t.HostTelemetry.from_dict(second), relay=relay,
        synchronized=(("id-b", "id-d"),) if relay else (), max_wait_seconds=60.0, now_seconds=1e9,
        dictionary_bytes=1 << 22, deadline_seconds=100.0).to_dict()


def ways(value, before=()):
    """Yield the way to every value within a value."""
    inner = value.items() if isinstance(value, dict) else (
        enumerate(value) if isinstance(value, list) else ())
    for step, each in inner:
        yield (*before, step)
        yield from ways(each, (*before, step))


def spoilt(whole: dict, draw: random.Random) -> dict:
    """Return a copy in which one to three values are wrong, gone or there twice."""
    found = copy.deepcopy(whole)
    for _ in range(draw.choice([1, 1, 1, 2, 3])):
        *way, last = draw.choice(list(ways(found)))
        place = found
        for step in way:
            place = place[step]
        how = draw.random()
        if how < 0.15:
            del place[last]
        elif how < 0.2 and isinstance(place, list):
            place.append(copy.deepcopy(place[last]))
        else:
            place[last] = copy.deepcopy(draw.choice(WRONG))
    return found


class TestAnything(base.BaseTestCase):

    def planned(self, given: dict) -> bool:
        try:
            made = command.planned(json.dumps(given))
        except exception.PlanningError as error:
            self.assertTrue(error.reason)
            return False
        json.dumps(made.to_dict(), allow_nan=False)
        json.dumps(commonality.chart(made.request.hosts), allow_nan=False)
        self.assertTrue(command.explained(made))
        # nobody is forgotten
        named = {m.server_id for g in made.groups for m in g.members} | {
            each.server_id for each in made.staying}
        self.assertLessEqual({each.id for each in made.request.movable}, named)
        return True

    def test_a_plan_or_a_reason(self):
        whole = [request(relay) for relay in (False, True)]
        planned = 0
        for seed in range(FILES):
            draw = random.Random(seed)
            planned += self.planned(spoilt(draw.choice(whole), draw))
        # most of it is telemetry, and telemetry alone is no reason to refuse
        self.assertGreater(planned, FILES / 2)

    def test_pages_that_compress_to_nothing_take_time(self):
        """They crossed in no time once, and the simulation of it did not end."""
        for field in ("compress_unchanged", "compress_changed", "compress_own", "compress_shared"):
            given = request(relay=True)
            for server in given["hosts"][0]["servers"]:
                server[field] = 0.0
            self.assertTrue(self.planned(given))
