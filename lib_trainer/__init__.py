"""Trains LoHa and LoKr adapters on the checkpoint that a WebUI has loaded.

    dataset/     folder ─ scan ─→ Sample(image, caption, repeats)
                 ─ buckets ─→ Sample + Bucket(width_px, height_px)
                 ─ cache ─→ latents and text encodings   (RAM or disk; VAE and text encoders then leave the GPU)
    memory/      recipe + free VRAM ─ plan ─→ Placement: which blocks are recomputed, which weights offloaded
    adapter/     attach ─→ LoHa / LoKr on the host's own network; kernels/ compute with W + ΔW
    training/    loop ─→ Step(loss, learning_rate, seconds, bytes) …
    evaluation/  held-out images ─→ what is learned, what is lost: best step and strength
    lora/        models/Lora/NAME.safetensors, its card, and which files the host lists
    preview/     prompts × strengths ─→ grid

`run.run` tells it from top to bottom. `config/` and `recipes/` say what to train; a `host/` opens the model
(`models/`), in a WebUI that runs this package or standalone. `jobs/` drives runs and grids for `ui/`, `web/` and
`cli/`, and `app` puts them together. `tests/test_import_rules.py` lists which package may import which.
"""
