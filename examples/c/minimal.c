/* The C API in one page: opens a model, asks one question, prints the answer as it comes, a few milliseconds at a time. */
#include <phi4flash/phi4flash.h>

#include <stdio.h>
#include <string.h>

static int failed(phi4flash_code code, const phi4flash_error* error) {
    if (code != PHI4FLASH_OK) fprintf(stderr, "%s: %s\n", phi4flash_code_name(code), error->message);
    return code != PHI4FLASH_OK;
}

/* Advances the text until it ends. A game draws a frame where this one goes on at once. */
static int print_answer(phi4flash_generation* generation) {
    const phi4flash_budget budget = {.size = sizeof budget, .microseconds = 4000};
    phi4flash_event event = {.size = sizeof event};
    phi4flash_error error;
    do {
        if (failed(phi4flash_generation_advance(generation, &budget, &event, &error), &error)) return 1;
        fwrite(event.text, 1, event.text_length, stdout);
    } while (event.kind != PHI4FLASH_EVENT_END);
    return puts("") == EOF;
}

int main(int argc, char** argv) {
    const char* path = argc > 1 ? argv[1] : "models/tiny-arithmetic";
    const char* question = argc > 2 ? argv[2] : "What is 347 + 285?";
    phi4flash_model* model = NULL;
    phi4flash_tokenizer* tokenizer = NULL;
    phi4flash_session* session = NULL;
    phi4flash_workspace* workspace = NULL;
    phi4flash_generation* generation = NULL;
    phi4flash_error error;

    const phi4flash_session_options room = {.size = sizeof room, .context = 2048};
    const phi4flash_workspace_options threads = {.size = sizeof threads, .threads = PHI4FLASH_ALL_CORES};
    const phi4flash_chat_message message = {
        .size = sizeof message, .role = "user", .role_length = 4, .content = question, .content_length = strlen(question)};
    int32_t prompt[1024];
    size_t length = 0;

    const int bad = failed(phi4flash_model_open(path, strlen(path), NULL, &model, &error), &error) ||
                    failed(phi4flash_tokenizer_open(model, &tokenizer, &error), &error) ||
                    failed(phi4flash_session_create(model, &room, &session, &error), &error) ||
                    failed(phi4flash_workspace_create(model, &threads, &workspace, &error), &error) ||
                    failed(phi4flash_generation_create(workspace, tokenizer, NULL, &generation, &error), &error) ||
                    failed(phi4flash_tokenizer_encode_chat(tokenizer, &message, 1, NULL, prompt, 1024, &length, &error), &error) ||
                    failed(phi4flash_generation_start(generation, session, prompt, length, &error), &error) || print_answer(generation);

    phi4flash_generation_destroy(generation); /* in any order; NULL is nothing */
    phi4flash_workspace_destroy(workspace);
    phi4flash_session_destroy(session);
    phi4flash_tokenizer_destroy(tokenizer);
    phi4flash_model_destroy(model);
    return bad;
}
