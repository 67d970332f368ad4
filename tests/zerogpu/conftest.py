"""`python app.py` on ZeroGPU, as far as a machine without a GPU can be one."""

from gradio_client import Client

from tests.conftest import Space, save_endless
from tests.standins.faulty_server import FaultyServer
from tests.zerogpu import upload
from tests.zerogpu.cpu_shim import FAULT
from tests.zerogpu.device_api import DeviceApi


class ZeroGpuSpace(Space):
    """A copy of the upload, with the shipped client of ZeroGPU, before a stand-in for the device API with one GPU."""

    command = ("-m", "tests.zerogpu.cpu_shim")

    def __init__(self, folder, **environment):
        self.folder = upload.copy_to(folder / "space")
        self.api = DeviceApi()
        self.server = FaultyServer()  # of chat completions, elsewhere
        self.fault = folder / "fault"  # while this file is there the GPU is broken
        self.endless = save_endless(folder / "endless")
        zero_gpu = {
            "SPACES_ZERO_GPU": "true",
            "SPACES_ZERO_DEVICE_API_URL": self.api.url,
            "ZEROGPU_SIZE": "xlarge",
            "ZEROGPU_OFFLOAD_DIR": str(folder / "offload"),
            "MODEL_IDS": f"budgie,{self.endless},parrot,sound",
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
