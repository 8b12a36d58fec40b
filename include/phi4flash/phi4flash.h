#ifndef PHI4FLASH_PHI4FLASH_H
#define PHI4FLASH_PHI4FLASH_H
/* The C API of phi4flash: C11, also valid C++20. Link phi4flash-c (static or shared), or compile src/c_api.cpp into your program. A tour with
 * a whole program: docs/c_api.md. The C++ library is phi4flash.hpp, and nothing of it is needed here.
 *
 * Errors      Every function that can fail returns a code, PHI4FLASH_OK (0) or what went wrong, and writes a sentence into *error, which is the
 *             caller's and may be NULL. Where a function fails, nothing has changed, unless it says otherwise; handles to be made are NULL then.
 * Arguments   A pointer that is NULL, a number out of range, a handle of another kind, a struct whose size is wrong: all are
 *             PHI4FLASH_INVALID_ARGUMENT, never a crash. A pointer to memory that is no longer yours, a destroyed handle among them, cannot be told.
 * Structs     The first member is the size of the struct as the caller knows it: set it, and set what you do not use to zero, which is always
 *             the default (`reserved` must be). Members are only ever added at the end: a smaller struct (of a program compiled with an older
 *             header) is read as if the rest were zero, a larger one is taken if what this library does not know is zero. What a function fills
 *             is cut the same way.
 * Strings     are pointer and length in bytes, UTF-8; those that the library gives are terminated by a NUL as well, but for the bytes of tokens
 *             (phi4flash_tokenizer_get_bytes). A text may have a NUL in it, too.
 * Handles     *_destroy gives up the caller's handle, takes NULL, and may be called in any order: what others still need lives until they are
 *             destroyed too (a session keeps its model, a generation its workspace, and the session of the text that is under way). In a callback
 *             of a call that uses it a handle may be destroyed as well; it lives until the call returns.
 * Threads     Models and tokenizers never change: any number of threads may use one. Other handles are for one thread at a time, and so is what
 *             they were made with while a call uses it; where two threads meet, one gets PHI4FLASH_IN_USE and nothing happens. Three functions may
 *             be called by any thread at any time: phi4flash_generation_cancel, phi4flash_scheduler_cancel_all and the plain questions at the top.
 *             Destroying counts as use. The library starts no thread, but for a pool that phi4flash_workspace_options.threads asks for.
 * Callbacks   are called by the thread that made the call, an executor's tasks excepted. They may call the library; what the call that is under
 *             way uses is PHI4FLASH_IN_USE for them. They must not leave by longjmp. If one written in C++ throws, the call ends with
 *             PHI4FLASH_HOST_EXCEPTION, and the handles are as they were before the piece of work that was under way.
 * Memory      Handles, and the blocks of sessions, workspaces, caches and weights that are not used in place, come from phi4flash_allocator. Names,
 *             vocabularies, stop strings and what a text needs of the size of the vocabulary come from the C++ heap (operator new); a call that
 *             finds none there ends with PHI4FLASH_OUT_OF_MEMORY.
 *
 * @since 0.2 */
#include <stddef.h>
#include <stdint.h>

#if defined(_WIN32) && defined(PHI4FLASH_C_BUILD_SHARED)
#define PHI4FLASH_API __declspec(dllexport)
#elif defined(_WIN32) && defined(PHI4FLASH_C_SHARED)
#define PHI4FLASH_API __declspec(dllimport)
#elif defined(__GNUC__) || defined(__clang__)
#define PHI4FLASH_API __attribute__((visibility("default")))
#else
#define PHI4FLASH_API
#endif

#ifdef __cplusplus
extern "C" {
#endif

/* ---- codes and errors -------------------------------------------------------------------------------------------------------- */

/* 0 (PHI4FLASH_OK) or what went wrong: the numbers below. */
typedef int32_t phi4flash_code;

/* Numbers are never given a second meaning. */
enum {
    PHI4FLASH_OK = 0,
    /* the caller */
    PHI4FLASH_INVALID_ARGUMENT = 1, /* an argument is missing, out of range, or of another kind; the sentence names it */
    PHI4FLASH_OUT_OF_MEMORY = 2,
    PHI4FLASH_CONTEXT_FULL = 3,     /* a session has no room for these tokens */
    PHI4FLASH_CANCELLED = 4,
    PHI4FLASH_UNKNOWN_TARGET = 5,   /* no kernels of this name in this library, or not on this machine */
    PHI4FLASH_IN_USE = 6,           /* another thread, a text that is being generated, or the call whose callback this is, has it */
    PHI4FLASH_BUFFER_TOO_SMALL = 7, /* what was asked for is larger than the memory for it; the count says how large */
    PHI4FLASH_HOST_FAILED = 8,      /* a callback (reader, sink, source) reported a failure */
    PHI4FLASH_HOST_EXCEPTION = 9,   /* a callback threw a C++ exception */
    PHI4FLASH_NOT_SUPPORTED = 10,   /* left out of this build of the library */
    /* saved sessions */
    PHI4FLASH_WRONG_CHECKSUM = 50,
    PHI4FLASH_WRONG_WEIGHTS = 51,
    /* files */
    PHI4FLASH_FILE_NOT_FOUND = 100,
    PHI4FLASH_FILE_UNREADABLE = 101,
    PHI4FLASH_FILE_EMPTY = 102,
    PHI4FLASH_FILE_UNWRITABLE = 103,
    PHI4FLASH_PATH_OUTSIDE_FOLDER = 104,
    PHI4FLASH_FILE_TOO_LARGE = 105,
    PHI4FLASH_FILE_INCOMPLETE = 106,
    PHI4FLASH_WRONG_FILE_KIND = 107,
    /* what is in files: JSON, safetensors, GGUF, checkpoints, tokenizers; docs/c_api.md says which errors of docs/loading.md are which */
    PHI4FLASH_BAD_JSON = 120,
    PHI4FLASH_BAD_TENSORS = 121,    /* a table of tensors that cannot be */
    PHI4FLASH_BAD_FORMAT = 122,     /* a GGUF file or a snapshot that is none, or that breaks its rules */
    PHI4FLASH_UNSUPPORTED_VERSION = 123,
    PHI4FLASH_BAD_VALUE = 124,
    PHI4FLASH_TRAILING_BYTES = 125,
    PHI4FLASH_BAD_CHECKPOINT = 140, /* tensors that are missing, unexpected, or not what the configuration says */
    PHI4FLASH_WRONG_SHAPE = 141,
    PHI4FLASH_WRONG_DTYPE = 142,
    PHI4FLASH_UNSUPPORTED_MODEL = 143,
    PHI4FLASH_NOT_FINITE = 144,     /* weights, or logits made of them, that are infinite or NaN */
    PHI4FLASH_BAD_TOKENIZER = 160,
    PHI4FLASH_UNKNOWN_TOKEN = 161,  /* an id that the model does not have */
    PHI4FLASH_BAD_CHAT_MESSAGE = 162
};

/* What went wrong. The one struct without a size: it never changes, and needs no initialization. After success the code is PHI4FLASH_OK and the
 * message empty. */
typedef struct phi4flash_error {
    phi4flash_code code;
    char message[508]; /* one sentence, UTF-8, terminated; cut between two characters if it is too long */
} phi4flash_error;

/* "out_of_memory" and so on; "unknown" for other numbers. Any thread, any time. */
PHI4FLASH_API const char* phi4flash_code_name(phi4flash_code code);
/* "0.2.0". Any thread, any time. */
PHI4FLASH_API const char* phi4flash_version(void);
/* Version of this interface: grows with every function or member that is added. Any thread, any time. */
PHI4FLASH_API uint32_t phi4flash_api_version(void);
/* Threads that are worth having in a pool on this machine: one a core that the process may run on, within its quota. Reads some files. */
PHI4FLASH_API uint32_t phi4flash_default_concurrency(void);

/* ---- what the host may bring --------------------------------------------------------------------------------------------------- */

/* Memory of the host's. Both are called by any thread that calls the library; `allocate` returns NULL where there is none. `alignment` is a power
 * of two, 64 at most. `release` must not throw. Copied when a handle is made; `user` and what it points to must live until the last handle that was
 * made with it is gone. */
typedef struct phi4flash_allocator {
    uint32_t size;
    uint32_t reserved;
    void* user;
    void* (*allocate)(void* user, size_t bytes, size_t alignment);
    void (*release)(void* user, void* memory, size_t bytes, size_t alignment);
} phi4flash_allocator;

/* A part of some work: [begin, end) of it. Made by the library, run by the host's threads. */
typedef void (*phi4flash_task)(void* context, size_t begin, size_t end);

/* Threads of the host's. `parallel_for` calls task(context, begin, end) until [0, count) is covered, in any cut of at least `grain` (the last one may
 * be less), in any order and on any thread, and returns when all is done. It may be called by several threads at once if workspaces are used by
 * several. A task takes up to 80 KiB of stack. Results never depend on the cut. Copied when a workspace is made. */
typedef struct phi4flash_executor {
    uint32_t size;
    uint32_t concurrency; /* ranges that may be in flight at once; at least 1 */
    void* user;
    void (*parallel_for)(void* user, size_t count, size_t grain, phi4flash_task task, void* context);
} phi4flash_executor;

/* When a call that computes shall give the thread back. Asked between pieces of work, each of which is at most some milliseconds at the released
 * size; at least one piece is computed in each call, so a text ends under any budget. All zero: no limit. */
typedef struct phi4flash_budget {
    uint32_t size;
    uint32_t reserved;
    uint64_t microseconds;              /* 0: no limit by time; where the budget is used up, give 1 */
    void* user;
    uint64_t (*now)(void* user);        /* microseconds of any clock that only goes forward; NULL: the system's steady clock */
    int32_t (*stop)(void* user);        /* not 0: give the thread back; NULL: never asked */
} phi4flash_budget;

/* A file by its bytes, for phi4flash_model_open_files: memory of the host's, or what its reader reads. */
typedef struct phi4flash_file {
    uint32_t size;
    uint32_t reserved;
    const char* name;                   /* "config.json", "npc/model.safetensors" ...; of a single GGUF file any other, or NULL */
    size_t name_length;
    const void* data;                   /* memory that the host keeps, unchanged, as long as the model lives; NULL: the reader reads */
    uint64_t bytes;                     /* of the file */
    void* user;
    /* Puts `bytes` bytes from `offset` on to `into`, and returns 0; anything else ends the opening with PHI4FLASH_HOST_FAILED, which is also how a
     * host stops it. Called from the start of a file to its end with at most 64 MiB at once. Not called after it failed. */
    int32_t (*read)(void* user, uint64_t offset, void* into, size_t bytes);
} phi4flash_file;

/* ---- models -------------------------------------------------------------------------------------------------------------------- */

/* Weights and configuration. Any number of threads. */
typedef struct phi4flash_model phi4flash_model;
/* Text to ids and back, chats to prompts. Any number of threads. */
typedef struct phi4flash_tokenizer phi4flash_tokenizer;
/* The state of one text. One thread at a time. */
typedef struct phi4flash_session phi4flash_session;
/* What one thread of control computes with. One thread at a time. */
typedef struct phi4flash_workspace phi4flash_workspace;
/* Writes one text after the other. One thread at a time; cancelled by any. */
typedef struct phi4flash_generation phi4flash_generation;
/* Writes many texts in the same passes. One thread at a time; cancelled by any. */
typedef struct phi4flash_scheduler phi4flash_scheduler;
/* Texts that were read before. One thread at a time. */
typedef struct phi4flash_prefix_cache phi4flash_prefix_cache;

/* How a model is opened. */
typedef struct phi4flash_model_options {
    uint32_t size;
    uint32_t copy_file;                 /* 1: read a packed file into memory instead of mapping it; it may change or go afterwards */
    const phi4flash_allocator* allocator; /* of this handle, and of those made from it that are given none; NULL: the C++ heap */
    uint32_t ignore_unknown_keys;       /* 1: configurations may have keys that this library does not know */
    uint32_t reserved;
} phi4flash_model_options;

/* Opens a folder with a Hugging Face checkpoint, or a packed file (GGUF). Files are mapped. `options` may be NULL. Errors: those of files. */
PHI4FLASH_API phi4flash_code phi4flash_model_open(const char* path, size_t path_length, const phi4flash_model_options* options, phi4flash_model** out,
                                                  phi4flash_error* error);
/* The same of files that the host has: one GGUF file; or config.json, one or more *.safetensors and, if there are, generation_config.json and
 * tokenizer.json. Other *.json files may be among them, and are not read. Memory is used in place where it is aligned to 8 bytes, else copied.
 * What a reader reads is read once, now, after the whole list has been looked at. Folders before the names of JSON files do not count; sentences call
 * other files by all of their names. Errors: those of files, PHI4FLASH_FILE_NOT_FOUND (no config.json, no weights), PHI4FLASH_FILE_EMPTY,
 * PHI4FLASH_HOST_FAILED (a reader), PHI4FLASH_INVALID_ARGUMENT (two of one name, a name of no such file, a GGUF file that is not alone). */
PHI4FLASH_API phi4flash_code phi4flash_model_open_files(const phi4flash_file* files, size_t count, const phi4flash_model_options* options,
                                                        phi4flash_model** out, phi4flash_error* error);
/* Weights go when the last handle that was made from it goes. */
PHI4FLASH_API void phi4flash_model_destroy(phi4flash_model* model);

/* What a model is. */
typedef struct phi4flash_model_info {
    uint32_t size;
    uint32_t has_tokenizer;             /* 1: phi4flash_tokenizer_open finds one */
    uint64_t vocabulary;                /* ids: 0 to vocabulary - 1; so many logits */
    uint64_t layers;
    uint64_t width;                     /* d_model */
    uint64_t window;                    /* tokens that window attention sees */
    uint64_t weight_bytes;              /* of all weights */
    uint64_t owned_bytes;               /* those in memory of the library's, and not in maps or the host's memory */
    uint64_t fingerprint;               /* tells weights apart; a snapshot belongs to one */
} phi4flash_model_info;

/* Fills in *info. Any thread. */
PHI4FLASH_API phi4flash_code phi4flash_model_get_info(const phi4flash_model* model, phi4flash_model_info* info, phi4flash_error* error);

/* ---- tokenizers and chat --------------------------------------------------------------------------------------------------------- */

/* The model's own. Errors: PHI4FLASH_FILE_NOT_FOUND where it has none; PHI4FLASH_BAD_TOKENIZER. */
PHI4FLASH_API phi4flash_code phi4flash_tokenizer_open(phi4flash_model* model, phi4flash_tokenizer** out, phi4flash_error* error);
/* From the text of a tokenizer.json. `allocator` may be NULL. */
PHI4FLASH_API phi4flash_code phi4flash_tokenizer_open_json(const char* json, size_t length, const phi4flash_allocator* allocator,
                                                           phi4flash_tokenizer** out, phi4flash_error* error);
/* Generations that use it keep it. */
PHI4FLASH_API void phi4flash_tokenizer_destroy(phi4flash_tokenizer* tokenizer);

/* What a tokenizer is. */
typedef struct phi4flash_tokenizer_info {
    uint32_t size;
    int32_t end_of_message;             /* the id of <|end|>, where an answer ends; -1 where there is none */
    uint64_t vocabulary;                /* one past the highest id with a string */
} phi4flash_tokenizer_info;

/* Fills in *info. Any thread. */
PHI4FLASH_API phi4flash_code phi4flash_tokenizer_get_info(const phi4flash_tokenizer* tokenizer, phi4flash_tokenizer_info* info,
                                                          phi4flash_error* error);
/* The bytes of a token, which need not be whole characters and are NOT terminated; valid as long as the tokenizer. Errors: PHI4FLASH_UNKNOWN_TOKEN
 * for ids without a string. */
PHI4FLASH_API phi4flash_code phi4flash_tokenizer_get_bytes(const phi4flash_tokenizer* tokenizer, int32_t token, const char** bytes, size_t* length,
                                                           phi4flash_error* error);

enum {
    PHI4FLASH_MARKERS_ARE_TEXT = 0,     /* "<|end|>" in a text is text: for what users write */
    PHI4FLASH_MARKERS_ARE_TOKENS = 1    /* it is the token: for prompts that a program makes */
};

/* Text to ids. Writes *count ids; if `capacity` is less than that, none, and PHI4FLASH_BUFFER_TOO_SMALL. `ids` may be NULL where capacity is 0.
 * Invalid UTF-8 counts as U+FFFD. */
PHI4FLASH_API phi4flash_code phi4flash_tokenizer_encode(const phi4flash_tokenizer* tokenizer, const char* text, size_t length, uint32_t markers,
                                                        int32_t* ids, size_t capacity, size_t* count, phi4flash_error* error);
/* Ids to text, with special tokens left out if skip_special is 1. Writes *length bytes and a NUL, for which there must be room:
 * capacity > *length. */
PHI4FLASH_API phi4flash_code phi4flash_tokenizer_decode(const phi4flash_tokenizer* tokenizer, const int32_t* ids, size_t count, uint32_t skip_special,
                                                        char* text, size_t capacity, size_t* length, phi4flash_error* error);

/* One message of a chat, UTF-8. */
typedef struct phi4flash_chat_message {
    uint32_t size;                      /* the same in all messages of an array */
    uint32_t has_tools;                 /* 1: tools are given, even if their text is empty; of system messages only */
    const char* role;                   /* "system", "user", "assistant", "tool", "tool_response" */
    size_t role_length;
    const char* content;
    size_t content_length;
    const char* tools;
    size_t tools_length;
} phi4flash_chat_message;

enum {
    PHI4FLASH_CHAT_FLASH = 0,           /* the template of Phi-4-mini-flash-reasoning */
    PHI4FLASH_CHAT_MINI_REASONING = 1   /* of Phi-4-mini-reasoning, which always begins with a system message of its own */
};

/* How a chat becomes a prompt. */
typedef struct phi4flash_chat_options {
    uint32_t size;
    uint32_t chat_template;             /* PHI4FLASH_CHAT_* */
    uint32_t closed;                    /* 1: ends with <|endoftext|>; 0: asks for an answer */
    uint32_t markers;                   /* in contents: PHI4FLASH_MARKERS_* */
} phi4flash_chat_options;

/* Messages to the ids of a prompt. `options` may be NULL. As phi4flash_tokenizer_encode. Errors: also PHI4FLASH_BAD_CHAT_MESSAGE (a role
 * without a marker). */
PHI4FLASH_API phi4flash_code phi4flash_tokenizer_encode_chat(const phi4flash_tokenizer* tokenizer, const phi4flash_chat_message* messages,
                                                             size_t n_messages, const phi4flash_chat_options* options, int32_t* ids, size_t capacity,
                                                             size_t* count, phi4flash_error* error);
/* The same as text, for reading. As phi4flash_tokenizer_decode. */
PHI4FLASH_API phi4flash_code phi4flash_render_chat(const phi4flash_chat_message* messages, size_t n_messages, const phi4flash_chat_options* options,
                                                   char* text, size_t capacity, size_t* length, phi4flash_error* error);

/* ---- sessions: the state of one text ---------------------------------------------------------------------------------------------- */

/* How keys and values are kept. Session, workspace and cache must agree. */
enum {
    PHI4FLASH_KV_BF16 = 0,
    PHI4FLASH_KV_F32 = 1,               /* twice the memory */
    PHI4FLASH_KV_INT8 = 2               /* half of it; moves logits about five times as much as bf16 does */
};

/* What a session has room for. */
typedef struct phi4flash_session_options {
    uint32_t size;
    uint32_t kv_type;                   /* PHI4FLASH_KV_* */
    uint64_t context;                   /* tokens that it has room for; at least 1 */
    uint64_t undo;                      /* tokens that can be taken back from where it has read to */
    const phi4flash_allocator* allocator; /* NULL: the model's */
} phi4flash_session_options;

/* How a session stands. */
typedef struct phi4flash_session_info {
    uint32_t size;
    uint32_t kv_type;
    uint64_t position;                  /* tokens that it has read */
    uint64_t oldest_position;           /* how far phi4flash_session_rewind can go */
    uint64_t context;
    uint64_t undo;
    uint64_t bytes;                     /* memory that it takes */
    uint32_t busy;                      /* 1: a text that is being generated has a pass under way in it */
    uint32_t reserved;
} phi4flash_session_info;

/* Bytes that such a session takes, in one block. */
PHI4FLASH_API phi4flash_code phi4flash_session_get_bytes(const phi4flash_model* model, const phi4flash_session_options* options, uint64_t* bytes,
                                                         phi4flash_error* error);
/* A session that has read nothing. `options` may not be NULL. Errors: PHI4FLASH_OUT_OF_MEMORY. */
PHI4FLASH_API phi4flash_code phi4flash_session_create(phi4flash_model* model, const phi4flash_session_options* options, phi4flash_session** out,
                                                      phi4flash_error* error);
/* A new session that has read what `session` has: for another answer to the same text. `options` may be NULL: context, undo and allocator of the
 * first. */
PHI4FLASH_API phi4flash_code phi4flash_session_fork(phi4flash_session* session, const phi4flash_session_options* options, phi4flash_session** out,
                                                    phi4flash_error* error);
/* A text that is being generated in it keeps it until its end. */
PHI4FLASH_API void phi4flash_session_destroy(phi4flash_session* session);
/* Fills in *info. */
PHI4FLASH_API phi4flash_code phi4flash_session_get_info(const phi4flash_session* session, phi4flash_session_info* info, phi4flash_error* error);
/* Forgets everything. PHI4FLASH_IN_USE while a pass reads into it. */
PHI4FLASH_API phi4flash_code phi4flash_session_reset(phi4flash_session* session, phi4flash_error* error);
/* Takes tokens back, bit for bit: the next token is the one at `position`, from oldest_position to position. */
PHI4FLASH_API phi4flash_code phi4flash_session_rewind(phi4flash_session* session, uint64_t position, phi4flash_error* error);
/* `session` becomes a copy of `from`, of the same model and kv_type. */
PHI4FLASH_API phi4flash_code phi4flash_session_copy(phi4flash_session* session, phi4flash_session* from, phi4flash_error* error);
/* Reads tokens without generating, all at once. *logits, if not NULL, becomes [vocabulary] numbers after the last token, valid until the workspace
 * is used again. If it fails in the middle (not_finite, host_exception) the session is at the border of a chunk, where its position says. */
PHI4FLASH_API phi4flash_code phi4flash_session_read(phi4flash_session* session, phi4flash_workspace* workspace, const int32_t* tokens, size_t count,
                                                    const float** logits, phi4flash_error* error);

/* ---- snapshots: a session as bytes, the same on every machine ------------------------------------------------------------------- */

#define PHI4FLASH_ALL_UNDO UINT64_MAX /* keep as many tokens to take back as the session has */

/* Bytes of a snapshot of the session as it is now, with at most `undo` tokens to take back afterwards. */
PHI4FLASH_API phi4flash_code phi4flash_session_get_snapshot_bytes(const phi4flash_session* session, uint64_t undo, uint64_t* bytes,
                                                                  phi4flash_error* error);
/* Into memory: *written bytes. Errors: PHI4FLASH_BUFFER_TOO_SMALL. */
PHI4FLASH_API phi4flash_code phi4flash_session_save(phi4flash_session* session, uint64_t undo, void* memory, size_t capacity, size_t* written,
                                                    phi4flash_error* error);
/* Piece by piece: write(user, data, bytes) returns 0, or anything else to stop (PHI4FLASH_HOST_FAILED). Takes no memory. */
PHI4FLASH_API phi4flash_code phi4flash_session_save_to(phi4flash_session* session, uint64_t undo,
                                                       int32_t (*write)(void* user, const void* data, size_t bytes), void* user,
                                                       phi4flash_error* error);
/* The session becomes the one that was saved. All is checked before anything changes. */
PHI4FLASH_API phi4flash_code phi4flash_session_restore(phi4flash_session* session, const void* snapshot, size_t bytes, phi4flash_error* error);
/* Piece by piece, into a session that has read nothing: read(user, into, bytes) fills all of it and returns 0. */
PHI4FLASH_API phi4flash_code phi4flash_session_restore_from(phi4flash_session* session, int32_t (*read)(void* user, void* into, size_t bytes),
                                                            void* user, phi4flash_error* error);

/* What a snapshot is of. */
typedef struct phi4flash_snapshot_info {
    uint32_t size;
    uint32_t kv_type;
    uint64_t position;
    uint64_t oldest_position;
    uint64_t bytes;                     /* of the whole snapshot */
    uint64_t fingerprint;               /* of the weights that it belongs to */
    uint64_t vocabulary;                /* of their model */
    uint64_t layers;
    uint64_t width;
} phi4flash_snapshot_info;

/* What a snapshot is of, from its first 192 bytes. */
PHI4FLASH_API phi4flash_code phi4flash_snapshot_get_info(const void* snapshot, size_t bytes, phi4flash_snapshot_info* info, phi4flash_error* error);

/* ---- workspaces: what one thread of control computes with ------------------------------------------------------------------------- */

#define PHI4FLASH_ALL_CORES UINT32_MAX

/* What a workspace computes with, and how much at once. */
typedef struct phi4flash_workspace_options {
    uint32_t size;
    uint32_t kv_type;                   /* PHI4FLASH_KV_* */
    uint32_t chunk;                     /* tokens read at once, 1 to 65536; 0: 256. Memory grows with it */
    uint32_t threads;                   /* of a pool of its own, the calling thread included; 0 or 1: the calling thread alone;
                                           PHI4FLASH_ALL_CORES: phi4flash_default_concurrency() */
    const phi4flash_executor* executor; /* the host's threads instead */
    const phi4flash_allocator* allocator; /* NULL: the model's */
    const char* kernels;                /* a target by its name, "avx2" and so on; NULL: the best of this machine */
    size_t kernels_length;
    uint32_t states;                    /* what a pass can keep: at least 1 + undo of the session that is read; for a scheduler, those of all
                                           texts that are to go on at once; 0: 1. Each is the Mamba states of all layers */
    uint32_t logits;                    /* rows of logits that a pass can compute: for a scheduler, texts that are written at once; 0: 1 */
} phi4flash_workspace_options;

/* What a workspace is. */
typedef struct phi4flash_workspace_info {
    uint32_t size;
    uint32_t kv_type;
    uint32_t chunk;
    uint32_t threads;
    uint64_t bytes;                     /* memory that it takes */
    const char* kernels;                /* the target's name; lives as long as the library */
} phi4flash_workspace_info;

/* Bytes that such a workspace takes. `options` may be NULL. */
PHI4FLASH_API phi4flash_code phi4flash_workspace_get_bytes(const phi4flash_model* model, const phi4flash_workspace_options* options, uint64_t* bytes,
                                                           phi4flash_error* error);
/* `options` may be NULL. */
PHI4FLASH_API phi4flash_code phi4flash_workspace_create(phi4flash_model* model, const phi4flash_workspace_options* options, phi4flash_workspace** out,
                                                        phi4flash_error* error);
/* Generations and schedulers that use it keep it; its threads end with it. */
PHI4FLASH_API void phi4flash_workspace_destroy(phi4flash_workspace* workspace);
/* Fills in *info. */
PHI4FLASH_API phi4flash_code phi4flash_workspace_get_info(const phi4flash_workspace* workspace, phi4flash_workspace_info* info,
                                                          phi4flash_error* error);

/* ---- generation: one text at a time ----------------------------------------------------------------------------------------------- */

/* Bytes of UTF-8, not terminated. */
typedef struct phi4flash_string {
    const char* data;
    size_t length;
} phi4flash_string;

/* All zero is greedy. phi4flash_generation_get_defaults fills in what the model's files say. */
typedef struct phi4flash_generation_options {
    uint32_t size;
    float temperature;                  /* 0 to 100; 0: greedy, the highest logit */
    float top_p;                        /* to 1; 0 and 1: keep all */
    float min_p;                        /* 0 to 1; 0: keep all */
    float repetition_penalty;           /* to 100; 0 and 1: none */
    uint32_t top_k;                     /* 0: keep all */
    uint64_t seed;
    uint64_t max_tokens;                /* new ones, at most; 0: 32768 */
    const int32_t* stop_ids;            /* end the text, beside those of the model's files and the end of a message */
    size_t n_stop_ids;
    const phi4flash_string* stop_strings; /* end the text; neither they nor what follows is given. UTF-8; empty ones are none */
    size_t n_stop_strings;
    uint32_t no_own_stops;              /* 1: stop at what is given here alone */
    uint32_t keep_special;              /* 1: special tokens are part of the text */
    uint32_t prompt_only;               /* 1: reads the prompt, and ends */
    uint32_t max_prompt;                /* tokens of the longest prompt, memory for which is taken at once; 0: taken when a text is started */
    uint32_t max_drafts;                /* tokens guessed from the text so far and read at once, 1 to 31; the workspace needs states, logits and
                                           chunk of one more. Takes some 16 bytes a token of the session's context when a text is started. 0: none */
    uint32_t drafts_always;             /* 0: as many as pay by measured time; 1: all that are made, so that passes do not depend on time */
} phi4flash_generation_options;

enum {
    PHI4FLASH_EVENT_NONE = 0,           /* nothing yet: the budget is used up, or there is nothing to do */
    PHI4FLASH_EVENT_PROMPT = 1,         /* a part of the prompt has been read: prompt_read of prompt_total */
    PHI4FLASH_EVENT_TOKEN = 2,          /* a token has been chosen, with the text that became certain by it, which may be empty */
    PHI4FLASH_EVENT_END = 3             /* the text has ended, with text that was held back until then */
};

enum {
    PHI4FLASH_END_STOP_TOKEN = 0,       /* the model chose one of the stop ids */
    PHI4FLASH_END_STOP_STRING = 1,      /* the text contained one of the stop strings */
    PHI4FLASH_END_MAX_TOKENS = 2,
    PHI4FLASH_END_CONTEXT_FULL = 3,     /* the session has no room for another token */
    PHI4FLASH_END_CANCELLED = 4,
    PHI4FLASH_END_FAILED = 6            /* by an error: of a scheduler's request code and message of the event say why, else those of the call */
};

/* What happened to a text. */
typedef struct phi4flash_event {
    uint32_t size;
    uint32_t kind;                      /* PHI4FLASH_EVENT_* */
    int32_t token;                      /* of a token; else -1 */
    uint32_t reason;                    /* of the end: PHI4FLASH_END_* */
    const char* text;                   /* whole UTF-8, terminated, never NULL; valid until the next call with this generation or scheduler */
    size_t text_length;
    uint64_t prompt_read;
    uint64_t prompt_total;
    uint64_t new_tokens;                /* so far, a stop token not counted */
    uint64_t request;                   /* of a scheduler: which one */
    phi4flash_code code;                /* of a request that failed; else PHI4FLASH_OK */
    int32_t unread;                     /* the last token chosen, which the session has not read: a next prompt should begin with it; -1: none */
    const char* message;                /* of a request that failed; else "". Valid as long as `text` */
} phi4flash_event;

/* What the model's files say of sampling and length, and the model card where they are silent. */
PHI4FLASH_API phi4flash_code phi4flash_generation_get_defaults(const phi4flash_model* model, phi4flash_generation_options* options,
                                                               phi4flash_error* error);
/* `tokenizer` may be NULL: then there is no text, only tokens, and no stop string. `options` may be NULL: the model's defaults. Everything is copied.
 * One generation makes one text after the other. */
PHI4FLASH_API phi4flash_code phi4flash_generation_create(phi4flash_workspace* workspace, phi4flash_tokenizer* tokenizer,
                                                         const phi4flash_generation_options* options, phi4flash_generation** out,
                                                         phi4flash_error* error);
/* A text that is under way is dropped; its session is whole. */
PHI4FLASH_API void phi4flash_generation_destroy(phi4flash_generation* generation);
/* Begins a text: `prompt` is read into the session, which may have read something before. The text before, if it has not ended, is dropped. Computes
 * nothing yet. Errors: PHI4FLASH_CONTEXT_FULL, PHI4FLASH_UNKNOWN_TOKEN, PHI4FLASH_IN_USE: the session has not changed, and a text before goes on. */
PHI4FLASH_API phi4flash_code phi4flash_generation_start(phi4flash_generation* generation, phi4flash_session* session, const int32_t* prompt,
                                                        size_t count, phi4flash_error* error);
/* Computes until something happens, or the budget is used up (PHI4FLASH_EVENT_NONE); `budget` may be NULL. While a pass is under way, which is only
 * after such an event, or while accepted drafts are told, session and workspace are PHI4FLASH_IN_USE for others. After the end, or before a start:
 * PHI4FLASH_EVENT_NONE.
 * Errors: PHI4FLASH_NOT_FINITE and PHI4FLASH_IN_USE (somebody else moved the session) end the text; PHI4FLASH_IN_USE (somebody else has the
 * workspace), PHI4FLASH_HOST_EXCEPTION do not: call again. */
PHI4FLASH_API phi4flash_code phi4flash_generation_advance(phi4flash_generation* generation, const phi4flash_budget* budget, phi4flash_event* event,
                                                          phi4flash_error* error);
/* The text ends within a piece of work, with an event that says so. Any thread, any time, also while another thread advances it. Before a text is
 * started it means nothing: start forgets it. */
PHI4FLASH_API phi4flash_code phi4flash_generation_cancel(phi4flash_generation* generation, phi4flash_error* error);

/* How a generation's text stands. */
typedef struct phi4flash_generation_info {
    uint32_t size;
    uint32_t running;                   /* 1: started, and its end has not been told */
    uint32_t reason;                    /* of a text that has ended: PHI4FLASH_END_* */
    int32_t unread;
    uint64_t prompt_tokens;             /* that were read */
    uint64_t new_tokens;
    uint64_t drafted;                   /* drafts that were read */
    uint64_t accepted;                  /* of them that were what was chosen */
} phi4flash_generation_info;

/* Fills in *info. */
PHI4FLASH_API phi4flash_code phi4flash_generation_get_info(const phi4flash_generation* generation, phi4flash_generation_info* info,
                                                           phi4flash_error* error);

/* ---- scheduler: many texts in the same passes, so that they share one read of the weights ---------------------------------------------- */

/* How many texts, and how passes are shared out. */
typedef struct phi4flash_scheduler_options {
    uint32_t size;
    uint32_t requests;                  /* at once, at most; 0: 16 */
    uint32_t prompt_rows;               /* tokens of prompts in a pass in which others write, at most; who writes waits for these too; 0: 32 */
    uint32_t reserved;
    uint64_t longest_pass;              /* microseconds that such a pass should take at most, by what passes have taken so far; 0: no such bound */
} phi4flash_scheduler_options;

enum {
    PHI4FLASH_TICK_IDLE = 0,            /* nobody could go on: no requests, or all wait for phi4flash_scheduler_next_event */
    PHI4FLASH_TICK_PAUSED = 1,          /* the budget is used up; the next tick goes on there */
    PHI4FLASH_TICK_DONE = 2             /* a pass is done */
};

/* The workspace's `states` and `logits` are how many texts can be written at once. `tokenizer` and `options` may be NULL. */
PHI4FLASH_API phi4flash_code phi4flash_scheduler_create(phi4flash_workspace* workspace, phi4flash_tokenizer* tokenizer,
                                                        const phi4flash_scheduler_options* options, phi4flash_scheduler** out,
                                                        phi4flash_error* error);
/* Drops what is under way; every session is whole. */
PHI4FLASH_API void phi4flash_scheduler_destroy(phi4flash_scheduler* scheduler);
/* A text for a session that has no other request. *request is its number, never 0 and never given twice. `options` may be NULL: the model's defaults.
 * As many drafts are read at once as the session has `undo`, at most; which pay is known after two passes that it had alone (`drafts_always`: at
 * once). A session whose `undo` is more than the workspace's `states` less one is refused, PHI4FLASH_INVALID_ARGUMENT,
 * where the prompt is longer than `states`. */
PHI4FLASH_API phi4flash_code phi4flash_scheduler_submit(phi4flash_scheduler* scheduler, phi4flash_session* session, const int32_t* prompt,
                                                        size_t count, const phi4flash_generation_options* options, uint64_t* request,
                                                        phi4flash_error* error);
/* Goes on with a pass, or begins one. *outcome is PHI4FLASH_TICK_*. What fails for one request is told as its end. `budget` may be NULL: a whole
 * pass. */
PHI4FLASH_API phi4flash_code phi4flash_scheduler_tick(phi4flash_scheduler* scheduler, const phi4flash_budget* budget, uint32_t* outcome,
                                                      phi4flash_error* error);
/* What happened, one after the other; PHI4FLASH_EVENT_NONE when there is no more to tell. A request with something to tell does not go on before it
 * is told. */
PHI4FLASH_API phi4flash_code phi4flash_scheduler_next_event(phi4flash_scheduler* scheduler, phi4flash_event* event, phi4flash_error* error);
/* The next thing that is told of this request is its end. Errors: PHI4FLASH_INVALID_ARGUMENT where there is no such request (any more). */
PHI4FLASH_API phi4flash_code phi4flash_scheduler_cancel(phi4flash_scheduler* scheduler, uint64_t request, phi4flash_error* error);
/* Of all requests that there are now. Any thread, any time. */
PHI4FLASH_API phi4flash_code phi4flash_scheduler_cancel_all(phi4flash_scheduler* scheduler, phi4flash_error* error);

/* How a scheduler stands. */
typedef struct phi4flash_scheduler_info {
    uint32_t size;
    uint32_t reserved;
    uint64_t requests;                  /* whose end has not been told */
    uint64_t capacity;
} phi4flash_scheduler_info;

/* Fills in *info. */
PHI4FLASH_API phi4flash_code phi4flash_scheduler_get_info(const phi4flash_scheduler* scheduler, phi4flash_scheduler_info* info,
                                                          phi4flash_error* error);

/* ---- prefix cache: what has been read before need not be read again ------------------------------------------------------------------ */

/* How much a cache may hold. */
typedef struct phi4flash_prefix_cache_options {
    uint32_t size;
    uint32_t kv_type;                   /* PHI4FLASH_KV_* */
    uint64_t bytes;                     /* of memory, taken at once; see phi4flash_prefix_cache_get_bytes */
    const phi4flash_allocator* allocator; /* NULL: the model's */
} phi4flash_prefix_cache_options;

/* What a cache holds. */
typedef struct phi4flash_prefix_cache_info {
    uint32_t size;
    uint32_t kv_type;
    uint64_t entries;
    uint64_t bytes;
    uint64_t used_bytes;
} phi4flash_prefix_cache_info;

/* Memory for `texts` texts of `tokens` tokens each that have nothing in common. */
PHI4FLASH_API phi4flash_code phi4flash_prefix_cache_get_bytes(const phi4flash_model* model, uint32_t kv_type, uint64_t texts, uint64_t tokens,
                                                              uint64_t* bytes, phi4flash_error* error);
/* An empty cache. Errors: PHI4FLASH_OUT_OF_MEMORY. */
PHI4FLASH_API phi4flash_code phi4flash_prefix_cache_create(phi4flash_model* model, const phi4flash_prefix_cache_options* options,
                                                           phi4flash_prefix_cache** out, phi4flash_error* error);
/* Sessions that were restored from it are copies and stay. */
PHI4FLASH_API void phi4flash_prefix_cache_destroy(phi4flash_prefix_cache* cache);
/* Keeps what the session has read; `tokens` are all of it. Texts that were not used for longest make room. */
PHI4FLASH_API phi4flash_code phi4flash_prefix_cache_keep(phi4flash_prefix_cache* cache, phi4flash_session* session, const int32_t* tokens,
                                                         size_t count, phi4flash_error* error);
/* How many of these tokens the deepest text that begins them holds. */
PHI4FLASH_API phi4flash_code phi4flash_prefix_cache_find(phi4flash_prefix_cache* cache, const int32_t* tokens, size_t count, size_t* found,
                                                         phi4flash_error* error);
/* The session becomes that text, or empty where there is none; *read of the tokens need not be read any more. A prompt's last token must be read for
 * an answer: leave it out of `count`. */
PHI4FLASH_API phi4flash_code phi4flash_prefix_cache_restore(phi4flash_prefix_cache* cache, phi4flash_session* session, const int32_t* tokens,
                                                            size_t count, size_t* read, phi4flash_error* error);
/* Forgets all texts; keeps its memory. */
PHI4FLASH_API phi4flash_code phi4flash_prefix_cache_clear(phi4flash_prefix_cache* cache, phi4flash_error* error);
/* Fills in *info. */
PHI4FLASH_API phi4flash_code phi4flash_prefix_cache_get_info(const phi4flash_prefix_cache* cache, phi4flash_prefix_cache_info* info,
                                                             phi4flash_error* error);

#ifdef __cplusplus
} /* extern "C" */
#endif
#endif /* PHI4FLASH_PHI4FLASH_H */
