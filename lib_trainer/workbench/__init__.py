"""The caption workbench behind the tab: folders that are open in a page, what is found in them, and what is changed."""
