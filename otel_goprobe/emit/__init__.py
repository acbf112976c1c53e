"""What was seen -> the formats of other programs."""
