// A prompt in C++, its items shared out among threads: `attention`.
#include <cmath>
#include <cstdio>
#include <stdexcept>
#include <thread>
#include <vector>

#include "gqa.h"

int main() {
    constexpr size_t heads = 8, kv_heads = 2, tokens = 96, dim = 64, threads = 2;
    const std::vector<float> q(heads * tokens * dim, 0.1f), k(kv_heads * tokens * dim, 0.2f);
    const std::vector<float> v(kv_heads * tokens * dim, 0.5f);
    std::vector<float> out(heads * tokens * dim);

    gqa_call call{};
    call.struct_size = sizeof call;
    call.batch = 1;
    call.q_heads = heads;
    call.kv_heads = kv_heads;
    call.q_len = call.kv_len = tokens;
    call.head_dim = call.value_dim = dim;
    call.threads = threads;
    call.flags = GQA_CAUSAL;
    call.q = {q.data(), q.size(), GQA_F32, gqa_strides_bhsd(heads, tokens, dim)};
    call.k = {k.data(), k.size(), GQA_F32, gqa_strides_bhsd(kv_heads, tokens, dim)};
    call.v = {v.data(), v.size(), GQA_F32, gqa_strides_bhsd(kv_heads, tokens, dim)};
    call.out = {out.data(), out.size(), GQA_F32, gqa_strides_bhsd(heads, tokens, dim)};

    const auto check = [](gqa_status status) {
        if (status != GQA_OK) throw std::runtime_error(gqa_message(status));
    };
    size_t scratch_len, count;
    check(gqa_scratch_len(&call, &scratch_len, nullptr));
    check(gqa_item_count(&call, &count, nullptr));
    std::vector<std::thread> pool;
    std::vector<gqa_status> ends(threads);
    for (size_t i = 0; i < threads; i++) {
        pool.emplace_back([&, i] {
            std::vector<float> scratch(scratch_len);
            const size_t first = count * i / threads, last = count * (i + 1) / threads;
            ends[i] = gqa_run_items(&call, first, last - first, scratch.data(), scratch.size(), nullptr);
        });
    }
    for (auto &thread : pool) thread.join();
    for (const auto status : ends) check(status);
    for (const float x : out)
        if (!(std::fabs(x - 0.5f) < 1e-6f)) throw std::runtime_error("a mean of equal values differs from them");
    std::printf("%zu items on %zu threads: right\n", count, threads);
}
