"""The program an operator starts: the console and the verbs."""

__version__ = "0.1.0"
