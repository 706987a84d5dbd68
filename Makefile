lock:
	uv pip compile pyproject.toml --group dev --extra tflite --extra cloud --extra export --extra bench --universal --python-version 3.11 --generate-hashes --no-annotate --no-header --quiet --upgrade --output-file requirements.lock
