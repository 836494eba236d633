"""What A1111, Forge and their descendants have in common: queue, LoRA list, text-to-image, progress bar."""
