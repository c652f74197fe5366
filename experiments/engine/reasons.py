"""Why something is missing, in words that go into results."""

import re

MISSING = "missing"  # stands for the sha256 of a file that is not here
_FOLDERS = re.compile(r"(?<![\w./])/(?:[^\s:;,'\"()/]+/)+")


def plain_reason(error: BaseException | str) -> str:
    """An error on one line, without the folders of absolute paths: results name no machine."""
    return _FOLDERS.sub(".../", " ".join(str(error).split()))
