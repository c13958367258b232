# cython: language_level=3, boundscheck=False, wraparound=False, initializedcheck=False
"""The engine in C: reads a bundle, encodes histories, ranks items. No torch, and no allocation while it recommends."""

import numpy as np

from libc.stdint cimport int32_t, int64_t, uint8_t


cdef extern from "lsan.h" nogil:
    ctypedef struct lsan_model:
        pass
    ctypedef struct lsan_state:
        pass
    ctypedef enum lsan_instructions:
        LSAN_PORTABLE
        LSAN_AVX2
        LSAN_AVX512
        LSAN_BEST
    ctypedef enum lsan_method:
        LSAN_CHOOSE
        LSAN_PLAIN
        LSAN_FILTER
        LSAN_INDEX
    ctypedef struct lsan_facts:
        unsigned int items
        unsigned int history
        unsigned int width
        unsigned int hidden_width
        bint timed
        bint causal
        bint exclude_seen
        bint indexed
        size_t memory
        const char *instruction_set
    ctypedef struct lsan_wishes:
        const int32_t *excluded
        size_t excluded_count
        const uint8_t *allowed
        lsan_method method
    int lsan_open(
        const uint8_t *data, size_t size, lsan_instructions instructions, lsan_model **model, char *reason,
        size_t reason_size
    )
    void lsan_close(lsan_model *model)
    lsan_facts lsan_describe(const lsan_model *model)
    lsan_state *lsan_state_new(const lsan_model *model, size_t k, bint session)
    int lsan_state_reserve(lsan_state *state, size_t k)
    size_t lsan_state_memory(const lsan_state *state)
    void lsan_state_free(lsan_state *state)
    int lsan_encode(
        lsan_state *state, const int32_t *items, const int64_t *times, size_t count, int64_t asked, const float **hidden
    )
    size_t lsan_rank(
        lsan_state *state, const float *hidden, size_t k, const lsan_wishes *wishes, int32_t *items, float *scores
    )
    void lsan_scores(lsan_state *state, const float *hidden, float *scores)
    int lsan_append(lsan_state *session, int32_t item, int64_t time)
    int lsan_session_hidden(lsan_state *session, int64_t asked, const float **hidden)
    size_t lsan_session_length(const lsan_state *session)
    int lsan_recommend_many(
        const lsan_model *model, const int32_t *items, const int64_t *times, const int64_t *ends, const int64_t *asked,
        size_t count, size_t k, bint exclude_history, int threads, int32_t *best, float *scores
    )


cdef enum:
    IDLE = 32
    ROOM = 128

_INSTRUCTIONS = {"portable": LSAN_PORTABLE, "avx2": LSAN_AVX2, "avx512": LSAN_AVX512, None: LSAN_BEST}
_METHODS = {"plain": LSAN_PLAIN, "filter": LSAN_FILTER, "index": LSAN_INDEX, None: LSAN_CHOOSE}
_NO_ITEM = "items are numbers from 1 to {}"

cdef object _empty = np.empty
cdef object _int32 = np.dtype(np.int32)
cdef object _float32 = np.dtype(np.float32)


cdef inline size_t _bounded(object k, size_t most) except? 0:
    if k < 1:
        raise ValueError("k is not positive")
    return most if k > most else <size_t>k


cdef class Engine:
    """A model, read from the bytes of a bundle. It does not change and may be shared between threads.

    Raises:
        ValueError: when the bytes are not a bundle, or one that this engine does not take, and why.
    """

    cdef lsan_model *_model
    cdef lsan_state *_idle[IDLE]
    cdef int _idle_count
    cdef readonly int items, history, width, hidden_width
    cdef readonly bint timed, causal, exclude_seen, indexed
    cdef readonly size_t memory
    cdef readonly str instruction_set

    def __init__(self, data, instructions=None):
        cdef const uint8_t[::1] view = memoryview(data).cast("B")
        cdef const uint8_t *start = NULL
        cdef size_t size = view.shape[0]
        cdef char reason[512]
        cdef int refused
        cdef lsan_instructions most = _INSTRUCTIONS[instructions]
        if self._model is not NULL:
            raise ValueError("made already")
        if size:
            start = &view[0]
        with nogil:
            refused = lsan_open(start, size, most, &self._model, reason, sizeof(reason))
        if refused:
            raise ValueError((<bytes>reason).decode("utf-8", "replace"))
        cdef lsan_facts facts = lsan_describe(self._model)
        self.items, self.history, self.width = facts.items, facts.history, facts.width
        self.hidden_width, self.timed, self.causal = facts.hidden_width, facts.timed, facts.causal
        self.exclude_seen, self.indexed, self.memory = facts.exclude_seen, facts.indexed, facts.memory
        self.instruction_set = (<bytes>facts.instruction_set).decode()

    def __dealloc__(self):
        for i in range(self._idle_count):
            lsan_state_free(self._idle[i])
        lsan_close(self._model)

    cdef lsan_state *_take(self, size_t k) except NULL:
        cdef lsan_state *state
        if self._model is NULL:
            raise ValueError("there is no model")
        if self._idle_count:
            self._idle_count -= 1
            state = self._idle[self._idle_count]
            if lsan_state_reserve(state, k):
                lsan_state_free(state)
                raise MemoryError
            return state
        with nogil:
            state = lsan_state_new(self._model, k if k > ROOM else ROOM, False)
        if state is NULL:
            raise MemoryError
        return state

    cdef void _put(self, lsan_state *state) noexcept:
        if self._idle_count < IDLE:
            self._idle[self._idle_count] = state
            self._idle_count += 1
        else:
            lsan_state_free(state)

    cdef object _encode(self, lsan_state *state, object items, object times, int64_t asked, const float **hidden):
        cdef const int32_t[::1] events = items
        cdef const int64_t[::1] when
        cdef const int64_t *when_start = NULL
        cdef size_t count = events.shape[0]
        cdef int found
        hidden[0] = NULL
        if times is not None:
            when = times
            if <size_t>when.shape[0] != count:
                raise ValueError("there are not as many times as items")
            if count:
                when_start = &when[0]
        if count:
            with nogil:
                found = lsan_encode(state, &events[0], when_start, count, asked, hidden)
            if found < 0:
                raise ValueError(_NO_ITEM.format(self.items))

    cdef object _rank(
        self, lsan_state *state, const float *hidden, size_t k, object excluded, object allowed, object method
    ):
        cdef lsan_wishes wishes
        cdef const int32_t[::1] without
        cdef const uint8_t[::1] only
        cdef object best = _empty(k, _int32)
        cdef object scores = _empty(k, _float32)
        cdef int32_t[::1] best_view = best
        cdef float[::1] scores_view = scores
        cdef size_t found
        wishes.excluded, wishes.excluded_count, wishes.allowed, wishes.method = NULL, 0, NULL, LSAN_CHOOSE
        if method is not None:
            wishes.method = _METHODS[method]
        if excluded is not None:
            without = excluded
            wishes.excluded_count = without.shape[0]
            if wishes.excluded_count:
                wishes.excluded = &without[0]
        if allowed is not None:
            only = allowed
            if only.shape[0] != self.items:
                raise ValueError("allowed does not have a byte for each item")
            wishes.allowed = &only[0]
        with nogil:
            found = lsan_rank(state, hidden, k, &wishes, &best_view[0], &scores_view[0])
        return (best, scores) if found == k else (best[:found], scores[:found])

    def recommend(self, items, times, asked, k, excluded=None, allowed=None, method=None):
        """The best items, and their scores: higher scores first, then lower numbers.

        Args:
            items: int32, the history, oldest first.
            times: int64 milliseconds of its events, negative where unknown; or None.
            asked: time of the question, negative where unknown.
            k: how many; fewer where fewer are left.
            excluded: int32, items to leave out.
            allowed: uint8 [items], 0 leaves an item out.
            method: "plain", "filter" or "index" to force one; all give the same.
        """
        cdef size_t most = _bounded(k, self.items)
        cdef lsan_state *state = self._take(most)
        cdef const float *hidden
        try:
            self._encode(state, items, times, asked, &hidden)
            return self._rank(state, hidden, most, excluded, allowed, method)
        finally:
            self._put(state)

    def recommend_hidden(self, hidden, k, excluded=None, allowed=None, method=None):
        """As `recommend`, for a hidden vector (float32)."""
        cdef size_t most = _bounded(k, self.items)
        cdef const float[::1] z = hidden
        if z.shape[0] != self.hidden_width:
            raise ValueError("not as wide as hidden vectors are")
        cdef lsan_state *state = self._take(most)
        try:
            return self._rank(state, &z[0], most, excluded, allowed, method)
        finally:
            self._put(state)

    def recommend_many(self, items, times, ends, asked, k, exclude_history, threads):
        """The best items after each of many histories, [histories, k], 0 where there are fewer, and their scores.

        Args:
            items: int32, all histories one after the other.
            times: int64 milliseconds, or None.
            ends: int64, where each history ends.
            asked: int64, when each is asked for.
            k: how many items.
            exclude_history: leave out all items of a history.
            threads: how many share the work.
        """
        cdef const int32_t[::1] events = items
        cdef const int64_t[::1] when
        cdef const int64_t[::1] until = ends
        cdef const int64_t[::1] then = asked
        cdef size_t count = until.shape[0]
        cdef size_t most = _bounded(k, self.items)
        cdef bint exclude = exclude_history
        cdef int pool = threads, failed
        cdef const int32_t *events_start = NULL
        cdef const int64_t *when_start = NULL
        if self._model is NULL:
            raise ValueError("there is no model")
        best, scores = np.zeros((count, k), np.int32), np.zeros((count, k), np.float32)
        narrow_best = best if most == <size_t>k else np.zeros((count, most), np.int32)
        narrow_scores = scores if most == <size_t>k else np.zeros((count, most), np.float32)
        cdef int32_t[:, ::1] best_view = narrow_best
        cdef float[:, ::1] scores_view = narrow_scores
        if <size_t>then.shape[0] != count:
            raise ValueError("asked does not have a time for each history")
        if count == 0:
            return best, scores
        if until[count - 1] != events.shape[0]:
            raise ValueError("the last history does not end with the items")
        if events.shape[0]:
            events_start = &events[0]
        if times is not None:
            when = times
            if when.shape[0] != events.shape[0]:
                raise ValueError("there are not as many times as items")
            if when.shape[0]:
                when_start = &when[0]
        with nogil:
            failed = lsan_recommend_many(
                self._model, events_start, when_start, &until[0], &then[0], count, most, exclude, pool,
                &best_view[0, 0], &scores_view[0, 0]
            )
        if failed == -1:
            raise ValueError(_NO_ITEM.format(self.items) + ", and histories end in order")
        if failed:
            raise MemoryError
        if narrow_best is not best:
            best[:, :most], scores[:, :most] = narrow_best, narrow_scores
        return best, scores

    def scores(self, items, times, asked):
        """The scores of all items, none left out: float32 [items]."""
        cdef object out = _empty(self.items, _float32)
        cdef float[::1] out_view = out
        cdef lsan_state *state = self._take(1)
        cdef const float *hidden
        try:
            self._encode(state, items, times, asked, &hidden)
            with nogil:
                lsan_scores(state, hidden, &out_view[0])
            return out
        finally:
            self._put(state)

    def hidden(self, items, times, asked):
        """The hidden vector after a history: float32 [hidden_width].

        Raises:
            ValueError: when the history is empty.
        """
        cdef object out = _empty(self.hidden_width, _float32)
        cdef float[::1] out_view = out
        cdef lsan_state *state = self._take(1)
        cdef const float *hidden
        try:
            self._encode(state, items, times, asked, &hidden)
            if hidden is NULL:
                raise ValueError("an empty history has no hidden vector")
            for i in range(self.hidden_width):
                out_view[i] = hidden[i]
            return out
        finally:
            self._put(state)

    def session(self):
        """A history that grows: what was computed is kept."""
        return Session(self)


cdef class Session:
    """A history that grows. For one thread at a time."""

    cdef Engine _engine
    cdef lsan_state *_state
    cdef bint _busy

    def __init__(self, Engine engine not None):
        if self._state is not NULL or engine._model is NULL:
            raise ValueError("made already")
        self._engine = engine
        with nogil:
            self._state = lsan_state_new(engine._model, ROOM, True)
        if self._state is NULL:
            raise MemoryError

    def __dealloc__(self):
        lsan_state_free(self._state)

    cdef int _check(self) except -1:
        if self._state is NULL:
            raise ValueError("not made by Engine.session")
        return 0

    @property
    def length(self):
        """Events so far, of items that are offered."""
        self._check()
        return lsan_session_length(self._state)

    @property
    def memory(self):
        """Bytes that it holds."""
        self._check()
        return lsan_state_memory(self._state)

    def append(self, int32_t item, int64_t time):
        """One more event; a negative time is unknown."""
        self._check()
        if self._busy:
            raise RuntimeError("another thread uses this session")
        if lsan_append(self._state, item, time) < 0:
            raise ValueError(_NO_ITEM.format(self._engine.items))

    def recommend(self, int64_t asked, k, excluded=None, allowed=None, method=None):
        """As `Engine.recommend`, after the events so far."""
        self._check()
        cdef size_t most = _bounded(k, self._engine.items)
        cdef const float *hidden
        if self._busy:
            raise RuntimeError("another thread uses this session")
        if lsan_state_reserve(self._state, most):
            raise MemoryError
        self._busy = True
        try:
            with nogil:
                lsan_session_hidden(self._state, asked, &hidden)
            return self._engine._rank(self._state, hidden, most, excluded, allowed, method)
        finally:
            self._busy = False

    def hidden(self, int64_t asked):
        """The hidden vector after the events so far."""
        self._check()
        cdef object out = _empty(self._engine.hidden_width, _float32)
        cdef float[::1] out_view = out
        cdef const float *hidden
        if self._busy:
            raise RuntimeError("another thread uses this session")
        lsan_session_hidden(self._state, asked, &hidden)
        if hidden is NULL:
            raise ValueError("an empty history has no hidden vector")
        for i in range(self._engine.hidden_width):
            out_view[i] = hidden[i]
        return out
