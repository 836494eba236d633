"""LoRA files as a host lists them: their names in prompts, their cards, and the saved steps of one run."""
