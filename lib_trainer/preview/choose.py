"""What "Choose this one" does with a picture of a grid."""

from __future__ import annotations

from dataclasses import replace

from lib_trainer.errors import UserError
from lib_trainer.host.base import Host
from lib_trainer.lora.card import keep_picture
from lib_trainer.lora.checkpoints import make_final
from lib_trainer.lora.lookup import find_lora
from lib_trainer.preview.drawing import Drawn


def choose(host: Host, item: Drawn) -> str:
    """What a person means by "this one": its file becomes final, its strength the card's, its picture the card's.

    Of two LoRAs together the first gets the picture and keeps its strength: what suits beside another LoRA may be too
    little alone. Returns a sentence about what was done.

    Raises:
        UserError: for a picture without the LoRA, or what cannot be written.
    """
    chosen = item.cell.loras[0]
    loras = host.loras()
    lora = find_lora(chosen.name, loras)
    # The column of strength 0 shows the checkpoint alone.
    if not chosen.strength or lora is None:
        raise UserError(f"{chosen.name} is not in this picture.", "Choose one with a strength other than 0.")
    done = []
    path = lora.path
    if len(item.cell.loras) == 1:
        path = make_final(lora, loras, chosen.strength)
        if path != lora.path:
            done.append(f"{lora.name} is now {path.stem}")
        done.append(f"the card of {path.stem} proposes strength {chosen.strength:g}")
    keep_picture(replace(lora, name=path.stem, path=path), item.picture, item.infotext)
    # The WebUI caches files by name, and would keep drawing with the one before.
    host.lora_changed(path)
    done.append(f"this is the card's picture{'' if len(item.cell.loras) == 1 else f' of {path.stem}'}")
    text = ", and ".join([", ".join(done[:-1]), done[-1]] if len(done) > 1 else done)
    return f"Done: {text}."
