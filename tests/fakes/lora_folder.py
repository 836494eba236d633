"""The LoRA files of a folder, by every name that means one of them."""

import os

from safetensors import SafetensorError, safe_open


class NetworkOnDisk:
    def __init__(self, name, filename):
        self.name, self.filename, self.metadata = name, filename, {}
        try:
            with safe_open(filename, framework="pt") as file:
                self.metadata = file.metadata() or {}
        except SafetensorError as error:
            print(f"reading lora {filename}: {error}")  # noqa: T201 - as the WebUIs do
        self.alias = self.metadata.get("ss_output_name", name)


class LoraFolder:
    def __init__(self):
        self.networks, self.aliases, self.forbidden = {}, {}, {}

    def find(self, name):
        return (self.networks if name.lower() in self.forbidden else self.aliases).get(name)

    def refresh(self, root):
        for table in (self.networks, self.aliases, self.forbidden):
            table.clear()
        self.forbidden.update({"none": 1, "Addams": 1})
        for folder, _, files in sorted(os.walk(root, followlinks=True)):
            for file in sorted(files):
                name, ending = os.path.splitext(file)
                if ending in (".safetensors", ".ckpt", ".pt"):
                    self._list(NetworkOnDisk(name, os.path.join(folder, file)))

    def _list(self, entry):
        self.networks[entry.name] = entry
        # Two files of one alias: it means neither of them any more.
        if entry.alias in self.aliases:
            self.forbidden[entry.alias.lower()] = 1
        self.aliases[entry.name] = self.aliases[entry.alias] = entry
