"""Jobs run by the actors of a Ray cluster, one a slot, on nodes that come and go."""
