"""From a trained network to a bundle that a device may trust: quantized, calibrated, bounded, packed.

A recipe calls `export.build.build_bundle` once; the other modules are its steps, each usable alone.

Rules:
- Thresholds and calibration are fitted on the outputs of the very file that is shipped, never on the float network.
- The same inputs give the same archive, byte for byte.
- Nothing here needs torch, except `onnx_export`, which turns a torch module into float ONNX.
"""
