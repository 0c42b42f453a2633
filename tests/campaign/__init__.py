"""Campaigns: many seeded attempts to break the tool; ANOGAN_CAMPAIGN=1 is the full size."""
