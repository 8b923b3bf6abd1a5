/* Runs one function of winograd.c on numbers from standard input: how tests reach a processor that is imitated.

   driver width
   driver convolve n height width inputs outputs padding turned  < images, kernel       > outputs
   driver gradient n height width inputs outputs padding         < images, gradient     > gradient of the kernel
   driver direct n height width inputs outputs padding stride    < images, 3x3 kernel   > outputs

   Images are n, height, width, channels; kernels are outputs, inputs, 3, 3, or inputs, outputs, 3, 3 where turned. */

#include WINOGRAD

#include <stdio.h>
#include <stdlib.h>

static float *get(long count) {
    float *values = malloc((size_t)count * sizeof(float) + 64);
    if (fread(values, sizeof(float), (size_t)count, stdin) != (size_t)count) exit(2);
    return values;
}

static void put(const float *values, long count) { fwrite(values, sizeof(float), (size_t)count, stdout); }

int main(int given, char **words) {
    long size[8] = {0};
    for (int i = 2; i < given && i < 10; i++) size[i - 2] = atol(words[i]);
    long n = size[0];
    int height = (int)size[1], width = (int)size[2], inputs = (int)size[3], outputs = (int)size[4];
    int padding = (int)size[5], last = (int)size[6], threads = 2;
    if (!strcmp(words[1], "width")) return printf("%d\n", winograd_width()) < 0;
    float *x = get(n * height * width * inputs);
    int down = height + 2 * padding - 2, across = width + 2 * padding - 2;
    if (!strcmp(words[1], "convolve")) {
        float *w = get(9L * inputs * outputs), *u = malloc(winograd_weight_floats(inputs, outputs) * 4);
        long of_output = last ? 9 : 9L * inputs, of_input = last ? 9L * outputs : 9;
        winograd_weights(w, u, inputs, outputs, last, of_output, of_input, 3, 1, threads, 0);
        float *space = malloc(winograd_space(n, height, width, inputs, outputs, padding, threads) * 4);
        float *y = malloc(n * down * across * outputs * 4);
        winograd_convolve(x, 0, u, 0, 0, y, space, n, height, width, inputs, outputs, padding, 0, threads, 0);
        put(y, n * down * across * outputs);
    } else if (!strcmp(words[1], "gradient")) {
        float *g = get(n * down * across * outputs), *to = malloc(9L * inputs * outputs * 4);
        float *space = malloc(winograd_gradient_space(n, height, width, inputs, outputs, padding, threads) * 4);
        winograd_weight_gradient(x, g, 0, to, space, n, height, width, inputs, outputs, padding, 9L * inputs, 9, 3, 1,
                                 threads, 0);
        put(to, 9L * inputs * outputs);
    } else {
        float *w = get(9L * inputs * outputs), *zeros = calloc((size_t)inputs, sizeof(float));
        int lanes = winograd_width(), wide = lanes * winograd_panel(), row[9], column[9];
        int padded = (outputs + lanes - 1) / lanes * lanes;
        float *u = calloc((size_t)padded * 9 * inputs, sizeof(float)), *at = u;
        for (int k = 0, panel; k < padded; k += panel) {
            panel = padded - k >= wide ? wide : lanes;
            for (int t = 0; t < 9; t++)
                for (int c = 0; c < inputs; c++)
                    for (int lane = 0; lane < panel; lane++, at++)
                        if (k + lane < outputs) *at = w[((long)(k + lane) * inputs + c) * 9 + t];
        }
        for (int t = 0; t < 9; t++) row[t] = t / 3 - padding, column[t] = t % 3 - padding;
        down = (down - 1) / last + 1, across = (across - 1) / last + 1;
        float *y = malloc(n * down * across * outputs * 4);
        winograd_direct(x, zeros, u, 0, y, n, height, width, inputs, outputs, down, across, 0, 0, down, across, 1, last, 9,
                        row, column, threads, 0);
        put(y, n * down * across * outputs);
    }
    return 0;
}
