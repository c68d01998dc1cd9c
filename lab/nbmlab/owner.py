"""Whose lab it is: one checkout a state directory, one lab a machine.

Called by lab/up before it changes anything. Bridges, namespaces and addresses have fixed names, so
two labs cannot run side by side, whatever their state directories.
"""
import json
import pathlib

from nbmlab import daemon, layout, shell, teardown


def claim() -> None:
    """Take the machine for this checkout, or refuse with a word on whose it is.

    A lab that is down, or whose checkout is gone, is taken over; what is left of it is brought
    down first.
    """
    holder = _holder()
    mine = {"state": str(layout.STATE), "checkout": str(layout.CHECKOUT)}
    if holder and holder != mine:
        if pathlib.Path(holder["checkout"]).exists() and _alive(pathlib.Path(holder["state"])):
            raise shell.LabError(
                f"a lab of {holder['checkout']} is up (state in {holder['state']}); two labs do "
                "not fit on one machine.\nEnd it first: "
                f"NBM_LAB={holder['state']} {holder['checkout']}/lab/down")
        shell.say(f"taking over from {holder['checkout']}, whose lab is "
                  "dead or whose checkout is gone")
        teardown.down(pathlib.Path(holder["state"]))
    layout.STATE.mkdir(parents=True, exist_ok=True)
    layout.OWNER.write_text(f"{layout.CHECKOUT}\n")
    layout.MACHINE_OWNER.write_text(json.dumps(mine))


def require() -> None:
    """Refuse to touch a lab of another checkout that is up."""
    holder = _holder()
    if holder and holder["checkout"] != str(layout.CHECKOUT) \
            and pathlib.Path(holder["checkout"]).exists() \
            and _alive(pathlib.Path(holder["state"])):
        raise shell.LabError(f"this lab is of {holder['checkout']}; use {holder['checkout']}/lab")


def end_any() -> None:
    """End the lab of this machine whosever it is; nothing where there is none."""
    holder = _holder()
    if holder:
        shell.say(f"ending the lab of {holder['checkout']}")
        teardown.down(pathlib.Path(holder["state"]))


def _holder() -> dict[str, str] | None:
    try:
        return json.loads(layout.MACHINE_OWNER.read_text())
    except (FileNotFoundError, ValueError):
        return None


def _alive(state: pathlib.Path) -> bool:
    """Tell whether any process of the lab with that state directory runs."""
    return bool(daemon.marked(state))
