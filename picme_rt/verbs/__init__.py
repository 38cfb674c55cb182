"""The verbs of the command line that need the runtime alone."""
