"""Door under the former name of app.keys."""

from .app.keys import coerce, key, key_table, parse_config, run_script

__all__ = ["coerce", "key", "key_table", "parse_config", "run_script"]
