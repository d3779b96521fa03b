"""The former name of `backoff`, for scripts that import it from here."""
