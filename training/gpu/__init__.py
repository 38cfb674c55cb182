"""The parts of `make gpu-check`; each measures one thing and draws its own Markdown table."""
