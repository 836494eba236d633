"""Trains LoHa and LoKr adapters on the checkpoint that a WebUI has loaded.

    dataset folder ─ scan ─→ Sample(image, caption, repeats)
                   ─ buckets ─→ Sample + Bucket(width_px, height_px)
                   ─ cache ─→ latents and text embeddings   (RAM or disk; VAE and text encoders then leave the GPU)
    adapter ─ attach ─→ LoHa / LoKr on the host's own UNet
    loop ─→ Step(loss, learning_rate, seconds, bytes) …  ─→ jobs ─→ tab, REST, command line
    files ─→ models/Lora/NAME.safetensors (+ .json card)
    preview ─→ prompts × strengths → grid

`run.run` tells it from top to bottom. A recipe (`config`, `recipes`) says what to do; a host (`host.base`) lends the
model: a WebUI that runs us, or our own standalone one. Rooms hand each other data types and do not call back.
"""
