"""Digits as speakers of other languages say them: eSpeak NG's voices of these languages read them as they would spell.

Rules:
- The same seed draws the same words, voices and speeds; the breath of a voice is eSpeak NG's own chance.
- They train, and prove nothing: a voice that reads a spelling is a caricature of an accent.
"""

from collections.abc import Iterator
from dataclasses import replace

import numpy as np

from models.spoken_digits.speak import Utterance, draw

SPELLINGS = {
    "fr": ("ziro", "ouane", "tou", "sri", "faure", "faïve", "sixe", "sèvène", "eïte", "naïne"),
    "fr-be": ("zirau", "ouanne", "tou", "tri", "fore", "faïv", "sixe", "sévenn", "éte", "naïnn"),
    "de": ("siro", "uan", "tu", "sri", "for", "faif", "ßicks", "sewen", "eht", "nain"),
    "nl": ("ziero", "wan", "toe", "srie", "foor", "faaif", "siks", "seven", "eejt", "nain"),
    "it": ("ziro", "uan", "tu", "tri", "for", "faiv", "sics", "seven", "eit", "nain"),
    "es": ("sirou", "uan", "tu", "tri", "for", "faif", "sics", "seven", "eit", "nain"),
    "es-419": ("siro", "uan", "tu", "tri", "for", "faiv", "sics", "seven", "eit", "nain"),
    "pl": ("ziro", "łan", "tu", "sri", "for", "fajw", "siks", "sewen", "ejt", "najn"),
    "el": ("ζίροου", "ουάν", "του", "θρι", "φορ", "φάιβ", "σιξ", "σέβεν", "έιτ", "νάιν"),
    "pt": ("ziro", "uan", "tu", "tri", "for", "faiv", "sics", "séven", "eit", "nain"),
    "ro": ("ziro", "uan", "tu", "tri", "for", "faiv", "six", "seven", "eit", "nain"),
    "tr": ("ziro", "van", "tu", "tri", "for", "fayv", "siks", "sevın", "eyt", "nayn"),
    "cs": ("zirou", "van", "tú", "srí", "fór", "fajv", "siks", "sevn", "ejt", "najn"),
    "hu": ("ziró", "uan", "tú", "szrí", "fór", "fájv", "sziksz", "szeven", "éjt", "nájn"),
    "sv": ("siro", "oan", "to", "tri", "får", "fajv", "sicks", "seven", "ejt", "najn"),
    "hi": ("ज़ीरो", "वन", "टू", "थ्री", "फोर", "फाइव", "सिक्स", "सेवन", "एट", "नाइन"),
    "ru": ("зиро", "уан", "ту", "сри", "фор", "файв", "сикс", "севен", "эйт", "найн"),
}
"""The ten English digits in the spelling of a language, by its voice."""


def accented(count: int, seed: int) -> Iterator[Utterance]:
    """Yield `count` utterances, digit after digit, each by some language's voice at some speed and pitch."""
    rng = np.random.default_rng(seed)
    languages = list(SPELLINGS)
    for number in range(count):
        language = languages[int(rng.integers(len(languages)))]
        drawn = draw(rng, number % 10)
        _, plus, variant = drawn.voice.partition("+")
        yield replace(drawn, voice=language + plus + variant, word=SPELLINGS[language][drawn.digit])
