"""What programs call. Nothing in here imports torch."""
