"""What an edge weighs, and whether it is selected."""
