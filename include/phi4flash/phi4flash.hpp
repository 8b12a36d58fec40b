#pragma once
/// phi4flash: Microsoft's Phi-4-mini-flash-reasoning (SambaY) on ordinary CPUs. The spine: includes and nothing else.

// What everything stands on.
#include <phi4flash/config/abi.hpp>
#include <phi4flash/core/checksum.hpp>
#include <phi4flash/core/error.hpp>
#include <phi4flash/core/executor.hpp>
#include <phi4flash/core/finite.hpp>
#include <phi4flash/core/huge_pages.hpp>
#include <phi4flash/core/kv_format.hpp>
#include <phi4flash/core/matrix.hpp>
#include <phi4flash/core/memory.hpp>
#include <phi4flash/core/number.hpp>
#include <phi4flash/core/out_of_memory.hpp>
#include <phi4flash/core/packing.hpp>
#include <phi4flash/core/progress_ref.hpp>
#include <phi4flash/core/result.hpp>
#include <phi4flash/core/thread_pool.hpp>
#include <phi4flash/core/token_weight.hpp>

// Kernels, compiled once for each target.
#include <phi4flash/kernels/dispatch.hpp>

// Layers and the positional encodings they take as policies.
#include <phi4flash/position/alibi.hpp>
#include <phi4flash/position/none.hpp>
#include <phi4flash/position/rotary.hpp>
#include <phi4flash/layers/attention.hpp>
#include <phi4flash/layers/gated_memory.hpp>
#include <phi4flash/layers/linear.hpp>
#include <phi4flash/layers/mamba.hpp>
#include <phi4flash/layers/mlp.hpp>
#include <phi4flash/layers/norm.hpp>

// The model: shape, weights, state, forward pass.
#include <phi4flash/model/fingerprint.hpp>
#include <phi4flash/model/forward.hpp>
#include <phi4flash/model/layer_plan.hpp>
#include <phi4flash/model/quality.hpp>
#include <phi4flash/model/shape.hpp>
#include <phi4flash/model/snapshot.hpp>
#include <phi4flash/model/saved_states.hpp>
#include <phi4flash/model/tensor_list.hpp>
#include <phi4flash/model/weight_types.hpp>

// Text: tokenizer, streaming decoder, chat template.
#include <phi4flash/text/chat.hpp>
#include <phi4flash/text/decoder.hpp>
#include <phi4flash/text/normalization.hpp>
#include <phi4flash/text/tokenizer.hpp>

// Generation.
#include <phi4flash/generate/conversation.hpp>
#include <phi4flash/generate/draft_policy.hpp>
#include <phi4flash/generate/generate.hpp>
#include <phi4flash/generate/ngram_drafter.hpp>
#include <phi4flash/generate/generation.hpp>
#include <phi4flash/generate/scheduler.hpp>
#include <phi4flash/generate/memory_plan.hpp>
#include <phi4flash/generate/prefix_cache.hpp>

// Files; the Hugging Face formats where a JSON library is on the include path.
#include <phi4flash/io/check_weights.hpp>
#include <phi4flash/io/packed/convert.hpp>
#include <phi4flash/io/file/mapped_file.hpp>
#include <phi4flash/io/file/read_file.hpp>
#include <phi4flash/io/model_files.hpp>
#include <phi4flash/io/packed/repack.hpp>
#include <phi4flash/io/safetensors/safetensors_writer.hpp>
#if PHI4FLASH_HAS_JSON
#include <phi4flash/io/huggingface/checkpoint.hpp>
#include <phi4flash/io/huggingface/tokenizer_json.hpp>
#endif
