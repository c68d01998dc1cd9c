import os
import shutil
import sys

import fixtures
from oslotest import base

from nova_batch_migrate import privsep
from nova_batch_migrate.agent import emulator
from tests.unit.agent.processes import Guest


class TestRunsInstalled(base.BaseTestCase):

    def setUp(self):
        super().setUp()
        privsep.memory_pctxt.set_client_mode(False)
        self.addCleanup(privsep.memory_pctxt.set_client_mode, True)
        self.guest = self.useFixture(Guest())

    def test_the_program_that_runs(self):
        path = os.path.realpath(sys.executable)
        self.assertTrue(emulator.runs_installed(self.guest.pid_file, self.guest.id, path))

    def test_a_copy_of_it_is_another_program(self):
        copy = os.path.join(self.useFixture(fixtures.TempDir()).path, "python")
        shutil.copy(os.path.realpath(sys.executable), copy)
        self.assertFalse(emulator.runs_installed(self.guest.pid_file, self.guest.id, copy))

    def test_what_can_not_be_told_is_no(self):
        self.assertFalse(emulator.runs_installed(self.guest.pid_file, self.guest.id, "/nowhere"))
        self.assertFalse(emulator.runs_installed("/nowhere", self.guest.id, sys.executable))
        self.assertFalse(emulator.runs_installed(self.guest.pid_file, "stranger", sys.executable))
