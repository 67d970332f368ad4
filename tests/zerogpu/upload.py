"""What `hf upload your-name/parley . --repo-type space` sends of this repository as it stands."""

import shutil
import subprocess

from huggingface_hub.utils import DEFAULT_IGNORE_PATTERNS, filter_repo_objects

from tests.conftest import ROOT


def files():
    """The paths, by the rules of huggingface_hub and then those of .gitignore, which the Hub keeps."""
    listed = ["git", "ls-files", "--cached", "--others", "--exclude-standard", "-z"]
    names = subprocess.run(listed, cwd=ROOT, capture_output=True, text=True, check=True).stdout.split("\0")
    present = [name for name in names if name and (ROOT / name).is_file()]
    return list(filter_repo_objects(present, ignore_patterns=DEFAULT_IGNORE_PATTERNS))


def copy_to(folder):
    """The repository of a Space."""
    for name in files():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(ROOT / name, folder / name)
    return folder
