import os
import pathlib

import ddt
import fixtures
from oslotest import base

from nova_batch_migrate import exception
from nova_batch_migrate.agent import disks, domain_xml, domains
from nova_batch_migrate.planning.telemetry import Disk

MOUNTS = """\
/dev/vda1 / ext4 rw 0 0
server:/export /var/lib/nova/instances nfs4 rw 0 0
/dev/vdb /var/lib/nova/instances/local xfs rw 0 0
lab /srv/two\\040words fuse.glusterfs rw 0 0
"""


@ddt.ddt
class TestIsShared(base.BaseTestCase):

    @ddt.data(
        ("file", "/var/lib/nova/instances/1/disk", True),
        ("file", "/var/lib/nova/instances/local/1/disk", False),
        ("file", "/var/lib/nova/instances2/disk", False),
        ("file", "/srv/two words/disk", True),
        ("file", "/root/disk", False),
        ("network", "", True),
        ("block", "/dev/sdc", True))
    @ddt.unpack
    def test_a_file_is_judged_by_its_file_system(self, kind, path, shared):
        mounts = os.path.join(self.useFixture(fixtures.TempDir()).path, "mounts")
        pathlib.Path(mounts).write_text(MOUNTS, encoding="utf-8")
        self.assertEqual(shared, disks.is_shared(kind, path, mounts))


class Counters:
    """A hypervisor whose disks are written to between two looks."""

    def __init__(self):
        self.written = 0

    def disk_use(self, server, device):
        if device == "hdc":
            raise exception.AgentRefused(reason="no medium")
        self.written += 4000
        return domains.DiskUse(allocated_bytes=1 << 20, written_bytes=self.written)


class TestDiskWatch(base.BaseTestCase):

    def test_counts_what_is_written_between_two_looks(self):
        clock = iter((10.0, 14.0))
        self.useFixture(fixtures.MonkeyPatch("time.monotonic", lambda: next(clock)))
        domain = domains.Domain(
            "id", "instance-1", 1, domain_xml.Definition(
                "kvm", "web", "", 1, (1,), (domain_xml.DiskSource("vda", "network", ""),
                                            domain_xml.DiskSource("hdc", "file", "/x"))),
            domains.Presence("running", False, False), "pid")
        self.assertEqual([Disk("vda", 1 << 20, 1000.0, True)],
                         disks.DiskWatch(Counters(), domain).result())
