"""Which network interface leads to the other machines of a job."""

from __future__ import annotations

import contextlib
import logging
import os
import socket
import struct
from urllib.parse import urlparse

from .errors import ConfigError

logger = logging.getLogger(__name__)

INTERFACE_VARIABLE = "GLOO_SOCKET_IFNAME"
_SIOCGIFADDR = 0x8915


def choose_interface(dist_url: str, *, num_machines: int) -> str:
    """Have gloo use the interface that leads to the job's master; where it cannot be told, gloo chooses itself.

    Gloo takes the one that this machine's own name resolves to, which on many systems is the loopback: processes of
    other machines then wait for a connection that never comes. NCCL looks for itself.

    Args:
        dist_url: ``tcp://<address>:<port>``, or ``env://``.
        num_machines: with one, the loopback does.

    Returns:
        The interface, or "" where nothing is changed; a value that the user has set stays.
    """
    if os.environ.get(INTERFACE_VARIABLE) or num_machines == 1:
        return ""
    name = interface_to(master_host(dist_url))
    if name:
        os.environ[INTERFACE_VARIABLE] = name
    return name


def whole_number(variable: str, default: int | None = 0) -> int:
    """What a launcher has put into the environment.

    Args:
        default: where the variable is not set or empty; None for one that must be.

    Raises:
        ConfigError: it is no whole number from 0 on.
    """
    text = os.environ.get(variable, "")
    if not text and default is not None:
        return default
    if not text.isdecimal():
        raise ConfigError(
            f"the environment variable {variable} is {text!r}, where a whole number is expected; torchrun and Slurm "
            "set it, so unset it unless they have started this program"
        )
    return int(text)


def require_address(dist_url: str) -> None:
    """Refuse an address that no process can listen at.

    Args:
        dist_url: ``tcp://<address>:<port>``; others are not looked at.

    Raises:
        ConfigError: it names no host, or no port from 1 to 65535.
    """
    if not dist_url.startswith("tcp://"):
        return
    try:
        parts = urlparse(dist_url)
        whole = bool(parts.hostname) and bool(parts.port)
    except ValueError:
        whole = False
    if not whole:
        raise ConfigError(f"--dist-url {dist_url}: give tcp://<address of machine 0>:<free port>, a port up to 65535")


def master_host(dist_url: str) -> str:
    """The host of ``tcp://...``, or what torchrun has put into the environment."""
    if dist_url.startswith("env://"):
        return os.environ.get("MASTER_ADDR", "")
    return urlparse(dist_url).hostname or ""


def interface_to(host: str) -> str:
    """The interface of this machine on the route to ``host``; "" where there is none that can be told.

    Nothing is sent: a UDP socket only asks the system for the route.
    """
    try:
        family, _, _, _, address = socket.getaddrinfo(host, 9, type=socket.SOCK_DGRAM)[0]
        with socket.socket(family, socket.SOCK_DGRAM) as probe:
            probe.connect(address)
            own = probe.getsockname()[0]
    except OSError:
        return ""
    if own.startswith("127.") or own == "::1":
        return ""
    return _interface_with(own.partition("%")[0], family)


def _interface_with(address: str, family: int) -> str:
    if family == socket.AF_INET6:
        return _interface_with_ipv6(address)
    try:
        import fcntl
    except ImportError:
        return ""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        for _, name in socket.if_nameindex():
            with contextlib.suppress(OSError):  # an interface without an address
                answer = fcntl.ioctl(probe.fileno(), _SIOCGIFADDR, struct.pack("256s", name.encode()[:15]))
                if socket.inet_ntoa(answer[20:24]) == address:
                    return name
    return ""


def _interface_with_ipv6(address: str) -> str:
    wanted = socket.inet_pton(socket.AF_INET6, address).hex()
    with contextlib.suppress(OSError), open("/proc/net/if_inet6", encoding="ascii") as file:
        for line in file:
            fields = line.split()
            if fields[0] == wanted:
                return fields[-1]
    return ""
