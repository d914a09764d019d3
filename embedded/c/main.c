/*
 * The same decoding loop from C on the bare metal: heads.bin, K and V in a static ring, the library's static archive
 * for thumbv7em, no C library. Prints by semihosting, and ends the emulation with its verdict.
 */
#include "gqa.h"

enum { TOKENS = 38, RING = 32, DIM = 64, GROUP = 3 };

/* See heads.py. */
typedef struct heads {
    float q[GROUP][TOKENS][DIM], k[TOKENS][DIM], v[TOKENS][DIM], out[GROUP][TOKENS][DIM];
} heads;

__asm__(".section .rodata\n.balign 4\n.global HEADS\nHEADS: .incbin \"heads.bin\"\n.previous");
extern const heads HEADS;

static float k[RING][DIM], v[RING][DIM], out[GROUP][DIM], scratch[1024];

/* Asks the host: 4 writes a string, 0x20 ends the program with a reason and a code. */
static int host(int operation, const void *argument) {
    register int r0 __asm__("r0") = operation;
    register const void *r1 __asm__("r1") = argument;
    __asm__ volatile("bkpt 0xab" : "+r"(r0) : "r"(r1) : "memory");
    return r0;
}

static void say(const char *text) { host(4, text); }

static _Noreturn void stop(int code) {
    const int block[2] = {0x20026, code};
    host(0x20, block);
    for (;;) {}
}

static void check(gqa_status status, const gqa_error *error) {
    if (status == GQA_OK) return;
    say(error->operand);
    say(": ");
    say(gqa_message(status));
    say("\n");
    stop(1);
}

int main(void) {
    static gqa_call call;
    call.struct_size = sizeof call;
    call.batch = call.q_len = 1;
    call.q_heads = GROUP;
    call.kv_heads = 1;
    call.head_dim = call.value_dim = DIM;
    const gqa_strides slots = {0, 0, DIM};
    call.k = (gqa_input){k, RING * DIM, GQA_F32, slots};
    call.v = (gqa_input){v, RING * DIM, GQA_F32, slots};
    call.out = (gqa_output){out, GROUP * DIM, GQA_F32, gqa_strides_bhsd(GROUP, 1, DIM)};

    gqa_error error;
    size_t needed;
    float greatest = 0;
    for (int token = 0; token < TOKENS; token++) {
        for (int c = 0; c < DIM; c++) {
            k[token % RING][c] = HEADS.k[token][c];
            v[token % RING][c] = HEADS.v[token][c];
        }
        call.kv_len = token < RING ? token + 1 : RING;
        const gqa_strides of_token = {0, TOKENS * DIM, 0};
        call.q = (gqa_input){HEADS.q[0][token], (GROUP * TOKENS - token) * DIM, GQA_F32, of_token};
        check(gqa_scratch_len(&call, &needed, &error), &error);
        if (needed > sizeof scratch / sizeof *scratch) stop(1);
        check(gqa_run(&call, scratch, needed, &error), &error);
        for (int head = 0; head < GROUP; head++)
            for (int c = 0; c < DIM; c++) {
                const float off = out[head][c] - HEADS.out[head][token][c];
                const float far = off < 0 ? -off : off;
                if (!(far <= greatest)) greatest = far;
            }
    }
    if (!(greatest <= 1e-6f)) {
        say("the outputs differ from what is expected\n");
        stop(1);
    }
    call.k.len--;
    if (gqa_run(&call, scratch, needed, &error) != GQA_ERROR_TOO_SHORT || error.needed != RING * DIM) stop(1);
    say("38 tokens within 1e-6; a short K is refused\n");
    stop(0);
}

extern unsigned stack_top, data_from, data_start, data_end, bss_start, bss_end;

static void reset(void) {
    *(volatile unsigned *)0xe000ed88 |= 0xf << 20; /* CPACR: the floating-point unit. */
    __asm__ volatile("dsb\nisb");
    for (unsigned *from = &data_from, *to = &data_start; to < &data_end;) *to++ = *from++;
    for (unsigned *to = &bss_start; to < &bss_end;) *to++ = 0;
    main();
}

static void fault(void) {
    say("a fault\n");
    stop(1);
}

__attribute__((section(".vectors"), used)) static const void *const vectors[16] = {
    &stack_top, (void *)reset, (void *)fault, (void *)fault, (void *)fault, (void *)fault, (void *)fault,
};
