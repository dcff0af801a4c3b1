"""Released checkpoints of other projects: their layouts, quirks included, and how they are read and written."""
