"""Door under the former name of app.log."""

from .app.log import Event, JsonLog, Log, read_log

__all__ = ["Event", "JsonLog", "Log", "read_log"]
