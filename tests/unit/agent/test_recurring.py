import base64

import fixtures
import numpy

from nova_batch_migrate import exception
from nova_batch_migrate.agent import recurring, remembered
from nova_batch_migrate.relay import control, values
from tests.unit.agent.processes import Guest
from tests.unit.agent.test_scan import ScanCase

TOKEN = "ab" * 32


class RecurringTest(ScanCase):
    def group(self, *members, pages=2):
        return {"id": "g", "role": "source", "token": TOKEN, "source": "cmpa",
                "destination": "cmpb", "peer_address": "192.0.2.7", "peer_port": 49300,
                "dictionary_bytes": pages * 4096,
                "members": [{"server_id": guest.id, "order": n, "scope": scope}
                            for n, (guest, scope) in enumerate(members)]}

    def guests(self, *contents):
        guests = [self.useFixture(Guest("memfd")) for _ in contents]
        for guest, pages in zip(guests, contents, strict=True):
            guest.write(dict(enumerate(pages)))
        self.addCleanup(remembered.forget)
        self.measure(*guests)
        return guests

    def listed(self, told):
        return len(numpy.frombuffer(base64.b64decode(told["hashes"]), numpy.uint32))

    def test_what_several_hold_or_one_holds_twice(self):
        one, two = self.guests([1, 2, 2, 3], [3, 4, 0])
        told = recurring.of_group(self.group((one, "p"), (two, "p")))
        self.assertEqual({"p"}, told.keys())
        self.assertEqual((7, 2), (told["p"]["seed"], self.listed(told["p"])))
        # each scope is a log of its own, with its share of the dictionary
        apart = recurring.of_group(self.group((one, "p"), (two, "q"), pages=4))
        self.assertEqual({"p": 1}, {scope: self.listed(told) for scope, told in apart.items()})

    def test_what_most_servers_hold_is_told_first_and_never_more_than_a_line_holds(self):
        guests = self.guests([1, 2, 3, 8, 8], [1, 2, 4], [1, 5, 6])
        members = [(guest, "p") for guest in guests]
        every = self.hashes(recurring.of_group(self.group(*members)))
        by_holders = []
        for most in (1, 2, 3):
            self.useFixture(fixtures.MockPatchObject(recurring, "MOST_HASHES", most))
            by_holders.append(self.hashes(recurring.of_group(self.group(*members))))
        self.assertEqual([1, 2, 3], [len(each) for each in by_holders])
        # held by three, then by two, then twice by one
        self.assertTrue(by_holders[0] < by_holders[1] < by_holders[2] == every)
        held_by_all = self.hashes(recurring.of_group(self.group(*members[1:])))
        self.assertEqual(held_by_all, by_holders[0])
        # as large as it may be it passes the control socket
        self.assertLess(recurring.MOST_HASHES * 4 * 4 // 3, control._LINE_BYTES * 3 // 4)

    def hashes(self, told):
        return set(numpy.frombuffer(base64.b64decode(told["p"]["hashes"]), numpy.uint32).tolist())

    def test_nothing_is_told_where_all_has_room_or_not_all_is_known(self):
        one, two = self.guests([1, 2, 3], [3, 4])
        self.assertEqual({}, recurring.of_group(self.group((one, "p"), (two, "p"), pages=4)))
        self.assertEqual({}, recurring.of_group(self.group((one, None))))
        stranger = self.useFixture(Guest("memfd"))
        self.assertEqual({}, recurring.of_group(self.group((one, "p"), (stranger, "p"))))

    def test_the_relay_understands_it(self):
        one, two = self.guests([1, 2, 2, 3], [3, 4, 5])
        group = self.group((one, "p"), (two, "p"))
        made = values.Group.from_dict(group | {"recurring": recurring.of_group(group)})
        (scope, seed, hashes, theta), = made.recurring
        self.assertEqual(("p", 7, 8, 1.0), (scope, seed, len(hashes), theta))
        for length, theta in ((3, 1), (4, 0), (4, 2)):
            told = {"seed": 7, "theta": theta, "hashes": base64.b64encode(bytes(length)).decode()}
            self.assertRaises(exception.RelayError, values.Group.from_dict,
                              group | {"recurring": {"p": told}})

    def test_of_many_pages_a_share_is_known(self):
        common = list(range(1, 201))
        one, two = (self.useFixture(Guest("memfd")) for _ in range(2))
        for guest, own in ((one, 300), (two, 400)):
            guest.write(dict(enumerate([*common, *range(own, own + 50)])))
        self.addCleanup(remembered.forget)
        self.measure(one, two, page_budget=250)
        told = recurring.of_group(self.group((one, "p"), (two, "p"), pages=200))["p"]
        self.assertEqual(0.5, round(told["theta"], 1))
        self.assertAlmostEqual(200, self.listed(told) / told["theta"], delta=60)
        # what all of it comes to has room
        self.assertEqual({}, recurring.of_group(self.group((one, "p"), (two, "p"), pages=450)))
