"""Token ids to arrays: sessions under a provider, batches, the threads and devices that run them."""
