/*
 * Decoding token by token into a cache with room for more, [token, head, dim]:
 *
 *     decode tests/vectors/smollm2/prefill_layer00.safetensors [LEVEL]
 *
 * The tokens are those of a prompt, so that the model's own output for each is known.
 */
#include "gqa.h"
#include "safetensors.h"

enum { CAPACITY = 64 };

int main(int argc, char **argv) {
    if (argc < 2) fail("usage: decode FILE [LEVEL]");
    char *file = read_file(argv[1]);
    tensor q = find(file, "\"in.query\""), k = find(file, "\"in.key\""), v = find(file, "\"in.value\"");
    tensor want = find(file, "\"out.output\"");
    size_t heads = q.shape[1], kv_heads = k.shape[1], tokens = q.shape[2], dim = q.shape[3];
    if (tokens > CAPACITY) fail("the prompt exceeds the cache");
    size_t row = kv_heads * dim;
    float *keys = (float *)allocate(CAPACITY * row, sizeof *keys);
    float *values = (float *)allocate(CAPACITY * row, sizeof *values);
    float *out = (float *)allocate(heads * tokens * dim, sizeof *out);

    gqa_call call;
    memset(&call, 0, sizeof call);
    call.struct_size = sizeof call;
    call.batch = 1;
    call.q_heads = heads;
    call.kv_heads = kv_heads;
    call.q_len = 1;
    call.head_dim = call.value_dim = dim;
    gqa_strides cache = {0, dim, row};
    gqa_strides token_of_heads = {0, tokens * dim, 0};
    for (call.level = GQA_LEVEL_SCALAR; gqa_level_name(call.level) != NULL; call.level++) {
        const char *name = gqa_level_name(call.level);
        if (!gqa_level_is_available(call.level) || (argc > 2 && strcmp(argv[2], name) != 0)) continue;
        gqa_error error;
        size_t scratch_len;
        /* Independent of the number of keys: the same for every token. */
        if (gqa_scratch_len(&call, &scratch_len, &error) != GQA_OK) fail(gqa_message(error.status));
        float *scratch = (float *)allocate(scratch_len, sizeof *scratch);
        for (size_t token = 0; token < tokens; token++) {
            for (size_t head = 0; head < kv_heads; head++) {
                size_t from = (head * tokens + token) * dim, to = token * row + head * dim;
                memcpy(keys + to, k.data + from, dim * sizeof *keys);
                memcpy(values + to, v.data + from, dim * sizeof *values);
            }
            call.kv_len = token + 1;
            /* The token's row of each head, in [head, token, dim]. */
            gqa_input query = {q.data + token * dim, q.len - token * dim, GQA_F32, token_of_heads};
            gqa_input key = {keys, CAPACITY * row, GQA_F32, cache};
            gqa_input value = {values, CAPACITY * row, GQA_F32, cache};
            gqa_output output = {out + token * dim, want.len - token * dim, GQA_F32, token_of_heads};
            call.q = query;
            call.k = key;
            call.v = value;
            call.out = output;
            if (gqa_run(&call, scratch, scratch_len, &error) != GQA_OK) fail(gqa_message(error.status));
        }
        float greatest = greatest_error(out, want.data, want.len);
        printf("decode %s: error %.1e, bits %016llx\n", name, greatest, (unsigned long long)hash(out, want.len));
        if (!(greatest < 1e-5f)) fail("the output differs from the model's");
        free(scratch);
    }
    free(keys);
    free(values);
    free(out);
    free(file);
    return 0;
}
