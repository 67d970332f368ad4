"""Who answers: the local engines, servers, and Parrot."""

import sys

# OpenVINO's reporter, which would tell Google of every start. Where it is missing, the library takes a stub.
sys.modules.setdefault("openvino_telemetry", None)  # type: ignore[arg-type]
