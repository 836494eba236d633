"""The groups in which the page and the docs show settings."""

from __future__ import annotations

# What a person wants, in the order of the page. Which section a setting belongs to says what the code wants.
LEARNS, LENGTH, QUALITY, MEMORY, SAVING = "learns", "length", "quality", "memory", "saving"
GROUPS = {
    LEARNS: "What it learns",
    LENGTH: "How long and how fast",
    QUALITY: "Quality",
    MEMORY: "Memory",
    SAVING: "Saving and sampling",
}
