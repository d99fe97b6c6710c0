/* A case: a node, its constants and its feeds, made from a number; the same ones from the same number, everywhere. */
#ifndef CASES_H
#define CASES_H

#include "fake.h"

typedef struct {
    OrtKernelInfo info;
    OrtValue values[MOST_VALUES];
    int sound;              /* nothing of it was spoiled: it runs, and gives what is expected */
    int refused;            /* spoiled in a way that has to be refused */
    char spoiled[160];      /* what was */
    size_t rows, columns;
    double *expected, *tolerance;
    size_t fails;           /* the allocation that fails, from 1; 0: none */
    int mute, broken_pool;
} Case;

void make_case(Case *made, uint64_t number);
void free_case(Case *made);

/* Random numbers of a case. */
typedef struct { uint64_t state; } Random;
uint64_t bits(Random *random);
int64_t between(Random *random, int64_t least, int64_t most);
int chance(Random *random, int one_in);
double real_between(Random *random, double least, double most);
double normal(Random *random);

void spoil(Case *made, Random *random);

#endif
