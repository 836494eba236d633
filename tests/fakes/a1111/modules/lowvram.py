"""With `--medvram` and `--lowvram` one part of the model at a time lies on the device: the one that was asked last."""

import sys

from modules import devices, shared

_HERE = sys.modules[__name__]
cpu = devices.cpu
module_in_gpu = None


def send_everything_to_cpu():
    _bring(None)


def is_needed(sd_model):
    return shared.cmd_opts.medvram or shared.cmd_opts.lowvram


def apply(sd_model):
    wanted, has_hooks = is_needed(sd_model), getattr(sd_model, "lowvram", False)
    sd_model.lowvram = wanted
    if not wanted or has_hooks:
        return
    _bring_before_methods(sd_model.first_stage_model, "encode", "decode")
    text = sd_model.conditioner if hasattr(sd_model, "conditioner") else sd_model.cond_stage_model
    _bring_before(_first_of(text), text)
    unet = sd_model.model.diffusion_model
    small = [unet.time_embed, *unet.input_blocks, unet.middle_block, *unet.output_blocks]
    for part in small if shared.cmd_opts.lowvram else [sd_model.model]:
        _bring_before(part, part)


def _bring(part):
    """This part alone to the device, or none."""
    before, _HERE.module_in_gpu = module_in_gpu, part
    if before is not part:
        for moved, place in ((before, cpu), (part, devices.device)):
            if moved is not None:
                moved.to(place)


def _first_of(text):
    """The module of a text encoder that is called first; the encoder itself is not always called."""
    if hasattr(text, "transformer"):
        return text.transformer
    return text.model.token_embedding if hasattr(text, "model") else text


def _bring_before(called, part):
    def hook(*_):
        _bring(part)

    called.register_forward_pre_hook(hook)


def _bring_before_methods(part, *names):
    """They are no forward: no hook would be called for them."""

    def bringing(method):
        def call(x):
            _bring(part)
            return method(x)

        return call

    for name in names:
        setattr(part, name, bringing(getattr(part, name)))
