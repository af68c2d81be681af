"""The command line: a file for each command, whose run(args) takes the parsed arguments."""
