"""`python app.py` on ZeroGPU, as far as a machine without a GPU can be one."""

import shutil

import pytest
from gradio_client import Client

from tests.conftest import ROOT, Space, save_endless, until
from tests.standins.faulty_server import FaultyServer
from tests.standins.hub import put_into_cache, save_tiny_model
from tests.zerogpu import upload
from tests.zerogpu.cpu_shim import FAULT
from tests.zerogpu.device_api import DeviceApi

BIRD, SMALL = "bird", "Qwen/Qwen3-0.6B"  # Budgie's weights on the GPU, and the real model that answers on the CPU


class ZeroGpuSpace(Space):
    """A copy of the upload, with the shipped client of ZeroGPU, before a stand-in for the device API with one GPU."""

    command = ("-m", "tests.zerogpu.cpu_shim")

    def __init__(self, folder, **environment):
        self.folder = upload.copy_to(folder / "space")
        self.api = DeviceApi()
        self.server = FaultyServer()  # of chat completions, elsewhere
        self.fault = folder / "fault"  # while this file is there the GPU is broken
        self.endless = save_endless(folder / "endless")
        bird = shutil.copytree(ROOT / "parley" / "budgie" / "weights", folder / BIRD)
        small = put_into_cache(folder / "hub", SMALL, {})
        shape = {"hidden_size": 256, "intermediate_size": 2048, "num_hidden_layers": 6}  # so it takes its time
        save_tiny_model(small, "Qwen3", max_position_embeddings=8192, **shape)  # with Budgie's tokens; it never ends
        zero_gpu = {
            "SPACES_ZERO_GPU": "true",
            "SPACES_ZERO_DEVICE_API_URL": self.api.url,
            "ZEROGPU_SIZE": "xlarge",
            "ZEROGPU_OFFLOAD_DIR": str(folder / "offload"),
            "HF_HUB_CACHE": str(folder / "hub"),
            "MODEL_IDS": f"{bird},{self.endless},{SMALL},budgie,parrot,sound",
            "REMOTE_MODELS": "sound",
            "REMOTE_BASE_URL": self.server.url,
            FAULT: str(self.fault),
        }
        super().__init__(**zero_gpu | environment)

    def client(self, token=None):
        return Client(self.url, verbose=False, headers={"x-ip-token": token} if token else None)

    def close(self):
        super().close()
        self.api.close()
        self.server.close()


@pytest.fixture(scope="module")
def zero(tmp_path_factory):
    running = ZeroGpuSpace(tmp_path_factory.mktemp("zerogpu"), MAX_GPU_SECONDS="40")
    yield running
    running.close()


@pytest.fixture
def client(zero):
    yield zero.client()
    until(lambda: not zero.api.busy and not zero.api.line)
