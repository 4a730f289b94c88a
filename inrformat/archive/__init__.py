"""A folder of DICOM as a PACS exports it -> an archive, and every file back.

scan.py finds the volumes among the files; objects.py turns a series, or a handful of other files, into one
object and proves that it gives them back; manifest.py says which objects count; run.py and restore.py are the
two ways.
"""

from .restore import Proof, Restored, contents, restore, verify
from .run import Summary, archive

__all__ = ["Proof", "Restored", "Summary", "archive", "contents", "restore", "verify"]
