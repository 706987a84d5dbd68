"""Lineside on the device: sources, pipeline, runtimes, actuators, store, link and model slots."""
