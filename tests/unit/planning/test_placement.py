import dataclasses

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

    def test_members_that_run_there_count_for_anti_affinity(self):
        here = dataclasses.replace(destination("d1", 9), server_groups=("g",))
        found, homeless = places([[move("a", anti_affinity_group="g")],
                                  [move("b", anti_affinity_group="g")]],
                                 here, destination("d2", 8))
        self.assertEqual({"a": "d2"}, found)
        self.assertIn("without a member of anti-affinity group g", homeless["id-b"])
        found, _ = places([[move("a", anti_affinity_group="g", anti_affinity_most=2)]],
                          here, destination("d2", 8))
        self.assertEqual({"a": "d1"}, found)

    def test_soft_anti_affinity_spreads_while_it_can(self):
        group = [[move(n, soft_anti_affinity_group="g") for n in "abc"]]
        found, homeless = places(group, destination("d1", 9), destination("d2", 4))
        self.assertEqual(({"a": "d1", "b": "d2", "c": "d1"}, {}), (found, homeless))

    def test_soft_affinity_gathers_while_there_is_room(self):
        there = dataclasses.replace(destination("d1", 1), server_groups=("g",))
        found, homeless = places([[move(n, soft_affinity_group="g")] for n in "ab"],
                                 there, destination("d2", 8))
        self.assertEqual(({"a": "d1", "b": "d2"}, {}), (found, homeless))

    def test_a_relays_dictionary_takes_room_once_per_source_and_destination(self):
        groups = [[move("a", 1), move("b", 1)], [move("c", 1)]]
        for sources, left_over in ((("s1", "s1"), []), (("s1", "s2"), ["id-c"])):
            found, homeless = placement.place_groups(groups, [destination("d1", 4)], sources, GIB)
            self.assertEqual(left_over, list(homeless))
            self.assertEqual(3 - len(left_over), len(found))
        self.assertIn("a relay's dictionary of 1.0 GiB", homeless["id-c"])


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

    @settings(deadline=None, max_examples=60)
    @given(strategies.lists(strategies.tuples(
        strategies.integers(1, 4), strategies.integers(1, 3), strategies.integers(0, 3),
        strategies.sampled_from([None, "g"]), strategies.sampled_from([None, "h", "i"]),
        strategies.sampled_from([None, "j"])), max_size=12),
        strategies.lists(strategies.tuples(
            strategies.integers(-1, 9), strategies.integers(0, 9), strategies.integers(0, 9),
            strategies.lists(strategies.sampled_from("ghij"), max_size=2)),
            min_size=1, max_size=6))
    def test_the_choice_is_that_of_looking_at_every_host(self, wanted, rooms):
        free = {f"d{at}": [memory * GIB, vcpus, disk, 0, list(groups)]
                for at, (memory, vcpus, disk, groups) in enumerate(rooms)}
        servers = [
            move(f"s{at}", memory, tuple(free)[at % 2:], vcpus=vcpus, disk_gb=disk,
                 anti_affinity_group=hard, soft_anti_affinity_group=apart,
                 soft_affinity_group=near)
            for at, (memory, vcpus, disk, hard, apart, near) in enumerate(wanted)]
        room = placement.Room(
            [dataclasses.replace(destination(name, room[0] / GIB, room[1], room[2]),
                                 server_groups=tuple(room[4])) for name, room in free.items()],
            servers)
        mates = set()
        for server in servers:
            fitting = [
                (left[4].count(server.soft_anti_affinity_group),
                 server.soft_affinity_group not in left[4] if server.soft_affinity_group else True,
                 name not in mates, -left[0], left[3], name)
                for name, left in free.items()
                if name in server.destinations and left[0] >= server.memory_bytes
                and left[1] >= server.vcpus and left[2] >= server.disk_gb
                and (server.anti_affinity_group is None or "g" not in left[4])]
            place = room.place(server, mates)
            self.assertEqual(min(fitting)[-1] if fitting else None, place and place.host)
            if place is None:
                continue
            mates.add(place.host)
            left = free[place.host]
            left[0] -= server.memory_bytes
            left[1] -= server.vcpus
            left[2] -= server.disk_gb
            left[3] += 1
            left[4] += [group for group in (server.anti_affinity_group,
                                            server.soft_anti_affinity_group,
                                            server.soft_affinity_group) if group]
