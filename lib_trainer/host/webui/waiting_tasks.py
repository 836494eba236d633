"""Pictures of the WebUI's own tabs that wait for its lock: cancelled, they draw nothing when their turn comes."""

from __future__ import annotations


def cancel_waiting() -> bool:
    """Cancels every picture that a person has asked for and that waits; whether there was one. Call it under the lock.

    Their pages stop waiting at once. A thread that waits for the WebUI's lock cannot be woken: when it has the lock,
    its job begins as one that is interrupted.
    """
    from modules import progress, shared

    cancelled = set(progress.pending_tasks)
    for task in cancelled:
        progress.pending_tasks.pop(task, None)
        # What the page asks about every half second.
        progress.finished_tasks.append(task)
    if not cancelled:
        return False
    state, begin = shared.state, shared.state.begin
    was_own = "begin" in vars(state)

    def begin_cancelled(job: str = "(unknown)") -> None:
        begin(job=job)
        if job in cancelled:
            cancelled.discard(job)
            state.interrupted = True
        # Restored once it has nothing to do; a later cancellation may have wrapped it meanwhile.
        if not cancelled and vars(state).get("begin") is begin_cancelled:
            if was_own:
                state.begin = begin
            else:
                del state.begin

    state.begin = begin_cancelled
    return True
