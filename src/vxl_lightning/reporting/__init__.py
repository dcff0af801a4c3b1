"""Tables, plots, pictures and the offline report."""
