import os

# These tests run inside Neo's own process; `test_real_neo.py` starts it.
collect_ignore = [] if "TRAIN_LORA_INSIDE_NEO" in os.environ else ["inside"]
