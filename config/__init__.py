"""What the gateway's /etc folder holds, and the catalogue of profiles; no code."""
