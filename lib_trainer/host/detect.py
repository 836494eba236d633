"""Which host runs us."""

from __future__ import annotations

from importlib.util import find_spec

from lib_trainer.errors import UserError
from lib_trainer.host.access import Access
from lib_trainer.host.base import Host


def current_host() -> Host:
    """The WebUI this process belongs to.

    Raises:
        UserError: in a WebUI without a host module here, or outside any.
    """
    if find_spec("modules_forge"):
        if find_spec("backend"):
            return _forge_or_neo()
        # reForge and Forge Classic hold models as Forge did before it had a backend of its own: as ComfyUI does.
        if find_spec("ldm_patched"):
            from lib_trainer.host.reforge.host import ReforgeHost

            return ReforgeHost()
    # Every WebUI has `modules`; A1111 alone computes with the `ldm` and `sgm` packages and no modules_forge.
    elif find_spec("modules") and find_spec("ldm") and find_spec("sgm"):
        from lib_trainer.host.a1111.host import A1111Host

        return A1111Host()
    place = "in this WebUI yet" if find_spec("modules") else "here: this program is not a WebUI"
    hint = "Use stable-diffusion-webui, stable-diffusion-webui-forge, Forge Neo, Forge Classic or reForge."
    raise UserError(f"Training does not work {place}.", hint)


def _forge_or_neo() -> Host:
    """Neo holds ComfyUI's code where Forge has a folder of packages without one of that name."""
    if find_spec("modules_forge.packages") and find_spec("modules_forge.packages.comfy"):
        from lib_trainer.host.neo.host import NeoHost

        return NeoHost()
    from lib_trainer.host.forge.host import ForgeHost

    return ForgeHost()


def is_supported() -> bool:
    """Whether training works in this WebUI."""
    try:
        current_host()
    except UserError:
        return False
    return True


def current_access() -> Access:
    """Who may call us over the network, in the WebUI this process belongs to."""
    from lib_trainer.host.webui.access import access

    return access()
