"""Plays the destination's QEMU for the tests: a process of that name that awaits a migration.

    python qemu.py [-nbd] [-stop] [-stall] [-mute] [-runas USER] [-multifd N]
                   -uuid UUID ADDRESS PORT OUTPUT

Prints its port, takes one connection, writes what comes to OUTPUT. As QEMU does, it answers on the
return path, at the end of the stream with SHUT. With `-nbd` it speaks first, with `-stop` it dies
behind the first bytes, with `-stall` it reads nothing until there is a file OUTPUT.go, with `-mute`
it does not say until then that it has loaded everything. With
`-runas` it is the process of another user, as libvirt starts it. With `-multifd` it takes N more
connections, to OUTPUT.1 and so on, on which it says nothing.
"""

import ctypes
import os
import pathlib
import socket
import struct
import subprocess
import sys
import threading
import time

PONG = struct.pack(">HHI", 2, 4, 7)
SHUT = struct.pack(">HHI", 1, 4, 0)
_PR_SET_DUMPABLE = 4


def start(server_id: str, output: pathlib.Path, *words: str, address: str = "127.0.0.1",
          port: int = 0) -> tuple[subprocess.Popen, int]:
    """Start the process; return it and the port at which it listens."""
    process = subprocess.Popen(
        ["qemu-system-x86_64", __file__, *words, "-uuid", server_id, address, str(port),
         str(output)],
        executable=os.path.realpath(sys.executable), env={"PYTHONHOME": sys.base_prefix},
        stdout=subprocess.PIPE, text=True)
    return process, int(process.stdout.readline())


def main() -> None:
    address, port, output = sys.argv[-3:]
    if "-runas" in sys.argv:
        os.setuid(int(sys.argv[sys.argv.index("-runas") + 1]))
        # as behind an exec: its files in /proc are its own again
        ctypes.CDLL(None).prctl(_PR_SET_DUMPABLE, 1, 0, 0, 0)
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    listener = socket.socket(family, socket.SOCK_STREAM)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    listener.bind((address, int(port)))
    listener.listen()
    print(listener.getsockname()[1], flush=True)
    connection, _ = listener.accept()
    channels = []
    if "-multifd" in sys.argv:
        for number in range(int(sys.argv[sys.argv.index("-multifd") + 1])):
            channels.append(threading.Thread(
                target=_store, args=(listener.accept()[0], f"{output}.{number + 1}")))
            channels[-1].start()
    if "-nbd" in sys.argv:
        connection.sendall(b"NBDMAGIC")
    if "-stall" in sys.argv:
        _wait(output)
    with open(output, "wb", buffering=0) as file:
        first = True
        while data := connection.recv(1 << 20):
            file.write(data)
            if first and "-nbd" not in sys.argv:
                connection.sendall(PONG)
            first = False
            if "-stop" in sys.argv:
                # a full destination: it dies in the middle
                os._exit(1)
    for channel in channels:
        channel.join()
    if "-mute" in sys.argv:
        _wait(output)
    connection.sendall(SHUT)
    connection.close()


def _wait(output: str) -> None:
    while not os.path.exists(f"{output}.go"):
        time.sleep(0.05)


def _store(connection: socket.socket, output: str) -> None:
    with connection, open(output, "wb", buffering=0) as file:
        while data := connection.recv(1 << 20):
            file.write(data)


if __name__ == "__main__":
    main()
