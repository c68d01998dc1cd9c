"""Functional tests: real Nova services in one process, this project's services beside them.

Nova wants to choose its threading mode before anything imports oslo.messaging; this module is the
first that a test runner imports. It chooses native threads, as our services run.
"""

import os

os.environ.setdefault("OS_NOVA_DISABLE_EVENTLET_PATCHING", "True")

from nova import monkey_patch  # noqa: E402

monkey_patch.patch()
