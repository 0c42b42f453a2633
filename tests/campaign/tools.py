"""What all campaigns share: how large they are, and the line that says what one found."""

import json
import os

DEFAULT = 0.05  # of the full size


def size(full: int, default: float = DEFAULT) -> int:
    """Runs of a campaign: `full` of them where ANOGAN_CAMPAIGN is 1."""
    return max(1, round(full * float(os.environ.get("ANOGAN_CAMPAIGN", default))))


def record(campaign: str, runs: int, found: int, seed: int, **measured: float) -> None:
    """Appends a line to the file that ANOGAN_CAMPAIGN_RESULTS names, if it does."""
    path = os.environ.get("ANOGAN_CAMPAIGN_RESULTS")
    if path:
        line = {"campaign": campaign, "runs": runs, "found": found, "seed": seed, **measured}
        with open(path, "a") as file:
            file.write(json.dumps(line) + "\n")
