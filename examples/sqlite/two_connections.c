/* Two connections of one process ask at the same time, each from a thread of its own; one is interrupted in the middle of a question, and the other
 * one does not notice. At the end the extension is unloaded, and so is the C library.
 * usage: two_connections EXTENSION */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <pthread.h>
#include <sqlite3.h>
#include <stdio.h>
#include <string.h>

#define TIMES 5

static const char* extension;

static void expect(int ok, const char* what) {
    if (ok) return;
    fprintf(stderr, "failed: %s\n", what);
    _Exit(1);
}

static sqlite3* open_connection(void) {
    sqlite3* db = NULL;
    char* why = NULL;
    expect(sqlite3_open(":memory:", &db) == SQLITE_OK, "open a database");
    sqlite3_db_config(db, SQLITE_DBCONFIG_ENABLE_LOAD_EXTENSION, 1, NULL);
    sqlite3_load_extension(db, extension, NULL, &why);
    expect(why == NULL, why);
    return db;
}

/* The first column of the first row into `answer`; SQLite's code. */
static int ask(sqlite3* db, const char* sql, char* answer, size_t room) {
    sqlite3_stmt* statement = NULL;
    expect(sqlite3_prepare_v2(db, sql, -1, &statement, NULL) == SQLITE_OK, sql);
    const int code = sqlite3_step(statement);
    answer[0] = '\0';
    if (code == SQLITE_ROW) snprintf(answer, room, "%s", (const char*)sqlite3_column_text(statement, 0));
    sqlite3_finalize(statement);
    return code;
}

typedef struct sums {
    const char* sql;
    const char* box;
    pthread_barrier_t* together;
} sums;

static void* ask_sums(void* given) {
    const sums* const s = given;
    sqlite3* const db = open_connection();
    char answer[4096];
    for (int i = 0; i < TIMES; ++i) {
        pthread_barrier_wait(s->together);
        expect(ask(db, s->sql, answer, sizeof answer) == SQLITE_ROW, s->sql);
        expect(strstr(answer, s->box) != NULL, answer);
    }
    expect(sqlite3_close(db) == SQLITE_OK, "close");
    return NULL;
}

/* 80,000 bytes of prompt: seconds, all of them within one call of the function. */
static const char long_question[] = "select phi4flash(replace(hex(zeroblob(20000)), '00', '1+1 '))";

static void* ask_long(void* given) {
    char answer[4096];
    return ask(given, long_question, answer, sizeof answer) == SQLITE_INTERRUPT ? given : NULL;
}

int main(int argc, char** argv) {
    expect(argc == 2, "usage: two_connections EXTENSION");
    extension = argv[1];
    pthread_barrier_t together;
    pthread_barrier_init(&together, NULL, 2);
    sums of[2] = {{"select phi4flash('What is 347 + 285?')", "boxed{632}", &together},
                  {"select phi4flash('What is 12 + 30?')", "boxed{42}", &together}};
    pthread_t threads[2];
    for (int i = 0; i < 2; ++i) pthread_create(&threads[i], NULL, ask_sums, &of[i]);
    for (int i = 0; i < 2; ++i) pthread_join(threads[i], NULL);

    sqlite3* const interrupted = open_connection();
    sqlite3* const other = open_connection();
    char answer[4096];
    void* told = NULL;
    expect(ask(interrupted, of[1].sql, answer, sizeof answer) == SQLITE_ROW, "a question before");
    pthread_create(&threads[0], NULL, ask_long, interrupted);
    sqlite3_sleep(200);
    expect(ask(other, of[0].sql, answer, sizeof answer) == SQLITE_ROW && strstr(answer, of[0].box) != NULL, "a question meanwhile");
    sqlite3_interrupt(interrupted);
    pthread_join(threads[0], &told);
    expect(told == interrupted, "SQLITE_INTERRUPT of the long question");
    expect(ask(interrupted, of[0].sql, answer, sizeof answer) == SQLITE_ROW && strstr(answer, of[0].box) != NULL, "a question afterwards");
    expect(sqlite3_close(interrupted) == SQLITE_OK && sqlite3_close(other) == SQLITE_OK, "close");
    expect(dlopen(extension, RTLD_LAZY | RTLD_NOLOAD) == NULL, "the extension is unloaded");
    expect(dlopen("libphi4flash-c.so.0", RTLD_LAZY | RTLD_NOLOAD) == NULL, "the C library is unloaded");
    puts("two connections at once: answers, an interrupt, unloaded");
    return 0;
}
