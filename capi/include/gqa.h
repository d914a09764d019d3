/*
 * gqa: grouped-query attention for CPUs, in C.
 *
 *     gqa_call call = {0};                     // zeros are the defaults
 *     call.struct_size = sizeof call;
 *     call.batch = 1; call.q_heads = 9; call.kv_heads = 3; call.q_len = 1; call.kv_len = 100;
 *     call.head_dim = call.value_dim = 64;
 *     call.flags = GQA_CAUSAL;
 *     call.q = (gqa_input){ q, 9 * 64, GQA_F32, gqa_strides_bhsd(9, 1, 64) };
 *     ...                                      // k, v and out likewise
 *     gqa_error error;
 *     size_t scratch_len;
 *     if (gqa_scratch_len(&call, &scratch_len, &error) != GQA_OK) ...
 *     if (gqa_run(&call, scratch, scratch_len, &error) != GQA_OK)
 *         fprintf(stderr, "%s: %s\n", error.operand, gqa_message(error.status));
 *
 * Lengths and strides count elements, not bytes. The library allocates nothing, keeps nothing between calls, starts
 * no thread and never unwinds: pointers are used during the call that they are passed to and no longer. Every
 * function may be called from any thread. A refused call has written nothing but `error`.
 *
 * Written by cbindgen: edit the sources, not this file.
 */


#ifndef GQA_H
#define GQA_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

// Elements from one batch, head and row to the next. A row is contiguous. 0 repeats the same data, in inputs.
typedef struct gqa_strides {
  // From one sequence to the next.
  size_t batch;
  // From one head to the next.
  size_t head;
  // From one row (position) to the next.
  size_t row;
} gqa_strides;

// How a call ended: GQA_OK, or why it was refused.
typedef int32_t gqa_status;

// What the elements of an operand are.
typedef uint32_t gqa_type;

// Q, K or V: element c of row r of head h of sequence b is `data[b * batch + h * head + r * row + c]`.
typedef struct gqa_input {
  // Aligned to its elements. NULL if there are none.
  const void *data;
  // Elements from `data` on that may be read.
  size_t len;
  // What they are.
  gqa_type type;
  // Where rows begin.
  struct gqa_strides strides;
} gqa_input;

// The output, placed as an input is. Rows must not overlap.
typedef struct gqa_output {
  // Aligned to its elements. NULL if there are none.
  void *data;
  // Elements from `data` on that are the call's; those between rows are left alone.
  size_t len;
  // What they are.
  gqa_type type;
  // Where rows begin.
  struct gqa_strides strides;
} gqa_output;

// An optional output of floats, placed as an input is. Rows must not overlap.
typedef struct gqa_float_output {
  // Aligned. NULL if it is not wanted.
  float *data;
  // Elements from `data` on that are the call's.
  size_t len;
  // Where rows begin.
  struct gqa_strides strides;
} gqa_float_output;

// A stage of the scores that can be looked at.
typedef uint32_t gqa_stage;

// Bits of `gqa_call.flags`.
typedef uint32_t gqa_flags;

// Where query rows stand among the keys, for causal limits, windows and ALiBi.
typedef uint32_t gqa_alignment;

// An instruction set. Which are there depends on the machine.
typedef uint32_t gqa_level;

// An optional length for each sequence.
typedef struct gqa_lengths {
  // NULL for none.
  const size_t *data;
  // How many there are.
  size_t len;
} gqa_lengths;

// An optional number for each head.
typedef struct gqa_numbers {
  // NULL for none.
  const float *data;
  // How many there are.
  size_t len;
} gqa_numbers;

// Elements from one batch, query head, row and key of a bias or mask to the next. 0 repeats the same data.
typedef struct gqa_mask_strides {
  // From one sequence to the next.
  size_t batch;
  // From one query head to the next.
  size_t head;
  // From one query row to the next.
  size_t row;
  // From one key to the next.
  size_t key;
} gqa_mask_strides;

// An optional additive bias [batch, query head, row, key].
typedef struct gqa_bias {
  // Aligned to its elements. NULL for none. -infinity hides the key, also one that holds NaN.
  const void *data;
  // Elements from `data` on that may be read.
  size_t len;
  // What they are, whatever Q, K and V are.
  gqa_type type;
  // Where they lie.
  struct gqa_mask_strides strides;
} gqa_bias;

// An optional mask [batch, query head, row, key].
typedef struct gqa_mask {
  // NULL for none. false hides the key; a byte that is not 0 counts as true.
  const bool *data;
  // Elements from `data` on that may be read.
  size_t len;
  // Where they lie.
  struct gqa_mask_strides strides;
} gqa_mask;

// Optional memory for floats.
typedef struct gqa_floats {
  // Aligned. NULL for none.
  float *data;
  // How many fit.
  size_t len;
} gqa_floats;

// What to compute, and on what. Zeros are the defaults: set it to zeros, then `struct_size`, then what differs.
//
// out = softmax(scores) V with scores = softcap(scale * Q K') + ALiBi + bias, where hidden keys take no part and
// sinks add to the softmax's denominator. Query head h reads key/value head h / (q_heads / kv_heads). A row that
// sees no key is exactly 0. Every modifier works with every other.
//
// Inputs may overlap each other; the memory of `out`, `lse`, `scores`, `partials` and of the scratch, as far as its
// `len` reaches, must not overlap any other operand.
typedef struct gqa_call {
  // sizeof(gqa_call): later versions add fields at the end, and still take this one.
  size_t struct_size;
  // Independent sequences. May be 0.
  size_t batch;
  // Query heads, at least 1; a multiple of `kv_heads`.
  size_t q_heads;
  // Key/value heads, at least 1.
  size_t kv_heads;
  // Query rows of each sequence. May be 0.
  size_t q_len;
  // Key/value rows of each sequence. May be 0.
  size_t kv_len;
  // Elements of a query or key, at least 1.
  size_t head_dim;
  // Elements of a value and of an output row, at least 1.
  size_t value_dim;
  // Queries [batch, q_heads, q_len, head_dim], of any type.
  struct gqa_input q;
  // Keys [batch, kv_heads, kv_len, head_dim], of any type.
  struct gqa_input k;
  // Values [batch, kv_heads, kv_len, value_dim], of the type of `k` (of any, if built with `mixed-kv`).
  struct gqa_input v;
  // The output [batch, q_heads, q_len, value_dim], of any type.
  struct gqa_output out;
  // The natural logarithm of each row's softmax denominator [batch, q_heads, q_len, 1], sinks included; -infinity
  // for a row that sees no key.
  struct gqa_float_output lse;
  // The scores [batch, q_heads, q_len, kv_len] at `stage`, rows of `kv_len` floats.
  struct gqa_float_output scores;
  // The stage of `scores`.
  gqa_stage stage;
  // GQA_CAUSAL, GQA_SCALE, GQA_LEFT_WINDOW, GQA_RIGHT_WINDOW, GQA_BF16_DOT.
  gqa_flags flags;
  // The factor of q.k with GQA_SCALE; any finite number.
  float scale;
  // Bounds scores to softcap * tanh(score / softcap), finite and > 0; 0 for none.
  float softcap;
  // Where query rows stand among the keys.
  gqa_alignment alignment;
  // The instruction set to run at.
  gqa_level level;
  // The position of query row 0 with GQA_OFFSET.
  int64_t offset;
  // Keys that a row sees before its own position, with GQA_LEFT_WINDOW.
  size_t left_window;
  // Keys that a row sees after its own position, with GQA_RIGHT_WINDOW.
  size_t right_window;
  // The keys of each sequence, at most `kv_len`; `batch` numbers.
  struct gqa_lengths key_lengths;
  // The first keys of each sequence that every row sees, whatever causal limits and windows say; `batch` numbers.
  struct gqa_lengths prefix_lengths;
  // Slopes of ALiBi, finite: adds -slope * |position - key|; `q_heads` numbers.
  struct gqa_numbers alibi_slopes;
  // Logits that join the softmax's denominator without a value: finite, or -infinity for none; `q_heads` numbers.
  struct gqa_numbers sinks;
  // Added to the scores after the softcap.
  struct gqa_bias bias;
  // Where it is false, the key is hidden.
  struct gqa_mask mask;
  // The query rows of each sequence, at most `q_len`; `batch` numbers. The rows from there on see no key, and with
  // GQA_BOTTOM_RIGHT the last of them stands at the last key.
  struct gqa_lengths query_lengths;
  // Cuts the call into more items, of which several share the keys of a key/value head, and the last of these that is
  // run puts together what they came to: for more threads than there are items, with few rows and many keys. The bits
  // stay the same. At least as many floats as `gqa_partials_len` says, which hold some numbers. The items of a call share
  // them; `gqa_item_count` makes them ready, and must be called once before the items are run.
  struct gqa_floats partials;
  // How many threads run the items, 0 if that is not known. Where few do, an item of a prompt has more rows, which share what is
  // read. An item of a few rows has several key/value heads if these lie beside each other, `[row, head, dim]`: their keys and
  // values are read several times as fast then (on x86). The bits stay the same. The number of items depends on it, so
  // `gqa_item_count` and every `gqa_run_items` of a call must be given the same.
  size_t threads;
} gqa_call;

// Why a call was refused.
typedef struct gqa_error {
  // What is wrong.
  gqa_status status;
  // What it is wrong with: the name of the argument, or of the field of the call. Never NULL, never freed.
  const char *operand;
  // Its place in an array, else 0.
  size_t index;
  // What was needed, as the status explains; else 0.
  size_t needed;
  // What there was; else 0.
  size_t had;
  // The number outside its domain; else 0.
  float number;
} gqa_error;

// `float`.
#define GQA_F32 0

// IEEE 754 binary16, 2 bytes.
#define GQA_F16 1

// bfloat16: the upper 2 bytes of a `float`.
#define GQA_BF16 2

// Hides the keys after a row's own position; the same as GQA_RIGHT_WINDOW with `right_window` 0.
#define GQA_CAUSAL 1

// `scale` is the factor of the scores, and not the default 1/sqrt(head_dim).
#define GQA_SCALE 2

// Hides the keys more than `left_window` before a row's own position.
#define GQA_LEFT_WINDOW 4

// Hides the keys more than `right_window` after a row's own position.
#define GQA_RIGHT_WINDOW 8

// Lets bf16 keys and values be multiplied in bf16, summed in float, on machines that gain by it (but few rows only by a matrix unit): the
// softmax's weights are rounded to bf16 then, and so are queries, which puts outputs off by up to 2^-8 times the
// weighted mean of |v| (and scores by 2^-8 times scale * the sum of |q k|, if queries are not stored in bf16). On x86-64 Linux the
// system is asked for the registers of a matrix unit then, once for the process (arch_prctl).
#define GQA_BF16_DOT 16

// The last row stands at the last key of its sequence, with its key length.
#define GQA_BOTTOM_RIGHT 0

// The first row stands at key 0.
#define GQA_TOP_LEFT 1

// The first row stands at `offset`, which may be negative or beyond the keys.
#define GQA_OFFSET 2

// scale * q.k, for every key, visible or not.
#define GQA_STAGE_RAW 0

// After the softcap, for every key, visible or not.
#define GQA_STAGE_SOFTCAPPED 1

// After ALiBi, bias, mask and visibility: a hidden key is -infinity.
#define GQA_STAGE_BIASED 2

// The weights, with the sinks in their denominator: a hidden key is 0.
#define GQA_STAGE_SOFTMAX 3

// Done.
#define GQA_OK 0

// A pointer is NULL and something had to be there.
#define GQA_ERROR_NULL 1

// A pointer is not aligned to the size of its elements, or the pointer to the call not to that of a pointer.
#define GQA_ERROR_UNALIGNED 2

// Memory that is written (`out`, `lse`, `scores`, the scratch) overlaps memory of another operand.
#define GQA_ERROR_ALIASED 3

// `struct_size` is not that of a `gqa_call` which the library knows.
#define GQA_ERROR_STRUCT_SIZE 4

// A type, flag, alignment or stage that is not among the constants.
#define GQA_ERROR_VALUE 5

// A storage type, or types of K and V together, that the library has been built without.
#define GQA_ERROR_TYPE 6

// A level that is unknown or that this machine lacks.
#define GQA_ERROR_LEVEL 7

// A range ends beyond the last work item: `needed` is their number.
#define GQA_ERROR_ITEMS 8

// A size that must be at least 1 is 0.
#define GQA_ERROR_ZERO 9

// `kv_heads`, of which there are `had`, does not divide `q_heads`, which is `needed`.
#define GQA_ERROR_HEADS 10

// A product of sizes, or the farthest element that sizes and strides name, can't be expressed.
#define GQA_ERROR_OVERFLOW 11

// Memory of `had` elements ends before the last that the call names: it needs `needed`.
#define GQA_ERROR_TOO_SHORT 12

// There are `had` numbers where there is one for each head or sequence: `needed`.
#define GQA_ERROR_WRONG_COUNT 13

// The length at `index` is `had`, more than the `needed` keys of the call.
#define GQA_ERROR_TOO_LONG 14

// Rows of an output overlap: a stride is `had` and must be at least `needed`.
#define GQA_ERROR_OVERLAP 15

// The number at `index`, which is `number`, is outside its domain.
#define GQA_ERROR_DOMAIN 16

// The fastest that the machine has.
#define GQA_LEVEL_BEST 0

// Plain f32 arithmetic: on every machine.
#define GQA_LEVEL_SCALAR 1

// AVX2 with FMA, BMI and F16C.
#define GQA_LEVEL_AVX2 2

// AVX-512 F, BW, CD, DQ, VL.
#define GQA_LEVEL_AVX512 3

// NEON.
#define GQA_LEVEL_NEON 4

// WebAssembly SIMD.
#define GQA_LEVEL_SIMD128 5

// WebAssembly relaxed SIMD.
#define GQA_LEVEL_RELAXED_SIMD 6

#ifdef __cplusplus
extern "C" {
#endif // __cplusplus

// The version of the library, such as "0.1.0". Never freed.
const char *gqa_version(void);

// Strides of contiguous [batch, heads, rows, dim].
struct gqa_strides gqa_strides_bhsd(size_t heads, size_t rows, size_t dim);

// Strides of contiguous [batch, rows, heads, dim].
struct gqa_strides gqa_strides_bshd(size_t heads, size_t rows, size_t dim);

// The standard ALiBi slope of query head `head` of `heads` (arXiv 2108.12409).
float gqa_alibi_slope(size_t head, size_t heads);

// Writes to `len` the scratch memory that a run of `call` needs, in floats (of 4 bytes). It does not depend on
// `batch` and `kv_len`; only the sizes, the types of `k` and `v`, and the level of the call are looked at, so that
// it can be asked before there is any memory.
//
// Errors: GQA_ERROR_NULL, GQA_ERROR_UNALIGNED, GQA_ERROR_STRUCT_SIZE, GQA_ERROR_VALUE, GQA_ERROR_LEVEL,
// GQA_ERROR_ZERO, GQA_ERROR_HEADS, GQA_ERROR_OVERFLOW; `len` is not written then. `error` gets the details, and may
// be NULL.
//
// The caller promises that each pointer is NULL, or points to what its type says.
gqa_status gqa_scratch_len(const struct gqa_call *call,
                           size_t *len,
                           struct gqa_error *error);

// Writes to `len` the memory that `partials` of `call` needs at most, also with fewer rows, fewer keys or a smaller
// batch, in floats (of 4 bytes); 0 where nothing can be shared: with few keys, or without vectors. Only the sizes and
// the level of the call are looked at.
//
// Errors: as `gqa_scratch_len`; `len` is not written then. `error` gets the details, and may be NULL.
//
// The caller promises that each pointer is NULL, or points to what its type says.
gqa_status gqa_partials_len(const struct gqa_call *call,
                            size_t *len,
                            struct gqa_error *error);

// Checks everything about `call` but the scratch, and writes to `count` the number of work items that it is cut into.
// With `partials` makes these ready for the items to be run, so no other thread may use them meanwhile.
//
// Items write disjoint rows of the outputs, or share `partials`, and may be run in any order, on any threads, in ranges of any length; the
// bits of the results do not depend on it. Each costs about the same but for causal limits.
//
// Errors: every one but GQA_ERROR_ITEMS; `count` is not written then. `error` gets the details, and may be NULL.
//
// The caller promises that each pointer, also in the call, is NULL or points to as many elements as are said.
gqa_status gqa_item_count(const struct gqa_call *call,
                          size_t *count,
                          struct gqa_error *error);

// Computes the whole call on this thread.
//
// `scratch` is `scratch_len` floats, at least as many as `gqa_scratch_len` says, of any content, which is
// overwritten. Nobody else may use it, nor read or write the outputs, nor write the inputs, during the call.
//
// Errors: every one but GQA_ERROR_ITEMS; no output is written then. `error` gets the details, and may be NULL.
//
// The caller promises that each pointer, also in the call, is NULL or points to as many elements as are said.
gqa_status gqa_run(const struct gqa_call *call,
                   float *scratch,
                   size_t scratch_len,
                   struct gqa_error *error);

// Computes the work items `first`, `first + 1`, ..., `first + count - 1` of a call, of those that `gqa_item_count`
// counts.
//
// Several threads may do so at the same time with the same call, or with equal ones, if their ranges are disjoint
// and each has a scratch of its own; all have the same `threads`, and the same `partials` if there are any. With `partials` each item is run
// once after one `gqa_item_count`; when all have been run, they may be again for the same sizes, types, strides, level
// and `threads`, for others after another `gqa_item_count`. Once every item has been run, the outputs are complete, and
// the same as those of `gqa_run`. Nobody may write the inputs meanwhile, nor read or write the outputs.
//
// Errors: every one; GQA_ERROR_ITEMS if the range ends beyond the last item. No output is written then. `error` gets
// the details, and may be NULL; threads need one each.
//
// The caller promises that each pointer, also in the call, is NULL or points to as many elements as are said.
gqa_status gqa_run_items(const struct gqa_call *call,
                         size_t first,
                         size_t count,
                         float *scratch,
                         size_t scratch_len,
                         struct gqa_error *error);

// What a status says, in English. Never NULL, never freed.
const char *gqa_message(gqa_status status);

// The fastest level of this machine: what GQA_LEVEL_BEST stands for.
gqa_level gqa_level_best(void);

// Whether this machine has the level; true for GQA_LEVEL_BEST.
bool gqa_level_is_available(gqa_level level);

// The name of a level: "scalar", "avx2", "avx512", "neon", "simd128" or "relaxed-simd"; for GQA_LEVEL_BEST that of
// the level which it stands for. NULL for other numbers. Never freed.
const char *gqa_level_name(gqa_level level);

#ifdef __cplusplus
}  // extern "C"
#endif  // __cplusplus

#endif  /* GQA_H */
