"""What is kept, and the SQL that keeps it. Takes a connection, returns the engine's values."""
