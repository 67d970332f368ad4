"""The engines, which produce the answers: local models, remote servers, and Parrot."""

import sys

# `openvino_telemetry` would report every start to Google. OpenVINO uses a stub when the import fails.
sys.modules.setdefault("openvino_telemetry", None)  # type: ignore[arg-type]
