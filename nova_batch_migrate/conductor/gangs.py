"""Sets that move together [0006], as the conductor keeps them: opened, let go, called off.

Called by reconciler and executor. Until the relays have let a set go its members run at the source;
a set that is called off goes again only whole. What is known of a set is in the batch's state, the
truth about its release is the source's relay's.
"""

import datetime

from oslo_log import log
from oslo_utils import timeutils

from nova_batch_migrate.conductor import healing, keeping, loading, relays, state
from nova_batch_migrate.db import api as db

LOG = log.getLogger(__name__)
TOGETHER, RELEASE = "together", "release"
#: Between two looks at a set whose members are not all settled yet.
LOOK_SECONDS = 3.0


def moves_together(batch: dict, row: dict) -> bool:
    """Tell whether a row's group is a set whose members move together."""
    return row["group_index"] in batch["state"].get("together", ())


def kept(batch: dict, row: dict) -> dict:
    """Return what is known of a row's set.

    ``open``: the relays know it; ``policy``; ``released``; ``off``: why it was called off, with
    ``final`` where it is not tried again; ``left_out``: members the others do not wait for;
    ``unsettled_since``: when a member was first seen that can't begin anew yet.
    """
    key = loading.group_key(row["source"], row["group_index"])
    return batch["state"].get("gangs", {}).get(key, {})


class Gangs:
    """Keeps the sets of a batch; ``through`` is the Relays."""

    def __init__(self, conf, through: relays.Relays, healer: healing.Healer):
        self._conf = conf.conductor
        self._relays = through
        self._healer = healer

    def open(self, ctxt, batch: dict, members: list[dict]) -> None:
        """Open the relays for a set that is about to move; where they can't be had, call it off.

        ``members`` are its open rows. With the policy *release* those whose destination's relay
        can't be opened are closed and the rest goes.
        """
        source, index = members[0]["source"], members[0]["group_index"]
        policy = self._relays.policy(ctxt, source)
        gone = [row for row in self._rows(batch, members[0]) if row["status"] in state.SERVER_OUT]
        self._note(batch, members[0], open=False, policy=policy, released=False, off=None,
                   final=False, unsettled_since=None,
                   left_out=sorted(row["server_id"] for row in gone))
        if gone and policy == TOGETHER:
            return self.call_off(ctxt, batch, members[0], _does_not_move(gone[0]), True)
        key = loading.group_key(source, index)
        before = batch["state"].get("relay_groups") or {}
        # the intent first: what is open is closed at the end, whoever opened it
        keeping.save(batch, relay_groups=before | {
            key: sorted({row["destination"] for row in members})})
        going, left = list(members), {}
        while going:
            opened, refused = self._relays.begin(ctxt, batch, source, index, going, True)
            if not refused:
                break
            self._relays.end(ctxt, batch, source, index, opened)
            left.update({row["server_id"]: refused[row["destination"]] for row in going
                         if row["destination"] in refused})
            going = [row for row in going if row["destination"] not in refused]
            if policy == TOGETHER:
                going = []
        keeping.save(batch, relay_groups=before | {
            key: sorted({row["destination"] for row in going})})
        self._note(batch, members[0], open=bool(going), left_out=sorted(
            {*left, *(row["server_id"] for row in gone)}))
        if not going:
            why = "; ".join(sorted(set(left.values())))
            self.call_off(ctxt, batch, members[0], f"no relay lets it go together: {why}", True)
            return
        for row in members:
            if row["server_id"] in left:
                _fail(ctxt, batch, row, "it was to move together with others, which go without "
                      f"it: {left[row['server_id']]}")

    def released(self, ctxt, batch: dict, row: dict) -> bool:
        """Tell whether a row's set was let go, as far as anybody knows; asks the relay."""
        known = kept(batch, row)
        if known.get("released"):
            return True
        told = self._relays.set_of(ctxt, batch, row)
        released = told is not None and told["state"] == relays.RELEASED
        if told is None:
            # a relay that is gone tells nothing; who has arrived was let go
            released = any(other["status"] == "completed" for other in self._rows(batch, row))
        if released:
            self._note(batch, row, released=True)
        return released

    def attempt_ended(self, ctxt, batch: dict, row: dict, retry: bool, reason: str) -> None:
        """A member's migration is over and it runs at the source."""
        if self.released(ctxt, batch, row):
            told = self._relays.set_of(ctxt, batch, row) or {}
            without = row["server_id"] in told.get("left_out", ())
            return _fail(ctxt, batch, row, f"its set goes without it: {reason}" if without else
                         f"it failed after its set had been let go together: {reason}")
        known = kept(batch, row)
        if known.get("off") is None and known.get("policy") == RELEASE:
            _fail(ctxt, batch, row, f"its set goes without it: {reason}")
            return self.leave_out(ctxt, batch, row)
        if known.get("off") is None:
            told = self._relays.set_of(ctxt, batch, row)
            self.call_off(ctxt, batch, row,
                          (told or {}).get("reason") or f"{_name(row)}: {reason}", not retry)
        elif not retry and not (row["progress"] or {}).get("abort_asked"):
            self._note(batch, row, final=True)
        self._relays.leave(ctxt, batch, row)
        seconds = self._conf.retry_backoff_seconds
        db.update_server(batch["id"], row["server_id"], {
            "status": "waiting", "reason": reason,
            "next_attempt_at": timeutils.utcnow() + datetime.timedelta(seconds=seconds)})

    def call_off(self, ctxt, batch: dict, row: dict, reason: str, final: bool) -> None:
        """Let all members of a row's set come back; ``final``: they do not go again."""
        self._note(batch, row, off=reason, final=final)
        db.add_event(batch["id"], "called-off", "a set that moves together is called off, all "
                     f"stay where they run: {reason}", request_id=ctxt.request_id)
        for other in self._rows(batch, row):
            if other["status"] == "migrating":
                self._relays.leave(ctxt, batch, other)

    def closed(self, batch: dict, row: dict, reason: str) -> None:
        """A member was closed when its attempt had ended: of a set that is off, nobody moves."""
        known = kept(batch, row)
        if known.get("off") is not None:
            self._note(batch, row, off=f"{known['off']}; {_name(row)}: {reason}", final=True)

    def lost(self, ctxt, batch: dict, row: dict) -> None:
        """A member will not move: nobody waits for it any more, or nobody goes."""
        if self.released(ctxt, batch, row):
            return
        known = kept(batch, row)
        if known.get("policy") == RELEASE:
            return self.leave_out(ctxt, batch, row)
        self._relays.leave(ctxt, batch, row)
        if known.get("off") is None:
            self.call_off(ctxt, batch, row, _does_not_move(row), True)

    def leave_out(self, ctxt, batch: dict, row: dict) -> None:
        """Let the others go without a member."""
        self._relays.leave(ctxt, batch, row)
        left = kept(batch, row).get("left_out", [])
        self._note(batch, row, left_out=sorted({*left, row["server_id"]}))

    def again(self, ctxt, batch: dict, row: dict) -> None:
        """Begin anew with a set that was called off and of which all are back and settled.

        One that is not is waited for within bounds; then the set does not go again.
        """
        members = [other for other in self._rows(batch, row)
                   if other["status"] in state.SERVER_OPEN]
        for member in members:
            why = self._healer.unsettled(ctxt, batch, member)
            if why is not None:
                return self._look_later(ctxt, batch, members, member, why)
        db.add_event(batch["id"], "retry", f"a set of {len(members)} that moves together begins "
                     "anew", request_id=ctxt.request_id)
        self.open(ctxt, batch, members)

    def _look_later(self, ctxt, batch: dict, members: list[dict], row: dict, why: str) -> None:
        """Wait for a member that can't begin anew yet; give the set up when that takes too long."""
        known, now = kept(batch, row), timeutils.utcnow()
        since = known.get("unsettled_since") or now.isoformat()
        waited = (now - datetime.datetime.fromisoformat(since)).total_seconds()
        if waited >= healing.PATIENCE_SECONDS:
            off = f"{known['off']}; after {waited:.0f} s {_name(row)} can't begin anew: {why}. " \
                "Look at it in Nova and with virsh on both hosts, then ask for all of them again"
            self._note(batch, row, off=off, final=True)
            db.add_event(batch["id"], "warning", "a set that moves together is not tried again: "
                         f"{why}", row["server_id"], ctxt.request_id)
            return
        self._note(batch, row, unsettled_since=since)
        for member in members:
            db.update_server(batch["id"], member["server_id"], {
                "next_attempt_at": now + datetime.timedelta(seconds=LOOK_SECONDS)})

    @staticmethod
    def _rows(batch: dict, row: dict) -> list[dict]:
        return [other for other in db.servers_of(batch["id"])
                if (other["source"], other["group_index"])
                == (row["source"], row["group_index"])]

    @staticmethod
    def _note(batch: dict, row: dict, **changes) -> None:
        key = loading.group_key(row["source"], row["group_index"])
        before = batch["state"].get("gangs", {})
        keeping.save(batch, gangs=before | {key: before.get(key, {}) | changes})


def _name(row: dict) -> str:
    return row["name"] or row["server_id"]


def _does_not_move(row: dict) -> str:
    return f"{_name(row)} does not move: {row['reason']}"


def _fail(ctxt, batch: dict, row: dict, reason: str) -> None:
    """Close a member; alone it is the operator's to move, if he wants that."""
    db.update_server(batch["id"], row["server_id"], {
        "status": "failed", "reason": reason, "certainty": "likely",
        "command": f"openstack server migrate --live-migration {row['server_id']}",
        "finished_at": timeutils.utcnow()})
    db.add_event(batch["id"], "failed", reason, row["server_id"], ctxt.request_id)
