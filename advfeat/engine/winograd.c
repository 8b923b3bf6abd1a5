/* Convolution by minimal filtering: Winograd's F(4x4, 3x3), stride 1, float32, channels last.

   Four outputs of a filter with three taps need six multiplications instead of twelve; in two dimensions 36 instead of
   144. A tile of 6x6 inputs goes through B (V = B^T d B), the 3x3 kernel through G (U = G w G^T), 36 matrix products
   over the channels join them (M = V U), and A takes each 6x6 product to 4x4 outputs (y = A^T M A). B, G and A belong to
   the points 0, 1, -1, 2, -2 and infinity. The gradient with respect to the images is the same with the kernel turned by
   180 degrees and its channels swapped. The gradient with respect to the weights is F(3x3, 4x4) at the same points.

   Every tile is computed on its own, in an order that depends on nothing but the numbers of channels. So an image gets
   the same bits alone, in any batch and with any number of threads. A weight gradient sums over tiles in an order that
   does not depend on the number of threads. NaN and infinity pass through: no branch asks for a value but ReLU's.

   The vectors are those of GCC and Clang; their width is that of the registers that the compiler was told to use. */

#include <pthread.h>
#include <stdint.h>
#include <string.h>

#if defined(__AVX512F__)
#define VL 16   /* floats of a register */
#define ROWS 12 /* tiles of a register block: ROWS * WIDTH accumulators, in 32 registers */
#define WIDTH 2 /* registers of output channels of a register block */
#elif defined(__AVX__)
#define VL 8
#define ROWS 6 /* 12 accumulators, 2 channels and 1 tile in 16 registers */
#define WIDTH 2
#elif defined(__aarch64__)
#define VL 4
#define ROWS 6
#define WIDTH 4
#else
#define VL 4
#define ROWS 6
#define WIDTH 2
#endif
#ifndef GROUP
#define GROUP 64 /* output channels whose products are held at a time; a multiple of WIDTH * VL */
#endif
#ifndef BUDGET
#define BUDGET 1000000 /* bytes that the products of a block of tiles may take */
#endif
#ifndef WORTH_A_TEAM
#define WORTH_A_TEAM 1000000 /* multiplications for which threads are called together: a tenth of a millisecond */
#endif
#define LANES 16 /* floats of a cache line, which rows begin with */
#ifndef LEAST
#define LEAST 48 /* tiles of a block, at least, where there are as many: each block reads all weights */
#endif
#ifndef MOST
#define MOST 96
#endif
#ifndef CHUNK
#define CHUNK 96 /* tiles between two additions to the sum of a weight gradient: part of its order */
#endif

typedef float vec __attribute__((vector_size(VL * 4)));
typedef float loose __attribute__((vector_size(VL * 4), aligned(4), may_alias));
typedef int32_t bits __attribute__((vector_size(VL * 4)));
typedef double wide __attribute__((vector_size(VL * 8)));
#define INLINE static inline __attribute__((always_inline))
#define UNROLL _Pragma("GCC unroll 16")

INLINE vec load(const float *from) { return *(const loose *)from; }
INLINE void store(float *to, vec value) { *(loose *)to = value; }
INLINE vec where(bits asked, vec yes, vec no) { return (vec)((asked & (bits)yes) | (~asked & (bits)no)); }
INLINE long up(long value, long to) { return (value + to - 1) / to * to; }
INLINE long least(long a, long b) { return a < b ? a : b; }

INLINE vec load_part(const float *from, int count) {
    float full[VL] = {0};
    memcpy(full, from, (size_t)count * sizeof(float));
    return load(full);
}

INLINE void store_part(float *to, vec value, int count) {
    float full[VL];
    store(full, value);
    memcpy(to, full, (size_t)count * sizeof(float));
}

/* A value counts where its gate is above 0 or NaN. */
INLINE vec gated(vec value, const float *gate, int count) {
    vec open = count == VL ? load(gate) : load_part(gate, count);
    return where(open <= 0.0f, (vec){0}, value);
}

/* Rows of a matrix begin a cache line apart from a multiple of 4096 bytes, or all 36 would fall into one set. */
INLINE long row_of(long channels) { return up(channels, LANES) + LANES; }
INLINE long plane_of(long tiles, long row) { return up(tiles * row, 1024) + LANES; }

/* ---- Threads: a team that takes items from a counter. It is OpenMP's own where the caller hands its GOMP_parallel. */

typedef void (*launcher)(void (*)(void *), void *, unsigned, unsigned);

struct work {
    void (*item)(const void *of, long item, int member);
    const void *of;
    long items, next;
    int members;
};

static void take_part(void *shared) {
    struct work *work = shared;
    int member = __atomic_fetch_add(&work->members, 1, __ATOMIC_RELAXED);
    for (;;) {
        long item = __atomic_fetch_add(&work->next, 1, __ATOMIC_RELAXED);
        if (item >= work->items) return;
        work->item(work->of, item, member);
    }
}

static void *take_part_in_thread(void *shared) {
    take_part(shared);
    return 0;
}

static void run(void (*item)(const void *, long, int), const void *of, long items, int threads, launcher launch) {
    struct work work = {item, of, items, 0, 0};
    if (threads > items) threads = (int)items;
    if (threads <= 1) {
        take_part(&work);
    } else if (launch) {
        launch(take_part, &work, (unsigned)threads, 0);
    } else {
        pthread_t others[64];
        int started = 0;
        if (threads > 65) threads = 65;
        while (started < threads - 1 && !pthread_create(&others[started], 0, take_part_in_thread, &work)) started++;
        take_part(&work);
        while (started) pthread_join(others[--started], 0);
    }
}

/* ---- Transforms in one dimension */

INLINE void input_1d(vec d0, vec d1, vec d2, vec d3, vec d4, vec d5, vec *to, int step) { /* B^T */
    to[0 * step] = 4.0f * d0 - 5.0f * d2 + d4;
    to[1 * step] = (d3 + d4) - 4.0f * (d1 + d2);
    to[2 * step] = (d4 - d3) + 4.0f * (d1 - d2);
    to[3 * step] = (d4 - d2) + 2.0f * (d3 - d1);
    to[4 * step] = (d4 - d2) - 2.0f * (d3 - d1);
    to[5 * step] = 4.0f * d1 - 5.0f * d3 + d5;
}

INLINE void output_1d(vec m0, vec m1, vec m2, vec m3, vec m4, vec m5, vec *to, int step) { /* A^T */
    vec sum = m1 + m2, difference = m1 - m2, sum2 = m3 + m4, difference2 = m3 - m4;
    to[0 * step] = m0 + sum + sum2;
    to[1 * step] = difference + 2.0f * difference2;
    to[2 * step] = sum + 4.0f * sum2;
    to[3 * step] = difference + 8.0f * difference2 + m5;
}

INLINE void gradient_1d(vec g0, vec g1, vec g2, vec g3, vec *to, int step) { /* the G of F(3, 4) */
    vec even = g0 + g2, odd = g1 + g3, even2 = g0 + 4.0f * g2, odd2 = 2.0f * g1 + 8.0f * g3;
    to[0 * step] = 0.25f * g0;
    to[1 * step] = (-1.0f / 6) * (even + odd);
    to[2 * step] = (-1.0f / 6) * (even - odd);
    to[3 * step] = (1.0f / 24) * (even2 + odd2);
    to[4 * step] = (1.0f / 24) * (even2 - odd2);
    to[5 * step] = g3;
}

INLINE void taps_1d(vec m0, vec m1, vec m2, vec m3, vec m4, vec m5, vec *to, int step) { /* the A^T of F(3, 4) */
    to[0 * step] = m0 + (m1 + m2) + (m3 + m4);
    to[1 * step] = (m1 - m2) + 2.0f * (m3 - m4);
    to[2 * step] = (m1 + m2) + 4.0f * (m3 + m4) + m5;
}

/* ---- Images */

struct images {
    const float *values;
    const float *gate; /* null, or as many: a value counts where its gate is above 0 or NaN, as in ReLU's gradient */
    const float *zeros; /* what lies outside */
    int height, width, channels;
    int used; /* channels to be transformed, from that on at which the pointers begin */
};

/* Where the pixels of side x side values from (top, left) lie; those outside are zeros. */
INLINE void find(const struct images *of, long image, int top, int left, int side, const float **at, const float **gate) {
    for (int i = 0; i < side; i++)
        for (int j = 0; j < side; j++) {
            int inside = top + i >= 0 && top + i < of->height && left + j >= 0 && left + j < of->width;
            long place = ((image * of->height + top + i) * of->width + left + j) * of->channels;
            at[i * side + j] = inside ? of->values + place : of->zeros;
            gate[i * side + j] = inside && of->gate ? of->gate + place : of->zeros;
        }
}

INLINE vec pixel(const float *at, const float *gate, int channel, int count, int has_gate) {
    vec value = count == VL ? load(at + channel) : load_part(at + channel, count);
    return has_gate ? gated(value, gate + channel, count) : value;
}

/* V = B^T d B of one tile for VL channels. */
INLINE void input_vector(const float **at, const float **gate, int channel, int count, int has_gate, float *to, long plane) {
    vec half[36], line[6];
#define AT(i, j) pixel(at[6 * (i) + (j)], gate[6 * (i) + (j)], channel, count, has_gate)
    UNROLL for (int j = 0; j < 6; j++)
        input_1d(AT(0, j), AT(1, j), AT(2, j), AT(3, j), AT(4, j), AT(5, j), half + j, 6);
#undef AT
    UNROLL for (int i = 0; i < 6; i++) {
        const vec *h = half + 6 * i;
        input_1d(h[0], h[1], h[2], h[3], h[4], h[5], line, 1);
        UNROLL for (int j = 0; j < 6; j++) store(to + (6 * i + j) * plane + channel, line[j]);
    }
}

static void input_tile(const struct images *of, long image, int top, int left, float *to, long plane) {
    const float *at[36], *gate[36];
    find(of, image, top, left, 6, at, gate);
    int channel = 0;
    if (of->gate)
        for (; channel + VL <= of->used; channel += VL) input_vector(at, gate, channel, VL, 1, to, plane);
    else
        for (; channel + VL <= of->used; channel += VL) input_vector(at, gate, channel, VL, 0, to, plane);
    if (channel < of->used) input_vector(at, gate, channel, of->used - channel, of->gate != 0, to, plane);
}

/* The same for the gradient of 4x4 outputs, which is 0 outside. */
INLINE void gradient_vector(const float **at, const float **gate, int channel, int count, int has_gate, float *to, long plane) {
    vec half[24], line[6];
#define AT(i, j) pixel(at[4 * (i) + (j)], gate[4 * (i) + (j)], channel, count, has_gate)
    UNROLL for (int j = 0; j < 4; j++) gradient_1d(AT(0, j), AT(1, j), AT(2, j), AT(3, j), half + j, 4);
#undef AT
    UNROLL for (int i = 0; i < 6; i++) {
        const vec *h = half + 4 * i;
        gradient_1d(h[0], h[1], h[2], h[3], line, 1);
        UNROLL for (int j = 0; j < 6; j++) store(to + (6 * i + j) * plane + channel, line[j]);
    }
}

static void gradient_tile(const struct images *of, long image, int top, int left, float *to, long plane) {
    const float *at[16], *gate[16];
    find(of, image, top, left, 4, at, gate);
    int channel = 0;
    if (of->gate)
        for (; channel + VL <= of->used; channel += VL) gradient_vector(at, gate, channel, VL, 1, to, plane);
    else
        for (; channel + VL <= of->used; channel += VL) gradient_vector(at, gate, channel, VL, 0, to, plane);
    if (channel < of->used) gradient_vector(at, gate, channel, of->used - channel, of->gate != 0, to, plane);
}

/* ---- Matrix products of a register block */

/* m[rows][nv * VL] = v[rows][depth] u[depth][nv * VL] */
INLINE void block(const int rows, const int nv, const float *v, long v_row, const float *u, int depth, float *m, long m_row) {
    vec sum[ROWS][WIDTH];
    UNROLL for (int i = 0; i < rows; i++)
        UNROLL for (int j = 0; j < nv; j++) sum[i][j] = (vec){0};
    for (int q = 0; q < depth; q++) {
        vec line[WIDTH];
        UNROLL for (int j = 0; j < nv; j++) line[j] = load(u + (q * nv + j) * VL);
        UNROLL for (int i = 0; i < rows; i++)
            UNROLL for (int j = 0; j < nv; j++) sum[i][j] += v[i * v_row + q] * line[j];
    }
    UNROLL for (int i = 0; i < rows; i++)
        UNROLL for (int j = 0; j < nv; j++) store(m + i * m_row + j * VL, sum[i][j]);
}

/* to[rows][nv * VL] += over tiles: v[tile][rows] g[tile][nv * VL] */
INLINE void sum_block(const int rows, const int nv, const float *v, long v_row, const float *g, long g_row, int tiles,
                      float *to, long to_row) {
    vec sum[ROWS][WIDTH];
    UNROLL for (int i = 0; i < rows; i++)
        UNROLL for (int j = 0; j < nv; j++) sum[i][j] = (vec){0};
    for (int t = 0; t < tiles; t++) {
        vec line[WIDTH];
        UNROLL for (int j = 0; j < nv; j++) line[j] = load(g + t * g_row + j * VL);
        UNROLL for (int i = 0; i < rows; i++)
            UNROLL for (int j = 0; j < nv; j++) sum[i][j] += v[t * v_row + i] * line[j];
    }
    UNROLL for (int i = 0; i < rows; i++)
        UNROLL for (int j = 0; j < nv; j++) {
            float *at = to + i * to_row + j * VL;
            store(at, load(at) + sum[i][j]);
        }
}

#if ROWS == 12
#define EACH_NUMBER_OF_ROWS(F) F(1) F(2) F(3) F(4) F(5) F(6) F(7) F(8) F(9) F(10) F(11) F(12)
#else
#define EACH_NUMBER_OF_ROWS(F) F(1) F(2) F(3) F(4) F(5) F(6)
#endif

static void product(int rows, int nv, const float *v, long v_row, const float *u, int depth, float *m, long m_row) {
#define CASE(n) case n: block(n, NV, v, v_row, u, depth, m, m_row); return;
#define NV WIDTH
    if (nv == WIDTH) switch (rows) { EACH_NUMBER_OF_ROWS(CASE) }
#undef NV
#define NV 1
    else switch (rows) { EACH_NUMBER_OF_ROWS(CASE) }
#undef NV
#undef CASE
}

static void sum_product(int rows, int nv, const float *v, long v_row, const float *g, long g_row, int tiles, float *to,
                        long to_row) {
#define CASE(n) case n: sum_block(n, NV, v, v_row, g, g_row, tiles, to, to_row); return;
#define NV WIDTH
    if (nv == WIDTH) switch (rows) { EACH_NUMBER_OF_ROWS(CASE) }
#undef NV
#define NV 1
    else switch (rows) { EACH_NUMBER_OF_ROWS(CASE) }
#undef NV
#undef CASE
}

/* ---- Weights: U = G w G^T in float64, rounded once; order [group of outputs][36][panel][input][output of the panel] */

struct weights {
    const float *from;
    float *to;
    int inputs, outputs, turned;
    long of_output, of_input, of_row, of_column;
};

INLINE void kernel_1d(wide w0, wide w1, wide w2, wide *to, int step) { /* G */
    wide ends = w0 + w2, ends2 = w0 + 4.0 * w2;
    to[0 * step] = 0.25 * w0;
    to[1 * step] = (-1.0 / 6) * (ends + w1);
    to[2 * step] = (-1.0 / 6) * (ends - w1);
    to[3 * step] = (1.0 / 24) * (ends2 + 2.0 * w1);
    to[4 * step] = (1.0 / 24) * (ends2 - 2.0 * w1);
    to[5 * step] = w2;
}

static void transform_panel(const void *shared, long item, int member) {
    const struct weights *of = shared;
    int first = (int)item * VL, padded = (int)up(of->outputs, VL);
    int group = first / GROUP * GROUP, group_width = (int)least(padded - group, GROUP);
    int panel = (first - group) / (WIDTH * VL) * WIDTH * VL;
    int panel_width = group_width - panel >= WIDTH * VL ? WIDTH * VL : VL;
    /* a last panel that is neither full nor a single register is cut into single ones */
    if (panel_width == VL) panel = first - group;
    int lane = first - group - panel;
    (void)member;
    for (int c = 0; c < of->inputs; c++) {
        float taps[9][VL] = {{0}};
        for (int k = 0; k < VL && first + k < of->outputs; k++)
            for (int r = 0; r < 3; r++)
                for (int s = 0; s < 3; s++)
                    taps[of->turned ? 8 - 3 * r - s : 3 * r + s][k] =
                        of->from[(first + k) * of->of_output + c * of->of_input + r * of->of_row + s * of->of_column];
        wide half[18], line[6], tap[9];
        UNROLL for (int i = 0; i < 9; i++) tap[i] = __builtin_convertvector(load(taps[i]), wide);
        UNROLL for (int s = 0; s < 3; s++) kernel_1d(tap[s], tap[3 + s], tap[6 + s], half + s, 3);
        UNROLL for (int i = 0; i < 6; i++) {
            kernel_1d(half[3 * i], half[3 * i + 1], half[3 * i + 2], line, 1);
            for (int j = 0; j < 6; j++) {
                long place = 36L * of->inputs * group + (long)(6 * i + j) * of->inputs * group_width +
                             (long)of->inputs * panel + (long)c * panel_width + lane;
                store(of->to + place, __builtin_convertvector(line[j], vec));
            }
        }
    }
}

/* A whole panel at a time: two members would write into the same cache lines. */
static void transform_panels(const void *shared, long item, int member) {
    const struct weights *of = shared;
    for (long k = item * WIDTH; k < least(item * WIDTH + WIDTH, up(of->outputs, VL) / VL); k++) transform_panel(of, k, member);
}

long winograd_weight_floats(int inputs, int outputs) { return 36L * inputs * up(outputs, VL); }

/* Transform a kernel whose element (output, input, row, column) lies at from[the sum of index times stride]. */
void winograd_weights(const float *from, float *to, int inputs, int outputs, int turned, long of_output, long of_input,
                      long of_row, long of_column, int threads, launcher launch) {
    struct weights of = {from, to, inputs, outputs, turned, of_output, of_input, of_row, of_column};
    run(transform_panels, &of, up(outputs, WIDTH * VL) / (WIDTH * VL), threads, launch);
}

/* ---- Convolution */

struct convolution {
    struct images x;
    const float *u, *bias, *added;
    const float *open; /* null, or as many as y: an output is 0 where this is at most 0, as in ReLU's gradient */
    float *y, *space;
    int outputs, padding, relu, height, width, tiles_down, tiles_across;
    long tiles;
    int per_block, whole; /* tiles of a block; whether all tiles are transformed before the first product */
    long v_row, v_plane, m_row, m_plane, member_space;
    float *v;
};

INLINE void place(const struct convolution *of, long tile, long *image, int *down, int *across) {
    long per_image = (long)of->tiles_down * of->tiles_across;
    *image = tile / per_image;
    *down = (int)(tile % per_image) / of->tiles_across * 4;
    *across = (int)(tile % per_image) % of->tiles_across * 4;
}

static void transform_tile(const struct convolution *of, long tile, float *to) {
    long image;
    int down, across;
    place(of, tile, &image, &down, &across);
    input_tile(&of->x, image, down - of->padding, across - of->padding, to, of->v_plane);
}

INLINE void output_vector(const struct convolution *of, const float *m, long pixel, int rows, int columns, int k, int count) {
    vec half[24], line[4];
    vec bias = !of->bias ? (vec){0} : count == VL ? load(of->bias + k) : load_part(of->bias + k, count);
    UNROLL for (int j = 0; j < 6; j++) {
#define AT(i) load(m + (6 * (i) + j) * of->m_plane)
        output_1d(AT(0), AT(1), AT(2), AT(3), AT(4), AT(5), half + j, 6);
#undef AT
    }
    UNROLL for (int i = 0; i < 4; i++) {
        const vec *h = half + 6 * i;
        if (i >= rows) break;
        output_1d(h[0], h[1], h[2], h[3], h[4], h[5], line, 1);
        UNROLL for (int j = 0; j < 4; j++) {
            if (j >= columns) break;
            long at = (pixel + (long)i * of->width + j) * of->outputs + k;
            vec value = line[j] + bias;
            if (of->added) value += count == VL ? load(of->added + at) : load_part(of->added + at, count);
            /* The sign of an infinity is not to be trusted after the transforms: a negative one becomes NaN, not 0. */
            if (of->relu) value = where(value > 0.0f, value, 0.0f * value + 0.0f);
            if (of->open) value = gated(value, of->open + at, count);
            if (count == VL) store(of->y + at, value);
            else store_part(of->y + at, value, count);
        }
    }
}

/* Products and outputs of a group of output channels, for tiles whose transforms lie at v. */
static void multiply(const struct convolution *of, const float *v, long first, int tiles, int group, float *m) {
    int padded = (int)up(of->outputs, VL), width = (int)least(padded - group, GROUP);
    const float *u = of->u + 36L * of->x.channels * group;
    for (int xi = 0; xi < 36; xi++)
        for (int panel = 0, nv; panel < width; panel += nv * VL) {
            nv = width - panel >= WIDTH * VL ? WIDTH : 1;
            for (int t = 0; t < tiles; t += ROWS)
                product((int)least(tiles - t, ROWS), nv, v + xi * of->v_plane + t * of->v_row, of->v_row,
                        u + ((long)xi * width + panel) * of->x.channels, of->x.channels,
                        m + xi * of->m_plane + t * of->m_row + panel, of->m_row);
        }
    for (int t = 0; t < tiles; t++) {
        long image;
        int down, across;
        place(of, first + t, &image, &down, &across);
        long pixel = (image * of->height + down) * of->width + across;
        int rows = (int)least(of->height - down, 4), columns = (int)least(of->width - across, 4);
        for (int k = 0; k < width && group + k < of->outputs; k += VL) {
            const float *from = m + t * of->m_row + k;
            int count = (int)least(of->outputs - group - k, VL);
            if (count == VL && rows == 4 && columns == 4) output_vector(of, from, pixel, 4, 4, group + k, VL);
            else output_vector(of, from, pixel, rows, columns, group + k, count);
        }
    }
}

static void convolve_block(const void *shared, long item, int member) {
    const struct convolution *of = shared;
    float *v = of->space + member * of->member_space, *m = v + 36 * of->v_plane;
    long first = item * of->per_block;
    int tiles = (int)least(of->tiles - first, of->per_block);
    for (int t = 0; t < tiles; t++) transform_tile(of, first + t, v + t * of->v_row);
    for (int group = 0; group < of->outputs; group += GROUP) multiply(of, v, first, tiles, group, m);
}

static void transform_some(const void *shared, long item, int member) {
    const struct convolution *of = shared;
    (void)member;
    for (long tile = 4 * item; tile < least(4 * item + 4, of->tiles); tile++)
        transform_tile(of, tile, of->v + tile * of->v_row);
}

static void multiply_group(const void *shared, long item, int member) {
    const struct convolution *of = shared;
    long groups = up(of->outputs, GROUP) / GROUP, first = item / groups * of->per_block;
    multiply(of, of->v + first * of->v_row, first, (int)least(of->tiles - first, of->per_block),
             (int)(item % groups) * GROUP, of->space + member * of->member_space);
}

static void plan(struct convolution *of, long n, int threads) {
    of->height = of->x.height + 2 * of->padding - 2;
    of->width = of->x.width + 2 * of->padding - 2;
    of->tiles_down = (of->height + 3) / 4;
    of->tiles_across = (of->width + 3) / 4;
    of->tiles = n * of->tiles_down * of->tiles_across;
    of->v_row = row_of(of->x.channels);
    of->m_row = row_of(least(of->outputs, GROUP));
    long most = BUDGET / (36 * 4 * (of->v_row + of->m_row));
    most = most < LEAST ? LEAST : most > MOST ? MOST : most;
    long blocks = up(up(of->tiles, most) / most, threads);
    of->per_block = (int)up(up(of->tiles, blocks) / blocks, ROWS);
    /* Few tiles and many channels: the members share the groups, so that each reads its part of the weights only. */
    of->whole = threads > 1 && of->tiles <= most * threads && of->outputs >= threads * GROUP;
    if (of->whole) of->per_block = (int)up(least(of->tiles, MOST), ROWS);
    of->v_plane = plane_of(of->whole ? of->tiles : of->per_block, of->v_row);
    of->m_plane = plane_of(of->per_block, of->m_row);
    of->member_space = 36 * (of->m_plane + (of->whole ? 0 : of->v_plane));
}

/* Floats that winograd_convolve needs as its space. */
long winograd_space(long n, int height, int width, int inputs, int outputs, int padding, int threads) {
    struct convolution of = {.x = {.height = height, .width = width, .channels = inputs}};
    of.outputs = outputs;
    of.padding = padding;
    plan(&of, n, threads);
    return up(inputs, VL) + of.member_space * threads + (of.whole ? 36 * of.v_plane : 0);
}

static void convolve(struct convolution *of, float *space, long n, int threads, launcher launch) {
    int inputs = of->x.channels;
    plan(of, n, threads);
    memset(space, 0, (size_t)up(inputs, VL) * sizeof(float));
    if (of->tiles * 36 * inputs * of->outputs < WORTH_A_TEAM) threads = 1;
    of->space = space + up(inputs, VL);
    long blocks = up(of->tiles, of->per_block) / of->per_block;
    if (of->whole) {
        of->v = of->space + of->member_space * threads;
        run(transform_some, of, up(of->tiles, 4) / 4, threads, launch);
        run(multiply_group, of, blocks * (up(of->outputs, GROUP) / GROUP), threads, launch);
    } else {
        run(convolve_block, of, blocks, threads, launch);
    }
}

/* y = x convolved with the transformed kernel u, + bias (may be null), + added (may be null), through ReLU if asked for.
   x, gate: n, height, width, inputs. y, added: n, height + 2 padding - 2, width + 2 padding - 2, outputs. */
void winograd_convolve(const float *x, const float *gate, const float *u, const float *bias, const float *added, float *y,
                       float *space, long n, int height, int width, int inputs, int outputs, int padding, int relu,
                       int threads, launcher launch) {
    struct convolution of = {.x = {x, gate, space, height, width, inputs, inputs}};
    of.u = u;
    of.bias = bias;
    of.added = added;
    of.y = y;
    of.outputs = outputs;
    of.padding = padding;
    of.relu = relu;
    convolve(&of, space, n, threads, launch);
}

/* ---- Gradient with respect to the weights */

struct weight_gradient {
    struct convolution of; /* whose tiles these are */
    struct images gradient;
    long sum_plane, v_row, v_plane, g_row, g_plane, member_space;
    float *space, *sum, *to;
    int parts_in, parts_out, part_in, part_out; /* parts of the channels, and how many of them make one */
    long of_output, of_input, of_row, of_column;
};

static void sum_part(const struct weight_gradient *job, const float *v, const float *g, int tiles, int c0, int inputs,
                     int k0, int outputs) {
    int padded = (int)up(job->of.outputs, VL), width = (int)up(outputs, VL);
    for (int xi = 0; xi < 36; xi++)
        for (int k = 0, nv; k < width; k += nv * VL) {
            nv = width - k >= WIDTH * VL ? WIDTH : 1;
            for (int c = 0; c < inputs; c += ROWS)
                sum_product((int)least(inputs - c, ROWS), nv, v + xi * job->v_plane + c, job->v_row,
                            g + xi * job->g_plane + k, job->g_row, tiles,
                            job->sum + xi * job->sum_plane + (long)(c0 + c) * padded + k0 + k, padded);
        }
}

static void finish_input(const struct weight_gradient *job, int c, int k0, int end) {
    int padded = (int)up(job->of.outputs, VL);
    for (int k = k0; k < end; k += VL) {
        const float *m = job->sum + (long)c * padded + k;
        vec half[18], line[3];
        UNROLL for (int j = 0; j < 6; j++) {
#define AT(i) load(m + (6 * (i) + j) * job->sum_plane)
            taps_1d(AT(0), AT(1), AT(2), AT(3), AT(4), AT(5), half + j, 6);
#undef AT
        }
        for (int r = 0; r < 3; r++) {
            const vec *h = half + 6 * r;
            taps_1d(h[0], h[1], h[2], h[3], h[4], h[5], line, 1);
            for (int s = 0; s < 3; s++)
                for (int lane = 0; lane < VL && k + lane < end; lane++)
                    job->to[(k + lane) * job->of_output + c * job->of_input + r * job->of_row + s * job->of_column] =
                        line[s][lane];
        }
    }
}

/* The gradient of some outputs' kernels at some inputs, over all tiles. Parts know nothing of each other, so no member
   ever waits; instead each transforms what it needs once more, which costs less than waiting for a busy core. */
static void gradient_part(const void *shared, long item, int member) {
    const struct weight_gradient *job = shared;
    const struct convolution *of = &job->of;
    int c0 = (int)(item / job->parts_out) * job->part_in, inputs = (int)least(of->x.channels - c0, job->part_in);
    int k0 = (int)(item % job->parts_out) * job->part_out, outputs = (int)least(of->outputs - k0, job->part_out);
    int padded = (int)up(of->outputs, VL), width = (int)up(outputs, VL);
    float *v = job->space + member * job->member_space, *g = v + 36 * job->v_plane;
    struct images x = of->x, gradient = job->gradient;
    x.values += c0;
    x.used = inputs;
    gradient.values += k0;
    if (gradient.gate) gradient.gate += k0;
    gradient.used = outputs;
    for (int xi = 0; xi < 36; xi++)
        for (int c = c0; c < c0 + inputs; c++)
            memset(job->sum + xi * job->sum_plane + (long)c * padded + k0, 0, (size_t)width * sizeof(float));
    for (long first = 0; first < of->tiles; first += CHUNK) {
        int tiles = (int)least(of->tiles - first, CHUNK);
        for (int t = 0; t < tiles; t++) {
            long image;
            int down, across;
            place(of, first + t, &image, &down, &across);
            input_tile(&x, image, down - of->padding, across - of->padding, v + t * job->v_row, job->v_plane);
            gradient_tile(&gradient, image, down, across, g + t * job->g_row, job->g_plane);
        }
        sum_part(job, v, g, tiles, c0, inputs, k0, outputs);
    }
    for (int c = c0; c < c0 + inputs; c++) finish_input(job, c, k0, k0 + outputs);
}

static void plan_gradient(struct weight_gradient *job, long n, int threads) {
    plan(&job->of, n, threads);
    int inputs = job->of.x.channels, outputs = job->of.outputs;
    /* The wider side is cut, and cut again, while there are members without a part and parts remain wide enough. */
    job->part_in = (int)up(inputs, ROWS);
    job->part_out = (int)up(outputs, WIDTH * VL);
    job->parts_in = job->parts_out = 1;
    while (job->parts_in * job->parts_out < threads) {
        if (job->part_out >= job->part_in && job->part_out > WIDTH * VL) {
            job->part_out = (int)up((job->part_out + 1) / 2, WIDTH * VL);
        } else if (job->part_in > ROWS) {
            job->part_in = (int)up((job->part_in + 1) / 2, ROWS);
        } else {
            break;
        }
        job->parts_in = (inputs + job->part_in - 1) / job->part_in;
        job->parts_out = (outputs + job->part_out - 1) / job->part_out;
    }
    job->v_row = row_of(job->part_in);
    job->g_row = row_of(job->part_out);
    job->v_plane = plane_of(CHUNK, job->v_row);
    job->g_plane = plane_of(CHUNK, job->g_row);
    job->member_space = 36 * (job->v_plane + job->g_plane);
    job->sum_plane = (long)inputs * up(outputs, VL) + LANES;
}

/* Floats that winograd_weight_gradient needs as its space. */
long winograd_gradient_space(long n, int height, int width, int inputs, int outputs, int padding, int threads) {
    struct weight_gradient job = {.of = {.x = {.height = height, .width = width, .channels = inputs}}};
    job.of.outputs = outputs;
    job.of.padding = padding;
    plan_gradient(&job, n, threads);
    return up(inputs > outputs ? inputs : outputs, VL) + job.member_space * threads + 36 * job.sum_plane;
}

/* to[output, input, 3, 3], with these strides, = the gradient of a convolution with respect to its kernel.
   x: n, height, width, inputs. g, gate: n, height + 2 padding - 2, width + 2 padding - 2, outputs; gate may be null. */
void winograd_weight_gradient(const float *x, const float *g, const float *gate, float *to, float *space, long n,
                              int height, int width, int inputs, int outputs, int padding, long of_output, long of_input,
                              long of_row, long of_column, int threads, launcher launch) {
    struct weight_gradient job = {.of = {.x = {x, 0, space, height, width, inputs, inputs}}};
    job.of.outputs = outputs;
    job.of.padding = padding;
    plan_gradient(&job, n, threads);
    job.gradient = (struct images){g, gate, space, job.of.height, job.of.width, outputs, outputs};
    long zeros = up(inputs > outputs ? inputs : outputs, VL);
    memset(space, 0, (size_t)zeros * sizeof(float));
    job.space = space + zeros;
    job.sum = job.space + job.member_space * threads;
    job.to = to;
    job.of_output = of_output;
    job.of_input = of_input;
    job.of_row = of_row;
    job.of_column = of_column;
    run(gradient_part, &job, (long)job.parts_in * job.parts_out, threads, launch);
}

/* ---- Direct convolution: what minimal filtering is not for, such as strides, 1x1 kernels and linear maps. An output is
   one sum over taps and channels in their order, so it, too, has the same bits alone, in any batch and with any number
   of threads. The gradient with respect to the images is such a convolution for each residue of rows and columns modulo
   the stride, since each residue meets taps of its own. */

#define TABLE 4096     /* places of inputs that an item holds on its stack */
#define MOST_BLOCKS 16 /* register blocks of an item: its weights are read once for all */

struct direct {
    const float *x, *zeros, *u, *bias, *added, *open;      /* the last two as in a convolution */
    float *y;
    int relu, height, width, inputs;                       /* of x */
    int outputs, full_height, full_width;                  /* of y */
    int from_row, from_column, down, across, apart;        /* y at (from_row + i apart, from_column + j apart) ... */
    int stride, taps;                                      /* ... meets x at (i stride + row, j stride + column) */
    const int *row, *column;                               /* for each tap */
    long pixels;
    int blocks, parts;                                     /* register blocks of an item; parts of the panels */
};

INLINE void direct_block(const int rows, const int nv, const struct direct *of, const float **at, const float *u,
                         float *const *to, int k) {
    vec sum[ROWS][WIDTH];
    UNROLL for (int i = 0; i < rows; i++)
        UNROLL for (int j = 0; j < nv; j++) sum[i][j] = (vec){0};
    for (int t = 0; t < of->taps; t++) {
        const float *x[ROWS];
        UNROLL for (int i = 0; i < rows; i++) x[i] = at[t * ROWS + i];
        for (int q = 0; q < of->inputs; q++, u += nv * VL) {
            vec line[WIDTH];
            UNROLL for (int j = 0; j < nv; j++) line[j] = load(u + j * VL);
            UNROLL for (int i = 0; i < rows; i++)
                UNROLL for (int j = 0; j < nv; j++) sum[i][j] += x[i][q] * line[j];
        }
    }
    UNROLL for (int j = 0; j < nv; j++) {
        int first = k + j * VL, count = (int)least(of->outputs - first, VL);
        vec bias = !of->bias ? (vec){0} : count == VL ? load(of->bias + first) : load_part(of->bias + first, count);
        UNROLL for (int i = 0; i < rows; i++) {
            vec value = sum[i][j] + bias;
            long at = to[i] + first - of->y;
            if (of->added) value += count == VL ? load(of->added + at) : load_part(of->added + at, count);
            if (of->relu) value = where(value <= 0.0f, (vec){0}, value);
            if (of->open) value = gated(value, of->open + at, count);
            if (count == VL) store(to[i] + first, value);
            else store_part(to[i] + first, value, count);
        }
    }
}

static void direct_product(int rows, int nv, const struct direct *of, const float **at, const float *u, float *const *to,
                           int k) {
#define CASE(n) case n: direct_block(n, NV, of, at, u, to, k); return;
#define NV WIDTH
    if (nv == WIDTH) switch (rows) { EACH_NUMBER_OF_ROWS(CASE) }
#undef NV
#define NV 1
    else switch (rows) { EACH_NUMBER_OF_ROWS(CASE) }
#undef NV
#undef CASE
}

static void direct_item(const void *shared, long item, int member) {
    const struct direct *of = shared;
    const float *at[TABLE];
    float *to[MOST_BLOCKS * ROWS];
    long first = item / of->parts * of->blocks * ROWS, per_image = (long)of->down * of->across;
    int pixels = (int)least(of->pixels - first, (long)of->blocks * ROWS);
    (void)member;
    for (int p = 0; p < pixels; p++) {
        long image = (first + p) / per_image;
        int i = (int)((first + p) % per_image) / of->across, j = (int)((first + p) % per_image) % of->across;
        to[p] = of->y + ((image * of->full_height + of->from_row + i * of->apart) * of->full_width + of->from_column +
                         j * of->apart) * of->outputs;
        for (int t = 0; t < of->taps; t++) {
            int row = i * of->stride + of->row[t], column = j * of->stride + of->column[t];
            int inside = row >= 0 && row < of->height && column >= 0 && column < of->width;
            at[(p / ROWS * of->taps + t) * ROWS + p % ROWS] =
                inside ? of->x + ((image * of->height + row) * of->width + column) * of->inputs : of->zeros;
        }
    }
    long depth = (long)of->taps * of->inputs;
    int padded = (int)up(of->outputs, VL), panels = (int)up(padded, WIDTH * VL) / (WIDTH * VL);
    int part = (int)(item % of->parts), begin = (int)((long)panels * part / of->parts) * WIDTH * VL;
    int end = (int)least((long)panels * (part + 1) / of->parts * WIDTH * VL, padded);
    for (int k = begin, nv; k < end; k += nv * VL) {
        nv = padded - k >= WIDTH * VL ? WIDTH : 1;
        for (int p = 0; p < pixels; p += ROWS)
            direct_product((int)least(pixels - p, ROWS), nv, of, at + (long)p * of->taps, of->u + k * depth, to + p, k);
    }
}

static void direct(struct direct *of, long n, int threads, launcher launch) {
    of->pixels = n * of->down * of->across;
    of->parts = 1;
    int panels = (int)up(up(of->outputs, VL), WIDTH * VL) / (WIDTH * VL);
    if (of->pixels * of->taps * of->inputs * of->outputs < WORTH_A_TEAM) threads = 1;
    long most = TABLE / ROWS / (of->taps < 1 ? 1 : of->taps);
    long enough = up(of->pixels, ROWS * 4L * threads) / (ROWS * 4L * threads);
    of->blocks = (int)least(least(most, MOST_BLOCKS), enough);
    long groups = up(of->pixels, of->blocks * ROWS) / (of->blocks * ROWS);
    if (groups < 4L * threads) of->parts = (int)least(panels, up(4L * threads, groups) / groups);
    run(direct_item, of, groups * of->parts, threads, launch);
}

/* y = x convolved with u, + bias (may be null). u: [panel][tap][input][output of the panel], panels as in a transformed
   kernel. x: n, height, width, inputs. y: n, full_height, full_width, outputs, of which down x across are written, apart
   by so many rows and columns. zeros: as many as there are inputs. At most TABLE / ROWS taps. */
void winograd_direct(const float *x, const float *zeros, const float *u, const float *bias, float *y, long n, int height,
                     int width, int inputs, int outputs, int full_height, int full_width, int from_row, int from_column,
                     int down, int across, int apart, int stride, int taps, const int *row, const int *column,
                     int threads, launcher launch) {
    struct direct of = {x, zeros, u, bias, 0, 0, y, 0, height, width, inputs, outputs, full_height, full_width, from_row,
                        from_column, down, across, apart, stride, taps, row, column, 0, 0, 0};
    direct(&of, n, threads, launch);
}
int winograd_most_taps(void) { return TABLE / ROWS; }

/* ---- Chains: convolutions one after the other, each of what the one before it made, in one call. */

struct place {
    long area, offset; /* an area below, or -1 for none; floats per image from its beginning */
};

struct step {
    struct place x, y, gate, added, open; /* as in a convolution; gate by minimal filtering only */
    const float *u, *bias, *zeros;
    const int *row, *column;
    int filtered, relu, height, width, inputs, outputs, padding;
    int full_height, full_width, from_row, from_column, down, across, apart, stride, taps; /* as in winograd_direct */
};

INLINE float *at_place(float *const *areas, struct place place, long n) {
    return place.area < 0 ? 0 : areas[place.area] + n * place.offset;
}

/* Floats that winograd_chain needs as its space. */
long winograd_chain_space(const struct step *steps, int count, long n, int threads) {
    long most = 0;
    for (int i = 0; i < count; i++) {
        const struct step *s = steps + i;
        long needs = !s->filtered ? 0 : winograd_space(n, s->height, s->width, s->inputs, s->outputs, s->padding, threads);
        if (needs > most) most = needs;
    }
    return most;
}

void winograd_chain(const struct step *steps, int count, float *const *areas, float *space, long n, int threads,
                    launcher launch) {
    for (int i = 0; i < count; i++) {
        const struct step *s = steps + i;
        const float *x = at_place(areas, s->x, n), *added = at_place(areas, s->added, n), *open = at_place(areas, s->open, n);
        float *y = at_place(areas, s->y, n);
        if (s->filtered) {
            struct convolution of = {.x = {x, at_place(areas, s->gate, n), space, s->height, s->width, s->inputs, s->inputs}};
            of.u = s->u;
            of.bias = s->bias;
            of.added = added;
            of.open = open;
            of.y = y;
            of.outputs = s->outputs;
            of.padding = s->padding;
            of.relu = s->relu;
            convolve(&of, space, n, threads, launch);
        } else {
            struct direct of = {x, s->zeros, s->u, s->bias, added, open, y, s->relu, s->height, s->width, s->inputs,
                                s->outputs, s->full_height, s->full_width, s->from_row, s->from_column, s->down,
                                s->across, s->apart, s->stride, s->taps, s->row, s->column, 0, 0, 0};
            direct(&of, n, threads, launch);
        }
    }
}

/* ---- GELU: x (1 + erf(x / sqrt 2)) / 2. PyTorch's takes another way for the last few values of a thread's share, so an
   image would get other bits in another batch. Here each value is computed alike, wherever it lies. */

#define SPAN 4096 /* values of an item */

/* exp(x) for x <= 0, relative error 2e-7; 0 below the smallest normal number. NaN stays. */
INLINE vec exp_negative(vec x) {
    vec low = (vec){0} - 87.0f, kept = where(x < low, low, x);
    vec magic = (vec){0} + 12582912.0f; /* 1.5 * 2^23: adding it rounds to a whole number */
    vec shifted = kept * 1.44269504f + magic, whole = shifted - magic;
    vec rest = kept - whole * 0.693145752f - whole * 1.42860677e-6f;
    vec sum = (vec){0} + 1.98412698e-4f;
    sum = sum * rest + 1.38888889e-3f;
    sum = sum * rest + 8.33333333e-3f;
    sum = sum * rest + 4.16666667e-2f;
    sum = sum * rest + 1.66666667e-1f;
    sum = sum * rest + 0.5f;
    sum = sum * rest + 1.0f;
    sum = sum * rest + 1.0f;
    bits power = ((bits)shifted - (bits)magic + 127) << 23;
    return where(x < low, (vec){0}, sum * (vec)power);
}

/* erf(x) within 2e-7: a polynomial near 0, and 1 - exp of one further out. Source of both: N. Juffa's erff. */
INLINE vec erf_of(vec x) {
    vec t = (vec)((bits)x & 0x7fffffff), s = x * x, r, u;
    r = t * -1.72853470e-5f + 3.83197126e-4f;
    u = t * -3.88396438e-3f + 2.42546219e-2f;
    r = r * s + u;
    r = r * t + -1.06777877e-1f;
    r = r * t + -6.34846687e-1f;
    r = r * t + -1.28717512e-1f;
    vec far = 1.0f - exp_negative(r * t - t);
    far = (vec)((bits)far | ((bits)x & ~0x7fffffff));
    r = s * -5.96761703e-4f + 4.99119423e-3f;
    r = r * s + -2.67681349e-2f;
    r = r * s + 1.12819925e-1f;
    r = r * s + -3.76125336e-1f;
    r = r * s + 1.28379166e-1f;
    return where(t > 0.927734375f, far, r * x + x);
}

struct gelu {
    const float *x, *gradient; /* null: the values are asked for, not the gradient */
    float *to;
    long count;
};

INLINE vec gelu_vector(vec x, vec gradient, int backward) {
    vec below = 0.5f * (1.0f + erf_of(x * 0.707106781f));
    if (!backward) return x * below;
    return gradient * (below + x * (0.398942280f * exp_negative(x * x * -0.5f)));
}

static void gelu_span(const void *shared, long item, int member) {
    const struct gelu *of = shared;
    long at = item * SPAN, end = least(at + SPAN, of->count);
    (void)member;
    for (; at + VL <= end; at += VL)
        store(of->to + at, gelu_vector(load(of->x + at), of->gradient ? load(of->gradient + at) : (vec){0}, of->gradient != 0));
    if (at < end) {
        int count = (int)(end - at);
        vec gradient = of->gradient ? load_part(of->gradient + at, count) : (vec){0};
        store_part(of->to + at, gelu_vector(load_part(of->x + at, count), gradient, of->gradient != 0), count);
    }
}

/* to = GELU of x; with a gradient, the gradient with respect to x. */
void winograd_gelu(const float *x, const float *gradient, float *to, long count, int threads, launcher launch) {
    struct gelu of = {x, gradient, to, count};
    run(gelu_span, &of, up(count, SPAN) / SPAN, count > 4 * SPAN ? threads : 1, launch);
}

#ifndef KEY
#define KEY ""
#endif
const char *winograd_key(void) { return KEY; }
int winograd_width(void) { return VL; }
int winograd_panel(void) { return WIDTH; }
