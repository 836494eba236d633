"""`<kind:argument:argument>` in prompts. What goes wrong is printed, and the picture drawn without it."""

import re
import traceback

_TAG = re.compile(r"<(\w+):([^>]+)>")
_kinds = {}


def register_extra_network(network):
    _kinds[network.name] = network


def taken_out(prompt):
    """(the prompt without its tags, the arguments of each tag by kind)."""
    tags = {}
    for kind, arguments in _TAG.findall(prompt):
        tags.setdefault(kind, []).append(arguments.split(":"))
    return _TAG.sub("", prompt), tags


def activate(p, tags):
    """Every kind, also one that the prompt does not name: it then takes out what was there before."""
    for kind, network in _kinds.items():
        try:
            network.activate(p, tags.get(kind, []))
        except Exception:  # noqa: BLE001
            traceback.print_exc()


def deactivate(p):
    for network in _kinds.values():
        network.deactivate(p)
