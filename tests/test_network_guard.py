"""The guard over all tests: only this machine can be reached, from here and from the workers."""

import socket
import subprocess
import sys
import urllib.request

import pytest


@pytest.mark.fault("T76")
def test_an_outside_address_cannot_be_reached():
    with pytest.raises(RuntimeError, match="tried to connect"), socket.socket() as outside:
        outside.connect(("192.0.2.1", 80))


@pytest.mark.fault("T76")
def test_an_outside_name_cannot_be_looked_up():
    with pytest.raises(RuntimeError, match="tried to look up"):
        urllib.request.urlopen("http://example.com", timeout=1)


@pytest.mark.fault("T76")
def test_a_child_process_is_guarded_too():
    child = subprocess.run([sys.executable, "-c", "import socket; socket.create_connection(('192.0.2.1', 80), 1)"],
                           capture_output=True, text=True)
    assert "OutsideConnection" in child.stderr


def test_loopback_stays_open():
    with socket.create_server(("127.0.0.1", 0)) as server:
        socket.create_connection(server.getsockname(), timeout=1).close()
