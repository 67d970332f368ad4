"""`python app.py` on ZeroGPU, as far as a machine without a GPU can be one."""

import json
import shutil

from gradio_client import Client

from tests.conftest import ROOT, Space
from tests.zerogpu.cpu_shim import FAULT
from tests.zerogpu.device_api import DeviceApi


class ZeroGpuSpace(Space):
    """The app with the shipped client of ZeroGPU, before a stand-in for the device API with one GPU."""

    command = ("-m", "tests.zerogpu.cpu_shim")

    def __init__(self, folder, **environment):
        self.api = DeviceApi()
        self.fault = folder / "fault"  # while this file is there the GPU is broken
        self.endless = _never_ends(folder / "endless")
        zero_gpu = {
            "SPACES_ZERO_GPU": "true",
            "SPACES_ZERO_DEVICE_API_URL": self.api.url,
            "ZEROGPU_OFFLOAD_DIR": str(folder / "offload"),
            "MODEL_IDS": f"budgie,{self.endless},parrot",
            FAULT: str(self.fault),
        }
        super().__init__(**zero_gpu | environment)

    def client(self, token=None):
        return Client(self.url, verbose=False, headers={"x-ip-token": token} if token else None)

    def close(self):
        super().close()
        self.api.close()


def _never_ends(folder):
    """Budgie, with an end that it never says."""
    shutil.copytree(ROOT / "parley" / "budgie" / "weights", folder)
    changes = {"config.json": {"eos_token_id": 0, "max_position_embeddings": 8192}}
    changes["generation_config.json"] = {"eos_token_id": 0}
    changes["tokenizer_config.json"] = {"eos_token": "<|endoftext|>", "model_max_length": 8192}
    for name, values in changes.items():
        path = folder / name
        path.write_text(json.dumps(json.loads(path.read_text()) | values))
    return folder
