"""The API's story, told in gabbits/*.yaml, one file per resource, against the stand-alone form."""

import pathlib

from gabbi import driver

from tests.functional import gabbi_fixtures

STORIES = pathlib.Path(__file__).parent / "gabbits"


def load_tests(loader, tests, pattern):
    """Give the test runner one suite per file."""
    return driver.build_tests(str(STORIES), loader, intercept=gabbi_fixtures.application,
                              fixture_module=gabbi_fixtures, test_loader_name=__name__)
