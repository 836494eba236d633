import re

_MARK = re.compile(r"\\.|[()\[\]]|[^\\()\[\]]+|\\")
_STRENGTH = re.compile(r":\s*([\d.]+)\s*$")
_GROUPS = {"(": (")", 1.1), "[": ("]", 1 / 1.1)}


class SdConditioning(list):
    """Prompts that know the size of the picture."""

    def __init__(self, prompts, is_negative_prompt=False, width=None, height=None, copy_from=None):
        super().__init__(prompts)
        self.is_negative_prompt, self.width, self.height = is_negative_prompt, width, height


def parse_prompt_attention(text):
    """[(text, weight)]: brackets change the weight of what is in them, backslashes make them literal."""
    return _read(iter(_MARK.findall(text)), "", 1.0)


def _read(marks, end, factor):
    """Up to the bracket `end`; what is never closed counts to the end."""
    found = []
    for mark in marks:
        if mark == end:
            break
        if mark in _GROUPS:
            found += _read(marks, *_GROUPS[mark])
            continue
        strength = _STRENGTH.search(mark) if end == ")" else None
        if strength:
            # Where a part ends with it; people write one at the end of the brackets.
            mark, factor = mark[: strength.start()], float(strength[1])
        found.append((mark[1:] if len(mark) == 2 and mark[0] == "\\" else mark, 1.0))
    return [(words, weight * factor) for words, weight in found]
