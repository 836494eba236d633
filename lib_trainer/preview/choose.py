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

    Of two LoRAs together only the first gets the picture: how strong it is beside another says nothing of it alone.
    The answer is a sentence that says what was done.

    Raises:
        UserError: for a picture without the LoRA, or what cannot be written.
    """
    use = item.cell.uses[0]
    loras = host.loras()
    lora = find_lora(use.name, loras)
    if not use.strength or lora is None:
        raise UserError(f"{use.name} is not in this picture.", "Choose one with a strength other than 0.")
    done = []
    path = lora.path
    if len(item.cell.uses) == 1:
        path = make_final(lora, loras, use.strength)
        if path != lora.path:
            done.append(f"{lora.name} is now {path.stem}")
        done.append(f"the card of {path.stem} proposes strength {use.strength:g}")
    keep_picture(replace(lora, name=path.stem, path=path), item.picture, item.infotext)
    host.lora_changed(path)
    done.append(f"this is the card's picture{'' if len(item.cell.uses) == 1 else f' of {path.stem}'}")
    text = ", and ".join([", ".join(done[:-1]), done[-1]] if len(done) > 1 else done)
    return f"Done: {text}."
