"""Options of the commands: parsed without anything heavy."""
