"""The checkpoint files, by every name that means one of them."""

import hashlib
from pathlib import Path

from modules import shared

checkpoints_list = {}
checkpoint_aliases = {}


class CheckpointInfo:
    sha256 = shorthash = None

    def __init__(self, path):
        self.filename, self.name, self.title = str(path), path.name, path.name
        self._answer_to(path.name, path.stem)

    def calculate_shorthash(self):
        """From here on its title has the hash in it."""
        if self.sha256 is None:
            self.sha256 = hashlib.sha256(Path(self.filename).read_bytes()).hexdigest()
            self.shorthash = self.sha256[:10]
            self.title = f"{self.name} [{self.shorthash}]"
            self._answer_to(self.title, self.sha256, self.shorthash)

    def _answer_to(self, *names):
        checkpoint_aliases.update(dict.fromkeys(names, self))


def list_models():
    for table in (checkpoints_list, checkpoint_aliases):
        table.clear()
    for path in sorted(Path(shared.cmd_opts.ckpt_dir).glob("*.safetensors")):
        checkpoints_list[path.name] = CheckpointInfo(path)


def select_checkpoint():
    """What is chosen, or else the first there is."""
    for found in (checkpoint_aliases.get(shared.opts.sd_model_checkpoint), *checkpoints_list.values()):
        if found is not None:
            return found
    raise FileNotFoundError(shared.cmd_opts.ckpt_dir)
