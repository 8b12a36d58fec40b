/* A loadable extension for SQLite:
 *
 *   select phi4flash('What is 347 + 285?');                  the answer
 *   select phi4flash('What is 347 + 285?', 100);             at most 100 tokens of it
 *   select text from phi4flash_tokens('What is 347 + 285?'); a row for every token, as it is chosen
 *   select phi4flash_open('model.gguf', 4);                  another model, or another number of threads, for this connection
 *
 * The model is PHI4FLASH_MODEL of the environment, opened at the first question of a connection. Files are mapped, so connections and processes share
 * the weights. Answers are greedy: the same question, the same answer. sqlite3_interrupt ends a question within a piece of a pass, some
 * milliseconds. */
#include <sqlite3ext.h>
SQLITE_EXTENSION_INIT1

#include <phi4flash/phi4flash.h>

#include <stdlib.h>
#include <string.h>

/* ---- a connection ------------------------------------------------------------------------------------------------------------------ */

typedef struct connection {
    sqlite3* db;
    int users; /* functions and the module, which SQLite destroys one by one */
    phi4flash_model* model;
    phi4flash_tokenizer* tokenizer;
    phi4flash_workspace* workspace;
} connection;

static void close_model(connection* c) {
    phi4flash_workspace_destroy(c->workspace);
    phi4flash_tokenizer_destroy(c->tokenizer);
    phi4flash_model_destroy(c->model);
    c->workspace = NULL, c->tokenizer = NULL, c->model = NULL;
}

static void drop_connection(void* given) {
    connection* const c = given;
    if (--c->users != 0) return;
    close_model(c);
    sqlite3_free(c);
}

static phi4flash_code open_model(connection* c, const char* path, uint32_t threads, phi4flash_error* error) {
    const phi4flash_workspace_options how = {.size = sizeof how, .threads = threads};
    connection made = {.db = NULL};
    phi4flash_code code = phi4flash_model_open(path, strlen(path), NULL, &made.model, error);
    if (code == PHI4FLASH_OK) code = phi4flash_tokenizer_open(made.model, &made.tokenizer, error);
    if (code == PHI4FLASH_OK) code = phi4flash_workspace_create(made.model, &how, &made.workspace, error);
    if (code != PHI4FLASH_OK) {
        close_model(&made);
        return code;
    }
    close_model(c); /* questions that are under way keep what they need */
    c->model = made.model, c->tokenizer = made.tokenizer, c->workspace = made.workspace;
    return code;
}

static phi4flash_code have_model(connection* c, phi4flash_error* error) {
    const char* const path = getenv("PHI4FLASH_MODEL");
    if (c->model != NULL) return PHI4FLASH_OK;
    if (path != NULL) return open_model(c, path, PHI4FLASH_ALL_CORES, error);
    strcpy(error->message, "no model: set PHI4FLASH_MODEL, or select phi4flash_open('model.gguf')");
    return error->code = PHI4FLASH_FILE_NOT_FOUND;
}

/* Whether sqlite3_interrupt was called. Before SQLite 3.41 only a statement is told. */
static int32_t interrupted(void* given) {
    connection* const c = given;
#if SQLITE_VERSION_NUMBER >= 3041000
    if (sqlite3_libversion_number() >= 3041000) return sqlite3_is_interrupted(c->db);
#endif
    sqlite3_stmt* probe = NULL;
    int code = sqlite3_prepare_v2(c->db, "select 1", -1, &probe, NULL);
    if (code == SQLITE_OK) code = sqlite3_step(probe);
    sqlite3_finalize(probe);
    return code == SQLITE_INTERRUPT;
}

/* ---- a question -------------------------------------------------------------------------------------------------------------------- */

typedef struct question {
    connection* of;
    phi4flash_session* session;
    phi4flash_generation* generation;
    phi4flash_event event; /* the last thing that happened */
} question;

static void end_question(question* q) {
    phi4flash_generation_destroy(q->generation);
    phi4flash_session_destroy(q->session);
    q->generation = NULL, q->session = NULL;
}

static phi4flash_code begin_question(connection* c, const char* text, size_t length, uint64_t max_tokens, question* q, phi4flash_error* error) {
    const phi4flash_chat_message message = {.size = sizeof message, .role = "user", .role_length = 4, .content = text, .content_length = length};
    const phi4flash_generation_options options = {.size = sizeof options, .max_tokens = max_tokens};
    size_t count = 0;
    phi4flash_code code = have_model(c, error);
    if (code != PHI4FLASH_OK) return code;
    code = phi4flash_tokenizer_encode_chat(c->tokenizer, &message, 1, NULL, NULL, 0, &count, error); /* how long? */
    if (code != PHI4FLASH_BUFFER_TOO_SMALL) return code;
    int32_t* const prompt = sqlite3_malloc64(count * sizeof *prompt);
    if (prompt == NULL) return error->code = PHI4FLASH_OUT_OF_MEMORY;
    const phi4flash_session_options room = {.size = sizeof room, .context = count + max_tokens};
    q->of = c;
    q->event.size = sizeof q->event;
    code = phi4flash_tokenizer_encode_chat(c->tokenizer, &message, 1, NULL, prompt, count, &count, error);
    if (code == PHI4FLASH_OK) code = phi4flash_session_create(c->model, &room, &q->session, error);
    if (code == PHI4FLASH_OK) code = phi4flash_generation_create(c->workspace, c->tokenizer, &options, &q->generation, error);
    if (code == PHI4FLASH_OK) code = phi4flash_generation_start(q->generation, q->session, prompt, count, error);
    sqlite3_free(prompt);
    if (code != PHI4FLASH_OK) end_question(q);
    return code;
}

/* Until a token has been chosen, the text has ended, or the connection is interrupted (PHI4FLASH_CANCELLED). */
static phi4flash_code next_token(question* q, phi4flash_error* error) {
    const phi4flash_budget until = {.size = sizeof until, .user = q->of, .stop = interrupted};
    do {
        const phi4flash_code code = phi4flash_generation_advance(q->generation, &until, &q->event, error);
        if (code != PHI4FLASH_OK) return code;
        if (q->event.kind == PHI4FLASH_EVENT_NONE) return PHI4FLASH_CANCELLED; /* the session goes with the question: nothing is to be saved */
    } while (q->event.kind == PHI4FLASH_EVENT_PROMPT);
    return PHI4FLASH_OK;
}

static int sqlite_code(phi4flash_code code) {
    return code == PHI4FLASH_OUT_OF_MEMORY ? SQLITE_NOMEM : code == PHI4FLASH_CANCELLED ? SQLITE_INTERRUPT : SQLITE_ERROR;
}

static uint64_t tokens_of(sqlite3_value* given) {
    const sqlite3_int64 n = given == NULL || sqlite3_value_type(given) == SQLITE_NULL ? 1024 : sqlite3_value_int64(given);
    return n < 1 ? 1 : n > 1000000 ? 1000000 : (uint64_t)n;
}

/* ---- phi4flash(question), phi4flash_open(path) --------------------------------------------------------------------------------------- */

static void result_failure(sqlite3_context* to, phi4flash_code code, const phi4flash_error* error) {
    if (sqlite_code(code) == SQLITE_ERROR) sqlite3_result_error(to, error->message, -1);
    else sqlite3_result_error_code(to, sqlite_code(code));
}

static void answer_function(sqlite3_context* to, int n, sqlite3_value** given) {
    question q = {.of = NULL};
    phi4flash_error error;
    const char* const text = (const char*)sqlite3_value_text(given[0]);
    if (text == NULL) return; /* null for null */
    phi4flash_code code =
        begin_question(sqlite3_user_data(to), text, (size_t)sqlite3_value_bytes(given[0]), tokens_of(n > 1 ? given[1] : NULL), &q, &error);
    if (code != PHI4FLASH_OK) {
        result_failure(to, code, &error);
        return;
    }
    sqlite3_str* const all = sqlite3_str_new(q.of->db);
    do {
        code = next_token(&q, &error);
        if (code == PHI4FLASH_OK) sqlite3_str_append(all, q.event.text, (int)q.event.text_length);
    } while (code == PHI4FLASH_OK && q.event.kind != PHI4FLASH_EVENT_END);
    if (code == PHI4FLASH_OK && sqlite3_str_errcode(all) != SQLITE_OK) /* no memory, or too long for a value */
        code = sqlite3_str_errcode(all) == SQLITE_NOMEM ? PHI4FLASH_OUT_OF_MEMORY
                                                        : (strcpy(error.message, "the answer is too long"), PHI4FLASH_INVALID_ARGUMENT);
    const int length = sqlite3_str_length(all);
    char* const answer = sqlite3_str_finish(all);
    if (code != PHI4FLASH_OK) {
        sqlite3_free(answer);
        result_failure(to, code, &error);
    } else if (answer == NULL) {
        sqlite3_result_text(to, "", 0, SQLITE_STATIC);
    } else {
        sqlite3_result_text(to, answer, length, sqlite3_free);
    }
    end_question(&q);
}

static void open_function(sqlite3_context* to, int n, sqlite3_value** given) {
    connection* const c = sqlite3_user_data(to);
    phi4flash_error error;
    const char* const path = (const char*)sqlite3_value_text(given[0]);
    const int threads = n > 1 ? sqlite3_value_int(given[1]) : 0;
    if (path == NULL) return;
    const phi4flash_code code = open_model(c, path, threads > 0 ? (uint32_t)threads : PHI4FLASH_ALL_CORES, &error);
    if (code != PHI4FLASH_OK) result_failure(to, code, &error);
    else sqlite3_result_text(to, path, -1, SQLITE_TRANSIENT);
}

/* ---- phi4flash_tokens(question) ------------------------------------------------------------------------------------------------------- */

enum { column_position, column_token, column_text, column_question, column_max_tokens };

typedef struct tokens_table {
    sqlite3_vtab base;
    connection* of;
} tokens_table;

typedef struct tokens_cursor {
    sqlite3_vtab_cursor base;
    question q;
    sqlite3_int64 row;
    sqlite3_value* given[2]; /* question and max_tokens: SQLite looks at these columns too, where several are asked for */
} tokens_cursor;

static int table_connect(sqlite3* db, void* given, int n, const char* const* arguments, sqlite3_vtab** out, char** error) {
    (void)n, (void)arguments, (void)error;
    const int code = sqlite3_declare_vtab(db, "create table x(position integer, token integer, text text, question hidden, max_tokens hidden)");
    if (code != SQLITE_OK) return code;
    tokens_table* const t = sqlite3_malloc(sizeof *t);
    if (t == NULL) return SQLITE_NOMEM;
    memset(t, 0, sizeof *t);
    t->of = given;
    *out = &t->base;
    return SQLITE_OK;
}

static int table_disconnect(sqlite3_vtab* t) {
    sqlite3_free(t);
    return SQLITE_OK;
}

/* idxNum: 1 the question is given, 2 the number of tokens too. */
static int table_best_index(sqlite3_vtab* t, sqlite3_index_info* info) {
    int at[2] = {-1, -1};
    for (int i = 0; i < info->nConstraint; ++i) {
        const int argument = info->aConstraint[i].iColumn - column_question;
        if (argument < 0 || info->aConstraint[i].op != SQLITE_INDEX_CONSTRAINT_EQ) continue;
        if (!info->aConstraint[i].usable) return SQLITE_CONSTRAINT; /* given by a table that comes later: another order */
        at[argument] = i;
    }
    if (at[0] < 0) {
        sqlite3_free(t->zErrMsg);
        t->zErrMsg = sqlite3_mprintf("phi4flash_tokens wants a question: select text from phi4flash_tokens('What is 347 + 285?')");
        return SQLITE_ERROR;
    }
    for (int i = 0; i < 2; ++i) {
        if (at[i] < 0) continue;
        info->idxNum |= 1 << i;
        info->aConstraintUsage[at[i]].argvIndex = i + 1;
        info->aConstraintUsage[at[i]].omit = 1;
    }
    info->estimatedCost = 1e9; /* answers are dear: ask once */
    return SQLITE_OK;
}

static int cursor_open(sqlite3_vtab* t, sqlite3_vtab_cursor** out) {
    (void)t;
    tokens_cursor* const c = sqlite3_malloc(sizeof *c);
    if (c == NULL) return SQLITE_NOMEM;
    memset(c, 0, sizeof *c);
    *out = &c->base;
    return SQLITE_OK;
}

static void end_cursor(tokens_cursor* c) {
    end_question(&c->q);
    memset(&c->q, 0, sizeof c->q);
    for (int i = 0; i < 2; ++i) {
        sqlite3_value_free(c->given[i]);
        c->given[i] = NULL;
    }
}

static int cursor_close(sqlite3_vtab_cursor* given) {
    end_cursor((tokens_cursor*)given);
    sqlite3_free(given);
    return SQLITE_OK;
}

static int failed_cursor(tokens_cursor* c, phi4flash_code code, const phi4flash_error* error) {
    if (sqlite_code(code) == SQLITE_ERROR) {
        sqlite3_free(c->base.pVtab->zErrMsg);
        c->base.pVtab->zErrMsg = sqlite3_mprintf("%s", error->message);
    }
    return sqlite_code(code);
}

static int cursor_next(sqlite3_vtab_cursor* given) {
    tokens_cursor* const c = (tokens_cursor*)given;
    phi4flash_error error;
    ++c->row;
    if (c->q.event.kind == PHI4FLASH_EVENT_END) { /* that was the last row */
        end_question(&c->q);
        return SQLITE_OK;
    }
    const phi4flash_code code = next_token(&c->q, &error);
    if (code != PHI4FLASH_OK) return failed_cursor(c, code, &error);
    if (c->q.event.kind == PHI4FLASH_EVENT_END && c->q.event.text_length == 0) end_question(&c->q);
    return SQLITE_OK;
}

static int cursor_filter(sqlite3_vtab_cursor* given, int index, const char* name, int n, sqlite3_value** arguments) {
    (void)name;
    tokens_cursor* const c = (tokens_cursor*)given;
    connection* const of = ((tokens_table*)given->pVtab)->of;
    phi4flash_error error;
    end_cursor(c);
    c->row = -1;
    for (int i = 0; i < n; ++i)
        if ((c->given[i] = sqlite3_value_dup(arguments[i])) == NULL) return SQLITE_NOMEM;
    const char* const text = (const char*)sqlite3_value_text(arguments[0]);
    if (text == NULL) return SQLITE_OK; /* no rows */
    const phi4flash_code code =
        begin_question(of, text, (size_t)sqlite3_value_bytes(arguments[0]), tokens_of(index & 2 ? arguments[1] : NULL), &c->q, &error);
    return code == PHI4FLASH_OK ? cursor_next(given) : failed_cursor(c, code, &error);
}

static int cursor_eof(sqlite3_vtab_cursor* given) { return ((tokens_cursor*)given)->q.generation == NULL; }

static int cursor_column(sqlite3_vtab_cursor* given, sqlite3_context* to, int column) {
    const tokens_cursor* const c = (tokens_cursor*)given;
    if (column == column_position) sqlite3_result_int64(to, c->row);
    if (column == column_token && c->q.event.token >= 0) sqlite3_result_int(to, c->q.event.token);
    if (column == column_text) sqlite3_result_text(to, c->q.event.text, (int)c->q.event.text_length, SQLITE_TRANSIENT);
    if (column >= column_question && c->given[column - column_question] != NULL) sqlite3_result_value(to, c->given[column - column_question]);
    return SQLITE_OK;
}

static int cursor_rowid(sqlite3_vtab_cursor* given, sqlite3_int64* row) {
    *row = ((tokens_cursor*)given)->row;
    return SQLITE_OK;
}

static const sqlite3_module tokens_module = {
    .iVersion = 0, /* without xCreate: a function in place of a table, and nothing else */
    .xConnect = table_connect,
    .xBestIndex = table_best_index,
    .xDisconnect = table_disconnect,
    .xOpen = cursor_open,
    .xClose = cursor_close,
    .xFilter = cursor_filter,
    .xNext = cursor_next,
    .xEof = cursor_eof,
    .xColumn = cursor_column,
    .xRowid = cursor_rowid,
};

/* ---- entry ------------------------------------------------------------------------------------------------------------------------------ */

/* The name that SQLite looks for: sqlite3_ and the file's letters up to the first dot. */
int sqlite3_phiflashsqlite_init(sqlite3* db, char** error, const sqlite3_api_routines* api) {
    SQLITE_EXTENSION_INIT2(api);
    (void)error;
    connection* const c = sqlite3_malloc(sizeof *c);
    if (c == NULL) return SQLITE_NOMEM;
    memset(c, 0, sizeof *c);
    c->db = db;
    c->users = 1; /* this function, so that a failure in between destroys it once */
    int code = SQLITE_OK;
    static const struct {
        const char* name;
        int arguments, flags;
        void (*function)(sqlite3_context*, int, sqlite3_value**);
    } functions[] = {{"phi4flash", 1, SQLITE_UTF8, answer_function},
                     {"phi4flash", 2, SQLITE_UTF8, answer_function},
                     {"phi4flash_open", 1, SQLITE_UTF8 | SQLITE_DIRECTONLY, open_function},
                     {"phi4flash_open", 2, SQLITE_UTF8 | SQLITE_DIRECTONLY, open_function}};
    for (size_t i = 0; i < sizeof functions / sizeof functions[0] && code == SQLITE_OK; ++i) {
        ++c->users;
        code = sqlite3_create_function_v2(db, functions[i].name, functions[i].arguments, functions[i].flags, c, functions[i].function, NULL, NULL,
                                          drop_connection);
    }
    if (code == SQLITE_OK) {
        ++c->users;
        code = sqlite3_create_module_v2(db, "phi4flash_tokens", &tokens_module, c, drop_connection);
    }
    drop_connection(c);
    return code;
}
