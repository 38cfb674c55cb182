"""How fast an engine is on this machine, and how fast the machine is: what `picme bench` prints."""
