"""What scoring leaves behind: tables, pictures, plots and the page."""
