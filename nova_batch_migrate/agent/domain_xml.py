"""What a libvirt domain's XML tells about a server: Nova's names, memory blocks, disks.

Used by domains.py. Pure: parses text, asks nobody.
"""

import dataclasses
from xml.etree import ElementTree

_UNIT_BYTES = {"b": 1, "bytes": 1, "KiB": 1 << 10, "k": 1 << 10, "MiB": 1 << 20, "M": 1 << 20,
               "GiB": 1 << 30, "G": 1 << 30}


@dataclasses.dataclass(frozen=True)
class DiskSource:
    """A disk as the domain sees it and where its data lies."""

    device: str
    #: libvirt's word: file, block, network, ...
    kind: str
    #: Path of a file or block device, else empty.
    path: str


@dataclasses.dataclass(frozen=True)
class Definition:
    """The fixed properties of a domain."""

    #: kvm or qemu (that is TCG).
    virt_type: str
    #: The server's name as its tenant wrote it, else the domain's.
    name: str
    project_id: str
    memory_bytes: int
    #: Sizes of QEMU's memory backends: one per NUMA cell, else all of memory; and one per memory
    #: device (DIMM, NVDIMM, virtio-mem).
    memory_blocks_bytes: tuple[int, ...]
    disks: tuple[DiskSource, ...]
    #: Path of the program that runs it.
    emulator: str = ""


def parse(text: str) -> Definition:
    """Return what the XML of a domain says."""
    domain = ElementTree.fromstring(text)
    memory_bytes = _size(domain.find("memory"))
    cells = tuple(int(cell.get("memory")) * _UNIT_BYTES[cell.get("unit", "KiB")]
                  for cell in domain.iterfind("cpu/numa/cell"))
    # <memory> counts memory devices, present or plugged in later, by their size
    devices = tuple(_size(size) for size in domain.iterfind("devices/memory/target/size"))
    project = domain.find("metadata/{*}instance/{*}owner/{*}project")
    return Definition(
        virt_type=domain.get("type", ""),
        name=domain.findtext("metadata/{*}instance/{*}name") or domain.findtext("name", ""),
        project_id="" if project is None else project.get("uuid", ""),
        memory_bytes=memory_bytes,
        memory_blocks_bytes=(cells or (memory_bytes - sum(devices),)) + devices,
        disks=tuple(_disk(disk) for disk in domain.iterfind("devices/disk")
                    if disk.find("source") is not None),
        emulator=domain.findtext("devices/emulator", ""),
    )


def _size(element) -> int:
    return int(element.text) * _UNIT_BYTES[element.get("unit", "KiB")]


def _disk(disk) -> DiskSource:
    source = disk.find("source")
    return DiskSource(device=disk.find("target").get("dev"), kind=disk.get("type", "file"),
                      path=source.get("file") or source.get("dev") or "")
