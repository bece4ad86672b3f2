"""An issuer's signing keys, made with openssl: what it publishes of them, and tokens."""

import base64
import json
import time

from e2e.driver.shell import output
from e2e.lib import certificates


class SigningKey:
    """An RSA key with a name (`kid`)."""

    def __init__(self, name: str):
        self.name = name
        self._pem = output("openssl", "genrsa", "2048")

    def public(self) -> dict:
        """The half that is published, as a key of a JWKS."""
        with certificates.file(self._pem) as path:
            text = output("openssl", "rsa", "-in", path, "-noout", "-modulus")
        modulus = bytes.fromhex(text.strip().partition("=")[2])
        return {"kty": "RSA", "use": "sig", "alg": "RS256", "kid": self.name, "e": "AQAB",
                "n": _base64url(modulus)}

    def bearer(self, issuer: str, **claims) -> dict:
        """The header field with a token that is good for an hour."""
        now = int(time.time())
        head = {"alg": "RS256", "typ": "JWT", "kid": self.name}
        payload = {"iss": issuer, "iat": now, "exp": now + 3600, **claims}
        signed = ".".join(_base64url(json.dumps(part).encode()) for part in (head, payload))
        with certificates.file(self._pem) as path:
            text = output("openssl", "dgst", "-sha256", "-sign", path, "-hex", stdin=signed)
        signature = bytes.fromhex(text.rpartition("=")[2].strip())
        return {"Authorization": f"Bearer {signed}.{_base64url(signature)}"}


def key_set(*keys: SigningKey) -> str:
    """The JWKS of these keys."""
    return json.dumps({"keys": [key.public() for key in keys]})


def _base64url(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).decode().rstrip("=")
