"""The parts of the AnoGAN tool; the scripts that one runs lie above."""
