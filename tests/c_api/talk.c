/* A program in C that talks with the bundled model: right sums, in pieces, cancelled, saved, restored, forked. C11; the compiler of C++ takes it too.
 *
 *     talk MODEL */
#include <phi4flash/phi4flash.h>

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static int failures = 0;

static void expect(int good, const char* what, const char* have) {
    if (good) return;
    ++failures;
    fprintf(stderr, "talk: want %s, have %s\n", what, have);
}

static void ok(phi4flash_code code, const phi4flash_error* error, const char* what) {
    if (code == PHI4FLASH_OK) return;
    fprintf(stderr, "talk: %s: %s: %s\n", what, phi4flash_code_name(code), error->message);
    exit(1);
}
#define OK(call) ok((call), &error, #call)

typedef struct talk {
    phi4flash_model* model;
    phi4flash_tokenizer* tokenizer;
    phi4flash_session* session;
    phi4flash_workspace* workspace;
    phi4flash_generation* generation;
    char text[2000];
    size_t length;
    int pieces;
} talk;

static void set_up(talk* t, const char* path) {
    phi4flash_error error;
    phi4flash_session_options room;
    phi4flash_generation_options options;
    memset(t, 0, sizeof *t);
    memset(&room, 0, sizeof room);
    memset(&options, 0, sizeof options);
    room.size = sizeof room;
    room.context = 512;
    options.size = sizeof options; /* the rest is zero: greedy */
    OK(phi4flash_model_open(path, strlen(path), NULL, &t->model, &error));
    OK(phi4flash_tokenizer_open(t->model, &t->tokenizer, &error));
    OK(phi4flash_session_create(t->model, &room, &t->session, &error));
    OK(phi4flash_workspace_create(t->model, NULL, &t->workspace, &error));
    OK(phi4flash_generation_create(t->workspace, t->tokenizer, &options, &t->generation, &error));
}

static void begin(talk* t, phi4flash_session* session, const char* question) {
    phi4flash_error error;
    phi4flash_chat_message message;
    int32_t prompt[256];
    size_t count = 0;
    memset(&message, 0, sizeof message);
    message.size = sizeof message;
    message.role = "user";
    message.role_length = 4;
    message.content = question;
    message.content_length = strlen(question);
    OK(phi4flash_tokenizer_encode_chat(t->tokenizer, &message, 1, NULL, prompt, 256, &count, &error));
    OK(phi4flash_generation_start(t->generation, session, prompt, count, &error));
    t->length = 0;
    t->pieces = 0;
    t->text[0] = '\0';
}

/* Until so many tokens have come, or the end. How the text ended, or -1. */
static int go_on(talk* t, int tokens, const phi4flash_budget* budget) {
    phi4flash_error error;
    phi4flash_event event;
    memset(&event, 0, sizeof event);
    event.size = sizeof event;
    for (;;) {
        OK(phi4flash_generation_advance(t->generation, budget, &event, &error));
        ++t->pieces;
        if (t->length + event.text_length < sizeof t->text) {
            memcpy(t->text + t->length, event.text, event.text_length + 1);
            t->length += event.text_length;
        }
        if (event.kind == PHI4FLASH_EVENT_END) return (int)event.reason;
        if (event.kind == PHI4FLASH_EVENT_TOKEN && --tokens == 0) return -1;
    }
}

static int32_t at_once(void* user) {
    (void)user;
    return 1;
}

static void sums(talk* t) {
    static const struct {
        const char* question;
        const char* answer;
    } all[] = {{"What is 347 + 285?", "\\boxed{632}"}, {"What is 12 + 30?", "\\boxed{42}"}, {"What is 999 + 1?", "\\boxed{1000}"}};
    phi4flash_error error;
    phi4flash_budget budget;
    char whole[2000];
    size_t i;
    memset(&budget, 0, sizeof budget);
    budget.size = sizeof budget;
    budget.stop = at_once;
    for (i = 0; i < sizeof all / sizeof *all; ++i) {
        OK(phi4flash_session_reset(t->session, &error));
        begin(t, t->session, all[i].question);
        expect(go_on(t, 1000, NULL) == PHI4FLASH_END_STOP_TOKEN, "an end by itself", t->text);
        expect(strstr(t->text, all[i].answer) != NULL, all[i].answer, t->text);
        memcpy(whole, t->text, sizeof whole);

        OK(phi4flash_session_reset(t->session, &error));
        begin(t, t->session, all[i].question);
        go_on(t, 1000, &budget);
        expect(strcmp(whole, t->text) == 0, whole, t->text);
        expect(t->pieces > 100, "many pieces", "few");
    }
}

static void cancelled(talk* t) {
    phi4flash_error error;
    OK(phi4flash_session_reset(t->session, &error));
    begin(t, t->session, "What is 347 + 285?");
    go_on(t, 5, NULL);
    OK(phi4flash_generation_cancel(t->generation, &error));
    expect(go_on(t, 1000, NULL) == PHI4FLASH_END_CANCELLED, "cancelled", t->text);
}

static void saved_and_forked(talk* t) {
    phi4flash_error error;
    phi4flash_session* fork = NULL;
    phi4flash_session* restored = NULL;
    phi4flash_session_options room;
    phi4flash_generation_info info;
    uint64_t bytes = 0;
    size_t written = 0;
    char begun[2000];
    char whole[2000];
    void* memory;
    int i;
    memset(&room, 0, sizeof room);
    room.size = sizeof room;
    room.context = 300;
    memset(&info, 0, sizeof info);
    info.size = sizeof info;
    OK(phi4flash_session_reset(t->session, &error));
    begin(t, t->session, "What is 347 + 285?");
    go_on(t, 7, NULL);
    memcpy(begun, t->text, sizeof begun);
    OK(phi4flash_generation_get_info(t->generation, &info, &error));
    OK(phi4flash_session_fork(t->session, NULL, &fork, &error));
    OK(phi4flash_session_get_snapshot_bytes(t->session, PHI4FLASH_ALL_UNDO, &bytes, &error));
    memory = malloc((size_t)bytes);
    OK(phi4flash_session_save(t->session, PHI4FLASH_ALL_UNDO, memory, (size_t)bytes, &written, &error));
    go_on(t, 1000, NULL);
    memcpy(whole, t->text, sizeof whole);
    OK(phi4flash_session_create(t->model, &room, &restored, &error));
    OK(phi4flash_session_restore(restored, memory, written, &error));
    for (i = 0; i < 2; ++i) {
        OK(phi4flash_generation_start(t->generation, i == 0 ? fork : restored, &info.unread, 1, &error));
        t->length = 0;
        go_on(t, 1000, NULL);
        expect(strncmp(whole, begun, strlen(begun)) == 0 && strcmp(whole + strlen(begun), t->text) == 0, whole + strlen(begun), t->text);
    }
    free(memory);
    phi4flash_session_destroy(fork);
    phi4flash_session_destroy(restored);
}

int main(int argc, char** argv) {
    talk t;
    if (argc != 2) return 2;
    set_up(&t, argv[1]);
    sums(&t);
    cancelled(&t);
    saved_and_forked(&t);
    phi4flash_model_destroy(t.model); /* first, as nobody could know in what order */
    phi4flash_tokenizer_destroy(t.tokenizer);
    phi4flash_session_destroy(t.session);
    phi4flash_workspace_destroy(t.workspace);
    phi4flash_generation_destroy(t.generation);
    if (failures == 0) puts("talk: all as it should be");
    return failures != 0;
}
