"""Submits a job at most once: claims it, finds or submits it, and records it. Each step can be repeated.

The step numbers are those of ``docs/architecture.md``. After a crash before or after any step, the next call continues
from the recorded state.

3. claim: ``job.json`` is created only if it does not exist (:mod:`mlengine.jobs.claims`). A process that loses the race
   reads the existing claim and continues from there.
4. find: a claim without a job name may mean that the response to a submission was lost, so search the backend by key.
5. submit: the job is labelled with key and attempt.
6. duplicates: if the backend has two jobs of this key and attempt, keep the older one and cancel the other.
7. record: write the job's name into ``job.json`` with a generation match.

An existing job is used only if it was submitted with the same inputs.

This module does not import Airflow; operators, sensor and command line use it. It does not wait for jobs: the waiting
task calls :meth:`Submitter.next_attempt` for a failed job.
"""

from __future__ import annotations

import hashlib
import logging
import time
from collections.abc import Mapping, Set
from contextlib import suppress
from dataclasses import dataclass, replace
from typing import Any

from mlengine.backends import FallsBack, LearnsRegions, LimitsRestarts, Submission, TrainingBackend, find_attempts
from mlengine.core import limits
from mlengine.core.errors import (
    BackendError,
    BackendUnavailableError,
    JobConflictError,
    JobFailedError,
    JobLostError,
    MlengineError,
    NoCapacityError,
    NoQuotaError,
    ObjectMissingError,
    StorageConflictError,
)
from mlengine.core.input_changes import Change, changes, describe
from mlengine.core.job import (
    BY_HAND,
    CANCELLED_BY_PERSON,
    SERVICE_RESTART,
    SERVICE_RESUMED,
    Decision,
    Failure,
    FailureCause,
    JobHandle,
    JobRecord,
    JobState,
    JobStatus,
)
from mlengine.core.layout import JobDir, check_job_dir_name
from mlengine.core.plural import number_of
from mlengine.core.spec import TrainingSpec
from mlengine.core.xcoms import JobXCom
from mlengine.jobs import claims
from mlengine.jobs.claims import Claims, Intent, compared, is_same_task
from mlengine.jobs.deadlines import BEFORE_START, LONGEST_BACKOFF, MAX_WAIT
from mlengine.storage.client import Storage

log = logging.getLogger(__name__)

__all__ = [
    "Intent",
    "Submitted",
    "Submitter",
    "cancelled_outside",
    "ended_with_task",
    "exceeded_limit",
    "failed",
    "may_be_tried_again",
    "submitted_at",
]

DEFAULT_MAX_ATTEMPTS = 3
_ENDED = "ended_with_task"
_LAST_ATTEMPT = "last_attempt_failed"
_NOTICED_AFTER = 300.0  # seconds after the end of the pause within which the task makes the next attempt
# Events that can follow the submission of an attempt.
_LATER = frozenset({_ENDED, _LAST_ATTEMPT, SERVICE_RESTART, SERVICE_RESUMED, CANCELLED_BY_PERSON})
_ENDED_BY_ITSELF = frozenset({JobState.SUCCEEDED, JobState.FAILED, JobState.EXPIRED})


@dataclass(frozen=True)
class Submitted:
    """The result of a submission."""

    handle: JobHandle
    decision: Decision

    def to_json(self) -> JobXCom:
        """The return value of the submitting task."""
        handle = self.handle
        return {
            "backend": handle.backend,
            "name": handle.name,
            "job_id": handle.job_id,
            "attempt": handle.attempt,
            "job_dir": handle.job_dir,
            "decision": self.decision.value,
        }


class Submitter:
    """Submits intents to one backend, at most once each.

    :param max_attempts: maximum number of attempts of one key.
    :raises MlengineError: ``max_attempts`` is out of range.
    """

    def __init__(self, storage: Storage, backend: TrainingBackend, *, max_attempts: int = DEFAULT_MAX_ATTEMPTS) -> None:
        self._storage = storage
        self._backend = backend
        problem = limits.attempts(max_attempts)
        if problem is not None:
            raise MlengineError(f"max_attempts: {problem.message}", hint=problem.hint)
        self._max_attempts = max_attempts
        self._claims = Claims(storage, backend)

    def submit(self, intent: Intent) -> Submitted:
        """Submit a job for the intent, or find the one that was submitted before.

        :raises StorageError: the job dir has the name of another folder of a model.
        :raises JobConflictError: the job of this key was submitted with other inputs.
        :raises JobFailedError: the job of this key failed by an error of the trainer, or has no attempts left.
        :raises BackendUnavailableError: the backend does not respond; a later call continues.
        """
        check_job_dir_name(intent.job_dir)
        self._learn_region(intent)
        job_dir, record = self._claims.take(intent)
        record = self._check_inputs(intent, job_dir, record)
        handle = record.handle(job_dir.uri)
        if handle is None:
            self._end_earlier(intent)
            return self._bring_up(job_dir, intent.labels)
        status = self._backend.describe([handle])[0]
        if status.state is JobState.SUCCEEDED:
            return self._decided(Submitted(handle, Decision.ALREADY_SUCCEEDED))
        if not status.state.terminal:
            # This includes CANCELLING: the job may still run for minutes, and the wait creates the next attempt after
            # its end.
            return self._decided(Submitted(handle, Decision.REATTACHED))
        # A user who gives the same job id again on the command line wants the job to run.
        if intent.key.dag_id not in BY_HAND and (why := cancelled_outside(record, status)):
            raise failed(status, why)
        return self.next_attempt(status, intent.labels)

    def reuse(self, intent: Intent, job: JobHandle, owner: Mapping[str, Any]) -> Submitted | None:
        """Reuse a validated job with equal inputs for this intent. Nothing is claimed or submitted.

        Returns ``None`` if the intent already has a job, or if the task was cleared and the validated job is its own,
        because clearing a task requests another training. Live jobs of earlier generations and of a deleted run of the
        same name are cancelled, as for a new submission.

        :param owner: the owner in the claim of the validated job.
        """
        self._learn_region(intent)
        own = is_same_task(owner, intent.key) and owner.get("run_uid", "") == intent.key.run_uid
        if own or self._claims.find(intent) is not None:
            return None
        self._end_earlier(intent)
        return self._decided(Submitted(job, Decision.REUSED))

    def _learn_region(self, intent: Intent) -> None:
        if isinstance(self._backend, LearnsRegions):
            self._backend.learn_region(intent.spec)

    def _end_earlier(self, intent: Intent) -> None:
        for key in intent.earlier:
            self._claims.end_all(key.digest, "its task was cleared to train again")

    def next_attempt(
        self, status: JobStatus, labels: Mapping[str, str] | None = None, *, wanted: bool = False
    ) -> Submitted:
        """Submit attempt n+1 of a job that ended without success, in the same directory, from its last checkpoint.

        This includes cancelled jobs, because a caller that submits the key wants the job to run. If machines were
        missing and the backend has a fallback left, the attempt uses that, and does not count towards ``max_attempts``.
        Restarts by the service itself count as attempts, because each of them is billed.

        :param wanted: make another attempt even if a person has cancelled the job, because the caller's user has asked
            for it since. For jobs from the command line, this is always the case.
        :raises JobFailedError: another attempt would fail too, there were already ``max_attempts``, or a person has
            cancelled the job.
        """
        handle = status.handle
        job_dir = JobDir(handle.job_dir)
        record, generation = self._read(job_dir)
        if record.attempt == handle.attempt:
            # This includes a cancellation since the caller read the record.
            if not wanted and record.owner.get("dag_id") not in BY_HAND and (why := _cancelled_by_person(record)):
                raise failed(status, why)
            fallback = self._next_fallback(record, status)
            if fallback is None:
                self._check_worth(status, record)
            why = status.failure.cause.value if status.failure else status.state.value
            event = _event("attempt", attempt=handle.attempt + 1, after=why, previous=handle.name)
            if fallback is not None:
                log.warning("job %s: %s; the next attempt uses %s", handle.job_id, why, _described(fallback))
                event["fallback"] = dict(fallback)
            try:
                self._storage.replace(
                    job_dir.claim, record.with_attempt(handle.attempt + 1, None, event).to_bytes(), generation
                )
            except StorageConflictError:
                log.info("job %s: another process began the next attempt", handle.job_id)
        return self._bring_up(job_dir, labels or {})

    def falls_back(self, status: JobStatus) -> bool:
        """Whether machines were missing and the next attempt will use a fallback, so there is no reason to wait."""
        return isinstance(self._backend, FallsBack) and (
            self._next_fallback(self.record(JobDir(status.handle.job_dir)), status) is not None
        )

    def give_up_waiting(self, status: JobStatus) -> bool:
        """Cancel an attempt that has exceeded ``max_wait_seconds``, if a fallback is left.

        After its end, :meth:`next_attempt` uses that fallback. The call can be repeated. The reason is recorded before
        the cancellation, because a repetition after it would not find the attempt waiting.

        :returns: whether a fallback is left.
        :raises BackendUnavailableError, StorageUnavailableError: a service is unavailable; a later call continues.
        """
        left = self.falls_back(_overdue(status))
        if left:
            self._note_end(status.handle, f"{MAX_WAIT} exceeded", MAX_WAIT)
            if not status.state.terminal:
                self._backend.cancel(status.handle)
        return left

    def _next_fallback(self, record: JobRecord, status: JobStatus | None) -> Mapping[str, Any] | None:
        if not isinstance(self._backend, FallsBack):
            return None
        waited = (
            status is not None and status.state is JobState.CANCELLED and exceeded_limit(record, status) == MAX_WAIT
        )
        return self._backend.next_fallback(record.fallback, _overdue(status) if status and waited else status)

    def _check_worth(self, status: JobStatus, record: JobRecord) -> None:
        """Check that another attempt is worthwhile.

        :raises JobFailedError: the job must not be tried again.
        """
        by_hand = record.owner.get("dag_id") in BY_HAND
        if not _worth_another(status):
            raise failed(status, by_hand=by_hand)
        attempt, restarts = status.handle.attempt, self.counted_restarts(record)
        most = self._max_attempts + record.fallback_attempts
        if attempt + restarts < most:
            return
        why = f"it was attempt {attempt} of {most}"
        if restarts:
            times = number_of(restarts, "time")
            why += f", and the service has restarted the job {times}; such restarts count as attempts"
        if not by_hand:
            self._note_last_attempt(status.handle, why)
        raise failed(status, why, by_hand=by_hand)

    def _note_last_attempt(self, handle: JobHandle, why: str) -> None:
        """Record in ``job.json`` that the task makes no further attempt, so that there is nothing to cancel."""

        def note(record: JobRecord) -> JobRecord | None:
            if record.attempt != handle.attempt or _is_last_attempt(record):
                return None
            return record.with_attempt(
                record.attempt, record.name, _event(_LAST_ATTEMPT, attempt=handle.attempt, why=why)
            )

        try:
            claims.update(self._storage, JobDir(handle.job_dir), note)
        except MlengineError as error:
            log.warning("job %s: could not record that there is no further attempt: %s", handle.job_id, error)

    def counted_restarts(self, record: JobRecord) -> int:
        """The number of the service's own restarts of the job that count as attempts."""
        return 0 if isinstance(self._backend, LimitsRestarts) else record.service_restarts

    def note_restart(self, status: JobStatus) -> None:
        """Record in ``job.json`` that the service restarts the job by itself, or that the job runs again.

        The call can be repeated. If the event cannot be recorded, this is logged and has no other effect.
        """
        handle = status.handle

        def note(record: JobRecord) -> JobRecord | None:
            if record.attempt != handle.attempt or record.restarting == status.restarting:
                return None
            event = _event(SERVICE_RESTART if status.restarting else SERVICE_RESUMED, attempt=handle.attempt)
            return record.with_attempt(record.attempt, record.name, event)

        try:
            noted = claims.update(self._storage, JobDir(handle.job_dir), note)
        except MlengineError as error:
            log.warning("job %s: could not record its restart by the service: %s", handle.job_id, error)
        else:
            if noted is not None and status.restarting:
                log.warning("job %s: the service is restarting it (restart %d)", handle.job_id, noted.service_restarts)

    def end(self, handle: JobHandle, why: str, limit: str | None = None) -> None:
        """Cancel an attempt because its task ends, and record in ``job.json`` that mlengine cancelled it.

        A later try of the task then continues with attempt n+1, except if a user cancelled the job
        (:func:`ended_with_task`), or if the attempt exceeded a limit (:func:`exceeded_limit`). The job is cancelled
        before this is recorded, because the calling process may have only seconds left.

        :param limit: the name of the deadline that the attempt exceeded, if that is the reason.
        :raises BackendUnavailableError: the backend does not respond. A limit is recorded nevertheless, because the
            backend may have received the cancellation.
        """
        try:
            self._backend.cancel(handle)
        except BackendUnavailableError:
            if limit:
                self._try_to_note_end(handle, why, limit)
            raise
        with suppress(MlengineError):
            if self._backend.describe([handle])[0].state in _ENDED_BY_ITSELF:
                return
        self._try_to_note_end(handle, why, limit)

    def _try_to_note_end(self, handle: JobHandle, why: str, limit: str | None) -> None:
        try:
            self._note_end(handle, why, limit)
        except MlengineError as error:
            log.warning("job %s: could not record its cancellation: %s", handle.job_id, error)

    def _note_end(self, handle: JobHandle, why: str, limit: str | None) -> None:
        """Record in ``job.json`` that mlengine cancels the attempt, unless a cancellation is already recorded."""

        def note(record: JobRecord) -> JobRecord | None:
            if record.attempt != handle.attempt or _cancellation(record) is not None:
                return None
            event = _event(_ENDED, attempt=handle.attempt, why=why, **({"limit": limit} if limit else {}))
            return record.with_attempt(record.attempt, record.name, event)

        claims.update(self._storage, JobDir(handle.job_dir), note)

    def note_environment(self, handle: JobHandle) -> None:
        """Add the digest of the installed packages to the inputs in ``job.json``, if the backend recorded it.

        The digest is used for lineage only, so if it cannot be recorded, this is logged and has no other effect.
        """
        job_dir = JobDir(handle.job_dir)
        try:
            lock = self._storage.read(job_dir.environment)
            noted = {"uri": job_dir.environment, "sha256": hashlib.sha256(lock).hexdigest()}

            def note(record: JobRecord) -> JobRecord | None:
                if record.inputs.get("environment") == noted:
                    return None
                return replace(record, inputs={**record.inputs, "environment": noted})

            claims.update(self._storage, job_dir, note)
        except ObjectMissingError:
            log.info("job %s: no environment was recorded", handle.job_id)
        except MlengineError as error:
            log.warning("job %s: could not record its environment: %s", handle.job_id, error)

    def record(self, job_dir: JobDir) -> JobRecord:
        """Read the claim on ``job_dir``.

        :raises ObjectMissingError: the directory is not claimed.
        """
        return self._read(job_dir)[0]

    def _check_inputs(self, intent: Intent, job_dir: JobDir, record: JobRecord) -> JobRecord:
        """Return the claim if it has the same inputs. A claim whose job was never submitted gets the new inputs.

        :raises JobConflictError: a job was submitted with other inputs.
        """
        differ = _differences(intent, record, self._backend.name)
        if not differ:
            return record
        if record.backend == self._backend.name and self._never_submitted(record):
            record, generation = self._read(job_dir)
            if record.name is None and record.key == intent.key.digest:
                log.warning(
                    "job %s has not been submitted yet; updating its inputs: %s", record.job_id, describe(differ)
                )
                return self._with_inputs(intent, job_dir, record, generation)
        by_hand = intent.key.dag_id in BY_HAND
        raise JobConflictError(
            f"job {record.job_id} was submitted with other inputs: {describe(differ)}",
            hint="choose another job id or job dir; repeating the original command follows the existing job"
            if by_hand
            else "clear the task to train with the new inputs; a retry resumes the existing job",
        )

    def _never_submitted(self, record: JobRecord) -> bool:
        if record.name is not None:
            return False
        self._check_host(record)
        return not self._find(record)

    def _with_inputs(self, intent: Intent, job_dir: JobDir, record: JobRecord, generation: int) -> JobRecord:
        requested = (intent.requested or intent.spec).to_json()
        changed = replace(
            record,
            spec=intent.spec.to_json(),
            requested={} if requested == intent.spec.to_json() else requested,
            inputs=dict(intent.inputs),
            history=(*record.history, _event("inputs_changed")),
        )
        try:
            self._storage.replace(job_dir.claim, changed.to_bytes(), generation)
        except StorageConflictError as error:
            raise JobLostError(f"job {record.job_id} changed while it was being submitted", hint="try again") from error
        return changed

    def _bring_up(self, job_dir: JobDir, labels: Mapping[str, str]) -> Submitted:
        """Execute steps 4 to 7 for the attempt in ``job.json``."""
        record = self._read(job_dir)[0]
        known = record.handle(job_dir.uri)
        if known is not None:  # another process recorded a job between two reads
            return self._decided(Submitted(known, Decision.REATTACHED))
        self._check_host(record)
        left_behind = self._of_attempt(record)
        if left_behind:
            return self._record(job_dir, left_behind[0], Decision.REATTACHED)
        try:
            handle = self._backend.submit(
                Submission(
                    key=record.key,
                    job_id=record.job_id,
                    attempt=record.attempt,
                    job_dir=job_dir.uri,
                    spec=TrainingSpec.from_json(record.spec),
                    labels=labels,
                    fallback=record.fallback,
                )
            )
        except (NoCapacityError, NoQuotaError) as error:
            self._take_fallback(job_dir, record, error)
            return self._bring_up(job_dir, labels)
        fresh = Decision.FRESH_SUBMIT if record.attempt == 1 else Decision.RESTARTED_FROM_CHECKPOINT
        handles = self._of_attempt(record)
        if handle.name not in {other.name for other in handles}:
            handles.append(handle)  # the backend's list may not contain a job that was just created
        for duplicate in handles[1:]:
            log.warning(
                "job %s: cancelling duplicate %s and keeping %s", record.job_id, duplicate.name, handles[0].name
            )
            self._backend.cancel(duplicate)
        return self._record(job_dir, handles[0], Decision.DUPLICATE_CANCELLED if len(handles) > 1 else fresh)

    def _take_fallback(self, job_dir: JobDir, before: JobRecord, refusal: BackendError) -> None:
        """Record that the same attempt, for which no job was created, uses the next fallback.

        :raises BackendError: no fallback is left; the error is ``refusal``.
        """
        fallback = self._next_fallback(before, None)
        if fallback is None:
            raise refusal
        record, generation = self._read(job_dir)
        if record != before:
            return  # another process has continued already
        log.warning("job %s: %s; trying %s", record.job_id, refusal.message, _described(fallback))
        event = _event("fallback", attempt=record.attempt, after=refusal.message, fallback=dict(fallback))
        try:
            self._storage.replace(
                job_dir.claim, record.with_attempt(record.attempt, None, event).to_bytes(), generation
            )
        except StorageConflictError:
            log.info("job %s: another process took the next fallback", record.job_id)

    def _check_host(self, record: JobRecord) -> None:
        """Check the host of a claim without a job name, because only the claiming host can find a local job.

        :raises BackendUnavailableError: the claim was made on another host.
        """
        here = self._claims.host()
        if record.host and record.host != here:
            raise BackendUnavailableError(
                f"job {record.job_id} was claimed on host {record.host} and may be running there; this host is {here}",
                hint="run the task on that host again; if that host is gone, clear the task to train again",
            )

    def _of_attempt(self, record: JobRecord) -> list[JobHandle]:
        return [handle for handle in self._find(record) if handle.attempt == record.attempt]

    def _find(self, record: JobRecord) -> list[JobHandle]:
        return find_attempts(self._backend, record.key, TrainingSpec.from_json(record.spec), record.regions)

    def _record(self, job_dir: JobDir, handle: JobHandle, decision: Decision) -> Submitted:
        """Execute step 7: record the job.

        If another process has already recorded another job, that job is used and this one is cancelled. If another
        process has claimed a later attempt meanwhile, this job must not run, and is not recorded.
        """
        record, generation = self._read(job_dir)
        if record.name is None and record.attempt == handle.attempt:
            event = _event(decision.value, attempt=handle.attempt, name=handle.name)
            try:
                self._storage.replace(
                    job_dir.claim, record.with_attempt(handle.attempt, handle.name, event).to_bytes(), generation
                )
                return self._decided(Submitted(handle, decision))
            except StorageConflictError:
                record = self._read(job_dir)[0]
        if record.name == handle.name:
            return self._decided(Submitted(handle, decision))
        winner = record.handle(job_dir.uri)
        if handle.attempt < record.attempt or (winner is not None and handle.attempt == winner.attempt):
            self._backend.cancel(handle)
        if winner is None:
            raise JobLostError(f"job {record.job_id} was claimed again while it was being submitted", hint="try again")
        return self._decided(Submitted(winner, Decision.DUPLICATE_CANCELLED))

    def _read(self, job_dir: JobDir) -> tuple[JobRecord, int]:
        return self._claims.read(job_dir)

    def _decided(self, submitted: Submitted) -> Submitted:
        handle = submitted.handle
        log.info("job %s, attempt %d: %s, as %s", handle.job_id, handle.attempt, submitted.decision.value, handle.name)
        return submitted


def _differences(intent: Intent, record: JobRecord, backend: str) -> list[Change]:
    elsewhere = [] if record.backend == backend else [Change("backend", record.backend, backend)]
    return elsewhere + changes(compared(record), intent.compared)


def ended_with_task(record: JobRecord, status: JobStatus | None = None) -> bool:
    """Whether the recorded attempt was cancelled by :class:`Submitter`, and not by a user.

    :param status: the attempt's status. An attempt that has run was not cancelled for waiting too long, even if that is
        recorded: the cancellation had failed, and the attempt started.
    """
    event = _cancellation(record)
    has_run = status is not None and status.started is not None
    return event is not None and event["event"] == _ENDED and not (has_run and event.get("limit") in BEFORE_START)


def cancelled_outside(record: JobRecord, status: JobStatus) -> str:
    """Who cancelled an attempt that has ended, if a person did; empty otherwise.

    A cancellation on the page is recorded before it is made, so the attempt may have ended for another reason.
    """
    if by_person := _cancelled_by_person(record):
        return by_person
    if status.state is JobState.CANCELLED and not ended_with_task(record, status):
        return (
            "it was cancelled outside this task by an unknown user, for example in the cloud console; "
            "clear `submit` to train again"
        )
    return ""


def _cancelled_by_person(record: JobRecord) -> str:
    event = _cancellation(record)
    if event is None or event["event"] != CANCELLED_BY_PERSON:
        return ""
    reason = f": {event['why']}" if event.get("why") else ""
    return f"it was cancelled by {event.get('by')}{reason}; clear `submit` to train again"


def may_be_tried_again(record: JobRecord, status: JobStatus) -> bool:
    """Whether the task of a failed job may be waiting for its next attempt.

    It waits at most for the longest pause. If the task makes no further attempt, it has recorded that. A job from the
    command line is tried again without a pause.
    """
    return (
        status.state.terminal
        and status.state is not JobState.CANCELLED
        and _retryable(status.failure)
        and status.handle.attempt == record.attempt
        and record.owner.get("dag_id") not in BY_HAND
        and _cancellation(record) is None
        and not _is_last_attempt(record)
        and status.ended is not None
        and time.time() < status.ended + LONGEST_BACKOFF + _NOTICED_AFTER
    )


def exceeded_limit(record: JobRecord, status: JobStatus) -> str | None:
    """The name of the limit for which :class:`Submitter` cancelled the attempt; ``None`` if it did not do so."""
    event = _cancellation(record) if ended_with_task(record, status) else None
    return event.get("limit") if event else None


def _cancellation(record: JobRecord) -> dict[str, Any] | None:
    """The last recorded cancellation of the current attempt, by mlengine or by a person."""
    return _latest(record, {_ENDED, CANCELLED_BY_PERSON})


def _is_last_attempt(record: JobRecord) -> bool:
    return _latest(record, {_LAST_ATTEMPT}) is not None


def _latest(record: JobRecord, names: Set[str]) -> dict[str, Any] | None:
    """The last of these events of the current attempt."""
    own = (event for event in reversed(record.history) if event.get("attempt") == record.attempt)
    return next((event for event in own if event["event"] in names), None)


def _overdue(status: JobStatus) -> JobStatus:
    """The status of a cancelled attempt, with the exceeded ``max_wait_seconds`` as its cause of failure."""
    return replace(status, failure=Failure(FailureCause.DEADLINE, f"it exceeded {MAX_WAIT}"))


def submitted_at(record: JobRecord) -> float | None:
    """When the recorded attempt was submitted, in seconds since the epoch; ``None`` if that is not known."""
    times = [event["time"] for event in record.history if event["event"] not in _LATER]
    return times[-1] if times else None


def failed(status: JobStatus, why_final: str = "", *, by_hand: bool = False) -> JobFailedError:
    """The error for a failed job, with its cause and the last log lines of the failed replica.

    :param by_hand: the job was submitted on the command line.
    """
    handle, failure = status.handle, status.failure
    lines = [f"job {handle.job_id} (attempt {handle.attempt}) ended {status.state.value}"]
    if failure:
        lines[0] += f": {failure.message}"
        lines += [f"    {failure.replica or 'job'} | {line}" for line in failure.log_tail]
    if why_final:
        lines.append(why_final)
    kind = JobLostError if _retryable(failure) else JobFailedError
    advice = f"{failure.advice(by_hand=by_hand)}; " if failure else ""
    return kind("\n".join(lines), hint=f"{advice}all logs: {JobDir(handle.job_dir).logs}")


def _retryable(failure: Failure | None) -> bool:
    return failure is not None and failure.cause.retryable


def _worth_another(status: JobStatus) -> bool:
    return status.state is JobState.CANCELLED or _retryable(status.failure)


def _described(fallback: Mapping[str, Any]) -> str:
    what = ", ".join(f"{name} {value}" for name, value in fallback.items() if name != "number")
    return f"fallback {fallback.get('number')}: {what}"


def _event(what: str, **details: Any) -> dict[str, Any]:
    return {"time": round(time.time(), 3), "event": what, **details}
