from oslotest import base

from nova_batch_migrate.agent import domain_xml

XML = """\
<domain type='qemu' id='3'>
  <name>instance-0000000a</name>
  <uuid>0f7d5d0e-3b1f-4e0c-9d3e-2f5b6a7c8d9e</uuid>
  <metadata>
    <nova:instance xmlns:nova="http://openstack.org/xmlns/libvirt/nova/1.1">
      <nova:name>web &lt;1&gt;</nova:name>
      <nova:owner>
        <nova:user uuid="u1">admin</nova:user>
        <nova:project uuid="p1">demo</nova:project>
      </nova:owner>
    </nova:instance>
  </metadata>
  <memory unit='KiB'>524288</memory>
  %s
  <devices>
    <disk type='file' device='disk'><source file='/d/disk' index='1'/><target dev='vda'/></disk>
    <disk type='network' device='disk'><source protocol='rbd' name='p/v'/><target dev='vdb'/></disk>
    <disk type='block' device='disk'><source dev='/dev/sdc'/><target dev='vdc'/></disk>
    <disk type='file' device='cdrom'><target dev='hdc'/></disk>
  </devices>
</domain>
"""
NUMA = """<cpu><numa>
  <cell id='0' memory='262144' unit='KiB'/><cell id='1' memory='262144' unit='KiB'/>
</numa></cpu>"""


class TestParse(base.BaseTestCase):

    def test_reads_what_nova_wrote(self):
        found = domain_xml.parse(XML % "")
        self.assertEqual(("qemu", "web <1>", "p1", 512 << 20, (512 << 20,)),
                         (found.virt_type, found.name, found.project_id, found.memory_bytes,
                          found.memory_blocks_bytes))

    def test_numa_cells_are_blocks_of_memory(self):
        self.assertEqual((256 << 20, 256 << 20), domain_xml.parse(XML % NUMA).memory_blocks_bytes)

    def test_memory_devices_are_blocks_of_their_own(self):
        devices = """<devices><memory model='dimm'><target><size unit='KiB'>131072</size>
            <node>0</node></target></memory></devices>"""
        self.assertEqual((384 << 20, 128 << 20),
                         domain_xml.parse(XML % devices).memory_blocks_bytes)
        self.assertEqual((256 << 20, 256 << 20, 128 << 20),
                         domain_xml.parse(XML % (NUMA + devices)).memory_blocks_bytes)

    def test_disks_with_a_medium(self):
        self.assertEqual(
            [("vda", "file", "/d/disk"), ("vdb", "network", ""), ("vdc", "block", "/dev/sdc")],
            [(disk.device, disk.kind, disk.path) for disk in domain_xml.parse(XML % "").disks])

    def test_a_domain_that_is_not_novas_has_libvirts_name(self):
        found = domain_xml.parse(
            "<domain type='kvm'><name>other</name><memory unit='MiB'>64</memory></domain>")
        self.assertEqual(("other", "", 64 << 20), (found.name, found.project_id,
                                                   found.memory_bytes))
