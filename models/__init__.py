"""The reference models: one folder each with its data recipe, network, training, model card and finished bundles.

Rules:
- Recipes may need torch and the export extra; nothing that a device, the cloud or the demo runs imports them,
  except generators of pictures and sounds, which need numpy and OpenCV only.
"""
