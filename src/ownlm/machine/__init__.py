"""What this computer has (cpu), how fast it is (measure), and what follows for models (predict)."""
