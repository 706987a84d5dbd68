"""Tests of `firmware_configs`: profiles, disks, writing, and what is started from it."""
