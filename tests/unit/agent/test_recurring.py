import base64

import numpy

from nova_batch_migrate import exception
from nova_batch_migrate.agent import recurring, scan
from nova_batch_migrate.relay import values
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
        self.addCleanup(scan._known.clear)
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
        (scope, seed, hashes), = made.recurring
        self.assertEqual(("p", 7, 8), (scope, seed, len(hashes)))
        self.assertRaises(exception.RelayError, values.Group.from_dict, group | {
            "recurring": {"p": {"seed": 7, "hashes": base64.b64encode(b"abc").decode()}}})
