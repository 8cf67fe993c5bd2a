"""The command line `keras-vit`: one file a command, and one that parses."""
