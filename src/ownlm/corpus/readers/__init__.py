"""Reading sources into documents, split into tasks for worker processes.

`plan_tasks` runs in the main process, `read_task` in the workers; both are generators that
hold little in memory.
"""

from ownlm.corpus.readers.settings import ReadSettings
from ownlm.corpus.readers.tasks import ReadTask, plan_tasks, read_task

__all__ = ["ReadSettings", "ReadTask", "plan_tasks", "read_task"]
