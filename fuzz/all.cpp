/// Every entry in one file, each under a name of its own, for the program without libFuzzer: compiled so, the library's headers are read once.

#define LLVMFuzzerTestOneInput phi4flash_fuzz_entry_safetensors
#include "safetensors.cpp"
#undef LLVMFuzzerTestOneInput
#define LLVMFuzzerTestOneInput phi4flash_fuzz_entry_gguf
#include "gguf.cpp"
#undef LLVMFuzzerTestOneInput
#define LLVMFuzzerTestOneInput phi4flash_fuzz_entry_config
#include "config.cpp"
#undef LLVMFuzzerTestOneInput
#define LLVMFuzzerTestOneInput phi4flash_fuzz_entry_index
#include "index.cpp"
#undef LLVMFuzzerTestOneInput
#define LLVMFuzzerTestOneInput phi4flash_fuzz_entry_tokenizer_json
#include "tokenizer_json.cpp"
#undef LLVMFuzzerTestOneInput
#define LLVMFuzzerTestOneInput phi4flash_fuzz_entry_text
#include "text.cpp"
#undef LLVMFuzzerTestOneInput
#define LLVMFuzzerTestOneInput phi4flash_fuzz_entry_chat
#include "chat.cpp"
#undef LLVMFuzzerTestOneInput
#define LLVMFuzzerTestOneInput phi4flash_fuzz_entry_snapshot
#include "snapshot.cpp"
#undef LLVMFuzzerTestOneInput
#define LLVMFuzzerTestOneInput phi4flash_fuzz_entry_c_api
#include "c_api.cpp"
#undef LLVMFuzzerTestOneInput
#define LLVMFuzzerTestOneInput phi4flash_fuzz_entry_differential
#include "differential.cpp"
#undef LLVMFuzzerTestOneInput

#define PHI4FLASH_FUZZ_UNIT phi4flash_fuzz_scalar
#include "differential_unit.cpp"

#include "memory.cpp"
#include "../src/c_api.cpp"
