"""The monitoring agent: takes deliveries in, keeps them durable, writes them to storage once."""
