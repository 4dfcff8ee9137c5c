"""claw: a DingTalk robot in Stream mode, answered by any OpenAI-compatible model, that an orchestrator can trust."""

import re
from pathlib import Path
from typing import Final


def _commit() -> str:
    """Return the commit that this claw was built from, which the image's build wrote beside this file; else empty."""
    try:
        text = Path(__file__).with_name("COMMIT").read_text(encoding="ascii").strip()
    except (OSError, ValueError):
        return ""
    return text if re.fullmatch("[0-9a-f]{7,64}", text) else ""


__version__: Final = "0.2.0"
__commit__: Final = _commit()
RELEASE: Final = f"{__version__} (commit {__commit__[:7]})" if __commit__ else __version__
"""Which claw this is, for people: 0.2.0 (commit abc1234); without a commit where that is not known."""
