"""A conductor is killed in the middle of a batch and another one goes on with it."""

from tests.functional import base


class Takeover(base.BatchTestCase):
    def setUp(self):
        super().setUp()
        self.servers = self.boot("a", "b", "c")

    def assert_all_moved_once(self, batch_id):
        batch = self.wait_for_batch(batch_id, "completed")
        self.assertEqual(set(self.servers), {server["id"] for server in batch["servers"]})
        for server_id in self.servers:
            self.assertEqual("cmpb", self.host_of(server_id))
            self.assertEqual(1, self.hypervisors.stream_count(server_id), server_id)
            asked = self.api.api_get(f"/os-migrations?instance_uuid={server_id}")
            self.assertEqual(1, len(asked.body["migrations"]), asked.body)

    def test_killed_during_a_stream(self):
        self.hypervisors.hold()
        batch_id = self.drain(max_parallel=1)["id"]
        self.wait(self.hypervisors.running, "a stream to begin")
        self.conductor_service.kill()
        self.hypervisors.release()
        self.wait(lambda: not self.hypervisors.running(), "the stream to end by itself")
        self.conductor_service.start()
        self.assert_all_moved_once(batch_id)

    def test_killed_right_after_nova_took_the_call(self):
        died = self.conductor_service.dies_at_the_call(arrived=True)
        batch_id = self.drain(max_parallel=1)["id"]
        self.assertTrue(died.wait(base.WAIT_SECONDS))
        self.conductor_service.kill()
        self.conductor_service.start()
        self.assert_all_moved_once(batch_id)

    def test_killed_right_before_nova_takes_the_call(self):
        died = self.conductor_service.dies_at_the_call(arrived=False)
        batch_id = self.drain(max_parallel=1)["id"]
        self.assertTrue(died.wait(base.WAIT_SECONDS))
        self.conductor_service.kill()
        self.assertEqual([], self.hypervisors.streams)
        self.conductor_service.start()
        self.assert_all_moved_once(batch_id)

    def test_killed_while_it_measures(self):
        self.guests.hold_measures()
        batch_id = self.drain()["id"]
        self.wait_for_batch(batch_id, "measuring")
        self.conductor_service.kill()
        self.guests.release_measures()
        self.conductor_service.start()
        self.assert_all_moved_once(batch_id)

    def test_stopped_in_order_it_gives_its_batches_back_at_once(self):
        self.config.set("conductor", lease_seconds=3600)
        self.hypervisors.hold()
        batch_id = self.drain(max_parallel=1)["id"]
        self.wait(self.hypervisors.running, "a stream to begin")
        self.conductor_service.stop()
        self.hypervisors.release()
        self.conductor_service.start()
        self.assert_all_moved_once(batch_id)
