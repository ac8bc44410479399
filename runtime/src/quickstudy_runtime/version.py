"""The version, in one place; the bundle's format has a number of its own."""

VERSION = "0.2.0"
