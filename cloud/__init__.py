"""The control plane: ingest, fleet, registry, rollouts, review, analysis and console."""

from importlib.util import find_spec

if find_spec("fastapi") is None or find_spec("sqlalchemy") is None:
    raise ModuleNotFoundError("the control plane's libraries are not installed: pip install 'lineside[cloud]'")
