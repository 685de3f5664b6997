"""The parts of a report that open the networks, one for each kind of diagnostic."""
