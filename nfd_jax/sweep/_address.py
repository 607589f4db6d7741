"""Whether a Dask scheduler answers at an address, found out before anything relies on it.

Dask's own client may hang, or say so in a traceback, where an address is incomplete or something else listens
there.
"""

import asyncio
import re
import socket
import threading
from typing import Any

from distributed import Security
from distributed.comm import connect
from distributed.comm.registry import backends

ALLOWED = "allowed: the address of a running Dask scheduler, such as tcp://host:8786"

HOST_AND_PORT = re.compile(r"(\[[0-9A-Fa-f:.%\w]+\]|[^\s:/\[\]]+):(\d{1,5})/?")

SECURE = ("tls", "wss")


def problem_with(address: str, seconds: float) -> str | None:
    """Why no Dask scheduler can be reached at an address, within so many seconds for each step, or None."""
    scheme, _, place = address.strip().rpartition("://")
    scheme = scheme or "tcp"
    found = HOST_AND_PORT.fullmatch(place)
    if not place:
        return "is empty"
    if scheme not in backends or scheme == "inproc":
        return f"starts with {scheme}://, which Dask does not know"
    if not found or not 0 < int(found[2]) < 2**16:
        return "has no host and port (of 1 to 65535)"
    try:
        credentials = Security().get_connection_args("client")
    except (OSError, ValueError) as error:
        return f"the certificates of Dask's settings cannot be read ({_line(error)})"
    if scheme in SECURE and credentials["ssl_context"] is None:
        return (
            "needs certificates: give them to Dask as distributed.comm.tls.ca-file, .client.cert and"
            " .client.key, or DASK_DISTRIBUTED__COMM__TLS__CA_FILE and so on"
        )
    if reason := _unresolved(found[1].strip("[]"), int(found[2]), seconds):
        return reason
    try:
        kind = asyncio.run(_kind(f"{scheme}://{place.rstrip('/')}", credentials, seconds))
    except TimeoutError:
        return f"no Dask scheduler answers there within {seconds:g} s"
    except OSError as error:
        return _line(error)
    except Exception as error:  # what listens there may send anything
        return f"no Dask scheduler listens there ({_line(error)})"
    return None if kind == "Scheduler" else f"a Dask {kind} listens there, not a scheduler"


def _line(error: BaseException) -> str:
    said = str(error).splitlines()[0] if str(error) else type(error).__name__
    return re.sub(r"^in <.*?>: ", "", said)  # Dask's own object, with the ports of both ends


def _unresolved(host: str, port: int, seconds: float) -> str | None:
    """Why a host has no address. In a thread that nobody waits for: name servers may be silent for long."""
    found: list[str | None] = []

    def resolve() -> None:
        try:
            socket.getaddrinfo(host, port)
            found.append(None)
        except (OSError, UnicodeError) as error:
            found.append(f"the host {host} is not known ({getattr(error, 'strerror', None) or error})")

    thread = threading.Thread(target=resolve, daemon=True)
    thread.start()
    thread.join(seconds)
    return found[0] if found else f"the host {host} is not known: no name server answers within {seconds:g} s"


async def _kind(address: str, credentials: dict[str, Any], seconds: float) -> str:
    """What of Dask's listens at an address."""

    async def ask() -> str:
        comm = await connect(address, timeout=seconds, **credentials)
        try:
            await comm.write({"op": "identity", "reply": True})
            return (await comm.read())["type"]
        finally:
            comm.abort()

    return await asyncio.wait_for(ask(), seconds + 0.5)
