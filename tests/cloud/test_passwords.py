"""Hashes of passwords: made with the effort that the standard asks for."""

import pytest
from argon2 import PasswordHasher, extract_parameters
from argon2.profiles import RFC_9106_LOW_MEMORY

from cloud import passwords


def test_hash_is_made_as_rfc_9106_says_for_little_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(passwords, "_hasher", PasswordHasher.from_parameters(passwords.EFFORT))
    kept = passwords.hash_password("correct horse battery")
    assert extract_parameters(kept) == RFC_9106_LOW_MEMORY
    assert passwords.verify_password(kept, "correct horse battery")
    assert not passwords.verify_password(kept, "correct horse batterz")
