"""The core of Lampione: everything that speaks no field protocol."""

__version__ = "0.1.0"
