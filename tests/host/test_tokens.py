"""Tokens of captions, asked for where each WebUI counts a prompt's."""

from __future__ import annotations

import sys
import types

from lib_trainer.host.webui.tokens import count_tokens


def hijacked(monkeypatch, get_prompt_lengths):
    module = types.ModuleType("modules.sd_hijack")
    module.model_hijack = types.SimpleNamespace(get_prompt_lengths=get_prompt_lengths)
    monkeypatch.setitem(sys.modules, "modules", types.ModuleType("modules"))
    monkeypatch.setitem(sys.modules, "modules.sd_hijack", module)


def test_forge_and_neo_ask_their_engine():
    engine = types.SimpleNamespace(get_prompt_lengths_on_ui=lambda text: (len(text.split()), 75))
    assert count_tokens(engine, "a man smiles") == 3


def test_a1111_and_reforge_ask_what_stands_for_clip(monkeypatch):
    hijacked(monkeypatch, lambda text: (len(text), 75))
    assert count_tokens(types.SimpleNamespace(), r"rin \(v\)") == len("rin (v)")
    hijacked(monkeypatch, lambda text, cond_stage_model: (cond_stage_model(text), 75))
    assert count_tokens(types.SimpleNamespace(cond_stage_model=len), "abc") == 3
    hijacked(monkeypatch, lambda text: ("-", "-"))
    assert count_tokens(types.SimpleNamespace(), "abc") is None
