"""CLIP's tokenizer for single-file checkpoints, which hold weights only.

Its vocabulary is 1.3 MB and not ours to distribute. It may be on this machine already: in the packages
`open_clip_torch` and `clip`, which ship it as `bpe_simple_vocab_16e6.txt.gz`, or Hugging Face's cache.
"""

from __future__ import annotations

import gzip
import json
import tempfile
from importlib.util import find_spec
from pathlib import Path

from transformers import CLIPTokenizer

from lib_trainer.errors import UserError

HUB_NAME = "openai/clip-vit-large-patch14"
PACKAGES = ("open_clip", "clip")
VOCABULARY = "bpe_simple_vocab_16e6.txt.gz"
_LENGTH = 77
# CLIP's 49,408 tokens: 256 bytes, 256 bytes that end a word, these merges, and the two marks.
_MERGES = 49152 - 256 - 2


def clip_tokenizer(pad_token: str) -> CLIPTokenizer:
    """CLIP's tokenizer. `pad_token`: the end mark for OpenAI's CLIP, `!` for OpenCLIP.

    Raises:
        UserError: when the vocabulary is not on this machine and cannot be fetched.
    """
    for package in PACKAGES:
        spec = find_spec(package)
        for folder in (spec.submodule_search_locations or []) if spec else []:
            if (Path(folder) / VOCABULARY).is_file():
                return read_vocabulary(Path(folder) / VOCABULARY, pad_token)
    try:
        # From Hugging Face's cache, or the network where there is one.
        return CLIPTokenizer.from_pretrained(HUB_NAME, pad_token=pad_token)
    except OSError as error:
        raise UserError(
            "CLIP's vocabulary, which a single-file checkpoint does not carry, is not on this machine.",
            "Run it once with internet access, or: pip install open_clip_torch; or use a diffusers folder.",
        ) from error


def read_vocabulary(path: Path, pad_token: str) -> CLIPTokenizer:
    """The tokenizer of an OpenAI `bpe_simple_vocab_16e6.txt.gz`: one line of comment, then one merge a line."""
    with gzip.open(path, "rt", encoding="utf-8") as file:
        merges = file.read().split("\n")[1 : _MERGES + 1]
    letters = _byte_letters()
    tokens = [
        *letters,
        *(f"{letter}</w>" for letter in letters),
        *("".join(merge.split()) for merge in merges if merge),
    ]
    tokens += ["<|startoftext|>", "<|endoftext|>"]
    with tempfile.TemporaryDirectory() as folder:
        vocabulary = {token: number for number, token in enumerate(tokens)}
        Path(folder, "vocab.json").write_text(json.dumps(vocabulary), encoding="utf-8")
        Path(folder, "merges.txt").write_text("\n".join(["#version: 0.2", *merges]), encoding="utf-8")
        return CLIPTokenizer.from_pretrained(
            folder, pad_token=pad_token, unk_token="<|endoftext|>", model_max_length=_LENGTH, local_files_only=True
        )


def _byte_letters() -> list[str]:
    """The 256 bytes as printable letters, in the order of CLIP's (and GPT-2's) vocabulary."""
    printable = [*range(ord("!"), ord("~") + 1), *range(ord("¡"), ord("¬") + 1), *range(ord("®"), ord("ÿ") + 1)]
    return [chr(number) for number in printable] + [chr(256 + number) for number in range(256 - len(printable))]
