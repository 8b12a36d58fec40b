/// Every target packs the very bytes of the plain code, whatever the numbers are and however many groups a row has. Built with -O2
/// (tests/CMakeLists.txt), where compilers fuse products with sums in the plain code of builds for CPUs that can.
#include "support/reference.hpp"
#include "support/test_support.hpp"

#include <phi4flash/core/packing.hpp>
#include <phi4flash/kernels/targets.hpp>

namespace p4 = phi4flash;

namespace {

using phi4flash_test::buffer;
using phi4flash_test::for_each_target;

constexpr p4::dtype formats[] = {p4::dtype::q8, p4::dtype::q4, p4::dtype::q4_dense};

/// Rows as weights have them, and what is hard on scales: outliers, groups of zeros of both signs, one number alone, tiny and large ones.
buffer<float> hard_rows(phi4flash_test::generator& random, std::size_t cols, p4::dtype source) {
    buffer<float> rows(p4::packed_rows * cols, 1);
    for (std::size_t i = 0; i < rows.size(); ++i) {
        const std::size_t kind = i / p4::packed_cols % 9;
        float x = 0.02f * (random.uniform(-1, 1) + random.uniform(-1, 1) + random.uniform(-1, 1));
        if (random.next() % 40 == 0) x *= 30.0f;
        if (kind == 3) x = i % 2 == 0 ? 0.0f : -0.0f;
        if (kind == 4) x = i % p4::packed_cols == 5 ? x : 0.0f;
        if (kind == 5) x *= 1e-7f;
        if (kind == 6) x *= source == p4::dtype::f16 ? 1e4f : 1e7f;
        if (kind == 7) x = static_cast<float>(static_cast<int>(random.next() % 17) - 8) * 0.25f;  // ties
        rows[i] = source == p4::dtype::bf16 ? p4::to_f32(p4::to_bf16(x)) : source == p4::dtype::f16 ? p4::to_f32(p4::to_f16(x)) : x;
    }
    return rows;
}

/// Moves every second number to where its code changes, at the scale that its row gets: what a fused sum decides differently.
template <const p4::q4_codebook& Book>
void move_to_begins(buffer<float>& rows, std::size_t cols) {
    const std::size_t groups = cols / p4::packed_cols;
    std::vector<p4::q4_block> blocks(groups);
    for (std::size_t i = 0; i < rows.size(); i += cols) {
        float* const row = rows.data() + i;
        for (int round = 0; round < 4; ++round) {  // the scales move with the numbers, and come to rest
            for (std::size_t g = 0; g < groups; g += p4::scale_groups)
                p4::encode_row<Book>(&blocks[g], std::min(p4::scale_groups, groups - g), 0, row + g * p4::packed_cols);
            for (std::size_t c = 0; c < cols; c += 2)
                row[c] = p4::detail::code_begins<Book>[1 + c / 2 % 15] * p4::to_f32(blocks[c / p4::packed_cols].scale[0]);
        }
    }
}

/// Whether every target packs rows [8, cols] as the plain code does.
void check_same_bytes(const buffer<float>& rows, std::size_t cols, p4::dtype type) {
    CAPTURE(std::string(p4::name_of(type)));
    CAPTURE(cols);
    const p4::matrix_view m{reinterpret_cast<const std::byte*>(rows.data()), p4::packed_rows, cols, p4::dtype::f32};
    buffer<std::byte> want(p4::matrix_bytes(type, p4::packed_rows, cols), 2);
    std::vector<float> scratch(rows.size());
    p4::pack_eight_rows(m, 0, type, scratch.data(), want.data());
    for_each_target([&](const p4::kernel_table& kernels) {
        buffer<std::byte> have(want.size(), 2);
        kernels.pack[static_cast<std::size_t>(type)](rows.data(), cols, have.data());
        CHECK(std::memcmp(have.data(), want.data(), want.size()) == 0);
    });
}

}  // namespace

TEST_CASE("packing: the bytes of the plain code on every target") {
    phi4flash_test::generator random{77};
    for (const p4::dtype source : {p4::dtype::bf16, p4::dtype::f16, p4::dtype::f32}) {
        for (const std::size_t cols : {std::size_t{32}, std::size_t{96}, std::size_t{256}, std::size_t{288}, std::size_t{1056}}) {
            const buffer<float> rows = hard_rows(random, cols, source);
            CAPTURE(std::string(p4::name_of(source)));
            for (const p4::dtype type : formats) check_same_bytes(rows, cols, type);
        }
    }
}

TEST_CASE("packing: numbers between two codes") {
    phi4flash_test::generator random{78};
    for (const std::size_t cols : {std::size_t{32}, std::size_t{1056}}) {
        for (int trial = 0; trial < 4; ++trial) {
            buffer<float> rows = hard_rows(random, cols, p4::dtype::f32);
            move_to_begins<p4::q4_uniform>(rows, cols);
            check_same_bytes(rows, cols, p4::dtype::q4);
            rows = hard_rows(random, cols, p4::dtype::f32);
            move_to_begins<p4::q4_dense>(rows, cols);
            check_same_bytes(rows, cols, p4::dtype::q4_dense);
        }
    }
}

TEST_CASE("packing: where codes begin") {
    const auto check = []<const p4::q4_codebook& Book>() {
        const auto& begins = p4::detail::code_begins<Book>;
        const auto code_of = [](float v) { return p4::detail::index_of<Book>.nearest(v + static_cast<float>(Book.zero)); };
        for (unsigned c = 1; c < 16; ++c) {
            CAPTURE(c);
            CHECK(code_of(begins[c]) == c);
            CHECK(code_of(std::nextafter(begins[c], -1000.0f)) == c - 1);
        }
    };
    check.operator()<p4::q4_uniform>();
    check.operator()<p4::q4_dense>();
}
