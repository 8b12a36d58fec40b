/// The C API (phi4flash.h), compiled: the one file to add to a program that has no C++ of its own. It brings the kernels along; where they are
/// compiled in other files (src/kernels.cpp and src/library.cpp), set PHI4FLASH_COMPILE_ONCE=1 for this one.
///
/// Here are the functions and nothing else: each finds its handles and structs (handle.hpp, structs.hpp) and hands over to c_api/.
#if !defined(PHI4FLASH_COMPILE_ONCE)
#define PHI4FLASH_COMPILE_ONCE 1
#define PHI4FLASH_IMPLEMENTATION 1
#endif
#include "c_api/generation.hpp"
#include "c_api/prefix_cache.hpp"
#include "c_api/scheduler.hpp"

using namespace phi4flash::c_api;
namespace p4 = phi4flash;

// ---- the library -----------------------------------------------------------------------------------------------------------------

const char* phi4flash_code_name(phi4flash_code code) {
    switch (code) {
        case PHI4FLASH_OK: return "ok";
        case PHI4FLASH_INVALID_ARGUMENT: return "invalid_argument";
        case PHI4FLASH_OUT_OF_MEMORY: return "out_of_memory";
        case PHI4FLASH_CONTEXT_FULL: return "context_full";
        case PHI4FLASH_CANCELLED: return "cancelled";
        case PHI4FLASH_UNKNOWN_TARGET: return "unknown_target";
        case PHI4FLASH_IN_USE: return "in_use";
        case PHI4FLASH_BUFFER_TOO_SMALL: return "buffer_too_small";
        case PHI4FLASH_HOST_FAILED: return "host_failed";
        case PHI4FLASH_HOST_EXCEPTION: return "host_exception";
        case PHI4FLASH_NOT_SUPPORTED: return "not_supported";
        case PHI4FLASH_WRONG_CHECKSUM: return "wrong_checksum";
        case PHI4FLASH_WRONG_WEIGHTS: return "wrong_weights";
        case PHI4FLASH_FILE_NOT_FOUND: return "file_not_found";
        case PHI4FLASH_FILE_UNREADABLE: return "file_unreadable";
        case PHI4FLASH_FILE_EMPTY: return "file_empty";
        case PHI4FLASH_FILE_UNWRITABLE: return "file_unwritable";
        case PHI4FLASH_PATH_OUTSIDE_FOLDER: return "path_outside_folder";
        case PHI4FLASH_FILE_TOO_LARGE: return "file_too_large";
        case PHI4FLASH_FILE_INCOMPLETE: return "file_incomplete";
        case PHI4FLASH_WRONG_FILE_KIND: return "wrong_file_kind";
        case PHI4FLASH_BAD_JSON: return "bad_json";
        case PHI4FLASH_BAD_TENSORS: return "bad_tensors";
        case PHI4FLASH_BAD_FORMAT: return "bad_format";
        case PHI4FLASH_UNSUPPORTED_VERSION: return "unsupported_version";
        case PHI4FLASH_BAD_VALUE: return "bad_value";
        case PHI4FLASH_TRAILING_BYTES: return "trailing_bytes";
        case PHI4FLASH_BAD_CHECKPOINT: return "bad_checkpoint";
        case PHI4FLASH_WRONG_SHAPE: return "wrong_shape";
        case PHI4FLASH_WRONG_DTYPE: return "wrong_dtype";
        case PHI4FLASH_UNSUPPORTED_MODEL: return "unsupported_model";
        case PHI4FLASH_NOT_FINITE: return "not_finite";
        case PHI4FLASH_BAD_TOKENIZER: return "bad_tokenizer";
        case PHI4FLASH_UNKNOWN_TOKEN: return "unknown_token";
        case PHI4FLASH_BAD_CHAT_MESSAGE: return "bad_chat_message";
        default: return "unknown";
    }
}

const char* phi4flash_version(void) { return PHI4FLASH_VERSION_STRING; }
uint32_t phi4flash_api_version(void) { return 2; }
uint32_t phi4flash_default_concurrency(void) { return static_cast<uint32_t>(p4::default_concurrency()); }

// ---- models ----------------------------------------------------------------------------------------------------------------------

phi4flash_code phi4flash_model_open(const char* path, size_t path_length, const phi4flash_model_options* options, phi4flash_model** out,
                                    phi4flash_error* error) {
    return entry(error, [&]() -> outcome {
        std::string_view where;
        if (outcome ok = check_out_handle(out); !ok) return ok;
        if (path == nullptr) return missing("path");
        if (outcome ok = read_text(path, path_length, where, "path"); !ok) return ok;
        return open_model(where, options, out);
    });
}

phi4flash_code phi4flash_model_open_files(const phi4flash_file* files, size_t count, const phi4flash_model_options* options, phi4flash_model** out,
                                          phi4flash_error* error) {
    return entry(error, [&]() -> outcome {
        if (outcome ok = check_out_handle(out); !ok) return ok;
        return open_model_files(files, count, options, out);
    });
}

void phi4flash_model_destroy(phi4flash_model* model) { destroy_handle<model_handle>(model); }

phi4flash_code phi4flash_model_get_info(const phi4flash_model* model, phi4flash_model_info* info, phi4flash_error* error) {
    return entry(error, [&]() -> outcome {
        ref<model_handle> m;
        if (outcome ok = find_handle(model, m, "model"); !ok) return ok;
        if (outcome ok = check_out(info, "info"); !ok) return ok;
        fill_struct(info, info_of(*m));
        return {};
    });
}

// ---- tokenizers and chat ------------------------------------------------------------------------------------------------------------

phi4flash_code phi4flash_tokenizer_open(phi4flash_model* model, phi4flash_tokenizer** out, phi4flash_error* error) {
    return entry(error, [&]() -> outcome {
        ref<model_handle> m;
        if (outcome ok = check_out_handle(out); !ok) return ok;
        if (outcome ok = find_handle(model, m, "model"); !ok) return ok;
        return finish_tokenizer(m->memory(), m->source.open_tokenizer(), out);
    });
}

phi4flash_code phi4flash_tokenizer_open_json(const char* json, size_t length, const phi4flash_allocator* allocator, phi4flash_tokenizer** out,
                                             phi4flash_error* error) {
    return entry(error, [&]() -> outcome {
        std::string_view text;
        if (outcome ok = check_out_handle(out); !ok) return ok;
        if (json == nullptr) return missing("json");
        if (outcome ok = read_text(json, length, text, "json"); !ok) return ok;
        return open_tokenizer_text(text, allocator, out);
    });
}

void phi4flash_tokenizer_destroy(phi4flash_tokenizer* tokenizer) { destroy_handle<tokenizer_handle>(tokenizer); }

phi4flash_code phi4flash_tokenizer_get_info(const phi4flash_tokenizer* tokenizer, phi4flash_tokenizer_info* info, phi4flash_error* error) {
    return entry(error, [&]() -> outcome {
        ref<tokenizer_handle> t;
        if (outcome ok = find_handle(tokenizer, t, "tokenizer"); !ok) return ok;
        if (outcome ok = check_out(info, "info"); !ok) return ok;
        const p4::added_token* const end = p4::end_of_message(t->words);
        phi4flash_tokenizer_info about{};
        about.end_of_message = end == nullptr ? -1 : static_cast<int32_t>(end->id);
        about.vocabulary = t->words.vocab_size();
        fill_struct(info, about);
        return {};
    });
}

phi4flash_code phi4flash_tokenizer_get_bytes(const phi4flash_tokenizer* tokenizer, int32_t token, const char** bytes, size_t* length,
                                             phi4flash_error* error) {
    return entry(error, [&]() -> outcome {
        ref<tokenizer_handle> t;
        if (outcome ok = find_handle(tokenizer, t, "tokenizer"); !ok) return ok;
        if (bytes == nullptr) return missing("bytes");
        if (length == nullptr) return missing("length");
        *bytes = nullptr;
        *length = 0;
        const std::string_view text = t->words.bytes_of(token);
        if (text.empty())
            return outcome::failed(PHI4FLASH_UNKNOWN_TOKEN, "token %ld: no id of this tokenizer's that has a string", static_cast<long>(token));
        *bytes = text.data();
        *length = text.size();
        return {};
    });
}

phi4flash_code phi4flash_tokenizer_encode(const phi4flash_tokenizer* tokenizer, const char* text, size_t length, uint32_t markers, int32_t* ids,
                                          size_t capacity, size_t* count, phi4flash_error* error) {
    return entry(error, [&]() -> outcome {
        ref<tokenizer_handle> t;
        std::string_view words;
        if (outcome ok = check_room(ids, capacity, count, "ids", "count"); !ok) return ok;
        if (outcome ok = find_handle(tokenizer, t, "tokenizer"); !ok) return ok;
        if (outcome ok = read_text(text, length, words, "text"); !ok) return ok;
        if (outcome ok = check_choice(markers, 2, "markers"); !ok) return ok;
        std::vector<std::int32_t> made;
        if (const p4::status ok = t->words.encode(words, {markers_of(markers)}, made); !ok) return ok;
        return give_out(made, ids, capacity, count, 0, "ids");
    });
}

phi4flash_code phi4flash_tokenizer_decode(const phi4flash_tokenizer* tokenizer, const int32_t* ids, size_t count, uint32_t skip_special, char* text,
                                          size_t capacity, size_t* length, phi4flash_error* error) {
    return entry(error, [&]() -> outcome {
        ref<tokenizer_handle> t;
        std::span<const std::int32_t> tokens;
        if (outcome ok = check_room(text, capacity, length, "text", "length"); !ok) return ok;
        if (outcome ok = find_handle(tokenizer, t, "tokenizer"); !ok) return ok;
        if (outcome ok = read_array(ids, count, tokens, "ids"); !ok) return ok;
        if (outcome ok = check_choice(skip_special, 2, "skip_special"); !ok) return ok;
        std::string made;
        if (const p4::status ok = t->words.decode(tokens, {.skip_special = skip_special != 0}, made); !ok) return ok;
        return give_out(made, text, capacity, length, 1, "text");
    });
}

phi4flash_code phi4flash_tokenizer_encode_chat(const phi4flash_tokenizer* tokenizer, const phi4flash_chat_message* messages, size_t n_messages,
                                               const phi4flash_chat_options* options, int32_t* ids, size_t capacity, size_t* count,
                                               phi4flash_error* error) {
    return entry(error, [&]() -> outcome {
        ref<tokenizer_handle> t;
        chat all;
        if (outcome ok = check_room(ids, capacity, count, "ids", "count"); !ok) return ok;
        if (outcome ok = find_handle(tokenizer, t, "tokenizer"); !ok) return ok;
        if (outcome ok = read_chat(messages, n_messages, options, all); !ok) return ok;
        p4::encoder encoder(t->words, 1);
        std::vector<std::int32_t> made;
        if (const p4::status ok = p4::encode_chat(encoder, all.messages, all.options, made); !ok) return ok;
        return give_out(made, ids, capacity, count, 0, "ids");
    });
}

phi4flash_code phi4flash_render_chat(const phi4flash_chat_message* messages, size_t n_messages, const phi4flash_chat_options* options, char* text,
                                     size_t capacity, size_t* length, phi4flash_error* error) {
    return entry(error, [&]() -> outcome {
        chat all;
        if (outcome ok = check_room(text, capacity, length, "text", "length"); !ok) return ok;
        if (outcome ok = read_chat(messages, n_messages, options, all); !ok) return ok;
        std::string made;
        if (const p4::status ok = p4::render_chat(all.messages, all.options, made); !ok) return ok;
        return give_out(made, text, capacity, length, 1, "text");
    });
}

// ---- sessions ------------------------------------------------------------------------------------------------------------------------

phi4flash_code phi4flash_session_get_bytes(const phi4flash_model* model, const phi4flash_session_options* options, uint64_t* bytes,
                                           phi4flash_error* error) {
    return entry(error, [&]() -> outcome {
        ref<model_handle> m;
        session_choices how;
        if (outcome ok = find_handle(model, m, "model"); !ok) return ok;
        if (bytes == nullptr) return missing("bytes");
        if (outcome ok = read_session_options(options, m->memory(), how); !ok) return ok;
        *bytes = session_bytes(*m, how);
        return {};
    });
}

phi4flash_code phi4flash_session_create(phi4flash_model* model, const phi4flash_session_options* options, phi4flash_session** out,
                                        phi4flash_error* error) {
    return entry(error, [&]() -> outcome {
        ref<model_handle> m;
        session_choices how;
        ref<session_handle> made;
        if (outcome ok = check_out_handle(out); !ok) return ok;
        if (outcome ok = find_handle(model, m, "model"); !ok) return ok;
        if (outcome ok = read_session_options(options, m->memory(), how); !ok) return ok;
        if (outcome ok = make_session(m, how, made); !ok) return ok;
        give_handle(out, std::move(made));
        return {};
    });
}

phi4flash_code phi4flash_session_fork(phi4flash_session* session, const phi4flash_session_options* options, phi4flash_session** out,
                                      phi4flash_error* error) {
    return entry(error, [&]() -> outcome {
        held<session_handle> from;
        session_choices how;
        ref<session_handle> made;
        if (outcome ok = check_out_handle(out); !ok) return ok;
        if (outcome ok = from.take(session, "session"); !ok) return ok;
        how = {from->kv_type(), from->how, from->memory()};
        if (options != nullptr)
            if (outcome ok = read_session_options(options, from->memory(), how); !ok) return ok;
        if (outcome ok = make_session(from->of, how, made); !ok) return ok;
        if (outcome ok = copy_session(*made, *from); !ok) return ok;
        give_handle(out, std::move(made));
        return {};
    });
}

void phi4flash_session_destroy(phi4flash_session* session) { destroy_handle<session_handle>(session); }

phi4flash_code phi4flash_session_get_info(const phi4flash_session* session, phi4flash_session_info* info, phi4flash_error* error) {
    return entry(error, [&]() -> outcome {
        held<session_handle> s;
        if (outcome ok = s.take(session, "session"); !ok) return ok;
        if (outcome ok = check_out(info, "info"); !ok) return ok;
        fill_struct(info, info_of(*s));
        return {};
    });
}

phi4flash_code phi4flash_session_reset(phi4flash_session* session, phi4flash_error* error) {
    return entry(error, [&]() -> outcome {
        held<session_handle> s;
        if (outcome ok = s.take(session, "session"); !ok) return ok;
        return std::visit([](auto& state) -> outcome {
            if (state.busy())
                return outcome::failed(PHI4FLASH_IN_USE, "session: a pass reads into it; let its text go on to the next event, or cancel it");
            state.reset();
            return {};
        }, s->state);
    });
}

phi4flash_code phi4flash_session_rewind(phi4flash_session* session, uint64_t position, phi4flash_error* error) {
    return entry(error, [&]() -> outcome {
        held<session_handle> s;
        if (outcome ok = s.take(session, "session"); !ok) return ok;
        return std::visit([&](auto& state) -> outcome { return state.rewind(clamped(position)); }, s->state);
    });
}

phi4flash_code phi4flash_session_copy(phi4flash_session* session, phi4flash_session* from, phi4flash_error* error) {
    return entry(error, [&]() -> outcome {
        held<session_handle> to;
        held<session_handle> other;
        if (outcome ok = to.take(session, "session"); !ok) return ok;
        if (from == session) return {};
        if (outcome ok = other.take(from, "from"); !ok) return ok;
        return copy_session(*to, *other);
    });
}

phi4flash_code phi4flash_session_read(phi4flash_session* session, phi4flash_workspace* workspace, const int32_t* tokens, size_t count,
                                      const float** logits, phi4flash_error* error) {
    return entry(error, [&]() -> outcome {
        held<session_handle> s;
        held<workspace_handle> w;
        std::span<const std::int32_t> ids;
        if (logits != nullptr) *logits = nullptr;
        if (outcome ok = s.take(session, "session"); !ok) return ok;
        if (outcome ok = w.take(workspace, "workspace"); !ok) return ok;
        if (tokens == nullptr) return missing("tokens");
        if (outcome ok = read_array(tokens, count, ids, "tokens"); !ok) return ok;
        return read_tokens(*s, *w, ids, logits);
    });
}

// ---- snapshots -----------------------------------------------------------------------------------------------------------------------

phi4flash_code phi4flash_session_get_snapshot_bytes(const phi4flash_session* session, uint64_t undo, uint64_t* bytes, phi4flash_error* error) {
    return entry(error, [&]() -> outcome {
        held<session_handle> s;
        if (outcome ok = s.take(session, "session"); !ok) return ok;
        if (bytes == nullptr) return missing("bytes");
        *bytes = bytes_of_snapshot(*s, undo);
        return {};
    });
}

phi4flash_code phi4flash_session_save(phi4flash_session* session, uint64_t undo, void* memory, size_t capacity, size_t* written,
                                      phi4flash_error* error) {
    return entry(error, [&]() -> outcome {
        held<session_handle> s;
        if (outcome ok = check_room(static_cast<const char*>(memory), capacity, written, "memory", "written"); !ok) return ok;
        if (outcome ok = s.take(session, "session"); !ok) return ok;
        return save_to_memory(*s, undo, memory, capacity, written);
    });
}

phi4flash_code phi4flash_session_save_to(phi4flash_session* session, uint64_t undo, int32_t (*write)(void* user, const void* data, size_t bytes),
                                         void* user, phi4flash_error* error) {
    return entry(error, [&]() -> outcome {
        held<session_handle> s;
        if (outcome ok = s.take(session, "session"); !ok) return ok;
        if (write == nullptr) return missing("write");
        return save_to_host(*s, undo, write, user);
    });
}

phi4flash_code phi4flash_session_restore(phi4flash_session* session, const void* snapshot, size_t bytes, phi4flash_error* error) {
    return entry(error, [&]() -> outcome {
        held<session_handle> s;
        std::span<const std::byte> all;
        if (outcome ok = s.take(session, "session"); !ok) return ok;
        if (snapshot == nullptr) return missing("snapshot");
        if (outcome ok = read_array(static_cast<const std::byte*>(snapshot), bytes, all, "snapshot"); !ok) return ok;
        return restore_from_memory(*s, all);
    });
}

phi4flash_code phi4flash_session_restore_from(phi4flash_session* session, int32_t (*read)(void* user, void* into, size_t bytes), void* user,
                                              phi4flash_error* error) {
    return entry(error, [&]() -> outcome {
        held<session_handle> s;
        if (outcome ok = s.take(session, "session"); !ok) return ok;
        if (read == nullptr) return missing("read");
        return restore_from_host(*s, read, user);
    });
}

phi4flash_code phi4flash_snapshot_get_info(const void* snapshot, size_t bytes, phi4flash_snapshot_info* info, phi4flash_error* error) {
    return entry(error, [&]() -> outcome {
        std::span<const std::byte> all;
        if (snapshot == nullptr) return missing("snapshot");
        if (outcome ok = read_array(static_cast<const std::byte*>(snapshot), bytes, all, "snapshot"); !ok) return ok;
        if (outcome ok = check_out(info, "info"); !ok) return ok;
        const auto about = p4::inspect_snapshot(all);
        if (!about) return about.error();
        fill_struct(info, info_of(*about));
        return {};
    });
}

// ---- workspaces ----------------------------------------------------------------------------------------------------------------------

phi4flash_code phi4flash_workspace_get_bytes(const phi4flash_model* model, const phi4flash_workspace_options* options, uint64_t* bytes,
                                             phi4flash_error* error) {
    return entry(error, [&]() -> outcome {
        ref<model_handle> m;
        workspace_choices how;
        if (outcome ok = find_handle(model, m, "model"); !ok) return ok;
        if (bytes == nullptr) return missing("bytes");
        if (outcome ok = read_workspace_options(options, m->memory(), how); !ok) return ok;
        *bytes = workspace_bytes(*m, how);
        return {};
    });
}

phi4flash_code phi4flash_workspace_create(phi4flash_model* model, const phi4flash_workspace_options* options, phi4flash_workspace** out,
                                          phi4flash_error* error) {
    return entry(error, [&]() -> outcome {
        ref<model_handle> m;
        workspace_choices how;
        if (outcome ok = check_out_handle(out); !ok) return ok;
        if (outcome ok = find_handle(model, m, "model"); !ok) return ok;
        if (outcome ok = read_workspace_options(options, m->memory(), how); !ok) return ok;
        return make_workspace(m, how, out);
    });
}

void phi4flash_workspace_destroy(phi4flash_workspace* workspace) { destroy_handle<workspace_handle>(workspace); }

phi4flash_code phi4flash_workspace_get_info(const phi4flash_workspace* workspace, phi4flash_workspace_info* info, phi4flash_error* error) {
    return entry(error, [&]() -> outcome {
        held<workspace_handle> w;
        if (outcome ok = w.take(workspace, "workspace"); !ok) return ok;
        if (outcome ok = check_out(info, "info"); !ok) return ok;
        fill_struct(info, info_of(*w));
        return {};
    });
}

// ---- generation ------------------------------------------------------------------------------------------------------------------------

phi4flash_code phi4flash_generation_get_defaults(const phi4flash_model* model, phi4flash_generation_options* options, phi4flash_error* error) {
    return entry(error, [&]() -> outcome {
        ref<model_handle> m;
        if (outcome ok = find_handle(model, m, "model"); !ok) return ok;
        if (outcome ok = check_out(options, "options"); !ok) return ok;
        const auto own = own_options(*m, nullptr);
        if (!own) return own.error();
        fill_struct(options, defaults_of(*own));
        return {};
    });
}

phi4flash_code phi4flash_generation_create(phi4flash_workspace* workspace, phi4flash_tokenizer* tokenizer,
                                           const phi4flash_generation_options* options, phi4flash_generation** out, phi4flash_error* error) {
    return entry(error, [&]() -> outcome {
        ref<workspace_handle> w;
        ref<tokenizer_handle> words;
        generation_choices how;
        if (outcome ok = check_out_handle(out); !ok) return ok;
        if (outcome ok = find_handle(workspace, w, "workspace"); !ok) return ok;
        if (tokenizer != nullptr)
            if (outcome ok = find_handle(tokenizer, words, "tokenizer"); !ok) return ok;
        if (outcome ok = read_generation_options(options, *w, words.get(), how); !ok) return ok;
        auto made = make_handle<generation_handle>(w->memory(), w, words, std::move(how));
        if (!made) return made.error();
        if (outcome ok = (*made)->prepare(0); !ok) return ok;
        give_handle(out, *std::move(made));
        return {};
    });
}

void phi4flash_generation_destroy(phi4flash_generation* generation) { destroy_handle<generation_handle>(generation); }

phi4flash_code phi4flash_generation_start(phi4flash_generation* generation, phi4flash_session* session, const int32_t* prompt, size_t count,
                                          phi4flash_error* error) {
    return entry(error, [&]() -> outcome {
        generation_in_use g;
        held<session_handle> another;
        ref<session_handle> s;
        std::span<const std::int32_t> ids;
        if (outcome ok = g.take(generation); !ok) return ok;
        if (outcome ok = find_handle(session, s, "session"); !ok) return ok;
        if (s.get() != g.past.get())
            if (outcome ok = another.take(s, "session"); !ok) return ok;
        if (prompt == nullptr) return missing("prompt");
        if (outcome ok = read_array(prompt, count, ids, "prompt"); !ok) return ok;
        return g.of->start(s, ids);
    });
}

phi4flash_code phi4flash_generation_advance(phi4flash_generation* generation, const phi4flash_budget* budget, phi4flash_event* event,
                                            phi4flash_error* error) {
    return entry(error, [&]() -> outcome {
        generation_in_use g;
        phi4flash_budget how;
        if (outcome ok = check_out(event, "event"); !ok) return ok;
        if (outcome ok = read_budget(budget, how); !ok) return ok;
        if (outcome ok = g.take(generation); !ok) return ok;
        const auto happened = g.of->advance(time_budget(how));
        if (!happened) return happened.error();
        fill_struct(event, g.of->text.of(*happened, g.of->summary()));
        return {};
    });
}

phi4flash_code phi4flash_generation_cancel(phi4flash_generation* generation, phi4flash_error* error) {
    return entry(error, [&]() -> outcome {
        ref<generation_handle> g;
        if (outcome ok = find_handle(generation, g, "generation"); !ok) return ok;
        g->cancelled.store(true, std::memory_order_relaxed);
        return {};
    });
}

phi4flash_code phi4flash_generation_get_info(const phi4flash_generation* generation, phi4flash_generation_info* info, phi4flash_error* error) {
    return entry(error, [&]() -> outcome {
        held<generation_handle> g;
        if (outcome ok = g.take(generation, "generation"); !ok) return ok;
        if (outcome ok = check_out(info, "info"); !ok) return ok;
        const p4::generation_summary summary = g->summary();
        phi4flash_generation_info about{};
        about.running = g->running() ? 1 : 0;
        about.reason = event_text::reason_of(summary.reason);
        about.unread = summary.unread;
        about.prompt_tokens = summary.prompt_tokens;
        about.new_tokens = summary.new_tokens;
        about.drafted = summary.drafted;
        about.accepted = summary.accepted;
        fill_struct(info, about);
        return {};
    });
}

// ---- schedulers --------------------------------------------------------------------------------------------------------------------------

phi4flash_code phi4flash_scheduler_create(phi4flash_workspace* workspace, phi4flash_tokenizer* tokenizer, const phi4flash_scheduler_options* options,
                                          phi4flash_scheduler** out, phi4flash_error* error) {
    return entry(error, [&]() -> outcome {
        ref<workspace_handle> w;
        ref<tokenizer_handle> words;
        if (outcome ok = check_out_handle(out); !ok) return ok;
        if (outcome ok = find_handle(workspace, w, "workspace"); !ok) return ok;
        if (tokenizer != nullptr)
            if (outcome ok = find_handle(tokenizer, words, "tokenizer"); !ok) return ok;
        return make_scheduler(w, words, options, out);
    });
}

void phi4flash_scheduler_destroy(phi4flash_scheduler* scheduler) { destroy_handle<scheduler_handle>(scheduler); }

phi4flash_code phi4flash_scheduler_submit(phi4flash_scheduler* scheduler, phi4flash_session* session, const int32_t* prompt, size_t count,
                                          const phi4flash_generation_options* options, uint64_t* request, phi4flash_error* error) {
    return entry(error, [&]() -> outcome {
        held<scheduler_handle> s;
        held<session_handle> past;
        std::span<const std::int32_t> ids;
        generation_choices how;
        if (request == nullptr) return missing("request");
        *request = 0;
        if (outcome ok = s.take(scheduler, "scheduler"); !ok) return ok;
        if (outcome ok = past.take(session, "session"); !ok) return ok;
        if (prompt == nullptr) return missing("prompt");
        if (outcome ok = read_array(prompt, count, ids, "prompt"); !ok) return ok;
        if (outcome ok = s->read_options(options, how); !ok) return ok;
        return s->submit(past.user(), ids, std::move(how), request);
    });
}

phi4flash_code phi4flash_scheduler_tick(phi4flash_scheduler* scheduler, const phi4flash_budget* budget, uint32_t* outcome_of_tick,
                                        phi4flash_error* error) {
    return entry(error, [&]() -> outcome {
        scheduler_in_use s;
        phi4flash_budget how;
        if (outcome_of_tick == nullptr) return missing("outcome");
        *outcome_of_tick = PHI4FLASH_TICK_IDLE;
        if (outcome ok = read_budget(budget, how); !ok) return ok;
        if (outcome ok = s.take(scheduler); !ok) return ok;
        const auto done = s.of->tick(time_budget(how));
        if (!done) return done.error();
        *outcome_of_tick = static_cast<uint32_t>(*done);
        return {};
    });
}

phi4flash_code phi4flash_scheduler_next_event(phi4flash_scheduler* scheduler, phi4flash_event* event, phi4flash_error* error) {
    return entry(error, [&]() -> outcome {
        scheduler_in_use s;
        if (outcome ok = check_out(event, "event"); !ok) return ok;
        if (outcome ok = s.take(scheduler); !ok) return ok;
        fill_struct(event, s.of->next_event());
        return {};
    });
}

phi4flash_code phi4flash_scheduler_cancel(phi4flash_scheduler* scheduler, uint64_t request, phi4flash_error* error) {
    return entry(error, [&]() -> outcome {
        held<scheduler_handle> s;
        if (outcome ok = s.take(scheduler, "scheduler"); !ok) return ok;
        return s->cancel(request);
    });
}

phi4flash_code phi4flash_scheduler_cancel_all(phi4flash_scheduler* scheduler, phi4flash_error* error) {
    return entry(error, [&]() -> outcome {
        ref<scheduler_handle> s;
        if (outcome ok = find_handle(scheduler, s, "scheduler"); !ok) return ok;
        s->cancel_all();
        return {};
    });
}

phi4flash_code phi4flash_scheduler_get_info(const phi4flash_scheduler* scheduler, phi4flash_scheduler_info* info, phi4flash_error* error) {
    return entry(error, [&]() -> outcome {
        held<scheduler_handle> s;
        if (outcome ok = s.take(scheduler, "scheduler"); !ok) return ok;
        if (outcome ok = check_out(info, "info"); !ok) return ok;
        fill_struct(info, s->info());
        return {};
    });
}

// ---- prefix caches -----------------------------------------------------------------------------------------------------------------------

phi4flash_code phi4flash_prefix_cache_get_bytes(const phi4flash_model* model, uint32_t kv_type, uint64_t texts, uint64_t tokens, uint64_t* bytes,
                                                phi4flash_error* error) {
    return entry(error, [&]() -> outcome {
        ref<model_handle> m;
        if (outcome ok = find_handle(model, m, "model"); !ok) return ok;
        if (bytes == nullptr) return missing("bytes");
        return cache_bytes(*m, kv_type, texts, tokens, bytes);
    });
}

phi4flash_code phi4flash_prefix_cache_create(phi4flash_model* model, const phi4flash_prefix_cache_options* options, phi4flash_prefix_cache** out,
                                             phi4flash_error* error) {
    return entry(error, [&]() -> outcome {
        ref<model_handle> m;
        if (outcome ok = check_out_handle(out); !ok) return ok;
        if (outcome ok = find_handle(model, m, "model"); !ok) return ok;
        return make_cache(m, options, out);
    });
}

void phi4flash_prefix_cache_destroy(phi4flash_prefix_cache* cache) { destroy_handle<cache_handle>(cache); }

phi4flash_code phi4flash_prefix_cache_keep(phi4flash_prefix_cache* cache, phi4flash_session* session, const int32_t* tokens, size_t count,
                                           phi4flash_error* error) {
    return entry(error, [&]() -> outcome {
        held<cache_handle> c;
        held<session_handle> s;
        std::span<const std::int32_t> ids;
        if (outcome ok = c.take(cache, "cache"); !ok) return ok;
        if (outcome ok = s.take(session, "session"); !ok) return ok;
        if (tokens == nullptr) return missing("tokens");
        if (outcome ok = read_array(tokens, count, ids, "tokens"); !ok) return ok;
        return with_cache(*c, *s, [&](auto& kept, auto& state) -> outcome { return kept.keep(state, ids); });
    });
}

phi4flash_code phi4flash_prefix_cache_find(phi4flash_prefix_cache* cache, const int32_t* tokens, size_t count, size_t* found,
                                           phi4flash_error* error) {
    return entry(error, [&]() -> outcome {
        held<cache_handle> c;
        std::span<const std::int32_t> ids;
        if (found == nullptr) return missing("found");
        *found = 0;
        if (outcome ok = c.take(cache, "cache"); !ok) return ok;
        if (tokens == nullptr) return missing("tokens");
        if (outcome ok = read_array(tokens, count, ids, "tokens"); !ok) return ok;
        *found = std::visit([&](const auto& kept) { return kept.find(ids); }, c->cache);
        return {};
    });
}

phi4flash_code phi4flash_prefix_cache_restore(phi4flash_prefix_cache* cache, phi4flash_session* session, const int32_t* tokens, size_t count,
                                              size_t* read, phi4flash_error* error) {
    return entry(error, [&]() -> outcome {
        held<cache_handle> c;
        held<session_handle> s;
        std::span<const std::int32_t> ids;
        if (read == nullptr) return missing("read");
        *read = 0;
        if (outcome ok = c.take(cache, "cache"); !ok) return ok;
        if (outcome ok = s.take(session, "session"); !ok) return ok;
        if (tokens == nullptr) return missing("tokens");
        if (outcome ok = read_array(tokens, count, ids, "tokens"); !ok) return ok;
        return with_cache(*c, *s, [&](auto& kept, auto& state) -> outcome {
            const auto done = kept.restore(state, ids);
            if (!done) return done.error();
            *read = *done;
            return {};
        });
    });
}

phi4flash_code phi4flash_prefix_cache_clear(phi4flash_prefix_cache* cache, phi4flash_error* error) {
    return entry(error, [&]() -> outcome {
        held<cache_handle> c;
        if (outcome ok = c.take(cache, "cache"); !ok) return ok;
        std::visit([](auto& kept) { kept.clear(); }, c->cache);
        return {};
    });
}

phi4flash_code phi4flash_prefix_cache_get_info(const phi4flash_prefix_cache* cache, phi4flash_prefix_cache_info* info, phi4flash_error* error) {
    return entry(error, [&]() -> outcome {
        held<cache_handle> c;
        if (outcome ok = c.take(cache, "cache"); !ok) return ok;
        if (outcome ok = check_out(info, "info"); !ok) return ok;
        fill_struct(info, info_of(*c));
        return {};
    });
}
