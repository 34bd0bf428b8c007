"""What was measured: ingest, collectors, the store of samples and the only way to read them."""
