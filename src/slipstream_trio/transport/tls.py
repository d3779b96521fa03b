"""TLS errors, with their meaning and the way out in one line, as OpenSSL's own text has neither."""

import re
import ssl
from typing import Final

_NAME: Final = "connect to a name that it is for"
_TRUST: Final = "to trust its authority, pass an ssl_context that has it (load_verify_locations)"
_VERIFICATION: Final = {
    9: "check the clocks of both machines",
    10: "the server needs a new one",
    **dict.fromkeys((18, 19, 20, 21), _TRUST),
    **dict.fromkeys((62, 64), _NAME),
}
"""By OpenSSL's verify codes (X509_V_ERR_…)."""

_CLIENT_CERTIFICATE: Final = "pass an ssl_context with a client certificate that the server accepts (load_cert_chain)"
_REFUSED: Final = re.compile("CERTIFICATE|UNKNOWN_CA|HANDSHAKE_FAILURE|ACCESS_DENIED|DECRYPT_ERROR")
"""Alerts by which servers refuse clients' certificates, or their absence."""

_NO_TLS: Final = frozenset({"WRONG_VERSION_NUMBER", "RECORD_LAYER_FAILURE", "HTTP_REQUEST", "UNKNOWN_PROTOCOL"})
_SOURCE: Final = re.compile(r" \(_ssl\.c:\d+\)")


def explain_tls(error: BaseException) -> str:
    """Return the cause of Trio's `BrokenResourceError`, an `SSLError` as a rule, and the way out, in one line."""
    if isinstance(error, ssl.SSLCertVerificationError):
        hint = _VERIFICATION.get(error.verify_code, "see ssl_context")
        return f"the server's certificate is not accepted: {error.verify_message.rstrip('.')}; {hint}"
    reason = getattr(error, "reason", None)
    if refused_certificate(error):
        return f"the server refused it ({reason}); {_CLIENT_CERTIFICATE}"
    if reason in _NO_TLS:
        return f"the server speaks no TLS there ({reason}); does the URL begin with ws:// rather than wss://?"
    if isinstance(error, ssl.SSLEOFError) or reason == "UNEXPECTED_EOF_WHILE_READING":
        return "the server hung up during the handshake"
    return _SOURCE.sub("", str(error)) or "it hung up"


def refused_certificate(error: BaseException | None) -> bool:
    """Whether an error says that the server refused the client's certificate, or wants one."""
    reason = getattr(error, "reason", None)
    return isinstance(reason, str) and "ALERT" in reason and bool(_REFUSED.search(reason))
