"""Registers the tab "Train LoRA" with the WebUI."""

from modules import script_callbacks


def on_ui_tabs():
    # Imported late: the WebUI runs this file before its own start is through.
    from lib_trainer.ui.webui import make_tab

    return [make_tab()]


script_callbacks.on_ui_tabs(on_ui_tabs)
