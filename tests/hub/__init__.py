"""The hub: names, downloads, pull, push, against a server on loopback that speaks its API."""
