"""Parts shared by the circuit methods."""
