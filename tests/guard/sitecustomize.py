"""The network guard: Python imports this at start-up in every process of the tests, workers included.

Only loopback may be connected to or looked up; anything else raises, so that a test that would leave the
machine fails at the place that tried.
"""

import ipaddress
import socket

LOCAL_NAMES = {"localhost", "", None}


class OutsideConnection(RuntimeError):
    """A test tried to leave this machine."""


def _is_local(host: object) -> bool:
    if isinstance(host, bytes):
        host = host.decode()
    if host in LOCAL_NAMES or host == socket.gethostname():
        return True
    try:
        address = ipaddress.ip_address(str(host).split("%")[0])
    except ValueError:
        return False
    return address.is_loopback or address.is_unspecified


def _guarded(connect):
    def checked(self, address, *rest):
        if self.family in (socket.AF_INET, socket.AF_INET6) and not _is_local(address[0]):
            raise OutsideConnection(f"A test tried to connect to {address[0]}.")
        return connect(self, address, *rest)
    return checked


def _guarded_lookup(lookup):
    def checked(host, *rest, **options):
        if not _is_local(host):
            raise OutsideConnection(f"A test tried to look up {host}.")
        return lookup(host, *rest, **options)
    return checked


if not hasattr(socket, "_guarded_by_tests"):
    socket._guarded_by_tests = True
    socket.socket.connect = _guarded(socket.socket.connect)
    socket.socket.connect_ex = _guarded(socket.socket.connect_ex)
    socket.getaddrinfo = _guarded_lookup(socket.getaddrinfo)
