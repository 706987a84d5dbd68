"""What devices and the control plane say over HTTP.

| what          | call                                             | body           | answer        |
|---------------|--------------------------------------------------|----------------|---------------|
| trust         | `GET /v1/ca`                                     |                | PEM           |
| enrol         | `POST /v1/enrol`                                 | `EnrolRequest` | `EnrolAnswer` |
| trust now     | `GET /v1/trust` with device token                |                | `Trust`       |
| renew         | `POST /v1/renew` with device token               | `RenewRequest` | `Renewal`     |
| send an input | `PUT /v1/inputs/{sha256}` with device token      | raw bytes      | 201, or 200   |
| TUF metadata  | `GET /tuf/metadata/{file}`                       |                | raw bytes     |
| bundle        | `GET /tuf/targets/{sha256}.{name}` (Range works) |                | raw bytes     |
| delta         | `GET /tuf/deltas/{old}/{new}` (`edge.wire.delta`) |               | raw bytes     |

Rules:
- A claim token is bound to the first public key that shows it: the same key may ask again (power was
  cut before the answer was kept), another key may not.
- `proof` signs `enrol_statement(...)` with the device's Ed25519 key, so a stolen token alone is not enough
  to take over a name that is already enrolled. `csr_proof` does the same for the certificate request.
- A claim as people type it may carry, after a dot, the SHA-256 of the control plane's CA (base64url without padding):
  the device takes `GET /v1/ca` from anybody and believes it only if it has that digest, before it says anything else.
- `certificate` in an answer is for `csr`'s key and signs in at the broker; then there is no password.
- Authorities are replaced: a device asks for what to trust at its start, some times a day, and while the broker refuses
  it, and takes the answer only from whom it trusts already. It renews its certificate when it is told to, or when the
  one that counts is not the one that it has (power was cut before the answer was kept).
"""

import hashlib

from pydantic import Field

from edge.wire.base import Name, WireModel


class EnrolRequest(WireModel):
    """A device asks to become part of the fleet."""

    device: Name
    claim: str = Field(min_length=16, max_length=200)
    profile: str = Field(max_length=64)
    site: str = Field(max_length=64)
    public_key: str = Field(pattern=r"^[0-9a-f]{64}$")
    """Raw Ed25519 public key, hexadecimal."""
    proof: str = Field(pattern=r"^[0-9a-f]{128}$")
    """Ed25519 signature over `enrol_statement(device, claim, public_key)`, hexadecimal."""
    models: list[Name] = Field(default_factory=list, max_length=64)
    """Names of the models that the device's stations run."""
    csr: str | None = Field(default=None, max_length=4000)
    """Certificate request (PKCS #10, PEM) for the key that the device made for TLS; its CN is the device."""
    csr_proof: str | None = Field(default=None, pattern=r"^[0-9a-f]{128}$")
    """Ed25519 signature over `csr_statement(device, claim, public_key, csr)`, hexadecimal."""


class Trust(WireModel):
    """Whom a device shall believe from now on."""

    ca: str | None = None
    """PEM, one or more, instead of what it verifies the control plane by; None for what its system trusts."""
    broker_ca: str | None = None
    """The same for the broker."""
    certificate: str | None = None
    """SHA-256 (hexadecimal) of the device's certificate that counts at the broker; None where there is none."""
    renew: bool = False
    """Whether it shall ask for a new certificate."""


class RenewRequest(WireModel):
    """A device of the fleet asks for another certificate."""

    csr: str = Field(max_length=4000)
    """Certificate request (PKCS #10, PEM) for its TLS key; its CN is the device."""
    proof: str = Field(pattern=r"^[0-9a-f]{128}$")
    """Ed25519 signature over `renew_statement(device, csr)` by the key that it enrolled with, hexadecimal."""


class Renewal(WireModel):
    """Another certificate; the one before is of no use from now on."""

    certificate: str
    """PEM, for the key of `csr`."""


class BrokerAddress(WireModel):
    """Where and as whom to connect by MQTT."""

    host: str
    port: int
    username: str
    password: str
    tls: bool = False


class EnrolAnswer(WireModel):
    """The device is in: its credentials for broker and HTTP."""

    device: Name
    broker: BrokerAddress
    token: str
    """Bearer token for the device's own HTTP calls."""
    server_time_ms: int
    certificate: str | None = None
    """PEM, for the key of `csr`."""
    ca: str | None = None
    """PEM of what to verify the control plane by; None for what the device's system trusts."""
    broker_ca: str | None = None
    """The same for the broker."""


def enrol_statement(device: str, claim: str, public_key: str) -> bytes:
    """Return the bytes that the device signs to prove that it holds the key."""
    return f"lineside-enrol-1\n{device}\n{claim}\n{public_key}".encode()


def csr_statement(device: str, claim: str, public_key: str, csr: str) -> bytes:
    """Return the bytes that the device signs to say that a certificate request is its own."""
    return b"\n".join([enrol_statement(device, claim, public_key), hashlib.sha256(csr.encode()).hexdigest().encode()])


def renew_statement(device: str, csr: str) -> bytes:
    """Return the bytes that the device signs to say that a request to renew its certificate is its own."""
    return f"lineside-renew-1\n{device}\n{hashlib.sha256(csr.encode()).hexdigest()}".encode()


def claim_parts(claim: str) -> tuple[str, str | None]:
    """Return a claim's token, and the digest of the CA that it carries, if it does."""
    token, _, digest = claim.strip().partition(".")
    return token, digest or None
