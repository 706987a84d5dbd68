"""Draws a device's label: its name in letters, its site, and a QR code of name and fingerprint.

Rules:
- The fingerprint is the digest of the seed that the card was written with: it stands in the receipt and on the card
  (`seed.json`), and no two cards have the same. It is no secret.
- What a scanner reads is one line, `lineside/1/{name}/{fingerprint}`; the letters say the same to a person.
"""

from pathlib import Path

import segno
from PIL import Image, ImageDraw, ImageFont

WIDTH, HEIGHT = 696, 271
"""Pixels of a 62 × 24 mm label at 285 dots an inch, which label printers take as it is."""
MARGIN = 16
NAME_SIZES = range(64, 20, -4)
SMALL_SIZE = 24


def scanned(device: str, fingerprint: str) -> str:
    """Return what a scanner reads."""
    return f"lineside/1/{device}/{fingerprint}"


def draw(device: str, site: str, fingerprint: str) -> Image.Image:
    """Return the label, black on white.

    Args:
        device: its name.
        site: where it stands.
        fingerprint: the seed's digest, 64 hexadecimal digits.
    """
    label = Image.new("1", (WIDTH, HEIGHT), 1)
    code = _code(scanned(device, fingerprint), HEIGHT - 2 * MARGIN)
    label.paste(code, (MARGIN, (HEIGHT - code.height) // 2))
    left = MARGIN + code.width + MARGIN
    pen = ImageDraw.Draw(label)
    size = next((s for s in NAME_SIZES if pen.textlength(device, font=_font(s)) <= WIDTH - left - MARGIN), SMALL_SIZE)
    pen.text((left, MARGIN + 4), _fitted(pen, device, size, WIDTH - left - MARGIN), font=_font(size), fill=0)
    pen.text((left, 110), _fitted(pen, site, SMALL_SIZE + 8, WIDTH - left - MARGIN), font=_font(SMALL_SIZE + 8), fill=0)
    for number, words in enumerate(_groups(fingerprint)):
        pen.text((left, 176 + 30 * number), words, font=_font(SMALL_SIZE), fill=0)
    return label


def write_label(path: Path, device: str, site: str, fingerprint: str) -> None:
    """Write the label as a PNG."""
    draw(device, site, fingerprint).save(path, "PNG", optimize=True)


def _code(text: str, side: int) -> Image.Image:
    """Return the code in whole pixels a module, as large as fits: scaled otherwise it is hard to scan."""
    made = segno.make(text, error="m", micro=False)
    rows = [bytes(row) for row in made.matrix_iter(scale=1, border=2)]
    scale = max(1, side // len(rows))
    image = Image.new("1", (len(rows), len(rows)), 1)
    image.putdata([0 if module else 1 for row in rows for module in row])
    return image.resize((len(rows) * scale, len(rows) * scale), Image.Resampling.NEAREST)


def _groups(fingerprint: str) -> list[str]:
    """Return the first half of the fingerprint as people compare it: groups of four, two lines."""
    groups = [fingerprint[at : at + 4] for at in range(0, 32, 4)]
    return [" ".join(groups[:4]), " ".join(groups[4:])]


def _fitted(pen: ImageDraw.ImageDraw, text: str, size: int, width: int) -> str:
    while text and pen.textlength(text, font=_font(size)) > width:
        text = text[:-2] + "…" if len(text) > 2 else ""
    return text


def _font(size: int) -> ImageFont.ImageFont | ImageFont.FreeTypeFont:
    return ImageFont.load_default(size)
