"""What every op is made of: bits, random numbers, keys, tiles, and the way to a device."""
