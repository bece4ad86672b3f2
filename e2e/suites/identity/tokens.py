"""Keys and tokens of the issuer, made by jwcrypto, and the hostile ones made by hand.

A case is what a client sends: a name, header fields, a path. Nothing here is shared with the
code that is tested, and no list of it was looked at.
"""

import base64
import hashlib
import hmac
import json
import time

from jwcrypto import jwe, jwk, jws

ISSUER = "https://issuer.example"
_LEEWAY = 60  # of the policy; a lifetime of an hour is its longest


def b64(data: bytes | str) -> str:
    raw = data.encode() if isinstance(data, str) else data
    return base64.urlsafe_b64encode(raw).decode().rstrip("=")


def claims(**changed) -> dict:
    """Good ones; a change to None leaves the claim out."""
    now = int(time.time())
    whole = {"iss": ISSUER, "aud": "api", "sub": "alice", "azp": "web-app", "tenant": "acme",
             "iat": now, "nbf": now, "exp": now + 300, **changed}
    return {name: value for name, value in whole.items() if value is not None}


def signed(key: jwk.JWK, algorithm: str, payload: dict | str | None = None, **header) -> str:
    """A JWS by the library; header fields with None are left out."""
    text = payload if isinstance(payload, str) else json.dumps(payload or claims())
    fields = {"alg": algorithm, "typ": "JWT", "kid": key.key_id, **header}
    fields = {name: value for name, value in fields.items() if value is not None}
    token = jws.JWS(text)
    token.allowed_algs = [algorithm]
    token.add_signature(key, None, json.dumps(fields), None)
    return token.serialize(compact=True)


def raw(header: dict | str, payload: dict | str, signature: bytes | str) -> str:
    """Three parts as given, whatever they mean."""
    parts = [one if isinstance(one, str) else json.dumps(one) for one in (header, payload)]
    return ".".join([*map(b64, parts), b64(signature)])


def hmac_signed(header: dict, secret: bytes, payload: dict | None = None) -> str:
    data = ".".join([b64(json.dumps(header)), b64(json.dumps(payload or claims()))])
    return f"{data}.{b64(hmac.new(secret, data.encode(), hashlib.sha256).digest())}"


class Keys:
    """What the issuer signs with, and what it should never be believed for."""

    def __init__(self) -> None:
        def rsa(kid: str, size: int = 2048, **more) -> jwk.JWK:
            return jwk.JWK.generate(kty="RSA", size=size, kid=kid, **more)

        self.rsa = rsa("rsa-1", alg="RS256", use="sig")
        self.pss = rsa("pss-1", alg="PS256", use="sig")
        self.free = rsa("rsa-free")  # of any algorithm of its kind
        self.p256 = jwk.JWK.generate(kty="EC", crv="P-256", kid="ec-1", alg="ES256")
        self.p384 = jwk.JWK.generate(kty="EC", crv="P-384", kid="ec-2", alg="ES384")
        self.ed = jwk.JWK.generate(kty="OKP", crv="Ed25519", kid="ed-1", alg="EdDSA")
        self.encrypting = rsa("enc-1", use="enc")
        self.weak = rsa("weak-1", 1024, alg="RS256", use="sig")
        self.secret = jwk.JWK.generate(kty="oct", size=256, kid="oct-1", alg="HS256")
        self.stranger = rsa("rsa-1")  # nobody's; it has a known name
        self.rotated = [rsa("turn-0", alg="RS256")]

    def published(self) -> list[jwk.JWK]:
        return [self.rsa, self.pss, self.free, self.p256, self.p384, self.ed, self.encrypting,
                self.weak, *self.rotated]

    def document(self) -> str:
        """The key set, with a symmetric key that an issuer must never publish."""
        keys = [json.loads(key.export_public()) for key in self.published()]
        return json.dumps({"keys": [*keys, json.loads(self.secret.export())]})


def bearer(token: str) -> list[list[str]]:
    return [["Authorization", f"Bearer {token}"]]


def _case(name: str, token: str) -> dict:
    return {"name": name, "headers": bearer(token), "path": "/"}


def valid(keys: Keys) -> list[dict]:
    now = int(time.time())
    of_kinds = [(keys.rsa, "RS256"), (keys.pss, "PS256"), (keys.free, "RS384"),
                (keys.free, "RS512"), (keys.p256, "ES256"), (keys.p384, "ES384"),
                (keys.ed, "EdDSA")]
    rs = (keys.rsa, "RS256")
    return [
        *(_case(algorithm, signed(key, algorithm)) for key, algorithm in of_kinds),
        _case("one of several audiences", signed(*rs, claims(aud=["other", "api"]))),
        _case("expired within the leeway", signed(*rs, claims(exp=now - _LEEWAY // 2))),
        _case("valid soon, within the leeway", signed(*rs, claims(nbf=now + _LEEWAY // 2))),
        {"name": "the scheme in other letters", "path": "/",
         "headers": [["Authorization", f"bEARER {signed(*rs)}"]]},
        {"name": "with what only a proxy may say", "path": "/",
         "headers": [*bearer(signed(*rs)), ["X-Subject", "root"], ["X_Subject", "root"],
                     ["x-tenant-id", "evil"]]},
    ]


def hostile(keys: Keys) -> list[dict]:
    return [*_unsigned(keys), *_confused(keys), *_headers(keys), *_times(keys), *_words(keys),
            *_forms(keys), *_places(keys)]


def _unsigned(keys: Keys) -> list[dict]:
    good = signed(keys.rsa, "RS256")
    head, body, signature = good.split(".")
    other = b64(json.dumps(claims(sub="root")))
    flipped = ("A" if signature[10] != "A" else "B").join([signature[:10], signature[11:]])
    cases = [_case(f"alg {alg!r}", raw({"alg": alg, "kid": "rsa-1"}, claims(), b""))
             for alg in ("none", "None", "nOnE", "", None)]
    return [
        *cases,
        _case("alg none with a signature", raw({"alg": "none"}, claims(), b"x" * 256)),
        _case("no alg", raw({"kid": "rsa-1"}, claims(), b"x" * 256)),
        _case("no signature", f"{head}.{body}."),
        _case("another payload", f"{head}.{other}.{signature}"),
        _case("no payload", f"{head}..{signature}"),
        _case("a bit of the signature", f"{head}.{body}.{flipped}"),
        _case("a shorter signature", f"{head}.{body}.{signature[:-8]}"),
        _case("a stranger's key with a known name", signed(keys.stranger, "RS256")),
        _case("a stranger's key without a name", signed(keys.stranger, "RS256", kid=None)),
    ]


def _confused(keys: Keys) -> list[dict]:
    pem = keys.rsa.export_to_pem()
    from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
    public = keys.rsa.get_op_key("verify")
    der = public.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
    hs = {"alg": "HS256", "typ": "JWT", "kid": "rsa-1"}
    es = {"alg": "ES256", "kid": "ec-1"}
    der_signature = keys.p256.get_op_key("sign").sign(
        f"{b64(json.dumps(es))}.{b64(json.dumps(claims()))}".encode(), _ecdsa())
    return [
        _case("HS256 with the PEM of the RSA key", hmac_signed(hs, pem)),
        _case("HS256 with its PEM without the last newline", hmac_signed(hs, pem.strip())),
        _case("HS256 with its DER", hmac_signed(hs, der)),
        _case("HS256 with its modulus", hmac_signed(hs, keys.rsa.get("n").encode())),
        _case("HS256 with nothing", hmac_signed(hs, b"")),
        _case("a symmetric key that was published", signed(keys.secret, "HS256")),
        _case("ES256 of zeros", raw(es, claims(), bytes(64))),
        _case("ES256 in DER", raw(es, claims(), der_signature)),
        _case("RS512 by a key for RS256", signed(_again(keys.rsa), "RS512")),
        _case("PS256 by a key for RS256", signed(_again(keys.rsa), "PS256")),
        _case("RS256 by a key for PS256", signed(_again(keys.pss), "RS256")),
        _case("another key's name", signed(keys.rsa, "RS256", kid="ec-1")),
        _case("a key for encryption", signed(_again(keys.encrypting), "RS256")),
        _case("a key of 1,024 bits", signed(keys.weak, "RS256")),
    ]


def _ecdsa():
    from cryptography.hazmat.primitives.asymmetric import ec
    from cryptography.hazmat.primitives.hashes import SHA256
    return ec.ECDSA(SHA256())


def _again(key: jwk.JWK) -> jwk.JWK:
    """The same key without what its owner says that it is for: the library would keep to it."""
    fields = json.loads(key.export())
    return jwk.JWK(**{name: value for name, value in fields.items() if name not in ("alg", "use")})


def _headers(keys: Keys) -> list[dict]:
    own = json.loads(keys.stranger.export_public())
    kids = {"a path": "../../../../dev/null", "SQL": "x' UNION SELECT 'key';--",
            "a URL": "http://127.0.0.1/jwks.json", "10 kB": "k" * 10_000}
    empty = {"alg": "HS256", "kid": "../../../../dev/null"}
    return [
        *(_case(f"kid is {name}", signed(keys.stranger, "RS256", kid=kid))
          for name, kid in kids.items()),
        _case("kid is the empty file", hmac_signed(empty, b"")),
        _case("kid is a number", raw({"alg": "RS256", "kid": 1}, claims(), b"x" * 256)),
        _case("its own key within", signed(keys.stranger, "RS256", jwk=own)),
        _case("its own key within, unnamed", signed(keys.stranger, "RS256", jwk=own, kid=None)),
        _case("a key set elsewhere", signed(keys.stranger, "RS256", jku="http://127.0.0.1:1/j")),
        _case("a certificate elsewhere", signed(keys.stranger, "RS256", x5u="http://127.0.0.1:1/")),
        _case("critical and unknown", _critical(keys, ["tidegate"], tidegate=1)),
        _case("critical: a standard name", _critical(keys, ["alg"])),
        _case("critical: nothing", _critical(keys, [])),
        _case("a payload that is not encoded", _critical(keys, ["b64"], b64=False)),
        _case("a header twice", _by_hand(
            keys, '{"alg":"RS256","alg":"RS256","kid":"rsa-1"}', json.dumps(claims()))),
        _case("a header that is a list", _by_hand(keys, '["RS256"]', json.dumps(claims()))),
        _case("a header that is not JSON", _by_hand(keys, '{"alg":"RS256"', json.dumps(claims()))),
    ]


def _critical(keys: Keys, names: list[str], **header) -> str:
    fields = {"alg": "RS256", "kid": "rsa-1", "crit": names, **header}
    return _by_hand(keys, json.dumps(fields), json.dumps(claims()))


def _by_hand(keys: Keys, header: str, payload: str) -> str:
    """A signature that is right, over what the library would refuse to sign."""
    from cryptography.hazmat.primitives.asymmetric import padding
    from cryptography.hazmat.primitives.hashes import SHA256
    data = f"{b64(header)}.{b64(payload)}"
    key = keys.rsa.get_op_key("sign")
    return f"{data}.{b64(key.sign(data.encode(), padding.PKCS1v15(), SHA256()))}"


_RS256 = '{"alg":"RS256","kid":"rsa-1"}'


def _times(keys: Keys) -> list[dict]:
    now = int(time.time())
    late = _LEEWAY + 20
    changes = {
        "expired": {"exp": now - late}, "never expires": {"exp": None},
        "expires as a word": {"exp": str(now + 300)}, "expired before 1970": {"exp": -1},
        "expires in a list": {"exp": [now + 300]}, "expires as true": {"exp": True},
        "not yet valid": {"nbf": now + late}, "not yet, as a word": {"nbf": str(now - 1)},
        "from the future": {"iat": now + late, "nbf": None},
        "lives for too long": {"exp": now + 3_600 + 2 * late},
        "age unknown": {"iat": None, "nbf": None, "exp": now + 2 * 3_600},
    }
    infinite = json.dumps(claims(exp=0)).replace('"exp": 0', '"exp": 1e400')
    return [*(_case(name, signed(keys.rsa, "RS256", claims(**change)))
              for name, change in changes.items()),
            _case("expires at infinity", _by_hand(keys, _RS256, infinite))]


def _words(keys: Keys) -> list[dict]:
    changes = {
        "another audience": {"aud": "other"}, "no audience": {"aud": None},
        "an empty audience": {"aud": []}, "other audiences": {"aud": ["a", "b"]},
        "an audience that begins alike": {"aud": "api2"},
        "an audience that is a number": {"aud": 1},
        "no issuer": {"iss": None}, "an issuer that begins alike": {"iss": f"{ISSUER}.evil"},
        "an issuer with a slash": {"iss": f"{ISSUER}/"}, "issuers": {"iss": [ISSUER]},
        "an issuer in other letters": {"iss": ISSUER.upper()},
        "no tenant": {"tenant": None}, "another tenant": {"tenant": "other"},
        "a tenant that is an object": {"tenant": {"acme": "acme"}},
    }
    twice = json.dumps(claims()).replace('{"iss"', '{"iss": "https://evil", "iss"', 1)
    return [
        *(_case(name, signed(keys.rsa, "RS256", claims(**change)))
          for name, change in changes.items()),
        _case("a claim twice", _by_hand(keys, _RS256, twice)),
        _case("claims in a list", signed(keys.rsa, "RS256", json.dumps([claims()]))),
        _case("claims in a string", signed(keys.rsa, "RS256", json.dumps(json.dumps(claims())))),
        _case("claims that are not JSON", signed(keys.rsa, "RS256", "sub=alice")),
        _case("claims that are null", signed(keys.rsa, "RS256", "null")),
        _case("claims of 10,000 levels",
              signed(keys.rsa, "RS256", '{"a":' + "[" * 3_000 + "]" * 3_000 + "}")),
    ]


def _forms(keys: Keys) -> list[dict]:
    good = signed(keys.rsa, "RS256")
    head, body, signature = good.split(".")
    sealed = jwe.JWE(json.dumps(claims()).encode(), json.dumps(
        {"alg": "RSA-OAEP-256", "enc": "A256GCM", "kid": "enc-1"}), recipient=keys.encrypting)
    flat = json.dumps({"protected": head, "payload": body, "signature": signature})
    return [
        _case("encrypted", sealed.serialize(compact=True)),
        _case("as JSON", flat.replace(" ", "")),
        _case("five parts", f"{good}.x.y"), _case("four parts", f"{good}.x"),
        _case("two parts", f"{head}.{body}"), _case("one part", head), _case("dots", "...."),
        _case("padded", f"{head}=.{body}.{signature}"),
        _case("the other alphabet", f"{head}.{body}.+/{signature[2:]}"),
        _case("not base64", f"{head}.{body}.$$$$"),
        _case("spaces within", f"{head}. {body}.{signature}"),
        _case("two, with a comma", f"{good},{good}"), _case("nothing", ""),
        _case("1 MB", signed(keys.rsa, "RS256", claims(fill="x" * 750_000))),
    ]


def _places(keys: Keys) -> list[dict]:
    good = signed(keys.rsa, "RS256")

    def case(name: str, headers: list[list[str]], path: str = "/") -> dict:
        return {"name": name, "headers": headers, "path": path}

    return [
        case("no token", []),
        case("in the query", [], f"/?access_token={good}&jwt={good}&token={good}"),
        case("in a cookie", [["Cookie", f"jwt={good}; token={good}; jwt_token={good}"]]),
        case("in another header", [["X-Authorization", f"Bearer {good}"]]),
        case("by another scheme", [["Authorization", f"Basic {good}"]]),
        case("without a scheme", [["Authorization", good]]),
        case("two, a good one first", [*bearer(good), *bearer("x.y.z")]),
        case("two, a good one last", [*bearer("x.y.z"), *bearer(good)]),
        case("who it says it is", [["X-Subject", "alice"], ["X-Consumer-Name", "web-app"]]),
    ]
