"""Modules for WSGI servers to load. They run in threads, as all of this project does."""

from nova_batch_migrate import cmd  # noqa: F401  chooses oslo.service's threads

