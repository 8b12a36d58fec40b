/* The header alone, with all warnings: as C11 and as C++20. The layout of structs on 64-bit machines is a promise, so it is written down here:
 * a change of these numbers breaks programs that are compiled already. */
#include <phi4flash/phi4flash.h>

#ifndef __cplusplus
#include <assert.h>
#endif

#if UINTPTR_MAX > 0xffffffffu
static_assert(sizeof(phi4flash_error) == 512, "layout");
static_assert(sizeof(phi4flash_allocator) == 32 && offsetof(phi4flash_allocator, release) == 24, "layout");
static_assert(sizeof(phi4flash_executor) == 24 && offsetof(phi4flash_executor, parallel_for) == 16, "layout");
static_assert(sizeof(phi4flash_budget) == 40 && offsetof(phi4flash_budget, stop) == 32, "layout");
static_assert(sizeof(phi4flash_file) == 56 && offsetof(phi4flash_file, read) == 48, "layout");
static_assert(sizeof(phi4flash_model_options) == 24 && offsetof(phi4flash_model_options, ignore_unknown_keys) == 16, "layout");
static_assert(sizeof(phi4flash_model_info) == 64 && offsetof(phi4flash_model_info, fingerprint) == 56, "layout");
static_assert(sizeof(phi4flash_tokenizer_info) == 16 && offsetof(phi4flash_tokenizer_info, vocabulary) == 8, "layout");
static_assert(sizeof(phi4flash_chat_message) == 56 && offsetof(phi4flash_chat_message, tools_length) == 48, "layout");
static_assert(sizeof(phi4flash_chat_options) == 16 && offsetof(phi4flash_chat_options, markers) == 12, "layout");
static_assert(sizeof(phi4flash_session_options) == 32 && offsetof(phi4flash_session_options, allocator) == 24, "layout");
static_assert(sizeof(phi4flash_session_info) == 56 && offsetof(phi4flash_session_info, busy) == 48, "layout");
static_assert(sizeof(phi4flash_snapshot_info) == 64 && offsetof(phi4flash_snapshot_info, width) == 56, "layout");
static_assert(sizeof(phi4flash_workspace_options) == 56 && offsetof(phi4flash_workspace_options, logits) == 52, "layout");
static_assert(sizeof(phi4flash_workspace_info) == 32 && offsetof(phi4flash_workspace_info, kernels) == 24, "layout");
static_assert(sizeof(phi4flash_string) == 16, "layout");
static_assert(sizeof(phi4flash_generation_options) == 96 && offsetof(phi4flash_generation_options, drafts_always) == 92, "layout");
static_assert(sizeof(phi4flash_event) == 80 && offsetof(phi4flash_event, message) == 72, "layout");
static_assert(sizeof(phi4flash_generation_info) == 48 && offsetof(phi4flash_generation_info, accepted) == 40, "layout");
static_assert(sizeof(phi4flash_scheduler_options) == 24 && offsetof(phi4flash_scheduler_options, longest_pass) == 16, "layout");
static_assert(sizeof(phi4flash_scheduler_info) == 24 && offsetof(phi4flash_scheduler_info, capacity) == 16, "layout");
static_assert(sizeof(phi4flash_prefix_cache_options) == 24 && offsetof(phi4flash_prefix_cache_options, allocator) == 16, "layout");
static_assert(sizeof(phi4flash_prefix_cache_info) == 32 && offsetof(phi4flash_prefix_cache_info, used_bytes) == 24, "layout");
#endif

int main(void) { return PHI4FLASH_OK; }
