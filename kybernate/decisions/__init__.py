"""What to do: pure functions. A view and a clock value in, a plan or a refusal out."""
