"""What a person can set, and how it is checked: a frozen dataclass a section, one field a setting.

Field names are kohya's where kohya has the setting, and labels are those of the kohya_ss GUI. The form in the tab,
`--set key=value`, the recipe readers and docs/settings.md are all made from these fields.
"""
