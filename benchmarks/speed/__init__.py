"""What a fit costs beside a hand-written loop."""
