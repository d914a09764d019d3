/*
 * Threads of one's own: each takes the next item until there is none. First a prompt, then a token after many, whose
 * two key/value heads three threads share.
 *
 *     threads [LEVEL]
 *
 * The bits are those of a run on one thread.
 */
#include <pthread.h>

#include "gqa.h"
#include "safetensors.h"

enum { THREADS = 3, HEADS = 6, KV_HEADS = 2, TOKENS = 800, DIM = 48 };

typedef struct work {
    const gqa_call *call;
    size_t scratch_len, next, count;
    pthread_mutex_t lock;
} work;

static size_t take(work *shared) {
    pthread_mutex_lock(&shared->lock);
    size_t item = shared->next++;
    pthread_mutex_unlock(&shared->lock);
    return item;
}

static void *run(void *argument) {
    work *shared = (work *)argument;
    float *scratch = (float *)allocate(shared->scratch_len, sizeof *scratch);
    gqa_error error;
    for (size_t item = take(shared); item < shared->count; item = take(shared))
        if (gqa_run_items(shared->call, item, 1, scratch, shared->scratch_len, &error) != GQA_OK)
            fail(gqa_message(error.status));
    free(scratch);
    return NULL;
}

static float *numbers(size_t len, uint32_t seed) {
    float *numbers = (float *)allocate(len, sizeof *numbers);
    for (size_t i = 0; i < len; i++) {
        seed = seed * 1664525 + 1013904223;
        numbers[i] = (float)(seed >> 8) / (1 << 23) - 1;
    }
    return numbers;
}

/* Runs a call on one thread, then on several into another output, and compares. */
static void compare(gqa_call call, float *scratch, size_t scratch_len) {
    size_t partials_len;
    gqa_error error;
    work shared = {&call, scratch_len, 0, 0, PTHREAD_MUTEX_INITIALIZER};
    if (gqa_run(&call, scratch, scratch_len, &error) != GQA_OK) fail(gqa_message(error.status));

    float *one = (float *)call.out.data, *many = numbers(call.out.len, 5);
    call.out.data = many;
    if (gqa_partials_len(&call, &partials_len, &error) != GQA_OK) fail(gqa_message(error.status));
    call.partials.data = numbers(partials_len, 6);
    call.partials.len = partials_len;
    call.threads = THREADS;
    if (gqa_item_count(&call, &shared.count, &error) != GQA_OK) fail(gqa_message(error.status));
    pthread_t threads[THREADS];
    for (int i = 0; i < THREADS; i++)
        if (pthread_create(&threads[i], NULL, run, &shared) != 0) fail("a thread can't be started");
    for (int i = 0; i < THREADS; i++) pthread_join(threads[i], NULL);
    if (memcmp(one, many, call.out.len * sizeof *one) != 0) fail("threads changed the bits");
    printf("%zu items on %d threads: the same bits\n", shared.count, THREADS);
    free(call.partials.data);
    free(many);
}

int main(int argc, char **argv) {
    size_t q_len = HEADS * TOKENS * DIM, kv_len = KV_HEADS * TOKENS * DIM;
    float *q = numbers(q_len, 1), *k = numbers(kv_len, 2), *v = numbers(kv_len, 3);
    float *out = numbers(q_len, 4);
    gqa_input query = {q, q_len, GQA_F32, gqa_strides_bshd(HEADS, TOKENS, DIM)};
    gqa_input key = {k, kv_len, GQA_F32, gqa_strides_bshd(KV_HEADS, TOKENS, DIM)};
    gqa_input value = {v, kv_len, GQA_F32, gqa_strides_bshd(KV_HEADS, TOKENS, DIM)};
    gqa_output output = {out, q_len, GQA_F32, gqa_strides_bshd(HEADS, TOKENS, DIM)};

    gqa_call call;
    memset(&call, 0, sizeof call);
    call.struct_size = sizeof call;
    call.batch = 1;
    call.q_heads = HEADS;
    call.kv_heads = KV_HEADS;
    call.q_len = call.kv_len = TOKENS;
    call.head_dim = call.value_dim = DIM;
    call.flags = GQA_CAUSAL;
    call.q = query;
    call.k = key;
    call.v = value;
    call.out = output;
    while (argc > 1 && strcmp(argv[1], gqa_level_name(call.level)) != 0)
        if (gqa_level_name(++call.level) == NULL) fail("no such level");

    size_t scratch_len;
    gqa_error error;
    if (gqa_scratch_len(&call, &scratch_len, &error) != GQA_OK) fail(gqa_message(error.status));
    float *scratch = (float *)allocate(scratch_len, sizeof *scratch);
    compare(call, scratch, scratch_len);

    call.q_len = 1;
    call.out.len = HEADS * DIM;
    call.q.strides = call.out.strides = gqa_strides_bshd(HEADS, 1, DIM);
    compare(call, scratch, scratch_len);
    free(q);
    free(k);
    free(v);
    free(out);
    free(scratch);
    return 0;
}
