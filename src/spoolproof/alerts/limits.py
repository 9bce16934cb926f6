"""The bounds of alerts, each with its reason."""

from __future__ import annotations

LOOK_SECONDS = 5.0
"""Seen within two looks wherever it happened: one to tell, one to judge."""
SHARE_SECONDS = 30.0
"""How often a process writes its row although it has nothing new to say."""
FIRST_SECONDS = 30.0
"""What one cause breaks is broken within half a minute, and makes one message."""
FURTHER_SECONDS = 300.0
REPEAT_SECONDS = 4 * 3600.0
SEND_SECONDS = 10.0
RETRY_SECONDS_MAX = 300.0
GIVE_UP_SECONDS = 86_400.0
WHOLE_SECONDS = 60.0
"""How often Alertmanager is told again; it forgets after five of them."""
HEARTBEAT_SECONDS = 300.0
ALERTS_SHOWN = 20
"""In one message: one that its carrier cuts loses the remedy at its end."""
