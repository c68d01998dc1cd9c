import pathlib
import random
import subprocess
import tempfile

from oslotest import base

from nova_batch_migrate.relay import base_images
from tests.unit.relay import hosts, namespace
from tests.unit.relay.test_service import stream

PAGE = 4096
NAME = "ab" * 20


def image(path, seed=1, pages=300):
    """Write an image whose every third page is zero; return its other pages."""
    generator = random.Random(seed)
    contents = [bytes(PAGE) if i % 3 == 0 else generator.randbytes(PAGE) for i in range(pages)]
    path.write_bytes(b"".join(contents))
    return [content for content in contents if any(content)]


def _first_guest():
    """Send a guest whose memory is the image's, to a host that has it and to one that has not."""
    seen = {}
    with tempfile.TemporaryDirectory() as first, tempfile.TemporaryDirectory() as second:
        contents = image(pathlib.Path(first, NAME))
        image(pathlib.Path(second, NAME), seed=2)
        for what, directory in (("same", first), ("other", second), ("none", "/nowhere")):
            with hosts.two(base_images_path=first) as relays:
                relays.destination._images = base_images.BaseImages(directory, 64 << 20)
                hosts.open_group(relays)
                migration = hosts.Migration(relays, hosts.FIRST, 49152)
                data = stream(contents)
                migration.send(data)
                migration.finish()
                counted = relays.source.close_group("batch:0:cmpb")["servers"][hosts.FIRST]
                seen[what] = [migration.arrived() == data, counted["cross_server_bytes"] // PAGE,
                              len(contents)]
            subprocess.run(["ip", "addr", "flush", "dev", "lo", "to", hosts.ADDRESS], check=True)
    return seen


class BaseImagesTest(base.BaseTestCase):
    def setUp(self):
        super().setUp()
        scratch = tempfile.TemporaryDirectory()
        self.addCleanup(scratch.cleanup)
        self.here, self.there = (pathlib.Path(scratch.name, name) for name in ("here", "there"))
        self.here.mkdir()
        self.there.mkdir()

    def images(self, directory, most_bytes=64 << 20):
        return base_images.BaseImages(str(directory), most_bytes)

    def test_both_hosts_begin_with_the_same_pages(self):
        contents = image(self.here / NAME)
        image(self.there / NAME)
        claim, pages = self.images(self.here).begin(512 << 20)
        self.assertEqual(contents, [page.tobytes() for page in pages])
        self.assertEqual(contents, [page.tobytes() for page in self.images(self.there).match(
            base_images.Claim.read({"names": list(claim.names), "pages": claim.pages,
                                    "checksum": claim.checksum}))])

    def test_another_image_or_none_or_too_little_memory_is_no_match(self):
        image(self.here / NAME)
        claim, _ = self.images(self.here).begin(512 << 20)
        self.assertIsNone(self.images(self.there).match(claim))
        image(self.there / NAME, seed=2)
        self.assertIsNone(self.images(self.there).match(claim))
        self.assertIsNone(self.images(self.here, 1 << 20).match(claim))
        self.assertIsNone(self.images(self.there).match(None))

    def test_what_is_no_image_of_nova_is_not_read(self):
        for name in ("swap_512", "ephemeral_1", f"{NAME}.part", ".."):
            self.assertIsNone(base_images.Claim.read(
                {"names": [name], "pages": 1, "checksum": ""}), name)
        for said in (None, [], {"names": NAME}, {"names": [], "pages": 1, "checksum": ""},
                     {"names": [NAME] * 5, "pages": 1, "checksum": ""}):
            self.assertIsNone(base_images.Claim.read(said), said)
        (self.here / "swap_512").write_bytes(b"x" * PAGE)
        self.assertIsNone(self.images(self.here).begin(512 << 20))
        self.assertIsNone(self.images("/nowhere").begin(512 << 20))
        self.assertIsNone(self.images("").begin(512 << 20))

    def test_pages_that_come_again_count_once_and_what_is_cut_off_not_at_all(self):
        path = self.here / NAME
        contents = image(path)
        path.write_bytes(path.read_bytes() * 2 + b"half a page")
        again = base_images.different_pages([path, path], 1000)
        self.assertEqual(contents, [page.tobytes() for page in again])
        path.write_bytes(bytes(64 << 20) + contents[0])
        self.assertEqual(0, len(base_images.different_pages([path], 10)))

    def test_no_more_than_a_quarter_of_the_dictionary(self):
        image(self.here / NAME)
        _, pages = self.images(self.here).begin(400 * PAGE)
        self.assertEqual(100, len(pages))
        # two images share what there is room for
        (self.here / ("cd" * 20)).write_bytes(b"")
        self.assertEqual(100, len(self.images(self.here).begin(800 * PAGE)[1]))


class OfAFamily(namespace.NamespaceTestCase):
    def test_a_familys_first_guest_finds_the_pages_of_its_image(self):
        seen = namespace.run(_first_guest)
        self.assertTrue(all(whole for whole, _, _ in seen.values()), seen)
        self.assertEqual({"same": 200, "other": 0, "none": 0},
                         {what: found for what, (_, found, _) in seen.items()})
