"""Registers the tab "Train LoRA" and the routes under /train-lora/v1 with the WebUI."""

from modules import script_callbacks

# A1111 knows the extension's folder only while this file runs; what is imported from the package later needs it there.
import lib_trainer  # noqa: F401


def on_ui_tabs():
    # Imported late: the WebUI runs this file before it has started.
    from lib_trainer.app import make_tab

    return [make_tab()]


def on_app_started(_demo, app):
    from lib_trainer.app import add_routes

    add_routes(app)


script_callbacks.on_ui_tabs(on_ui_tabs)
script_callbacks.on_app_started(on_app_started)
