"""Tells one dataset from another, wherever its folder lies."""

from __future__ import annotations

import hashlib

from lib_trainer.dataset.scan import Scan


def fingerprint(scan: Scan) -> str:
    """SHA-256 (hex) over content, captions, repeats, crop and class of every picture; not over where it lies.

    Raises:
        OSError: a picture cannot be read.
    """
    whole = hashlib.sha256()
    for sample in scan.samples:
        # The folder's name is part of it, because it is the trigger word of pictures without captions.
        content = hashlib.sha256(sample.image.read_bytes()).hexdigest()
        captions = "\n".join(sample.captions)
        crop = "" if sample.crop_px is None else f"\0{sample.crop_px}"
        mark = "\0regularisation" if sample.regularising else ""
        whole.update(f"{content}\0{sample.image.parent.name}\0{captions}\0{sample.repeats}{crop}{mark}\n".encode())
    return whole.hexdigest()
