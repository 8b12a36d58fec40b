"""The C API (include/phi4flash/phi4flash.h) through ctypes: nothing to install but libphi4flash-c.

    with phi4flash.Model("models/tiny-arithmetic") as model:
        for text in model.ask("What is 347 + 285?"):
            print(text, end="", flush=True)

ctypes gives the GIL up while the library computes. A Model may be asked by one thread at a time; threads share weights through Model.share().
"""

import ctypes
import ctypes.util
import os

ALL_CORES = 0xFFFFFFFF
EVENT_END = 3
BUFFER_TOO_SMALL = 7

u32, i32, u64, f32, size_t, pointer, text = (
    ctypes.c_uint32, ctypes.c_int32, ctypes.c_uint64, ctypes.c_float, ctypes.c_size_t, ctypes.c_void_p, ctypes.c_char_p)


class Error(Exception):
    """What the library says; `code` is one of the numbers of phi4flash.h."""

    def __init__(self, code, message):
        super().__init__(message)
        self.code = code


class _Error(ctypes.Structure):
    _fields_ = [("code", i32), ("message", ctypes.c_char * 508)]


class _Sized(ctypes.Structure):
    """A struct whose first member is its size, all else zero unless given."""

    def __init__(self, **members):
        super().__init__(size=ctypes.sizeof(self), **members)


class WorkspaceOptions(_Sized):
    _fields_ = [("size", u32), ("kv_type", u32), ("chunk", u32), ("threads", u32), ("executor", pointer), ("allocator", pointer),
                ("kernels", text), ("kernels_length", size_t), ("states", u32), ("logits", u32)]


class SessionOptions(_Sized):
    _fields_ = [("size", u32), ("kv_type", u32), ("context", u64), ("undo", u64), ("allocator", pointer)]


class ChatMessage(_Sized):
    _fields_ = [("size", u32), ("has_tools", u32), ("role", text), ("role_length", size_t), ("content", text),
                ("content_length", size_t), ("tools", text), ("tools_length", size_t)]


class GenerationOptions(_Sized):
    _fields_ = [("size", u32), ("temperature", f32), ("top_p", f32), ("min_p", f32), ("repetition_penalty", f32), ("top_k", u32),
                ("seed", u64), ("max_tokens", u64), ("stop_ids", pointer), ("n_stop_ids", size_t), ("stop_strings", pointer),
                ("n_stop_strings", size_t), ("no_own_stops", u32), ("keep_special", u32), ("prompt_only", u32), ("max_prompt", u32),
                ("max_drafts", u32), ("drafts_always", u32)]


class Budget(_Sized):
    _fields_ = [("size", u32), ("reserved", u32), ("microseconds", u64), ("user", pointer), ("now", pointer), ("stop", pointer)]


class Event(_Sized):
    _fields_ = [("size", u32), ("kind", u32), ("token", i32), ("reason", u32), ("text", pointer), ("text_length", size_t),
                ("prompt_read", u64), ("prompt_total", u64), ("new_tokens", u64), ("request", u64), ("code", i32), ("unread", i32),
                ("message", text)]

    def said(self):
        """Its text, to be read before the next call. (A NUL is a character like others: c_char_p would end there.)"""
        return ctypes.string_at(self.text, self.text_length).decode()


# Arguments between the handle and the error.
_SIGNATURES = {
    "model_open": [text, size_t, pointer, pointer],
    "tokenizer_open": [pointer, pointer],
    "tokenizer_encode_chat": [pointer, pointer, size_t, pointer, pointer, size_t, pointer],
    "workspace_create": [pointer, pointer, pointer],
    "session_create": [pointer, pointer, pointer],
    "session_read": [pointer, pointer, pointer, size_t, pointer],
    "generation_create": [pointer, pointer, pointer, pointer],
    "generation_start": [pointer, pointer, pointer, size_t],
    "generation_advance": [pointer, pointer, pointer],
}


class Library:
    """The functions, by their names without phi4flash_; they raise Error. `loader` is ctypes.CDLL, which gives up the GIL."""

    def __init__(self, path=None, loader=ctypes.CDLL):
        path = path or os.environ.get("PHI4FLASH_C_LIBRARY") or ctypes.util.find_library("phi4flash-c")
        if not path:
            raise OSError("no libphi4flash-c: install it, or set PHI4FLASH_C_LIBRARY to its file")
        self._dll = loader(path)
        for name, arguments in _SIGNATURES.items():
            function = getattr(self._dll, "phi4flash_" + name)
            function.argtypes, function.restype = [*arguments, pointer], i32
            setattr(self, name, self._raising(function))
        for kind in ("model", "tokenizer", "workspace", "session", "generation"):
            destroy = getattr(self._dll, f"phi4flash_{kind}_destroy")
            destroy.argtypes, destroy.restype = [pointer], None
            setattr(self, kind + "_destroy", destroy)
        self._dll.phi4flash_version.restype = text

    @property
    def version(self):
        return self._dll.phi4flash_version().decode()

    @staticmethod
    def _raising(function):
        def call(*arguments):
            error = _Error()
            if function(*arguments, ctypes.byref(error)) != 0:
                raise Error(error.code, error.message.decode(errors="replace"))

        return call


class _Handle:
    """A handle of the library's, destroyed with the object: handles keep alive what they need, so the order does not matter."""

    def __init__(self, library, kind, create, *arguments):
        self._as_parameter_ = pointer()
        self._destroy = getattr(library, kind + "_destroy")
        create(*arguments, ctypes.byref(self._as_parameter_))

    def close(self):
        # Forgotten first: Ctrl-C may be noticed as soon as destroy returns, and no handle may be destroyed twice.
        handle, self._as_parameter_ = self._as_parameter_, pointer()
        self._destroy(handle)

    def __del__(self):
        self.close()


class Model:
    def __init__(self, path, threads=ALL_CORES, library=None):
        self.library = library or Library()
        self._model = _Handle(self.library, "model", self.library.model_open, os.fsencode(path), len(os.fsencode(path)), None)
        self._tokenizer = _Handle(self.library, "tokenizer", self.library.tokenizer_open, self._model)
        self._start(threads)

    def _start(self, threads):
        options = WorkspaceOptions(threads=threads)
        self._workspace = _Handle(self.library, "workspace", self.library.workspace_create, self._model, ctypes.byref(options))

    def share(self, threads=1):
        """Another Model over the same weights, for another thread."""
        other = Model.__new__(Model)
        other.library, other._model, other._tokenizer = self.library, self._model, self._tokenizer
        other._start(threads)
        return other

    def close(self):
        """Gives up what is its own; weights stay as long as others share them."""
        self._workspace = self._tokenizer = self._model = None

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.close()

    def prompt_of(self, question):
        """The ids of a chat with this one message."""
        content = question.encode()
        message = ChatMessage(role=b"user", role_length=4, content=content, content_length=len(content))
        count = size_t()

        def encode(ids, room):
            self.library.tokenizer_encode_chat(self._tokenizer, ctypes.byref(message), 1, None, ids, room, ctypes.byref(count))

        try:
            encode(None, 0)
        except Error as error:
            if error.code != BUFFER_TOO_SMALL:
                raise
        ids = (i32 * count.value)()
        encode(ids, count.value)
        return ids

    def session(self, context):
        options = SessionOptions(context=context)
        return _Handle(self.library, "session", self.library.session_create, self._model, ctypes.byref(options))

    def read(self, session, ids):
        """Reads tokens, all in one call of the library."""
        self.library.session_read(session, self._workspace, ids, len(ids), None)

    def ask(self, question, max_tokens=1024, milliseconds=50, **options):
        """The answer, as an iterator of the text that each token makes certain. Leaving the loop ends the text; Ctrl-C too, which Python
        notices every `milliseconds`. Further options are those of phi4flash_generation_options (temperature=0.6 ...); greedy by default."""
        ids = self.prompt_of(question)
        session = self.session(len(ids) + max_tokens)
        choices = GenerationOptions(max_tokens=max_tokens, **options)
        generation = _Handle(self.library, "generation", self.library.generation_create, self._workspace, self._tokenizer, ctypes.byref(choices))
        budget, event = Budget(microseconds=max(1, int(milliseconds * 1000))), Event()  # 0 would be no limit
        try:
            self.library.generation_start(generation, session, ids, len(ids))
            while event.kind != EVENT_END:
                self.library.generation_advance(generation, ctypes.byref(budget), ctypes.byref(event))
                if event.text_length:
                    yield event.said()
        finally:
            generation.close()
            session.close()
