/*
 * A prompt of a real model, at every level of the machine or at the one that is named:
 *
 *     prefill tests/vectors/smollm2/prefill_layer00.safetensors [LEVEL]
 *
 * Prints the greatest error against the model's own output, and a hash of the output's bits.
 */
#include "gqa.h"
#include "safetensors.h"

static void check(gqa_status status, const gqa_error *error) {
    if (status == GQA_OK) return;
    fprintf(stderr, "%s: %s (needed %zu, had %zu)\n", error->operand, gqa_message(status), error->needed, error->had);
    exit(1);
}

int main(int argc, char **argv) {
    if (argc < 2) fail("usage: prefill FILE [LEVEL]");
    char *file = read_file(argv[1]);
    tensor q = find(file, "\"in.query\""), k = find(file, "\"in.key\""), v = find(file, "\"in.value\"");
    tensor want = find(file, "\"out.output\"");
    float *out = (float *)allocate(want.len, sizeof *out);

    gqa_call call;
    memset(&call, 0, sizeof call);
    call.struct_size = sizeof call;
    call.batch = q.shape[0];
    call.q_heads = q.shape[1];
    call.q_len = q.shape[2];
    call.head_dim = q.shape[3];
    call.kv_heads = v.shape[1];
    call.kv_len = v.shape[2];
    call.value_dim = v.shape[3];
    call.flags = GQA_CAUSAL;
    gqa_input query = {q.data, q.len, GQA_F32, gqa_strides_bhsd(q.shape[1], q.shape[2], q.shape[3])};
    gqa_input key = {k.data, k.len, GQA_F32, gqa_strides_bhsd(k.shape[1], k.shape[2], k.shape[3])};
    gqa_input value = {v.data, v.len, GQA_F32, gqa_strides_bhsd(v.shape[1], v.shape[2], v.shape[3])};
    gqa_output output = {out, want.len, GQA_F32, gqa_strides_bhsd(q.shape[1], q.shape[2], v.shape[3])};
    call.q = query;
    call.k = key;
    call.v = value;
    call.out = output;

    for (call.level = GQA_LEVEL_SCALAR; gqa_level_name(call.level) != NULL; call.level++) {
        const char *name = gqa_level_name(call.level);
        if (!gqa_level_is_available(call.level) || (argc > 2 && strcmp(argv[2], name) != 0)) continue;
        gqa_error error;
        size_t scratch_len;
        check(gqa_scratch_len(&call, &scratch_len, &error), &error);
        float *scratch = (float *)allocate(scratch_len, sizeof *scratch);
        check(gqa_run(&call, scratch, scratch_len, &error), &error);
        float greatest = greatest_error(out, want.data, want.len);
        printf("prefill %s: error %.1e, bits %016llx\n", name, greatest, (unsigned long long)hash(out, want.len));
        if (!(greatest < 1e-5f)) fail("the output differs from the model's");
        free(scratch);
    }
    free(out);
    free(file);
    return 0;
}
