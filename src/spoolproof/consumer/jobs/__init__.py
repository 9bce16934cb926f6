"""Jobs and batches: work over many items, with a verdict for each. See docs/batches.md."""

from spoolproof.consumer.jobs.definition import JobContext
from spoolproof.consumer.jobs.finished import BatchFinished
from spoolproof.consumer.jobs.problem import BatchInvalid, BatchTooLarge, Problem
from spoolproof.consumer.jobs.report import BatchFailed, BatchReceipt, BatchReport

__all__ = [
    "BatchFailed",
    "BatchFinished",
    "BatchInvalid",
    "BatchReceipt",
    "BatchReport",
    "BatchTooLarge",
    "JobContext",
    "Problem",
]
