"""Output that nobody reads any more, written past Python's own streams."""

import os
import subprocess
import sys

CODE = """
import os
from skerch.streams import outlive_readers
outlive_readers()
print("nobody reads this", flush=True)
os.write(1, b"nor what a library writes on its own")
"""


def test_libraries_and_children_may_go_on_writing_too():
    reader, writer = os.pipe()
    os.close(reader)
    done = subprocess.run([sys.executable, "-c", CODE], stdout=writer, stderr=subprocess.PIPE)
    os.close(writer)
    assert (done.returncode, done.stderr) == (0, b"")
