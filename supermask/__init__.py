"""Search, study and ship strong lottery tickets: network = architecture + seed + mask."""
