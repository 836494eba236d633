import os

# These tests run inside A1111's own process; `test_real_a1111.py` starts it.
collect_ignore = [] if "TRAIN_LORA_INSIDE_A1111" in os.environ else ["inside"]
