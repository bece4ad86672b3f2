"""Whether several Tidegates count together, by what they say remains of a limit.

The limit at `path` has to count by the header X-Key, and to be one that nobody reaches.
"""

from e2e.lib.http import Address
from e2e.lib.keepalive import Client

_keys = iter(range(1_000_000_000))


def new_key() -> dict:
    """The header of a key that nobody has asked with."""
    return {"X-Key": f"probe-{next(_keys)}"}


def together(replicas: list[Address], host: str, path: str) -> bool:
    """Whether all count together: of a new key each finds one less than the one before."""
    key = new_key()
    left = []
    for replica in replicas:
        client = Client(replica, host)
        try:
            answer = client.get(path, key)
        finally:
            client.close()
        left.append(int(answer.headers.get("x-ratelimit-remaining", -1)))
    return left[0] > 0 and left == [left[0] - i for i in range(len(replicas))]
