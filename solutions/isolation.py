"""Run students' code where it reaches no network: in namespaces of its own, as Linux makes them with `unshare`.

Inside there is only loopback, which Jupyter needs to talk to its kernel. When the command ends, every process that it
started ends too. The file system is *not* cut off: the code can read and write what you can, and reaches services
that listen on a socket file.
"""

from __future__ import annotations

import fcntl
import socket
import struct
import subprocess

import psutil  # installed with ipykernel

# With a namespace for processes where that works, so that nothing outlives the command.
COMMANDS = (
    ["unshare", "--net", "--map-root-user", "--pid", "--fork", "--kill-child"],
    ["unshare", "--net", "--map-root-user"],
)
GET_FLAGS, SET_FLAGS, UP = 0x8913, 0x8914, 1


def without_network() -> list[str] | None:
    """The words to put before a command so that it reaches no network; None where the system does not allow it."""
    for words in COMMANDS:
        try:
            tried = subprocess.run([*words, "true"], capture_output=True, timeout=20)
        except (OSError, subprocess.TimeoutExpired):
            continue
        if tried.returncode == 0:
            return words
    return None


def bring_up_loopback() -> None:
    """To be called inside: make 127.0.0.1 work, and see that nothing else is there."""
    interfaces = {name for _, name in socket.if_nameindex()}
    if not interfaces <= {"lo", "tunl0", "sit0", "ip6tnl0", "gre0", "gretap0", "erspan0", "ip_vti0", "ip6_vti0"}:
        raise RuntimeError(f"this is not cut off from the network: there is {', '.join(sorted(interfaces))}")
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as anything:
        flags = struct.unpack("16sh", fcntl.ioctl(anything, GET_FLAGS, struct.pack("16sh", b"lo", 0)))[1]
        fcntl.ioctl(anything, SET_FLAGS, struct.pack("16sh", b"lo", flags | UP))


def end(process: subprocess.Popen[str]) -> None:
    """End a process, unless it has ended, and all that it started."""
    if process.poll() is not None:
        return  # its number may be that of another process by now
    try:
        below = psutil.Process(process.pid).children(recursive=True)
    except psutil.Error:
        below = []
    process.kill()
    for child in below:
        try:
            child.kill()
        except psutil.Error:
            continue
    process.wait()
