"""What scoring leaves behind: tables, pictures, plots and the page."""

from anogan.runs.start_up import provide_cache

provide_cache()  # before Matplotlib is imported
