from hypothesis import given, settings, strategies
from oslotest import base

from nova_batch_migrate.planning import placement
from tests.unit.planning import builders
from tests.unit.planning.builders import GIB, destination

BOTH = ("d1", "d2")


def move(name, memory_gib=1.0, destinations=BOTH, **fields):
    values = dict(memory_bytes=int(memory_gib * GIB), vcpus=1, disk_gb=0)
    return builders.movable(builders.server(name), destinations, **{**values, **fields})


def places(groups, *destinations):
    found, homeless = placement.place_groups(groups, destinations)
    return {i.removeprefix("id-"): place.host for i, place in found.items()}, homeless


class TestPlacement(base.BaseTestCase):

    def test_most_free_memory_then_fewest_servers_then_name(self):
        room = placement.Room([destination("d1", 4), destination("d2", 8)], [])
        self.assertEqual("d2", room.place(move("a")).host)
        self.assertIn("8.0 GiB", placement.Room([destination("d2", 8)], []).place(
            move("a")).reason)
        room = placement.Room([destination("d2", 4), destination("d1", 4)], [])
        self.assertEqual(["d1", "d2"], [room.place(move(n)).host for n in "ab"])

    def test_groups_stay_together_while_there_is_room(self):
        found, homeless = places([[move("a", 2), move("b", 2), move("c", 2)]],
                                 destination("d1", 4), destination("d2", 3))
        self.assertEqual(({"a": "d1", "b": "d1", "c": "d2"}, {}), (found, homeless))

    def test_planned_moves_take_room(self):
        found, homeless = places([[move("a", 2)], [move("b", 2)]], destination("d1", 3))
        self.assertEqual({"a": "d1"}, found)
        self.assertIn("it takes 2.0 GiB", homeless["id-b"])
        self.assertIn("on d1: 1.0 GiB", homeless["id-b"])

    def test_vcpus_and_disk_count_too(self):
        for wants in ({"vcpus": 65}, {"disk_gb": 1001}):
            found, homeless = places([[move("a", **wants)]], destination("d1"))
            self.assertEqual(({}, ["id-a"]), (found, list(homeless)))

    def test_only_allowed_destinations(self):
        found, homeless = places([[move("a", destinations=("d2",))],
                                  [move("b", destinations=())]], destination("d1"))
        self.assertEqual({}, found)
        self.assertIn("no destination is allowed", homeless["id-b"])

    def test_anti_affinity_against_planned_moves(self):
        group = [move(n, anti_affinity_group="g") for n in "abc"]
        found, homeless = places([group], destination("d1", 9), destination("d2", 8))
        self.assertEqual({"a": "d1", "b": "d2"}, found)
        self.assertIn("anti-affinity group g", homeless["id-c"])

    def test_affinity_takes_room_for_all_at_once(self):
        pair = [move("a", 2, affinity_group="g"), move("b", 2, affinity_group="g")]
        found, _ = places([[pair[0]], [move("c", 3)], [pair[1]]],
                          destination("d1", 5), destination("d2", 4))
        self.assertEqual({"c": "d1", "a": "d2", "b": "d2"}, found)

    def test_an_affinity_group_too_large_for_any_stays(self):
        pair = [move("a", 3, affinity_group="g"), move("b", 3, affinity_group="g")]
        _, homeless = places([pair], destination("d1", 5), destination("d2", 5))
        self.assertEqual(["id-a", "id-b"], sorted(homeless))
        self.assertIn("all of affinity group g", homeless["id-a"])

    def test_groups_are_given_up_where_that_places_more(self):
        # Together ab would fill d1, and c find no room; largest first all three do.
        groups = [[move("a", 2), move("b", 2)], [move("c", 3)]]
        found, homeless = places(groups, destination("d1", 5), destination("d2", 2))
        self.assertEqual({}, homeless)
        self.assertEqual({"c": "d1", "a": "d2", "b": "d1"}, found)


SERVERS = strategies.lists(strategies.tuples(
    strategies.integers(1, 8), strategies.integers(1, 4), strategies.sampled_from([None, "g", "h"]),
    strategies.sampled_from([None, "i"])), min_size=1, max_size=10)


class TestProperties(base.BaseTestCase):

    @settings(deadline=None, max_examples=60)
    @given(SERVERS, strategies.lists(strategies.tuples(
        strategies.integers(-1, 20), strategies.integers(0, 10)), min_size=1, max_size=4),
        strategies.integers(1, 4))
    def test_capacity_and_policies_hold(self, wanted, rooms, size):
        destinations = [destination(f"d{at}", memory, vcpus)
                        for at, (memory, vcpus) in enumerate(rooms)]
        hosts = tuple(d.host for d in destinations)
        servers = [move(f"s{at}", memory, hosts, vcpus=vcpus, anti_affinity_group=anti,
                        affinity_group=None if anti else near)
                   for at, (memory, vcpus, anti, near) in enumerate(wanted)]
        groups = [servers[at:at + size] for at in range(0, len(servers), size)]
        found, homeless = placement.place_groups(groups, destinations)
        self.assertEqual({s.id for s in servers}, found.keys() | homeless.keys())
        self.assertEqual(set(), found.keys() & homeless.keys())
        for one in destinations:
            here = [s for s in servers if s.id in found and found[s.id].host == one.host]
            if not here:
                continue
            self.assertLessEqual(sum(s.memory_bytes for s in here), one.free_memory_bytes)
            self.assertLessEqual(sum(s.vcpus for s in here), one.free_vcpus)
            apart = [s.anti_affinity_group for s in here if s.anti_affinity_group]
            self.assertEqual(len(set(apart)), len(apart))
        near = {found[s.id].host for s in servers if s.affinity_group and s.id in found}
        self.assertLessEqual(len(near), 1)
