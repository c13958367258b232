# cython: language_level=3, boundscheck=False, wraparound=False, initializedcheck=False
"""Which item has a raw id: a hash table of 4-byte indices over the ids as the file has them, 5 to 11 bytes an item."""

import os

from cpython.mem cimport PyMem_Calloc, PyMem_Free
from cpython.number cimport PyIndex_Check
from libc.stdint cimport int64_t, uint32_t, uint64_t
from libc.string cimport memcmp


cdef extern from "Python.h":
    const char *PyUnicode_AsUTF8AndSize(object text, Py_ssize_t *size) except NULL
    long long PyLong_AsLongLongAndOverflow(object number, int *overflow)
    object PyUnicode_DecodeUTF8(const char *text, Py_ssize_t size, const char *errors)
    uint64_t PyObject_Hash(object value) except? 0xFFFFFFFFFFFFFFFF


# Whoever makes a file cannot know which ids collide.
cdef uint64_t _secret = int.from_bytes(os.urandom(8), "little") | 1


cdef class _Index:
    cdef uint32_t *_table
    cdef uint64_t _mask
    cdef int _shift

    cdef int _make(self, Py_ssize_t items) except -1:
        cdef int bits = 3
        while (<uint64_t>1 << bits) * 3 < <uint64_t>items * 4:
            bits += 1
        self._mask = (<uint64_t>1 << bits) - 1
        self._shift = 64 - bits
        self._table = <uint32_t *>PyMem_Calloc(self._mask + 1, sizeof(uint32_t))
        if self._table == NULL:
            raise MemoryError
        return 0

    def __dealloc__(self):
        PyMem_Free(self._table)

    cdef uint32_t _find(self, object raw):
        return 0

    @property
    def memory(self):
        """Bytes beside the ids themselves."""
        return (self._mask + 1) * sizeof(uint32_t)

    def get(self, object raw):
        """The index of a raw id, 0 where no item has it."""
        return self._find(raw)

    def many(self, object raws):
        """`get` of each."""
        return [self._find(raw) for raw in raws]


cdef class NumberIndex(_Index):
    """Of ids that are whole numbers, int64 [V].

    Raises:
        ValueError: when two items have the same id.
    """

    cdef const int64_t[::1] _numbers

    def __init__(self, const int64_t[::1] numbers not None):
        cdef Py_ssize_t item
        cdef uint64_t place
        self._numbers = numbers
        self._make(len(numbers))
        for item in range(len(numbers)):
            place = self._place(numbers[item])
            if self._table[place]:
                raise ValueError("two items have the same id")
            self._table[place] = <uint32_t>(item + 1)

    cdef uint64_t _place(self, int64_t number) noexcept:
        """Where the number is, or the free place where it would be."""
        cdef uint64_t mixed = <uint64_t>number * _secret, place
        mixed = (mixed ^ mixed >> 32) * _secret
        place = mixed >> self._shift
        while self._table[place] and self._numbers[self._table[place] - 1] != number:
            place = (place + 1) & self._mask
        return place

    cdef uint32_t _find(self, object raw):
        cdef int beyond = 0
        cdef int64_t number
        if isinstance(raw, str) or not PyIndex_Check(raw):
            return 0
        number = PyLong_AsLongLongAndOverflow(raw, &beyond)
        return 0 if beyond else self._table[self._place(number)]


cdef class TextIndex(_Index):
    """Of ids that are texts of UTF-8, one after the other, and where each ends, int64 [V].

    Raises:
        ValueError: when two items have the same id.
    """

    cdef bytes _text
    cdef const char *_begin
    cdef const int64_t[::1] _ends

    def __init__(self, bytes text not None, const int64_t[::1] ends not None):
        cdef Py_ssize_t item
        cdef int64_t begin = 0, size
        cdef uint64_t place
        self._text, self._ends = text, ends
        self._begin = text
        self._make(len(ends))
        for item in range(len(ends)):
            size = ends[item] - begin
            place = self._place(PyUnicode_DecodeUTF8(self._begin + begin, size, NULL), self._begin + begin, size)
            if self._table[place]:
                raise ValueError("two items have the same id")
            self._table[place] = <uint32_t>(item + 1)
            begin = ends[item]

    cdef uint64_t _place(self, str decoded, const char *text, Py_ssize_t size):
        cdef uint64_t place = PyObject_Hash(decoded) * _secret >> self._shift
        cdef uint32_t item
        cdef int64_t begin
        while True:
            item = self._table[place]
            if not item:
                return place
            begin = self._ends[item - 2] if item > 1 else 0
            if self._ends[item - 1] - begin == size and not memcmp(self._begin + begin, text, <size_t>size):
                return place
            place = (place + 1) & self._mask

    cdef uint32_t _find(self, object raw):
        cdef Py_ssize_t size = 0
        cdef const char *text
        if not isinstance(raw, str):
            return 0
        try:
            text = PyUnicode_AsUTF8AndSize(raw, &size)
        except UnicodeEncodeError:
            return 0
        return self._table[self._place(raw, text, size)]
