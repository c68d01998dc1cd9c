"""How long a server whose turn has come waits for its quiet moment ([0072]); pure.

Called by decide. The moment is the plan's; here it meets the clock and the operator's patience.
"""

import datetime

from nova_batch_migrate.conductor import state as st
from nova_batch_migrate.planning import timing


def seconds(row: st.Row, batch: st.BatchState) -> float:
    """Return the seconds until its moment; 0 when that is now, or would come too late.

    Patience counts from when its turn first came. Another attempt of a server does not wait: its
    moment was used.
    """
    if row.wait is None or batch.max_wait_seconds <= 0 or row.attempts:
        return 0.0
    patience = batch.max_wait_seconds
    if row.wait_until is not None:
        patience = (row.wait_until - batch.now).total_seconds()
    now = batch.now.replace(tzinfo=datetime.UTC).timestamp()
    return timing.seconds_to_wait(row.wait, now, patience)
