"""Who runs the jobs of a plan: worker processes here, a cluster elsewhere."""
