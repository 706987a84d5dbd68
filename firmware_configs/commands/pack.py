"""`lineside-flash pack`: an image as one file, to be signed, published and rolled out as a model's bundle is."""

from pathlib import Path

from pydantic import TypeAdapter, ValidationError

from edge.wire.base import Version, target_path
from edge.wire.osimage import os_name
from firmware_configs.commands.shared import as_json, note, say
from firmware_configs.commands.write import image_of
from firmware_configs.errors import ConfigError
from firmware_configs.image.debian import load_image
from firmware_configs.pack import pack
from firmware_configs.profile import find_profile


def run(profile: str, version: str | None, image: Path | None, out: Path | None, *, machines: bool) -> int:
    """Pack the image and say what it is called; return 0.

    Raises:
        ConfigError: there is no image, or the version is none.
        BuildError: it cannot be written.
    """
    known = find_profile(profile)
    name, folder = known.name, image_of(known, image)
    manifest = load_image(folder)
    if manifest.profile != name:
        raise ConfigError(f"{folder} is an image of {manifest.profile}, not of {name}")
    number = _version(version or manifest.version)
    file = out or Path(target_path(os_name(name), number))
    ref = pack(manifest, folder, number, file)
    if machines:
        say(as_json({**ref.model_dump(), "file": str(file)}))
        return 0
    say(f"{file}: {ref.name} {ref.version}, {ref.size_bytes / 1e6:.0f} MB, {ref.digest}")
    note(f"publish it: lineside-cloud models publish {file} --keys DIR")
    return 0


def _version(text: str) -> str:
    try:
        return TypeAdapter(Version).validate_python(text)
    except ValidationError as error:
        raise ConfigError(f"--version: expected three numbers such as 1.2.0, got {text!r}") from error
