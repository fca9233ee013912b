"""What teachers say: the tables, who fills them, and what is made of several."""

from .knowledge import Knowledge, Source, Table

__all__ = ["Knowledge", "Source", "Table"]
