"""Pieces of the daemons' grammars that several parsers share."""

from __future__ import annotations

from typing import Final

ADDRESS: Final = r"[0-9A-Fa-f:.]{2,45}"
# Postfix writes name[address], smtpd_client_port_logging adds the port; a name is what forward-confirmed DNS allows.
CLIENT: Final = rf"([A-Za-z0-9._-]{{1,255}})\[({ADDRESS}|unknown)\](?::(?:[0-9]{{1,5}}|unknown))?"
SESSION: Final = r"[A-Za-z0-9+/=]{8,64}"
