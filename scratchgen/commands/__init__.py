"""The command line: one file for each command. Its run(args) takes the parsed arguments."""
