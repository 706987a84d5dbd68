"""Reads a bundle: the archive's bytes in, a checked manifest and the files' bytes out. No IO beyond reading.

Rules:
- The digest of the whole archive is compared before anything parses a byte of it.
- The bytes that were checked are the bytes that are handed on; nothing is read from disk twice.
- Every bound is checked before memory is taken: archive, number of members, size of all that is unpacked.
"""

import hashlib
import io
import lzma
import math
import struct
import zipfile
import zlib
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from pydantic import ValidationError

from edge.errors import ModelError, UpdateError
from edge.ood import Reference, reference_of
from edge.wire.base import BundleRef
from edge.wire.manifest import MANIFEST_NAME, Manifest, ModelFile

MAX_ARCHIVE_BYTES = 256 * 2**20
"""Largest bundle: edge models are megabytes; more is a mistake or an attack."""
MAX_MEMBERS = 64
MAX_MANIFEST_BYTES = 4 * 2**20

_DAMAGED = (
    zipfile.BadZipFile,
    zlib.error,
    lzma.LZMAError,
    struct.error,
    RuntimeError,  # encrypted, and (as NotImplementedError) compressed in a way that is not known
    ValueError,
    KeyError,
    EOFError,
    OSError,
)
"""What the standard library raises on archives that are damaged or made to harm."""


@dataclass(frozen=True)
class Bundle:
    """A bundle in memory, its files checked against its manifest."""

    ref: BundleRef
    manifest: Manifest
    files: dict[str, bytes]

    def model(self, runtime: str) -> tuple[ModelFile, bytes]:
        """Return the network for this runtime, and its file.

        Raises:
            ModelError: the bundle holds no such format.
        """
        for key, entry in self.manifest.models.items():
            if key == runtime:
                return entry, self.files[entry.file]
        have = ", ".join(sorted(self.manifest.models))
        raise ModelError(f"{self.ref.name} {self.ref.version} has no {runtime} model", hint=f"it has: {have}")

    def golden(self, runtime: str) -> tuple[NDArray[np.generic], NDArray[np.float32]]:
        """Return golden inputs (n, …) and the logits (n, labels) that this runtime must give.

        Raises:
            ModelError: there are none for this runtime, or they are damaged.
        """
        golden = self.manifest.golden
        if runtime not in golden.outputs:
            raise ModelError(f"{self.ref.name} {self.ref.version} has no golden outputs for {runtime}")
        inputs, outputs = _array(self.files[golden.inputs]), _array(self.files[golden.outputs[runtime]])
        if inputs.shape[:1] != (golden.count,) or outputs.shape != (golden.count, len(self.manifest.labels)):
            raise ModelError(
                f"golden examples: expected {golden.count} with {len(self.manifest.labels)} logits each, "
                f"got inputs {inputs.shape} and outputs {outputs.shape}"
            )
        if outputs.dtype.kind != "f" or not np.isfinite(outputs).all():
            raise ModelError("golden examples: expected finite floating-point logits")
        return inputs, outputs.astype(np.float32)

    def golden_extras(self, runtime: str) -> NDArray[np.float32] | None:
        """Return what lies behind the logits (n, numbers) that this runtime must give, None if none were recorded.

        Raises:
            ModelError: they are damaged, or not what the network's outputs need.
        """
        name = self.manifest.golden.extras.get(runtime)
        if name is None:
            return None
        spec, _ = self.model(runtime)
        extras = (extra for extra in (spec.features, spec.heatmap, spec.text) if extra is not None)
        expected = (self.manifest.golden.count, sum(math.prod(extra.shape) for extra in extras))
        values = _array(self.files[name])
        if values.shape != expected or values.dtype.kind != "f" or not np.isfinite(values).all():
            raise ModelError(f"golden extras: expected finite numbers of shape {expected}, got shape {values.shape}")
        return values.astype(np.float32)

    def ood_reference(self, runtime: str) -> Reference | None:
        """Return what known features look like, None if the bundle does not say.

        Raises:
            ModelError: the file is damaged or does not fit the network.
        """
        spec, features = self.manifest.out_of_distribution, self.model(runtime)[0].features
        if spec is None or features is None:
            return None
        return reference_of(spec, _array(self.files[spec.file]), features.shape[1])


def digest_of(data: bytes) -> str:
    """Return the SHA-256 of bytes in lower-case hexadecimal."""
    return hashlib.sha256(data).hexdigest()


def load(path: Path, *, expected_digest: str | None = None) -> Bundle:
    """Read and check a bundle file.

    Raises:
        ModelError: there is no such file.
        UpdateError: it is too large, altered, or not a bundle.
    """
    try:
        size = path.stat().st_size
        if size > MAX_ARCHIVE_BYTES:
            raise UpdateError(f"{path}: expected at most {MAX_ARCHIVE_BYTES} bytes, got {size}")
        data = path.read_bytes()
    except OSError as error:
        raise ModelError(f"{path}: cannot read the bundle: {error.strerror}", hint="check the path") from error
    return parse(data, expected_digest=expected_digest, where=str(path))


def parse(data: bytes, *, expected_digest: str | None = None, where: str = "bundle") -> Bundle:
    """Check and open the bytes of a bundle.

    Raises:
        UpdateError: digest, archive, manifest or a file is not as it should be.
    """
    digest = digest_of(data)
    if expected_digest is not None and digest != expected_digest:
        raise UpdateError(
            f"{where}: digest is {digest[:12]}…, expected {expected_digest[:12]}…",
            hint="the file was cut short or altered; fetch it again",
        )
    try:
        with zipfile.ZipFile(io.BytesIO(data)) as archive:
            manifest = _manifest(archive, where)
            _nothing_else(archive, manifest, where)
            _not_too_large(manifest, where)
            _fits_its_labels(manifest, where)
            files = {name: _member(archive, name, manifest, where) for name in manifest.files}
    except _DAMAGED as error:
        raise UpdateError(
            f"{where}: not a bundle: {error}", hint="expected a .lsb file as `lineside-export` writes it"
        ) from error
    ref = BundleRef(name=manifest.name, version=manifest.version, digest=digest, size_bytes=len(data))
    return Bundle(ref, manifest, files)


def _manifest(archive: zipfile.ZipFile, where: str) -> Manifest:
    members = archive.infolist()
    if len(members) > MAX_MEMBERS:
        raise UpdateError(f"{where}: expected at most {MAX_MEMBERS} files, got {len(members)}")
    names = [member.filename for member in members]
    if MANIFEST_NAME not in names:
        raise UpdateError(f"{where}: {MANIFEST_NAME} is missing")
    if archive.getinfo(MANIFEST_NAME).file_size > MAX_MANIFEST_BYTES:
        raise UpdateError(f"{where}: {MANIFEST_NAME} is larger than {MAX_MANIFEST_BYTES} bytes")
    try:
        return Manifest.model_validate_json(archive.read(MANIFEST_NAME))
    except ValidationError as error:
        first = error.errors()[0]
        place = ".".join(str(part) for part in first["loc"])
        raise UpdateError(f"{where}: manifest: {place}: {first['msg']}") from error


def _member(archive: zipfile.ZipFile, name: str, manifest: Manifest, where: str) -> bytes:
    entry = manifest.files[name]
    with archive.open(name) as stream:
        content = stream.read(entry.size_bytes + 1)
    if len(content) != entry.size_bytes or digest_of(content) != entry.digest:
        raise UpdateError(f"{where}: {name} is not the file that the manifest lists")
    return content


def _nothing_else(archive: zipfile.ZipFile, manifest: Manifest, where: str) -> None:
    names = [member.filename for member in archive.infolist()]
    extra = sorted(set(names) - set(manifest.files) - {MANIFEST_NAME})
    if extra or len(names) != len(set(names)):
        raise UpdateError(f"{where}: files that the manifest does not list: {', '.join(extra) or 'repeated names'}")


def _not_too_large(manifest: Manifest, where: str) -> None:
    unpacked = sum(entry.size_bytes for entry in manifest.files.values())
    if unpacked > MAX_ARCHIVE_BYTES:
        raise UpdateError(f"{where}: expected at most {MAX_ARCHIVE_BYTES} bytes unpacked, its files are {unpacked}")


def _fits_its_labels(manifest: Manifest, where: str) -> None:
    """What would otherwise come out at the first window only, long after the bundle was taken."""
    labels = len(manifest.labels)
    for runtime, model in manifest.models.items():
        shape = model.output.shape
        if shape[:1] != [1] or math.prod(model.output.answer_shape) != labels:
            raise UpdateError(f"{where}: output of the {runtime} model: expected shape [1, {labels}], got {shape}")
    calibration = manifest.calibration
    counts = [len(numbers or []) for numbers in (calibration.scale, calibration.bias)]
    if calibration.label is not None and calibration.label >= labels:
        raise UpdateError(f"{where}: isotonic calibration of label {calibration.label}: there are {labels} labels")
    needed = [labels, labels] if calibration.method == "vector" or counts != [0, 0] else [0, 0]
    if calibration.method in ("vector", "sigmoid") and counts != needed:
        raise UpdateError(
            f"{where}: {calibration.method} calibration: expected {labels} scales and biases, got {counts}"
        )


def _array(data: bytes) -> NDArray[np.generic]:
    try:
        return np.asarray(np.lib.format.read_array(io.BytesIO(data), allow_pickle=False))
    except Exception as error:  # a hostile header trips numpy's parser in ways that it does not list
        raise ModelError(f"an array of the bundle is damaged: {error}") from error
