/* What the examples need of a safetensors file: its tensors of floats, by name. */
#ifndef SAFETENSORS_H
#define SAFETENSORS_H

#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

typedef struct tensor {
    size_t shape[4];
    const float *data;
    size_t len;
} tensor;

/* Ends the program with a message. */
static inline void fail(const char *what) {
    fprintf(stderr, "%s\n", what);
    exit(1);
}

static inline void *allocate(size_t count, size_t size) {
    void *memory = calloc(count + 1, size);
    if (memory == NULL) fail("out of memory");
    return memory;
}

/* The bytes of a file, with a NUL behind them. */
static inline char *read_file(const char *path) {
    FILE *file = fopen(path, "rb");
    if (file == NULL) fail("the file can't be opened");
    fseek(file, 0, SEEK_END);
    long size = ftell(file);
    rewind(file);
    char *bytes = (char *)allocate((size_t)size, 1);
    if (fread(bytes, 1, (size_t)size, file) != (size_t)size) fail("the file can't be read");
    fclose(file);
    return bytes;
}

/* A tensor of four axes: the header is JSON after its length in 8 bytes, the data follow. Little-endian machines. */
static inline tensor find(const char *file, const char *name) {
    uint64_t header;
    memcpy(&header, file, sizeof header);
    const char *entry = strstr(file + 8, name);
    const char *shape = entry ? strstr(entry, "\"shape\":[") : NULL;
    const char *offsets = entry ? strstr(entry, "\"data_offsets\":[") : NULL;
    if (shape == NULL || offsets == NULL) fail("no such tensor");
    tensor found;
    char *next = (char *)shape + strlen("\"shape\":");
    for (int axis = 0; axis < 4; axis++) found.shape[axis] = strtoull(next + 1, &next, 10);
    size_t first = strtoull(offsets + strlen("\"data_offsets\":["), NULL, 10);
    found.data = (const float *)(const void *)(file + 8 + header + first);
    found.len = found.shape[0] * found.shape[1] * found.shape[2] * found.shape[3];
    return found;
}

/* The greatest difference of two arrays. */
static inline float greatest_error(const float *got, const float *want, size_t len) {
    float greatest = 0;
    for (size_t i = 0; i < len; i++) {
        float error = got[i] < want[i] ? want[i] - got[i] : got[i] - want[i];
        if (!(error <= greatest)) greatest = error;
    }
    return greatest;
}

/* FNV-1a of the bits of an array: equal for equal bits. */
static inline uint64_t hash(const float *numbers, size_t len) {
    uint64_t hash = 0xcbf29ce484222325;
    const unsigned char *bytes = (const unsigned char *)numbers;
    for (size_t i = 0; i < len * sizeof *numbers; i++) hash = (hash ^ bytes[i]) * 0x100000001b3;
    return hash;
}

#endif
