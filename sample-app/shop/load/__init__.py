"""Load on request: sessions on the database, values in the cache, requests through the proxy; each can be stopped."""
