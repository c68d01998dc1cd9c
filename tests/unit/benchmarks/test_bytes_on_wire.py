import dataclasses
import pathlib
import random
import shutil
import tempfile

from oslotest import base

from tests.unit.benchmarks import paths  # noqa: F401  (before nbmbench)

from nbmbench import contract, fleets  # noqa: E402  isort: skip
from nbmbench.rig import Frozen  # noqa: E402  isort: skip
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


    def test_a_floor_above_the_goal_is_told(self):
        told = bytes_on_wire.measured([
            case("multifd-zstd", 400, activity="busy", mode="live", fleet="alike-random"),
            case("relay", 230, activity="busy", mode="live", fleet="alike-random"),
            case("floor", 200, activity="busy", scope="host", fleet="alike-random"),
            case("relay", 202, activity="busy", scope="host", fleet="alike-random")])
        self.assertEqual({"alike_vs_floor": 1.01, "worst_vs_zstd": 0.575, "random_vs_zstd": 0.575,
                          "random_floor_vs_zstd": 0.5}, told)

    def test_a_fleet_of_which_a_case_is_not_there_is_missing(self):
        cases = [case(contender, 100, fleet=fleet, activity=activity, mode=mode, scope=scope)
                 for activity, named in bytes_on_wire.FLEETS.items() for fleet in named
                 for mode, contender, scope in bytes_on_wire._needed(fleet, activity)]
        self.assertEqual([], bytes_on_wire.missing(cases))
        for lost, told in (({"fleet": "alike", "activity": "busy", "mode": "live",
                             "contender": "multifd-zstd"}, "alike busy"),
                           ({"fleet": "alike-random", "contender": "floor", "scope": "project"},
                            "alike-random busy"),
                           ({"fleet": "unlike", "activity": "idle", "contender": "relay",
                             "scope": "host"}, "unlike idle")):
            left = [each for each in cases if any(each[key] != lost[key] for key in lost)]
            self.assertEqual(len(cases) - 1, len(left))
            self.assertEqual([told], bytes_on_wire.missing(left))

    def test_what_a_step_has_left_serves_the_next_without_guests(self):
        directory = pathlib.Path(self.enterContext(tempfile.TemporaryDirectory()))
        if not shutil.which("zstd"):
            self.skipTest("the zstd command comes with lab/install lab")
        kinds = fleets.kinds_of("alike")
        loads = fleets.loads_of("alike", "busy", kinds)
        fleets.Pool(directory, _Rig()).take(list(zip(kinds, loads, strict=True)))
        for index in range(8):
            (directory / f"alike-busy-{index}").write_bytes(random.Random(1).randbytes(9000))
        settings = contract.Settings(scratch=directory, options=(
            f"kept={directory}", "files", "busy", "alike"))
        cases = bytes_on_wire.run(settings)
        self.assertEqual({("alike", "busy", "stream")}, {
            (each["fleet"], each["activity"], each["mode"]) for each in cases})
        relay = next(each for each in cases if each["contender"] == "relay-zstd")
        self.assertEqual((72_000, True), (relay["raw_bytes"], relay["verified"]))
        self.assertEqual([fleets.random_bytes(fleets.BUSY[1]), 0], relay["random_bytes"][2:4])
        told = next(each for each in cases if each["contender"] == "relay")
        self.assertEqual({"3": 72_000}, told["raw_bytes_by_level"])
        alone = bytes_on_wire.run(dataclasses.replace(
            settings, options=(*settings.options, "relay-zstd")))
        self.assertEqual([("relay-zstd", "project"), ("relay-zstd", "host")], [
            (each["contender"], each["scope"]) for each in alone])


class _Guest:
    """Stands for a QEMU that is frozen."""

    def __init__(self, spec):
        self.spec = spec

    def freeze(self, stream):
        stream.write_bytes(self.spec.name.encode())
        return Frozen(self.spec, stream, None, None)


class _Rig:
    """Stands for a rig; keeps which guests it was asked for."""

    def __init__(self):
        self.booted = []

    def boot_all(self, specs, ticks):
        self.booted += [spec.name for spec in specs]
        return [_Guest(spec) for spec in specs]


class TestPool(base.BaseTestCase):
    def setUp(self):
        super().setUp()
        self.directory = pathlib.Path(self.enterContext(tempfile.TemporaryDirectory()))
        self.rig = _Rig()

    def test_a_guest_serves_in_several_fleets_never_twice_in_one(self):
        text, mid = fleets.BUSY
        pool = fleets.Pool(self.directory, self.rig)
        first = pool.take([("web", text), ("web", text), ("web", mid)])
        self.assertEqual(3, len({frozen.stream for frozen in first}))
        second = pool.take([("web", mid), ("web", text), ("web", mid)])
        self.assertEqual([first[2], first[0]], second[:2])
        self.assertEqual(4, len(set(self.rig.booted)))
        self.assertEqual(4, len(self.rig.booted))

    def test_loads_that_a_kind_does_not_have_make_no_guest_serve_twice(self):
        taken = fleets.Pool(self.directory, self.rig).take(
            [("redis", load) for load in fleets.loads_of("alike-redis", "busy", ["redis"] * 8)])
        self.assertEqual(8, len({frozen.stream for frozen in taken}))

    def test_guests_of_an_earlier_run_need_no_rig(self):
        wanted = [("redis", fleets.IDLE), ("cache", fleets.IDLE)]
        made = fleets.Pool(self.directory, self.rig).take(wanted)
        again = fleets.Pool(self.directory, None)
        self.assertEqual(made, again.take(wanted))
        # the same redis, whatever else the guests of a fleet write
        self.assertEqual(made[:1], again.take([("redis", fleets.RANDOM)]))
        self.assertRaises(LookupError, again.take, [("web", fleets.IDLE)])


class TestFleets(base.BaseTestCase):
    def test_sizes_and_kinds(self):
        for name, different in (("alike", 1), ("alike-redis", 1), ("mixed", 4), ("unlike", 8)):
            kinds = fleets.kinds_of(name)
            self.assertEqual((8, different), (len(kinds), len(set(kinds))), name)

    def test_a_real_service_is_in_every_sort_of_fleet(self):
        for name in ("alike-redis", "mixed", "unlike"):
            self.assertIn("redis", fleets.kinds_of(name))

    def test_half_of_a_busy_fleet_holds_text_in_either_project_and_of_every_kind(self):
        for name in ("alike", "mixed"):
            kinds = fleets.kinds_of(name)
            text = [load.compressible for load in fleets.loads_of(name, "busy", kinds)]
            self.assertEqual([2, 2], [sum(text[first::2]) for first in (0, 1)], name)
            for kind in set(kinds):
                own = [each for each, of in zip(text, kinds, strict=True) if of == kind]
                self.assertEqual(len(own), 2 * sum(own), (name, kind))

    def test_a_held_out_fleet_is_drawn(self):
        self.assertRaises(ValueError, fleets.kinds_of, "held-out")
        drawn = fleets.kinds_of("held-out", random.Random(3))
        self.assertEqual(drawn, fleets.kinds_of("held-out", random.Random(3)))
        self.assertEqual(8, len(drawn))
