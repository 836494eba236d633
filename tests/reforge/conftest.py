import os

# These tests run inside reForge's own process; `test_real_reforge.py` starts it.
collect_ignore = [] if "TRAIN_LORA_INSIDE_REFORGE" in os.environ else ["inside"]
