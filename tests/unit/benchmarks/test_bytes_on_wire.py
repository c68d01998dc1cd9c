import pathlib
import random
import shutil
import tempfile

from oslotest import base

from tests.unit.benchmarks import paths  # noqa: F401  (before nbmbench)

from nbmbench import contract, fleets  # noqa: E402  isort: skip
from nbmbench.suite import bytes_on_wire  # noqa: E402  isort: skip


def case(contender, wire, fleet="alike", scope="guest", activity="idle", mode="stream"):
    return {"fleet": fleet, "activity": activity, "mode": mode, "scope": scope,
            "contender": contender, "wire_bytes": wire, "raw_bytes": 1000,
            "guest_wire_bytes": [wire - 40, 40], "guest_raw_bytes": [500, 500],
            "random_bytes": [20, 20]}


class TestMeasured(base.BaseTestCase):
    def test_the_worst_scope_counts(self):
        told = bytes_on_wire.measured([
            case("multifd-zstd", 400), case("stock", 1000),
            case("rival", 200, scope="project"), case("rival", 100, scope="host"),
            case("relay", 180, scope="project"), case("relay", 120, scope="host")])
        self.assertEqual(0.45, told["alike_vs_zstd"])
        self.assertEqual(1.2, told["alike_vs_rival"])     # host: 120 / 100
        self.assertEqual(0.18, told["alike_vs_stock"])
        self.assertEqual((40 - 20) / (500 - 20), told["marginal_guest"])
        self.assertNotIn("alike_vs_floor", told)

    def test_only_the_same_streams_are_compared(self):
        told = bytes_on_wire.measured([
            case("multifd-zstd", 400, activity="busy", mode="live", fleet="unlike"),
            case("relay", 300, activity="busy", mode="stream", fleet="unlike", scope="host"),
            case("relay", 380, activity="busy", mode="live", fleet="unlike", scope="project")])
        self.assertEqual({"unlike_vs_zstd": 0.95, "worst_vs_zstd": 0.95}, told)


    def test_a_fleet_that_was_cut_short_is_missing(self):
        cases = [case(contender, 100, fleet=fleet, activity="busy", mode=mode)
                 for fleet in ("alike", "alike-redis", "mixed", "unlike")
                 for contender, mode in (("multifd-zstd", "live"), ("relay", "stream"),
                                         ("relay", "live"))]
        cases += [case(contender, 100, fleet=fleet) for contender in ("relay", "multifd-zstd")
                  for fleet in ("alike", "alike-redis", "mixed", "unlike")]
        self.assertEqual([], bytes_on_wire.missing(cases))
        self.assertEqual(["unlike idle"], bytes_on_wire.missing(cases[:-1]))
        self.assertEqual(["unlike busy"], bytes_on_wire.missing(cases[:11] + cases[12:]))


    def test_kept_streams_are_sent_again_without_guests(self):
        directory = pathlib.Path(self.enterContext(tempfile.TemporaryDirectory()))
        for index in range(8):
            (directory / f"alike-live-{index}").write_bytes(random.Random(1).randbytes(9000))
        (directory / "mixed-live-0").write_bytes(b"one of eight")
        if not shutil.which("zstd"):
            self.skipTest("the zstd command comes with lab/install lab")
        settings = contract.Settings(True, options=(f"streams={directory}",), scratch=directory)
        cases = bytes_on_wire.run(settings)
        self.assertEqual({("alike", "busy", "stream")}, {
            (each["fleet"], each["activity"], each["mode"]) for each in cases})
        relay = next(each for each in cases if each["contender"] == "relay-zstd")
        self.assertEqual((72_000, True), (relay["raw_bytes"], relay["verified"]))
        self.assertEqual(fleets.random_bytes(fleets.BUSY), relay["random_bytes"][1])


class TestFleets(base.BaseTestCase):
    def test_sizes_and_kinds(self):
        for name, different in (("alike", 1), ("alike-redis", 1), ("mixed", 4), ("unlike", 8)):
            kinds = fleets.kinds_of(name)
            self.assertEqual((8, different), (len(kinds), len(set(kinds))), name)

    def test_a_real_service_is_in_every_sort_of_fleet(self):
        for name in ("alike-redis", "mixed", "unlike"):
            self.assertIn("redis", fleets.kinds_of(name))

    def test_a_held_out_fleet_is_drawn(self):
        self.assertRaises(ValueError, fleets.kinds_of, "held-out")
        drawn = fleets.kinds_of("held-out", random.Random(3))
        self.assertEqual(drawn, fleets.kinds_of("held-out", random.Random(3)))
        self.assertEqual(8, len(drawn))
