"""Export: from a checkpoint to an engine, each graph compared with torch before it is kept."""
