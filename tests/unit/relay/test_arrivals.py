import socket
import threading
import time

from oslotest import base

from nova_batch_migrate.relay import arrivals, destination
from tests.unit.relay import hosts, namespace


class Arrivals(base.BaseTestCase):
    def setUp(self):
        super().setUp()
        self.arrivals, self.through = arrivals.Arrivals(), []

    def lead(self, place, name):
        def run():
            place.wait()
            self.through.append(name)
        thread = threading.Thread(target=run, daemon=True)
        thread.start()
        self.addCleanup(thread.join, hosts.SECONDS)
        return thread

    def test_each_waits_for_the_one_before_it_to_the_same_port(self):
        first, second, third = (self.arrivals.place(("a", 1)) for _ in range(3))
        later = self.lead(third, 3), self.lead(second, 2)
        other = self.arrivals.place(("a", 2))
        other.wait()
        time.sleep(0.05)
        self.assertEqual([], self.through)
        first.passed()
        later[1].join(hosts.SECONDS)
        self.assertEqual([2], self.through)
        second.passed()
        second.passed()
        later[0].join(hosts.SECONDS)
        self.assertEqual([2, 3], self.through)

    def test_nothing_is_kept_of_who_is_through(self):
        for _ in range(3):
            place = self.arrivals.place("port")
            place.wait()
            place.passed()
        self.assertEqual({}, self.arrivals._last)


def _in_order():
    """Three connections to a port; the first of them is the slowest on its way, at both ends."""
    def slow_once(call, seconds=0.5):
        first = threading.Event()

        def called(*words):
            if not first.is_set():
                first.set()
                time.sleep(seconds)
            return call(*words)
        return called
    with hosts.two() as relays:
        hosts.open_group(relays)
        group = relays.source._groups["batch:0:cmpb"]
        group.attribute = slow_once(group.attribute)
        destination.Delivery._connect = slow_once(destination.Delivery._connect)
        main = hosts.Migration(relays, hosts.FIRST, 49152, "-multifd", "2")
        others = [socket.create_connection((relays.address, 49152), timeout=hosts.SECONDS)
                  for _ in range(2)]
        for number, connection in enumerate(others, 1):
            connection.sendall(f"connection {number}".encode())
            connection.shutdown(socket.SHUT_WR)
        main.send(b"the main one")
        main.finish()
        return [main.arrived().decode(), *(
            main.output.with_name(f"{main.output.name}.{number}").read_text()
            for number in (1, 2))]


class InOrder(namespace.NamespaceTestCase):
    def test_qemu_sees_connections_in_the_order_in_which_they_came(self):
        self.assertEqual(["the main one", "connection 1", "connection 2"],
                         namespace.run(_in_order))
