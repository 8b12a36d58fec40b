#pragma once
/// The memory of everything, known before any of it is taken: a constant for a shape that is known at compile time. Each number is counted by
/// the function that lays the memory out, so the plan and what is taken cannot differ.
///
///     weights      shared, read-only: of a file, mapped where it lies
///     parameters   shared: what a bound model widens to f32
///     session      one a text that is remembered: Mamba states, the windows' K/V, the full layer's K/V
///     workspace    one a thread of control: activations of a chunk, what a pass keeps until its end, logits
///     generation   one a text that is being written: what choosing a token takes, and the prompt
///     drafter      one a text that is written with drafts from what it has read and written
///     prefix cache shared by the sessions of one thread: states after texts, so that they need not be read again
///     snapshot     one a session that is saved, at its longest
/// @since 0.2
#include <phi4flash/generate/ngram_drafter.hpp>
#include <phi4flash/generate/prefix_cache.hpp>
#include <phi4flash/generate/text_writer.hpp>
#include <phi4flash/model/snapshot.hpp>
#include <phi4flash/model/weight_types.hpp>

#include <cstddef>
#include <cstdint>

PHI4FLASH_BEGIN

/// What is planned for.
struct memory_options {
    std::size_t context = 0;   ///< tokens that each session has room for
    std::size_t undo = 0;      ///< tokens that can be taken back, see session_options
    std::size_t chunk = 256;   ///< prompt tokens read at once, see workspace_options
    std::size_t states = 1;    ///< see workspace_options
    std::size_t logits = 1;    ///< see workspace_options
    std::size_t sessions = 1;  ///< that there are at a time, each with a text being written; one workspace serves them all
    weight_types weights{};
    sampling_options sampling{};
    std::size_t drafts = 0;    ///< at once, see text_limits
    std::size_t remembered = 0;     ///< tokens that each text's ngram_drafter remembers; 0: there is none
    std::size_t cached_texts = 0;   ///< that a prefix_cache holds, as long as the context (or a window), with nothing in common; at most 65536
};

/// Bytes of each thing; SIZE_MAX where it is more than that, which on 32 bits is soon.
struct memory_plan {
    std::uint64_t weights = 0;
    std::size_t parameters = 0;
    std::size_t session = 0;
    std::size_t workspace = 0;
    std::size_t generation = 0;
    std::size_t drafter = 0;
    std::size_t prefix_cache = 0;
    std::size_t snapshot = 0;
    std::size_t sessions = 1;

    /// Of a shape, with K/V of type Kv. All zero for a shape that check_shape refuses, and for what session, workspace, text, drafter or cache
    /// refuse: more that can be taken back than there is room for, a chunk of no tokens, more drafts than max_drafts, K/V of a type that is left
    /// out. (A context of 0 is a plan without sessions' K/V.)
    template <class Kv = bf16>
    [[nodiscard]] static constexpr memory_plan of(const sambay_shape& shape, const memory_options& options) {
        memory_plan plan;
        const auto within = [](std::size_t n, std::size_t most) { return n != 0 && n <= most; };
        if (!is_complete(shape) || options.context > max_extent || options.undo > options.context || !within(options.chunk, 65536) ||
            !within(options.states, options.chunk) || !within(options.logits, options.chunk) || options.remembered > ngram_drafter::most_tokens ||
            options.drafts > max_drafts || options.cached_texts > 65536 || !is_compiled(kv_format_of<Kv>))
            return plan;
        const auto e = extents<any_sambay>::of(shape);
        detail::weights_meter meter(options.weights);
        (void)detail::bind_all(meter, e, 1e-5f);
        plan.weights = meter.weights();
        plan.parameters = meter.parameters();
        plan.session = phi4flash::session<any_sambay, Kv>::bytes(e, {.context = options.context, .undo = options.undo});
        plan.workspace = phi4flash::workspace<any_sambay, Kv>::bytes(
            e, {.chunk = options.chunk, .states = options.states, .logits = options.logits});
        plan.generation = text_writer::bytes(shape.vocab, options.sampling, {.prompt = options.context, .drafts = options.drafts});
        if (options.remembered != 0) plan.drafter = ngram_drafter::bytes(options.remembered);
        if (options.cached_texts != 0) {
            const std::size_t cached =
                phi4flash::prefix_cache<any_sambay, Kv>::bytes_for(shape, options.cached_texts, (std::max)(options.context, shape.window));
            plan.prefix_cache = cached > SIZE_MAX - block_alignment ? SIZE_MAX : round_up(cached, block_alignment);
        }
        plan.snapshot = longest_snapshot_bytes<Kv>(shape, {.context = options.context, .undo = options.undo});
        plan.sessions = options.sessions;
        return plan;
    }

    /// Whether it is one: all of it is 0 for a shape or options that are refused. @since 0.2
    [[nodiscard]] constexpr bool valid() const { return session != 0; }

    /// Everything at once, but for snapshots, which lie in files or where the host wants them. UINT64_MAX where it is more than that.
    [[nodiscard]] constexpr std::uint64_t total() const {
        const std::uint64_t shared = weights + parameters + workspace + prefix_cache;
        const std::uint64_t each = std::uint64_t{session} + generation + drafter;
        return sessions != 0 && each > (UINT64_MAX - shared) / sessions ? UINT64_MAX : shared + sessions * each;
    }
};

PHI4FLASH_END
