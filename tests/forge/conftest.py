import os

# These tests run inside Forge's own process; `test_real_forge.py` starts it.
collect_ignore = [] if "TRAIN_LORA_INSIDE_FORGE" in os.environ else ["inside"]
