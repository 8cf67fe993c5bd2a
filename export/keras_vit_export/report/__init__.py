"""What an export cost, measured, told and drawn."""
