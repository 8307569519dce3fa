"""How readings, depths and timelines are drawn for a person."""
