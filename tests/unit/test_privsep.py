from oslo_config import cfg
from oslo_privsep import capabilities
from oslotest import base

from nova_batch_migrate import privsep
from nova_batch_migrate.agent import frames, scan


class TestContext(base.BaseTestCase):

    def test_the_process_may_look_and_nothing_else(self):
        self.assertEqual(
            {capabilities.CAP_SYS_PTRACE, capabilities.CAP_DAC_READ_SEARCH},
            set(cfg.CONF[privsep.SECTION].capabilities))

    def test_frame_numbers_need_more_in_a_process_of_its_own(self):
        self.assertEqual(
            {capabilities.CAP_SYS_PTRACE, capabilities.CAP_DAC_READ_SEARCH,
             capabilities.CAP_SYS_ADMIN},
            set(cfg.CONF[privsep.FRAMES_SECTION].capabilities))
        self.assertTrue(privsep.frames_pctxt.is_entrypoint(frames.mapped))

    def test_only_the_scan_is_called_there(self):
        for entrypoint in (scan.measure, scan.progress, scan.probe):
            self.assertTrue(privsep.memory_pctxt.is_entrypoint(entrypoint))

    def test_progress_finds_a_thread_beside_a_measurement(self):
        self.assertGreaterEqual(cfg.CONF[privsep.SECTION].thread_pool_size, 2)

    def test_the_helper_is_started_for_this_context(self):
        command = privsep.memory_pctxt.helper_command("/tmp/socket")
        self.assertIn("nova_batch_migrate.privsep.memory_pctxt", command)
