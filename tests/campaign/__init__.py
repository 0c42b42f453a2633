"""Campaigns: many seeded runs that look for crashes, losses and wrong results.

ANOGAN_CAMPAIGN is the share of the full counts (1: all of them), ANOGAN_CAMPAIGN_RESULTS a file to
which each campaign appends a JSON line.
"""

import json
import os


def size(n, default=0.05):
    """How many of n runs to make."""
    return max(1, round(n * float(os.environ.get("ANOGAN_CAMPAIGN", default))))


def record(name, runs, found, seed):
    """Notes what a campaign found; `found` lists it."""
    line = {"campaign": name, "runs": runs, "found": len(found), "seed": seed}
    print(json.dumps(line), *found[:20], sep="\n")
    if path := os.environ.get("ANOGAN_CAMPAIGN_RESULTS"):
        with open(path, "a", encoding="utf-8") as file:
            file.write(json.dumps(line) + "\n")
